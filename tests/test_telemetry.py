"""Telemetry: what attached handlers see, in which order, and what their failures do (conformance item 30)."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from wsengine import telemetry

EVENT = ("test", "one")
OTHER = ("test", "two")


class Recorder:
    """A handler that keeps what it is called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, event: Any, measurements: Any, metadata: Any, config: Any) -> None:
        self.calls.append((event, measurements, metadata, config))


def failing(event: Any, measurements: Any, metadata: Any, config: Any) -> None:
    raise ZeroDivisionError("broken handler")


def attached_ids() -> list[Any]:
    return list(dict.fromkeys(one.handler_id for one in telemetry.list_handlers()))


@pytest.fixture(autouse=True)
def _detach_all() -> Iterator[None]:
    yield
    for handler_id in attached_ids():
        telemetry.detach(handler_id)


# ---- attaching and executing


def test_handler_gets_event_measurements_metadata_and_config_in_the_executing_thread() -> None:
    seen = []
    telemetry.attach("a", EVENT, lambda *args: seen.append((threading.current_thread(), *args)), {"limit": 3})
    worker = threading.Thread(target=telemetry.execute, args=(EVENT, {"count": 1}, {"url": "ws://x"}))
    worker.start()
    worker.join()
    assert seen == [(worker, EVENT, {"count": 1}, {"url": "ws://x"}, {"limit": 3})]


def test_measurements_and_metadata_are_empty_mappings_by_default() -> None:
    seen = Recorder()
    telemetry.attach("a", EVENT, seen)
    telemetry.execute(EVENT)
    assert seen.calls == [(EVENT, {}, {}, None)]


def test_only_the_exact_event_matches_not_its_prefix() -> None:
    seen = Recorder()
    telemetry.attach("a", EVENT, seen)
    for event in (OTHER, EVENT[:1], (*EVENT, "more")):
        telemetry.execute(event)
    assert seen.calls == []
    telemetry.execute(EVENT)
    assert len(seen.calls) == 1


def test_attach_many_listens_to_each_event_and_detach_removes_all() -> None:
    seen = Recorder()
    telemetry.attach_many("a", [EVENT, OTHER], seen)
    telemetry.execute(OTHER)
    telemetry.execute(EVENT)
    assert [call[0] for call in seen.calls] == [OTHER, EVENT]
    telemetry.detach("a")
    telemetry.execute(EVENT)
    telemetry.execute(OTHER)
    assert len(seen.calls) == 2
    assert telemetry.list_handlers() == []


def test_listening_follows_attach_and_detach() -> None:
    assert not telemetry.listening(EVENT)
    telemetry.attach("a", EVENT, failing)
    telemetry.attach("b", EVENT, failing)
    telemetry.detach("a")
    assert telemetry.listening(EVENT)
    assert not telemetry.listening(OTHER)
    telemetry.detach("b")
    assert not telemetry.listening(EVENT)


def test_hundreds_of_handlers_run_in_attach_order_and_a_reattached_one_runs_last() -> None:
    """T-2: unlike the ancestor, which promises no order."""
    ran: list[int] = []
    order = [(number * 7) % 500 for number in range(500)]  # ids in no natural order
    for number in order:
        telemetry.attach(number, EVENT, lambda e, m, d, number: ran.append(number), number)
    telemetry.execute(EVENT)
    assert ran == order
    moved = order[::3]
    for number in moved:
        telemetry.detach(number)
        telemetry.attach(number, EVENT, lambda e, m, d, number: ran.append(number), number)
    ran.clear()
    telemetry.execute(EVENT)
    expected = [number for number in order if number not in set(moved)] + moved
    assert ran == expected
    assert attached_ids() == expected


