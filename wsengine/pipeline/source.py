"""What a pipeline claims from: the `Producer` interface, and the `Inbox`, a bounded queue of messages made in Python.

A producer brings sources into a pipeline and is started, drained and stopped with it. Whoever writes one usually needs
`Producer.run` only. How a slab ring is filled from sockets is not known here (websocket), nor how chunks are claimed
(processor).
"""

from __future__ import annotations

import select
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any

from wsengine.engine.ring import Door
from wsengine.engine.threads import spawn
from wsengine.errors import ConfigurationError, EngineError, EngineStopped
from wsengine.message import Message, admit, give_back
from wsengine.options import patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from wsengine.pipeline.crew import Crew
    from wsengine.pipeline.dispatcher import Dispatcher
    from wsengine.pipeline.sources import Sources

__all__ = ["Host", "Inbox", "Producer"]

#: Seconds between looks for room at the most: poll() takes no more than 2**31 milliseconds.
LONGEST = 3600.0
#: Seconds that the thread of a producer gets to end, once all that it brought has been handled.
GRACE = 2.0


def _several(messages: Iterable[Message]) -> Iterator[Message]:
    try:
        return iter(messages)
    except TypeError as error:
        raise ConfigurationError("push.messages", messages, "give a Message, or several of them, such as a list") from error


class Inbox:
    """A bounded queue of messages between Python threads and the processors. All methods are thread-safe.

    It shares the pipeline's account, so `push` blocks while the pipeline is full: that is how demand reaches a producer.
    """

    def __init__(self, sources: Sources, demand: Callable[[], int], ask: Callable[[int], None]) -> None:
        self._account = sources.account
        self._tell = sources.tell
        self._open_demand = demand
        self._ask = ask
        self.queue: deque[Message] = deque()  # pushers append, processors pop from the left
        self._pushing = threading.Lock()  # one pusher waits for room at a time; keeps the order of whole pushes
        self._gate = threading.Lock()  # held to close, and to put one message in: after close() none comes in
        self._door = Door(sources.account)
        self._asked = threading.Condition()
        self._closed = False

    @property
    def depth(self) -> int:
        """Messages that wait to be claimed."""
        return len(self.queue)

    @property
    def closed(self) -> bool:
        """Whether the pipeline takes nothing more; `push` raises EngineStopped."""
        return self._closed

    @property
    def demand(self) -> int:
        """Messages that the processors ask for now and that are not in the inbox yet; never below 0."""
        return max(self._open_demand() - len(self.queue), 0)

    def push(self, messages: Message | Iterable[Message], timeout: float | None = None) -> int:
        """Put messages in, in order; block while the pipeline is full.

        Args:
            messages: one Message or several.
            timeout: seconds for all of them together; None waits for ever.

        Returns:
            How many were put in: fewer than given only after the time-out.

        Raises:
            EngineStopped: the pipeline is stopping. Attribute-free; what was put in before is still handled.
            ConfigurationError: something that is not a Message, or one that is in a pipeline or has been, or a time-out
                that is no number; nothing is put in then.
        """
        given = [messages] if isinstance(messages, Message) else list(_several(messages))
        timeout = patience("push.timeout", timeout)
        for one in given:
            if not isinstance(one, Message):
                raise ConfigurationError("push.messages", one, "give Message objects")
        deadline = None if timeout is None else time.monotonic() + timeout
        sizes = self._admit_all(given)
        done = 0
        try:
            if not self._pushing.acquire(timeout=-1 if timeout is None else max(timeout, 0)):
                return 0
            try:
                while done < len(given) and self._has_room(deadline):
                    self._put(given[done], sizes[done])
                    done += 1
            finally:
                self._pushing.release()
        finally:
            for one in given[done:]:
                give_back(one)
        return done

    def _admit_all(self, given: list[Message]) -> list[int]:
        sizes: list[int] = []
        now = time.monotonic_ns()
        for one in given:
            size = admit(one, self, now)
            if size < 0:
                for other in given[:len(sizes)]:
                    give_back(other)
                raise ConfigurationError("push.messages", one, "it is in a pipeline already, or has been handled; push a "
                                         "new one, Message(message.data, acknowledger=message.acknowledger)")
            sizes.append(size)
        return sizes

    def _put(self, message: Message, size: int) -> None:
        with self._gate:
            self._check_open()
            self._account.charge(1, size)
            self.queue.append(message)
        self._tell()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineStopped("the pipeline is stopping and takes no more messages")

    def _has_room(self, deadline: float | None) -> bool:
        while True:
            self._check_open()
            if self._account.admits():
                return True
            if not self._door.starve():
                continue
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            poll = select.poll()
            poll.register(self._door, select.POLLIN)
            poll.poll(None if left is None else min(left, LONGEST) * 1000)
            self._door.answer()

    def ack_now(self, message: Message) -> None:
        """A message that still waits here cannot be acknowledged."""
        raise EngineError(f"{message!r} waits for a processor; acknowledge it in its handler")

    def wait_demand(self, timeout: float | None = None) -> int:
        """Wait until processors ask for messages; how many, 0 after the time-out or when the pipeline stops."""
        limit = patience("wait_demand.timeout", timeout)
        self._ask(1)
        try:
            with self._asked:
                self._asked.wait_for(lambda: self._closed or self.demand > 0, limit)
        finally:
            self._ask(-1)
        return 0 if self._closed else self.demand

    def asked(self) -> None:
        """A processor has acknowledged a chunk, so its demand is open again."""
        with self._asked:
            self._asked.notify_all()

    def release(self) -> None:
        """Give the descriptor back; after close, with nobody pushing any more."""
        with self._pushing:
            self._door.close()

    def close(self) -> None:
        """Take nothing more, from the return of this call on; wakes everybody who pushes or waits."""
        with self._gate:
            self._closed = True
        self._door.ring()
        self.asked()


