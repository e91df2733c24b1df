"""Telemetry: named events, and a list of functions that are called when one of them is executed.

Here live the table of the events that this package executes, the list of handlers, and spans. What a handler does with
an event (metrics, logs, traces) does not belong here, nor does any knowledge of pipelines or sockets: this is layer 0,
and it imports nothing of this package.

A handler is called synchronously, in the thread that executes the event, in the order in which the handlers were
attached. It is therefore part of the path that it watches and has to be short. One of MESSAGE_START or MESSAGE_STOP is
called for every message, which costs more than the rest of the message's way; PROCESSOR_STOP lists the same messages once a
chunk, and an EventCounter (`event_counter`) counts them at next to no cost. All handlers of one execution are given the same
two mappings, which they may read and keep, and must not change.

How it is built: one dictionary, event -> handlers, that is never changed. Attaching and detaching replace it by a new
one, under a lock; whoever executes an event reads the current one, without a lock, and finds either nothing, which is
the whole cost of an event that nobody listens to, or a tuple that cannot change under its feet. Hence a handler that is
detached while an event is being executed may still be called once by that execution; an EventCounter may count what is left
of a chunk.

The contract is that of the `telemetry` library of Erlang, with three additions: the order is guaranteed, a handler that
fails may be kept, and the metadata of a failure say whether it was.

Events of this package, each with the fields that it has at least (times are nanoseconds)::

    (telemetry_id, "connection", ...)
        "success"            measurements: count                         metadata: url
        "failure"                          count                                   reason
        "disconnected"                     count                                   reason
        "timeout"                          count
        "status"                           value (1 up, 0 down)
        "ping", "pong"                     count                         only with silence_pings=False
    (telemetry_id, "queue", ...)
        "high", "low"                      count                         the bound, the low-water mark is reached
        "drop"                             count                         of messages dropped
    TOPOLOGY_INIT                          monotonic_time, system_time             topology_name, config
    PROCESSOR_START, _STOP, _EXCEPTION     as a span                               topology_name, name, index; messages
                                            on START; successful_messages_to_ack, successful_messages_to_forward,
                                            failed_messages on STOP
    MESSAGE_START, _STOP, _EXCEPTION       as a span                               topology_name, name, index, message
    MESSAGE_RETRY, BATCH_RETRY             count, delay, messages                  topology_name, name, index, messages,
                                            reason
    PROCESSOR_OVERDUE,                     duration                                topology_name, name, index, limit, stack
      BATCH_PROCESSOR_OVERDUE
    BATCHER_START, _STOP                   as a span                               topology_name, name, batcher_key;
                                            messages on START, none of a time-out or drain
    BATCH_PROCESSOR_START, _STOP,          as a span                               topology_name, name, index, batch_info;
      _EXCEPTION                            messages on START, else successful_messages, failed_messages
    HANDLE_FAILED_START, _STOP, _EXCEPTION as a span                               topology_name, messages
    PARTITION_HIGH, PARTITION_LOW          messages, bytes, max_messages,          topology_name, partition, overflow
                                            max_bytes
    PARTITION_DROP                         count                                   topology_name, partition, overflow
    WORKER_REPLACED                        count, failed_messages                  topology_name, name, role, index, reason
    HANDLER_FAILURE                        monotonic_time, system_time             event_name, handler_id,
                                            handler_config, kind, reason, stacktrace, detached

A span measures `monotonic_time` and `system_time` at its start, `duration` and `monotonic_time` at its stop or
exception. Its metadata carry `telemetry_span_context`, the same object in the events of one span and in no others;
those of an exception also carry what `exception_metadata` returns.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from wsengine.logs import log

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping
    from types import TracebackType

__all__ = [
    "BATCHER_START", "BATCHER_STOP", "BATCH_PROCESSOR_EXCEPTION", "BATCH_PROCESSOR_OVERDUE", "BATCH_PROCESSOR_START",
    "BATCH_PROCESSOR_STOP", "BATCH_RETRY", "CONNECTION_EVENTS", "HANDLER_FAILURE", "HANDLE_FAILED",
    "HANDLE_FAILED_EXCEPTION", "HANDLE_FAILED_START", "HANDLE_FAILED_STOP", "MESSAGE", "MESSAGE_EXCEPTION",
    "MESSAGE_RETRY", "MESSAGE_START", "MESSAGE_STOP", "PARTITION_DROP", "PARTITION_HIGH", "PARTITION_LOW",
    "PROCESSOR_EXCEPTION", "PROCESSOR_OVERDUE", "PROCESSOR_START", "PROCESSOR_STOP", "QUEUE_EVENTS", "TOPOLOGY_INIT",
    "WORKER_REPLACED", "Event", "HandlerExists", "HandlerFunction", "HandlerInfo", "HandlerNotFound", "Span",
    "all_events", "attach", "attach_many", "attached", "changes", "connection_event", "detach", "exception_metadata",
    "execute", "functions", "list_handlers", "listening", "queue_event", "span",
]

Event: TypeAlias = tuple[str, ...]
HandlerFunction: TypeAlias = "Callable[[Event, Mapping[str, Any], Mapping[str, Any], Any], object]"

logger = logging.getLogger("wsengine.telemetry")

# ---- the table of events
#: Last parts of the events of a connection, see `connection_event`.
CONNECTION_EVENTS = ("success", "failure", "disconnected", "timeout", "status", "ping", "pong")
#: Last parts of the events of a buffer, see `queue_event`.
QUEUE_EVENTS = ("high", "low", "drop")

TOPOLOGY_INIT: Event = ("wsengine", "topology", "init")
PROCESSOR_START: Event = ("wsengine", "processor", "start")
PROCESSOR_STOP: Event = ("wsengine", "processor", "stop")
PROCESSOR_EXCEPTION: Event = ("wsengine", "processor", "exception")
PROCESSOR_OVERDUE: Event = ("wsengine", "processor", "overdue")
#: Prefix of the three events of one message in `handle_message`, for `span`.
MESSAGE: Event = ("wsengine", "processor", "message")
MESSAGE_START: Event = (*MESSAGE, "start")
MESSAGE_STOP: Event = (*MESSAGE, "stop")
MESSAGE_EXCEPTION: Event = (*MESSAGE, "exception")
MESSAGE_RETRY: Event = (*MESSAGE, "retry")
#: Prefix of the three events of one call of `handle_failed`, for `span`.
HANDLE_FAILED: Event = ("wsengine", "handle_failed")
HANDLE_FAILED_START: Event = (*HANDLE_FAILED, "start")
HANDLE_FAILED_STOP: Event = (*HANDLE_FAILED, "stop")
HANDLE_FAILED_EXCEPTION: Event = (*HANDLE_FAILED, "exception")
BATCHER_START: Event = ("wsengine", "batcher", "start")
BATCHER_STOP: Event = ("wsengine", "batcher", "stop")
BATCH_PROCESSOR_START: Event = ("wsengine", "batch_processor", "start")
BATCH_PROCESSOR_STOP: Event = ("wsengine", "batch_processor", "stop")
BATCH_PROCESSOR_EXCEPTION: Event = ("wsengine", "batch_processor", "exception")
BATCH_RETRY: Event = ("wsengine", "batch_processor", "retry")
BATCH_PROCESSOR_OVERDUE: Event = ("wsengine", "batch_processor", "overdue")
#: A message found its partition full; half of that is free again; messages had no room there.
PARTITION_HIGH: Event = ("wsengine", "partition", "high")
PARTITION_LOW: Event = ("wsengine", "partition", "low")
PARTITION_DROP: Event = ("wsengine", "partition", "drop")
WORKER_REPLACED: Event = ("wsengine", "processor", "replaced")
HANDLER_FAILURE: Event = ("telemetry", "handler", "failure")


def connection_event(telemetry_id: str, name: str) -> Event:
    """Return the event `name`, one of `CONNECTION_EVENTS`, of the producer with this `telemetry_id`.

    Raises:
        TypeError: `telemetry_id` is not a string.
        ValueError: there is no such event, or `telemetry_id` is empty.
    """
    return _source_event(telemetry_id, "connection", name, CONNECTION_EVENTS)


def queue_event(telemetry_id: str, name: str) -> Event:
    """Return the event `name`, one of `QUEUE_EVENTS`, of that producer's buffer; errors as for `connection_event`."""
    return _source_event(telemetry_id, "queue", name, QUEUE_EVENTS)