def test_list_handlers_has_one_entry_per_handler_and_event_and_filters_by_prefix() -> None:
    seen = Recorder()
    telemetry.attach_many("a", [EVENT, ("else", "x")], seen, "config")
    telemetry.attach("b", EVENT, failing)
    assert telemetry.list_handlers() == [
        ("a", EVENT, seen, "config", 0),
        ("a", ("else", "x"), seen, "config", 0),
        ("b", EVENT, failing, None, 0),
    ]
    assert [one.handler_id for one in telemetry.list_handlers(("test",))] == ["a", "b"]
    assert [one.event for one in telemetry.list_handlers(("else", "x"))] == [("else", "x")]
    assert telemetry.list_handlers(("tes",)) == []
    telemetry.attach("c", ("else", "x"), failing)
    telemetry.attach("d", EVENT, failing)
    assert attached_ids() == ["a", "b", "c", "d"]
    with pytest.raises(TypeError, match="give a non-empty tuple of strings"):
        telemetry.list_handlers("test")  # type: ignore[arg-type]


def test_duplicate_id_is_refused_and_changes_nothing() -> None:
    seen = Recorder()
    telemetry.attach("a", EVENT, seen)
    with pytest.raises(telemetry.HandlerExists, match="'a' is attached already; give another id") as caught:
        telemetry.attach_many("a", [OTHER, EVENT], failing)
    assert isinstance(caught.value, ValueError)
    assert caught.value.handler_id == "a"
    assert telemetry.list_handlers() == [("a", EVENT, seen, None, 0)]


def test_detaching_an_unknown_id_is_an_error_that_names_it() -> None:
    with pytest.raises(telemetry.HandlerNotFound, match="no telemetry handler 'nobody' is attached") as caught:
        telemetry.detach("nobody")
    assert isinstance(caught.value, LookupError)
    assert caught.value.handler_id == "nobody"


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ((), ValueError),
        ("test", TypeError),
        (["test", "one"], TypeError),
        (("test", 1), TypeError),
        (("test", ["one"]), TypeError),
        (None, TypeError),
    ],
)
def test_what_is_not_a_tuple_of_strings_is_refused_as_event(event: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="is not an event: give a non-empty tuple of strings"):
        telemetry.attach("a", event, failing)
    with pytest.raises(error, match="is not an event"):
        telemetry.attach_many("a", [EVENT, event], failing)
    with pytest.raises(error, match="is not an event"):
        telemetry.span(event)
    assert telemetry.list_handlers() == []


def test_executing_what_cannot_be_looked_up_is_a_clear_error() -> None:
    with pytest.raises(TypeError, match=r"\['test'\] is not an event: give a non-empty tuple of strings"):
        telemetry.execute(["test"])  # type: ignore[arg-type]


async def coroutine_function(event: Any, measurements: Any, metadata: Any, config: Any) -> None:
    raise AssertionError("never run")


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (None, "function=None: give a callable"),
        ("print", "function='print': give a callable"),
        (lambda event: None, "cannot be called with four arguments"),
        (coroutine_function, "is a coroutine function"),
    ],
)
def test_function_that_could_not_be_called_is_refused(function: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        telemetry.attach("a", EVENT, function)
    assert telemetry.list_handlers() == []


def test_function_whose_signature_is_unknown_is_taken() -> None:
    compiled: Any = {}.update  # its signature cannot be read
    telemetry.attach("a", EVENT, compiled)
    assert telemetry.listening(EVENT)


def test_no_events_and_one_event_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="no events are given"):
        telemetry.attach_many("a", [], failing)
    with pytest.raises(ValueError, match=r"\('test', 'one'\) is given twice"):
        telemetry.attach_many("a", [EVENT, OTHER, EVENT], failing)
    assert telemetry.list_handlers() == []


def test_id_that_is_not_hashable_is_refused() -> None:
    with pytest.raises(TypeError, match=r"handler_id=\[1\]: give a hashable value"):
        telemetry.attach([1], EVENT, failing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"on_error": "ignore"}, "on_error='ignore': give 'detach' or 'keep'"),
        ({"error_budget": 3}, "error_budget=3: give it together with on_error='keep' only"),
        ({"on_error": "keep", "error_budget": 0}, "error_budget=0: give a whole number of at least 1"),
        ({"on_error": "keep", "error_budget": True}, "error_budget=True: give a whole number"),
        ({"on_error": "keep", "error_budget": 1.5}, r"error_budget=1\.5: give a whole number"),
    ],
)
def test_wrong_error_policy_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        telemetry.attach("a", EVENT, failing, **options)
    assert telemetry.list_handlers() == []