class Host:
    """What a pipeline offers its producers while it is put together. One producer's view; not thread-safe.

    Attributes:
        name: of the pipeline. index: of the producer in it.
        parker, account: what its sources must use.
        overflow: what becomes of messages for which the account has no room, where a source does not wait.
    """

    def __init__(self, name: str, index: int, crew: Crew, demand: Callable[[], int],
                 finished: Callable[[Producer, BaseException | None], None],
                 dispatcher: Callable[[], Dispatcher], overflow: str = "block") -> None:
        self.name = name
        self.overflow = overflow
        self.index = index
        self.parker = crew.sources.parker
        self.account = crew.account
        self._crew = crew
        self._demand = demand
        self._finished = finished
        self._dispatcher = dispatcher
        self._inboxes: list[Inbox] = []

    def open_dispatcher(self) -> Dispatcher:
        """Where to add a ring whose messages a frame handler sees first; its parker is that ring's."""
        return self._dispatcher()

    def add_ring(self, ring: Any, origin: object, transformer: Callable[..., Message] | None) -> None:
        """Have the processors claim from a slab ring; `origin` knows its connections."""
        self._crew.add_ring(ring, origin, transformer)

    def open_inbox(self) -> Inbox:
        """Have the processors claim from a new inbox."""
        inbox = Inbox(self._crew.sources, self._demand, self._crew.ask)
        self._crew.add_inbox(inbox)
        self._inboxes.append(inbox)
        return inbox

    def close(self) -> None:
        """Take nothing more from this producer's inboxes, if it has not closed them itself; the pipeline."""
        for inbox in self._inboxes:
            inbox.close()

    def release(self) -> None:
        """Give the descriptors of its inboxes back, of a pipeline that never ran; after `close`."""
        for inbox in self._inboxes:
            inbox.release()

    def finished(self, producer: Producer, error: BaseException | None = None) -> None:
        """The producer will bring nothing more, for the reason given; thread-safe. When all have, the pipeline stops."""
        self._finished(producer, error)


class Producer(ABC):
    """Brings messages into a pipeline. Subclass it and write `run`; it has a thread of its own.

    Example::

        class Lines(Producer):
            def __init__(self, file):
                self.file = file

            def run(self, inbox):
                for line in self.file:             # a file on disk; reads that may block: see `run`
                    inbox.push(Message(line))      # blocks while the pipeline is full

    `inbox.push` raises EngineStopped once the pipeline stops; letting it through `run` is the proper end. When `run` of
    all producers has returned, the pipeline handles what it has and stops.
    """

    _host: Host
    _inbox: Inbox
    _thread: threading.Thread | None = None

    @abstractmethod
    def run(self, inbox: Inbox) -> None:
        """Bring messages until there are none, or until the inbox is closed. Runs in a thread of its own.

        What it raises, EngineStopped excepted, ends the pipeline: it is drained, and `StopResult.error` says why.

        A stop cannot interrupt a read that blocks, and the process does not end while this has not returned. So have such
        reads end when `drain` is called: look at `inbox.closed` every now and then, between reads with a time-out, or have
        your `drain` call `super().drain()` and then wake the reader, by a pipe, an event or a sentinel. A stop waits for
        the return for two seconds after the last message was handled, and then goes on; `StopResult.threads_alive` names
        the thread.
        """

    def attach(self, host: Host) -> None:
        """Bring the sources into the pipeline; before anything starts."""
        self._host = host
        self._inbox = host.open_inbox()

    def start(self) -> None:
        """Begin to produce."""
        host, inbox = self._host, self._inbox  # of this life: a thread that outlives it does not touch the next
        self._thread = spawn(f"wsengine:{host.name}:producer_{host.index}", lambda: self._run(host, inbox))

    def _run(self, host: Host, inbox: Inbox) -> None:
        error: BaseException | None = None
        try:
            self.run(inbox)
        except EngineStopped:
            error = None
        except BaseException as raised:
            error = raised
        host.finished(self, error)

    def drain(self) -> None:
        """Take no more from outside; what was taken is still handled. Must return at once."""
        self._inbox.close()

    def release(self) -> None:
        """Give descriptors back; after stop."""
        self._inbox.release()

    @property
    def quiet(self) -> bool:
        """After `drain`: whether nothing more comes into the pipeline from here."""
        return True

    def stop(self, deadline: float) -> None:
        """End, by the monotonic time `deadline` at the latest. Everything has been handled, so whatever `run` still waits
        for is not worth the rest of a long deadline."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(min(max(deadline - time.monotonic(), 0), GRACE))

    def alive(self) -> list[str]:
        """Names of the threads that are still there."""
        return [self._thread.name] if self._thread is not None and self._thread.is_alive() else []

    def stats(self) -> dict[str, Any]:
        """Figures of this producer, for `Pipeline.stats`."""
        return {"name": type(self).__name__, "depth": self._inbox.depth}

    @property
    def discarded(self) -> int:
        """Messages that arrived and were not taken, because of a stop."""
        return 0