def all_events(telemetry_id: str = "websocket_producer") -> tuple[Event, ...]:
    """Return every event of this package, for `attach_many`; those of a producer as it has this `telemetry_id`."""
    return (
        *(connection_event(telemetry_id, name) for name in CONNECTION_EVENTS),
        *(queue_event(telemetry_id, name) for name in QUEUE_EVENTS),
        TOPOLOGY_INIT, PROCESSOR_START, PROCESSOR_STOP, PROCESSOR_EXCEPTION, PROCESSOR_OVERDUE,
        MESSAGE_START, MESSAGE_STOP, MESSAGE_EXCEPTION, MESSAGE_RETRY, BATCHER_START, BATCHER_STOP,
        BATCH_PROCESSOR_START, BATCH_PROCESSOR_STOP, BATCH_PROCESSOR_EXCEPTION, BATCH_RETRY, BATCH_PROCESSOR_OVERDUE,
        HANDLE_FAILED_START, HANDLE_FAILED_STOP, HANDLE_FAILED_EXCEPTION, PARTITION_HIGH, PARTITION_LOW, PARTITION_DROP,
        WORKER_REPLACED, HANDLER_FAILURE,
    )


def _source_event(telemetry_id: str, group: str, name: str, names: tuple[str, ...]) -> Event:
    if name not in names:
        raise ValueError(f"there is no {group} event {name!r}; give one of " + ", ".join(map(repr, names)))
    if not isinstance(telemetry_id, str):
        raise TypeError(f"telemetry_id={telemetry_id!r}: give a string")
    if not telemetry_id:
        raise ValueError("telemetry_id='': give a string that is not empty")
    return (telemetry_id, group, name)