def test_handler_may_attach_and_detach_while_it_runs() -> None:
    ran: list[str] = []

    def once(event: Any, measurements: Any, metadata: Any, config: Any) -> None:
        ran.append("once")
        telemetry.detach("once")
        telemetry.attach("late", EVENT, lambda *_: ran.append("late"))

    telemetry.attach("once", EVENT, once)
    telemetry.attach("next", EVENT, lambda *_: ran.append("next"))
    telemetry.execute(EVENT)
    assert ran == ["once", "next"]  # the execution under way keeps the handlers that it began with
    telemetry.execute(EVENT)
    assert ran == ["once", "next", "next", "late"]


def test_handler_may_execute_another_event() -> None:
    seen = Recorder()
    telemetry.attach("a", EVENT, lambda *_: telemetry.execute(OTHER, {"nested": 1}))
    telemetry.attach("b", OTHER, seen)
    telemetry.execute(EVENT)
    assert seen.calls == [(OTHER, {"nested": 1}, {}, None)]


# ---- cost and locks


class CountingEvent(tuple):  # type: ignore[type-arg]
    """An event that counts how often it is looked up."""

    hashed = 0

    def __hash__(self) -> int:
        type(self).hashed += 1
        return super().__hash__()

    __eq__ = tuple.__eq__


def test_event_that_nobody_listens_to_costs_one_look_up() -> None:
    """T-3."""
    telemetry.attach("a", OTHER, failing)
    event = CountingEvent(EVENT)
    before = CountingEvent.hashed
    telemetry.execute(event, {"count": 1})
    assert CountingEvent.hashed - before == 1
    assert not telemetry.listening(event)
    assert CountingEvent.hashed - before == 2


def test_executing_and_listening_do_not_wait_for_a_thread_that_is_attaching() -> None:
    seen = Recorder()
    telemetry.attach("a", EVENT, seen)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with telemetry._lock:
            inside.set()
            leave.wait(10)

    def use() -> None:
        assert telemetry.listening(EVENT)
        assert len(telemetry.list_handlers()) == 1
        with telemetry.span(OTHER):
            telemetry.execute(EVENT)

    holder, user = threading.Thread(target=hold), threading.Thread(target=use)
    holder.start()
    assert inside.wait(5)
    user.start()
    user.join(5)
    finished = not user.is_alive()
    leave.set()
    holder.join()
    user.join()
    assert finished
    assert len(seen.calls) == 1


def test_threads_attach_and_detach_while_others_execute() -> None:
    executions, per_thread = 4, 1500
    done = threading.Event()
    calls: dict[int, list[str]] = {number: [] for number in range(executions)}
    problems: list[BaseException] = []

    def flap(number: int) -> None:
        while not done.is_set():
            telemetry.attach_many(number, [EVENT, OTHER], lambda e, m, d, c: calls[m["thread"]].append("flap"))
            telemetry.detach(number)

    def execute(number: int) -> None:
        for _ in range(per_thread):
            telemetry.execute(EVENT, {"thread": number})

    def guarded(function: Any, number: int) -> None:
        try:
            function(number)
        except BaseException as error:
            problems.append(error)

    telemetry.attach("first", EVENT, lambda e, m, d, c: calls[m["thread"]].append("first"))
    telemetry.attach("second", EVENT, lambda e, m, d, c: calls[m["thread"]].append("second"))
    flappers = [threading.Thread(target=guarded, args=(flap, number)) for number in range(3)]
    executors = [threading.Thread(target=guarded, args=(execute, number)) for number in range(executions)]
    for thread in flappers + executors:
        thread.start()
    for thread in executors:
        thread.join()
    done.set()
    for thread in flappers:
        thread.join()
    assert problems == []
    for seen in calls.values():
        assert [name for name in seen if name != "flap"] == ["first", "second"] * per_thread
        # Handlers attached later run after both, never between them.
        assert all(seen[at + 1] == "second" for at, name in enumerate(seen) if name == "first")
    assert attached_ids() == ["first", "second"]
    assert not telemetry.listening(OTHER)