# ---- the list of handlers

class HandlerExists(ValueError):
    """A handler with this id is attached already. Attribute: `handler_id`."""

    def __init__(self, handler_id: Hashable) -> None:
        super().__init__(handler_id)
        self.handler_id = handler_id

    def __str__(self) -> str:
        return f"a telemetry handler {self.handler_id!r} is attached already; give another id, or detach that one first"


class HandlerNotFound(LookupError):
    """No handler with this id is attached. Attribute: `handler_id`."""

    def __init__(self, handler_id: Hashable) -> None:
        super().__init__(handler_id)
        self.handler_id = handler_id

    def __str__(self) -> str:
        return (
            f"no telemetry handler {self.handler_id!r} is attached: it never was, or was detached, as is one that "
            f"fails; list_handlers() shows those that are"
        )


class HandlerInfo(NamedTuple):
    """One event that one handler listens to; `failures` counts those of the handler, whatever the event."""

    handler_id: Hashable
    event: Event
    function: HandlerFunction
    config: Any
    failures: int


@dataclass(eq=False, slots=True)
class _Handler:
    """One attachment. Compared by identity: an id may be detached and attached anew while the old one still runs."""

    handler_id: Hashable
    events: tuple[Event, ...]
    function: HandlerFunction
    config: Any
    failure_limit: int | None  # at this many failures it is detached; None: never
    number: int  # attachments are numbered as they are made, so list_handlers can sort by it
    failures: int = 0  # written under _lock


_Table: TypeAlias = dict[Event, tuple[_Handler, ...]]

# The current table. The dictionary itself is never changed, and no event stands in it with an empty tuple.
_table: _Table = {}
# How often that has been done.
_changes = 0
_numbers = itertools.count()
# Held to replace _table and to count failures; never to read _table. Re-entrant, because a signal handler or a
# finalizer may execute, attach or detach in the very thread that is inside (see _replace).
_lock = threading.RLock()
# `active` is set in a thread that is executing HANDLER_FAILURE.
_reporting = threading.local()


def _forget_lock_of_parent() -> None:
    # The thread that held the lock at the fork does not exist in the child. The table itself is always whole.
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_forget_lock_of_parent)


def attach(
    handler_id: Hashable,
    event: Event,
    function: HandlerFunction,
    config: Any = None,
    *,
    on_error: Literal["detach", "keep"] = "detach",
    error_budget: int | None = None,
) -> None:
    """Call `function(event, measurements, metadata, config)` whenever `event` is executed.

    The same as `attach_many` with one event. May be called from any thread, also by a handler.

    Args:
        handler_id: any hashable value that no other handler has; `detach` takes it.
        event: a non-empty tuple of strings; it has to be equal to the one executed, a prefix does not match.
        function: called in the thread that executes, after the handlers attached before. What it returns is ignored.
        config: handed to `function` as it is.
        on_error: what to do with a function that raises: "detach" it from all its events, or "keep" it.
        error_budget: with "keep", the number of failures at which it is detached after all; None for never. A success
            does not reset the count.

    Raises:
        HandlerExists: a handler with this id is attached (also a ValueError).
        TypeError: the id is not hashable, the event not a tuple of strings, the function not callable with four
            arguments, or a coroutine function.
        ValueError: the event is empty, or `on_error` or `error_budget` is wrong.
    """
    attach_many(handler_id, (event,), function, config, on_error=on_error, error_budget=error_budget)


def attach_many(
    handler_id: Hashable,
    events: Iterable[Event],
    function: HandlerFunction,
    config: Any = None,
    *,
    on_error: Literal["detach", "keep"] = "detach",
    error_budget: int | None = None,
) -> None:
    """Call `function` whenever one of `events` is executed; all of them are attached at once, or none.

    Arguments, errors and threads as for `attach`. A ValueError is also raised for no events, and for one given twice.
    """
    try:
        hash(handler_id)
    except TypeError:
        raise TypeError(f"handler_id={handler_id!r}: give a hashable value, such as a string") from None
    _check_function(function)
    checked = _checked_events(events)
    failure_limit = _failure_limit(on_error, error_budget)

    def with_handler(table: _Table) -> _Table:
        if any(one.handler_id == handler_id for one in _handlers_of(table)):
            raise HandlerExists(handler_id)
        handler = _Handler(handler_id, checked, function, config, failure_limit, next(_numbers))
        return {**table, **{event: (*table.get(event, ()), handler) for event in checked}}

    _replace(with_handler)


def detach(handler_id: Hashable) -> None:
    """Detach the handler with this id from all its events. May be called from any thread, also by a handler.

    An execution that is under way, in this or another thread, may still call it.

    Raises:
        HandlerNotFound: no such handler is attached (also a LookupError).
    """

    def without_handler(table: _Table) -> _Table:
        for one in _handlers_of(table):
            if one.handler_id == handler_id:
                return _without(table, one)
        raise HandlerNotFound(handler_id)

    _replace(without_handler)


def list_handlers(prefix: Event = ()) -> list[HandlerInfo]:
    """Return what is attached to the events that begin with `prefix`, by default to any.

    There is one entry for each event of each handler: handlers in the order in which they were attached, the events of
    one in the order given. May be called from any thread.

    Raises:
        TypeError: the prefix is not a tuple of strings.
    """
    if prefix != ():
        _checked_event(prefix)
    return [
        HandlerInfo(one.handler_id, event, one.function, one.config, one.failures)
        for one in _handlers_of(_table)
        for event in one.events
        if event[: len(prefix)] == prefix
    ]


def _handlers_of(table: _Table) -> list[_Handler]:
    found = {one.number: one for handlers in table.values() for one in handlers}
    return [found[number] for number in sorted(found)]


def _without(table: _Table, handler: _Handler) -> _Table:
    shorter = {event: tuple(one for one in handlers if one is not handler) for event, handlers in table.items()}
    return {event: handlers for event, handlers in shorter.items() if handlers}


def _replace(change: Callable[[_Table], _Table]) -> None:
    global _table, _changes
    with _lock:
        while True:
            old = _table
            new = change(old)
            # Other threads wait for the lock, but a signal handler or finalizer of this one may have replaced the table
            # within `change`; then this change starts again from theirs.
            if _table is old:
                _table = new
                _changes += 1                # behind it: who sees the new number sees the new table
                return


# ---- their arguments

def _not_an_event(event: object) -> str:
    return f"{event!r} is not an event: give a non-empty tuple of strings, such as ('wsengine', 'topology', 'init')"


def _checked_event(event: object) -> Event:
    if not isinstance(event, tuple) or not all(isinstance(part, str) for part in event):
        raise TypeError(_not_an_event(event))
    if not event:
        raise ValueError(_not_an_event(event))
    return tuple(event)


def _checked_events(events: Iterable[Event]) -> tuple[Event, ...]:
    checked: dict[Event, None] = {}
    for event in events:
        one = _checked_event(event)
        if one in checked:
            raise ValueError(f"the event {one!r} is given twice: give it once, to be called once")
        checked[one] = None
    if not checked:
        raise ValueError("no events are given: give at least one, or do not attach")
    return tuple(checked)