def test_of_many_threads_that_attach_one_id_exactly_one_wins() -> None:
    outcomes: list[str] = []
    barrier = threading.Barrier(8)

    def attach() -> None:
        barrier.wait()
        try:
            telemetry.attach("same", EVENT, failing)
            outcomes.append("attached")
        except telemetry.HandlerExists:
            outcomes.append("refused")

    threads = [threading.Thread(target=attach) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(outcomes) == {"attached": 1, "refused": 7}
    assert len(telemetry.list_handlers()) == 1


def test_change_that_is_interrupted_by_a_change_of_the_same_thread_loses_neither() -> None:
    class Interrupting(str):
        """An id whose comparison attaches a handler once, as a signal handler or a finalizer might."""

        armed = True

        def __eq__(self, other: object) -> bool:
            if Interrupting.armed:
                Interrupting.armed = False
                telemetry.attach("inner", EVENT, failing)
            return str(self) == other

        __hash__ = str.__hash__

    telemetry.attach("before", EVENT, failing)
    telemetry.attach(Interrupting("outer"), EVENT, failing)
    assert [str(one) for one in attached_ids()] == ["before", "inner", "outer"]


def test_child_of_a_fork_can_attach_though_a_thread_of_the_parent_held_the_lock() -> None:
    script = """
        import os, sys, threading
        from wsengine import telemetry
        inside, leave = threading.Event(), threading.Event()
        def hold():
            with telemetry._lock:
                inside.set()
                leave.wait(30)
        telemetry.attach("parent", ("a",), lambda *_: None)
        holder = threading.Thread(target=hold)
        holder.start()
        inside.wait(10)
        child = os.fork()
        if child == 0:
            threading.Timer(5, os._exit, (9,)).start()
            telemetry.attach("child", ("a",), lambda *_: None)
            os._exit(len(telemetry.list_handlers()))
        status = os.waitpid(child, 0)[1]
        leave.set()
        holder.join()
        print(os.waitstatus_to_exitcode(status))
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout == "2\n"


# ---- failures


def test_failing_handler_is_detached_from_all_its_events_and_the_others_still_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """T-1, P30: the ancestor's way, which is the default."""
    before, after = Recorder(), Recorder()
    telemetry.attach("before", EVENT, before)
    telemetry.attach_many("bad", [OTHER, EVENT], failing)
    telemetry.attach("after", EVENT, after)
    telemetry.execute(EVENT, {"count": 1})  # raises nothing
    assert len(before.calls) == len(after.calls) == 1
    assert attached_ids() == ["before", "after"]
    assert not telemetry.listening(OTHER)
    telemetry.execute(EVENT)
    assert len(after.calls) == 2
    assert len(caplog.records) == 1


def test_failure_is_executed_as_an_event_and_then_logged_with_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """T-1, P30: whoever depends on a handler can learn of its end."""
    failures = []
    telemetry.attach("watch", telemetry.HANDLER_FAILURE, lambda *args: failures.append((args, len(caplog.records))))
    telemetry.attach("bad", EVENT, failing, "its config")
    earliest, earliest_wall = time.monotonic_ns(), time.time_ns()
    telemetry.execute(EVENT)
    [((event, measurements, metadata, _), logged_before)] = failures
    assert event == ("telemetry", "handler", "failure")
    assert earliest <= measurements["monotonic_time"] <= time.monotonic_ns()
    assert earliest_wall - 10**9 <= measurements["system_time"] <= time.time_ns() + 10**9
    reason, stacktrace = metadata.pop("reason"), metadata.pop("stacktrace")
    assert metadata == {
        "event_name": EVENT,
        "handler_id": "bad",
        "handler_config": "its config",
        "kind": "error",
        "detached": True,
    }
    assert isinstance(reason, ZeroDivisionError)
    frames = []
    while stacktrace is not None:
        frames.append(stacktrace.tb_frame.f_code.co_name)
        stacktrace = stacktrace.tb_next
    assert frames == ["execute", "failing"]
    assert logged_before == 0
    [record] = caplog.records
    assert (record.name, record.levelno) == ("wsengine.telemetry", logging.ERROR)
    assert "handler 'bad' failed at event ('test', 'one') and is detached from all its events" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is reason


def test_kept_handler_stays_until_its_error_budget_is_used_up() -> None:
    """T-1: unlike the ancestor, which detaches at the first."""
    outcomes: list[bool] = []
    attempts = Recorder()

    def sometimes(event: Any, measurements: Any, metadata: Any, config: Any) -> None:
        attempts(event, measurements, metadata, config)
        if measurements["fail"]:
            raise ValueError("now and then")

    telemetry.attach("watch", telemetry.HANDLER_FAILURE, lambda e, m, d, c: outcomes.append(d["detached"]))
    telemetry.attach_many("bad", [EVENT, OTHER], sometimes, on_error="keep", error_budget=3)
    for event, fail in [(EVENT, 1), (EVENT, 0), (OTHER, 1), (EVENT, 0), (EVENT, 0)]:
        telemetry.execute(event, {"fail": fail})
    assert outcomes == [False, False]
    assert [one.failures for one in telemetry.list_handlers(("test",))] == [2, 2]
    telemetry.execute(EVENT, {"fail": 1})
    assert outcomes == [False, False, True]
    assert attached_ids() == ["watch"]
    telemetry.execute(EVENT, {"fail": 1})
    assert len(attempts.calls) == 6


def test_kept_handler_without_budget_is_never_detached(caplog: pytest.LogCaptureFixture) -> None:
    """T-1."""
    telemetry.attach("bad", EVENT, failing, on_error="keep")
    for _ in range(50):
        telemetry.execute(EVENT)
    assert telemetry.list_handlers()[0].failures == 50
    assert len(caplog.records) == 50
    assert "is kept (failure 50 of it)" in caplog.records[-1].getMessage()


@pytest.mark.parametrize("on_error", ["detach", "keep"])
def test_failing_handler_of_the_failure_event_does_not_recurse(on_error: Any, caplog: pytest.LogCaptureFixture) -> None:
    seen = Recorder()
    telemetry.attach("bad watcher", telemetry.HANDLER_FAILURE, failing, on_error=on_error)
    telemetry.attach("good watcher", telemetry.HANDLER_FAILURE, seen)
    telemetry.attach("bad", EVENT, failing)
    telemetry.execute(EVENT)
    assert [call[2]["handler_id"] for call in seen.calls] == ["bad"]
    assert ["'bad watcher'" in record.getMessage() for record in caplog.records] == [True, False]
    assert attached_ids() == (["good watcher"] if on_error == "detach" else ["bad watcher", "good watcher"])


def test_failure_event_is_executed_again_after_one_of_its_handlers_failed() -> None:
    seen = Recorder()
    telemetry.attach("bad watcher", telemetry.HANDLER_FAILURE, failing, on_error="keep")
    telemetry.attach("good watcher", telemetry.HANDLER_FAILURE, seen)
    telemetry.attach("bad", EVENT, failing, on_error="keep")
    telemetry.execute(EVENT)
    telemetry.execute(EVENT)
    assert len(seen.calls) == 2


def test_failure_handler_that_executes_a_failing_event_does_not_recurse() -> None:
    watched = Recorder()

    def watch(event: Any, measurements: Any, metadata: Any, config: Any) -> None:
        watched(event, measurements, metadata, config)
        telemetry.execute(EVENT)

    telemetry.attach("watch", telemetry.HANDLER_FAILURE, watch)
    telemetry.attach("bad", EVENT, failing, on_error="keep")
    telemetry.execute(EVENT)
    assert len(watched.calls) == 1
    assert [one.failures for one in telemetry.list_handlers(EVENT)] == [2]


@pytest.mark.parametrize("passing", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_passes_through_in_the_main_thread(passing: type[BaseException]) -> None:
    assert threading.current_thread() is threading.main_thread()

    def interrupted(event: Any, measurements: Any, metadata: Any, config: Any) -> None:
        raise passing

    telemetry.attach("a", EVENT, interrupted)
    with pytest.raises(passing):
        telemetry.execute(EVENT)
    assert attached_ids() == ["a"]


def test_what_is_no_exception_is_a_failure_like_any_other_in_another_thread() -> None:
    failures = Recorder()
    returned: list[bool] = []
    after = Recorder()

    def leaving(event: Any, measurements: Any, metadata: Any, config: Any) -> None:
        raise SystemExit(3)

    def run() -> None:
        telemetry.execute(EVENT)
        returned.append(True)

    telemetry.attach("watch", telemetry.HANDLER_FAILURE, failures)
    telemetry.attach("bad", EVENT, leaving)
    telemetry.attach("after", EVENT, after)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert returned == [True]
    assert len(after.calls) == 1
    assert failures.calls[0][2]["kind"] == "exit"
    assert attached_ids() == ["watch", "after"]


@pytest.mark.parametrize("on_error", ["detach", "keep"])
def test_failure_of_an_old_attachment_does_not_detach_the_new_one_of_the_same_id(on_error: Any) -> None:
    replacement = Recorder()
    outcomes: list[bool] = []

    def replaced(event: Any, measurements: Any, metadata: Any, config: Any) -> None:
        telemetry.detach("a")
        telemetry.attach("a", EVENT, replacement)
        raise ValueError("too late")

    telemetry.attach("watch", telemetry.HANDLER_FAILURE, lambda e, m, d, c: outcomes.append(d["detached"]))
    telemetry.attach("a", EVENT, replaced, on_error=on_error)
    telemetry.execute(EVENT)
    assert outcomes == [True]
    telemetry.execute(EVENT)
    assert len(replacement.calls) == 1


def test_handler_that_fails_in_several_threads_is_counted_once_for_each_failure() -> None:
    def execute_often() -> None:
        for _ in range(200):
            telemetry.execute(EVENT)

    telemetry.attach("bad", EVENT, failing, on_error="keep")
    logger = logging.getLogger("wsengine.telemetry")
    logger.disabled = True  # hundreds of tracebacks would say nothing
    try:
        threads = [threading.Thread(target=execute_often) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        logger.disabled = False
    assert telemetry.list_handlers()[0].failures == 800


# ---- spans

SPAN = ("test", "span")
START, STOP, EXCEPTION = ((*SPAN, last) for last in ("start", "stop", "exception"))


@pytest.fixture
def spans() -> Recorder:
    recorder = Recorder()
    telemetry.attach_many("spans", [START, STOP, EXCEPTION], recorder)
    return recorder


def test_span_executes_start_and_stop_with_their_times(spans: Recorder) -> None:
    earliest, earliest_wall = time.monotonic_ns(), time.time_ns()
    with telemetry.span(SPAN, {"a": 1}) as current:
        assert current.active
        time.sleep(0.01)
    [(first, started, start_metadata, _), (last, stopped, stop_metadata, _)] = spans.calls
    assert (first, last) == (START, STOP)
    assert set(started) == {"monotonic_time", "system_time"}
    assert set(stopped) == {"monotonic_time", "duration"}
    assert earliest <= started["monotonic_time"] <= stopped["monotonic_time"] <= time.monotonic_ns()
    assert abs(started["system_time"] - earliest_wall) < 10**9
    assert stopped["duration"] == stopped["monotonic_time"] - started["monotonic_time"]
    assert stopped["duration"] >= 10_000_000
    assert start_metadata == {"a": 1, "telemetry_span_context": stop_metadata["telemetry_span_context"]}


def test_stop_has_the_metadata_and_measurements_of_the_block_and_not_those_of_the_start(spans: Recorder) -> None:
    with telemetry.span(SPAN, {"a": 1}) as current:
        current.metadata["b"] = 2
        current.measurements["rows"] = 3
    _, measurements, metadata, _ = spans.calls[1]
    assert measurements["rows"] == 3
    assert set(metadata) == {"b", "telemetry_span_context"}
    assert metadata["b"] == 2


def test_extra_measurements_cannot_override_duration_and_time(spans: Recorder) -> None:
    with telemetry.span(SPAN) as current:
        current.measurements.update(duration=-1, monotonic_time=-1, other=-1)
    _, measurements, _, _ = spans.calls[1]
    assert measurements["duration"] >= 0
    assert measurements["monotonic_time"] > 0
    assert measurements["other"] == -1


def test_exception_in_a_span_is_executed_and_raised_on_unchanged(spans: Recorder) -> None:
    raised = ValueError("inside")

    def run() -> None:
        with telemetry.span(SPAN, {"a": 1}) as current:
            current.metadata["b"] = 2
            current.measurements["rows"] = 3
            raise raised

    with pytest.raises(ValueError, match="inside") as caught:
        run()
    assert caught.value is raised
    assert raised.__context__ is None
    [(_, started, start_metadata, _), (event, measurements, metadata, _)] = spans.calls
    assert event == EXCEPTION
    assert set(measurements) == {"duration", "monotonic_time"}
    assert measurements["duration"] == measurements["monotonic_time"] - started["monotonic_time"]
    assert metadata.pop("stacktrace").tb_frame.f_code.co_name == "run"
    assert metadata == {**start_metadata, "kind": "error", "reason": raised}


def test_exit_of_the_program_in_a_span_is_told_as_exit(spans: Recorder) -> None:
    with pytest.raises(KeyboardInterrupt), telemetry.span(SPAN):
        raise KeyboardInterrupt
    assert spans.calls[1][0] == EXCEPTION
    assert spans.calls[1][2]["kind"] == "exit"


def test_each_span_has_a_context_of_its_own_unless_one_is_given(spans: Recorder) -> None:
    with telemetry.span(SPAN), telemetry.span(SPAN):
        pass
    contexts = [call[2]["telemetry_span_context"] for call in spans.calls]
    assert contexts == [contexts[0], contexts[1], contexts[1], contexts[0]]
    assert contexts[0] != contexts[1]
    spans.calls.clear()
    with telemetry.span(SPAN, {"telemetry_span_context": "mine"}):
        pass
    assert [call[2]["telemetry_span_context"] for call in spans.calls] == ["mine", "mine"]
    spans.calls.clear()
    with telemetry.span(SPAN) as current:
        current.metadata["telemetry_span_context"] = "chosen late"
    assert spans.calls[1][2]["telemetry_span_context"] == "chosen late"


def test_start_handler_that_changes_the_metadata_does_not_change_those_of_the_exception(spans: Recorder) -> None:
    given = {"a": 1}

    def rude(event: Any, measurements: Any, metadata: Any, config: Any) -> None:
        metadata.clear()

    def run() -> None:
        with telemetry.span(SPAN, given):
            given["a"] = 2
            raise ValueError("inside")

    telemetry.attach("rude", START, rude)
    with pytest.raises(ValueError, match="inside"):
        run()
    assert spans.calls[1][2]["a"] == 1
    assert given == {"a": 2}


def test_failing_handlers_do_not_disturb_the_span() -> None:
    telemetry.attach_many("bad", [START, STOP], failing, on_error="keep")
    with telemetry.span(SPAN):
        reached = True
    assert reached
    assert telemetry.list_handlers()[0].failures == 2


class Unread(Mapping[str, Any]):
    """Metadata that must not be looked into."""

    def __getitem__(self, key: str) -> Any:
        raise AssertionError("read though nobody listens")

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("read though nobody listens")

    def __len__(self) -> int:
        return 1


def test_span_that_nobody_listens_to_reads_no_metadata_and_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """T-3."""
    reads = Counter[str]()
    clock = time.monotonic_ns

    def counted() -> int:
        reads["clock"] += 1
        return clock()

    monkeypatch.setattr("wsengine.telemetry.time.monotonic_ns", counted)
    with telemetry.span(SPAN, Unread()) as current:
        assert not current.active
    assert reads["clock"] == 0
    telemetry.attach("a", STOP, Recorder())
    with telemetry.span(SPAN) as current:
        assert current.active
    assert reads["clock"] == 2


def test_span_stays_silent_if_its_first_listener_comes_after_its_start() -> None:
    seen = Recorder()
    with telemetry.span(SPAN):
        telemetry.attach("late", STOP, seen)
    assert seen.calls == []
    with telemetry.span(SPAN):
        pass
    assert len(seen.calls) == 1


def test_listener_of_stop_only_gets_the_full_duration() -> None:
    seen = Recorder()
    telemetry.attach("a", STOP, seen)
    with telemetry.span(SPAN):
        time.sleep(0.01)
    assert seen.calls[0][1]["duration"] >= 10_000_000


def test_span_is_entered_once() -> None:
    once = telemetry.span(SPAN)
    with once:
        pass
    with pytest.raises(RuntimeError, match=r"\('test', 'span'\) was entered before: make a new one"), once:
        pass


# ---- the table of events


def test_events_of_a_source_begin_with_its_telemetry_id() -> None:
    assert telemetry.connection_event("feed", "success") == ("feed", "connection", "success")
    assert telemetry.queue_event("feed", "drop") == ("feed", "queue", "drop")


def test_unknown_event_of_a_source_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match="no connection event 'succes'; give one of 'success', 'failure'"):
        telemetry.connection_event("feed", "succes")
    with pytest.raises(ValueError, match="no queue event 'full'; give one of 'high', 'low', 'drop'"):
        telemetry.queue_event("feed", "full")
    with pytest.raises(ValueError, match="telemetry_id=''"):
        telemetry.queue_event("", "high")
    with pytest.raises(TypeError, match="telemetry_id=7: give a string"):
        telemetry.connection_event(7, "success")  # type: ignore[arg-type]


def test_all_events_are_the_constants_and_those_of_the_source_once_each() -> None:
    events = telemetry.all_events("feed")
    assert len(events) == len(set(events))
    constants = {
        value
        for name, value in vars(telemetry).items()
        if name in telemetry.__all__ and isinstance(value, tuple) and value[0] in ("wsengine", "telemetry")
    } - {telemetry.MESSAGE, telemetry.HANDLE_FAILED}
    own = {event for event in events if event[0] == "feed"}
    assert set(events) == constants | own
    assert len(own) == len(telemetry.CONNECTION_EVENTS) + len(telemetry.QUEUE_EVENTS)
    telemetry.attach_many("all", events, Recorder())
    assert len(telemetry.list_handlers()) == len(events)


def test_events_of_spans_are_those_that_span_executes() -> None:
    seen = Recorder()
    telemetry.attach_many("all", telemetry.all_events(), seen)
    for prefix in (telemetry.MESSAGE, telemetry.HANDLE_FAILED):
        with telemetry.span(prefix):
            pass
        with pytest.raises(ValueError, match="x"), telemetry.span(prefix):
            raise ValueError("x")
    message = [telemetry.MESSAGE_START, telemetry.MESSAGE_STOP, telemetry.MESSAGE_START, telemetry.MESSAGE_EXCEPTION]
    failed = [
        telemetry.HANDLE_FAILED_START,
        telemetry.HANDLE_FAILED_STOP,
        telemetry.HANDLE_FAILED_START,
        telemetry.HANDLE_FAILED_EXCEPTION,
    ]
    assert [call[0] for call in seen.calls] == message + failed


def test_a_logger_that_raises_leaves_the_other_handlers_and_the_caller_alone(capfd: pytest.CaptureFixture[str]) -> None:
    def broken_filter(record: logging.LogRecord) -> bool:
        raise LookupError("no such field")

    def fail(*_: object) -> None:
        raise RuntimeError("handler")

    called: list[object] = []
    telemetry.logger.addFilter(broken_filter)
    telemetry.attach("fails", ("logger", "raises"), fail)
    telemetry.attach("behind", ("logger", "raises"), lambda *given: called.append(given))
    try:
        telemetry.execute(("logger", "raises"))
    finally:
        telemetry.logger.removeFilter(broken_filter)
        telemetry.detach("behind")
    assert len(called) == 1
    assert "LookupError: no such field" in capfd.readouterr().err