def _check_function(function: object) -> None:
    good = "give a callable (event, measurements, metadata, config)"
    if not callable(function):
        raise TypeError(f"function={function!r}: {good}")
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"function={function!r} is a coroutine function, and nobody would await it: {good}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some compiled callables do not tell; their first call will
    try:
        signature.bind(None, None, None, None)
    except TypeError as error:
        raise TypeError(f"function={function!r} cannot be called with four arguments ({error}): {good}") from None


def _failure_limit(on_error: object, error_budget: object) -> int | None:
    if on_error not in ("detach", "keep"):
        raise ValueError(f"on_error={on_error!r}: give 'detach' or 'keep'")
    if on_error == "detach":
        if error_budget is not None:
            raise ValueError(f"error_budget={error_budget!r}: give it together with on_error='keep' only")
        return 1
    if error_budget is None:
        return None
    if isinstance(error_budget, bool) or not isinstance(error_budget, int) or error_budget < 1:
        raise ValueError(f"error_budget={error_budget!r}: give a whole number of at least 1, or None for no limit")
    return error_budget


# ---- executing

def listening(event: Event) -> bool:
    """Tell, with one look-up, whether a handler is attached to `event`: ask before building costly metadata."""
    return event in _table


def attached() -> Mapping[Event, object]:
    """The table of the events that have handlers, as it stands now; it never changes, but is replaced by another.

    Whoever asks for the same events over and over keeps the answers for as long as this returns the same object.
    """
    return _table


def functions(*events: Event) -> tuple[tuple[HandlerFunction, ...], ...]:
    """For each event the functions that its execution would call, in that order; all as it stands at one moment. May be
    called from any thread."""
    table = _table
    return tuple([tuple([handler.function for handler in table.get(event, ())]) for event in events])


def changes() -> int:
    """How often something has been attached or detached. Whoever asks for `functions` over and over keeps the answer for as
    long as this number, asked for before, stays the same."""
    return _changes


def execute(
    event: Event,
    measurements: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Call the handlers of `event`, one after the other, in this thread, in the order in which they were attached.

    One look-up when there are none. May be called from any thread, also by a handler.

    A handler that raises disturbs neither the others nor the caller: its failure is counted, it is detached or kept as
    `attach` was told, HANDLER_FAILURE is executed, and the error is logged with its traceback. Only in the main thread,
    what is not an `Exception` (KeyboardInterrupt, SystemExit) passes through, and leaves the handler attached.

    Args:
        event: the event; only a value that is not hashable is refused here, for more than a look-up would cost time.
        measurements: numbers by name; empty by default.
        metadata: anything else by name; empty by default.

    Raises:
        TypeError: the event is not hashable, and so cannot be a tuple of strings.
    """
    try:
        handlers = _table.get(event)
    except TypeError:
        raise TypeError(_not_an_event(event)) from None
    if handlers is None:
        return
    measurements = {} if measurements is None else measurements
    metadata = {} if metadata is None else metadata
    for handler in handlers:
        try:
            handler.function(event, measurements, metadata, handler.config)
        except BaseException as error:
            if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
                raise
            _report_failure(handler, event, error)


def exception_metadata(error: BaseException) -> dict[str, Any]:
    """Return what the metadata of every exception event say of `error`.

    `kind` is "error" for an `Exception` and "exit" for what is meant to end a thread or program (SystemExit,
    KeyboardInterrupt); `reason` is the exception itself; `stacktrace` its traceback object, which `traceback.format_tb`
    prints. A handler that keeps the last two keeps the frames alive through which the exception passed.
    """
    kind = "error" if isinstance(error, Exception) else "exit"
    return {"kind": kind, "reason": error, "stacktrace": error.__traceback__}


def _report_failure(handler: _Handler, event: Event, error: BaseException) -> None:
    detached = _count_failure(handler)
    # A failure while a failure is being reported is counted and logged only. A handler of HANDLER_FAILURE that fails
    # and is kept would else report itself without end, and so would one that executes an event whose handler fails.
    if listening(HANDLER_FAILURE) and not getattr(_reporting, "active", False):
        _reporting.active = True
        try:
            measured = {"monotonic_time": time.monotonic_ns(), "system_time": time.time_ns()}
            told = {"event_name": event, "handler_id": handler.handler_id, "handler_config": handler.config}
            execute(HANDLER_FAILURE, measured, {**told, **exception_metadata(error), "detached": detached})
        finally:
            _reporting.active = False
    outcome = "detached from all its events" if detached else "kept"
    text = "telemetry handler %r failed at event %r and is %s (failure %d of it)"
    log(logger, logging.ERROR, text, handler.handler_id, event, outcome, handler.failures, error=error)


def _count_failure(handler: _Handler) -> bool:
    """Count one failure, detach the handler at its limit, and return whether it is detached now, whoever did it."""
    with _lock:
        handler.failures += 1
        if handler.failure_limit is not None and handler.failures >= handler.failure_limit:
            _replace(lambda table: _without(table, handler))
    return handler not in _table.get(handler.events[0], ())


# ---- spans

def span(event_prefix: Event, start_metadata: Mapping[str, Any] | None = None) -> Span:
    """Return a context manager that executes `prefix + ("start",)`, and at its end "stop" or "exception".

    ::

        with telemetry.span(("shop", "order"), {"order": 7}) as current:
            lines = book()
            current.metadata["order"] = 7
            current.measurements["lines"] = len(lines)

    The metadata of the start event are not part of those of the stop event; those of the exception event contain them.
    An exception is raised on unchanged. If nobody listens to any of the three events at entry, the span stays silent to
    its end, and costs their look-ups only: nobody is ever told the stop of a span without a start time.

    Args:
        event_prefix: a non-empty tuple of strings.
        start_metadata: metadata of the start and exception events, read at entry. A `telemetry_span_context` among
            them replaces the fresh one, in all events of this span.

    Raises:
        TypeError, ValueError: the prefix is not a non-empty tuple of strings.
    """
    try:
        events = _span_events(event_prefix)
    except TypeError:  # of the check, or of the look-up if it is not hashable
        raise TypeError(_not_an_event(event_prefix)) from None
    return Span(events, start_metadata)


@functools.lru_cache(maxsize=1024)  # prefixes are few; making the names anew would cost more than their look-ups
def _span_events(event_prefix: Event) -> tuple[Event, Event, Event]:
    prefix = _checked_event(event_prefix)
    return (*prefix, "start"), (*prefix, "stop"), (*prefix, "exception")


class Span:
    """One run of a span, as `span` returns it. Entered once. Not to be shared by threads, though it may change thread.

    Attributes:
        active: whether somebody listened at entry; if not, metadata and measurements need not be computed.
        metadata: those of the stop event, empty at first.
        measurements: further ones of the stop event, empty at first; `duration` and `monotonic_time` among them are
            overridden.
    """

    __slots__ = ("_entered", "_events", "_start_metadata", "_started_at", "active", "measurements", "metadata")

    def __init__(self, events: tuple[Event, Event, Event], start_metadata: Mapping[str, Any] | None) -> None:
        self._events = events
        self._start_metadata = start_metadata or {}
        self._started_at = 0
        self._entered = False
        self.active = False
        self.metadata: dict[str, Any] = {}
        self.measurements: dict[str, Any] = {}

    def __enter__(self) -> Span:
        if self._entered:
            raise RuntimeError(f"the span {self._events[0][:-1]!r} was entered before: make a new one for each run")
        self._entered = True
        start, stop, exception = self._events
        if start in _table or stop in _table or exception in _table:
            self.active = True
            self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.active:
            return
        _, stop, exception = self._events
        event = stop if error is None else exception
        if not listening(event):
            return
        now = time.monotonic_ns()
        measured = {"duration": now - self._started_at, "monotonic_time": now}
        if error is not None:
            execute(event, measured, {**self._start_metadata, **exception_metadata(error)})
            return
        context = self._start_metadata["telemetry_span_context"]
        execute(event, {**self.measurements, **measured}, {"telemetry_span_context": context, **self.metadata})

    def _start(self) -> None:
        # A copy, so that the exception event shows the metadata as they were at the start.
        self._start_metadata = {"telemetry_span_context": object(), **self._start_metadata}
        self._started_at = time.monotonic_ns()
        start = self._events[0]
        if listening(start):
            measured = {"monotonic_time": self._started_at, "system_time": time.time_ns()}
            execute(start, measured, dict(self._start_metadata))
