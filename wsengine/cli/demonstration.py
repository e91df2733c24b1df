"""What `wsengine demo` shows: an embedded feed, a pipeline on it, and the order in which both begin and end.

Its options stand in demo.py. How it is shown stands in table.py and live.py, the books in ledger.py and latencies.py, the
proof in summary.py. The pipeline is built as a user would build it: nothing here reaches below the public interface.

    show … half of the time: cut … show … time over, or a signal ─▶ connect no more ─▶ the feed ends, everything read
        ─▶ its log is final ─▶ everything is handled ─▶ the pipeline stops ─▶ summary
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsengine.cli.latencies import Latencies
from wsengine.cli.ledger import Ledger
from wsengine.cli.summary import Figures, faults, summarize
from wsengine.cli.table import Snapshot
from wsengine.cli.view import open_view
from wsengine.options import whole
from wsengine.pipeline.pipeline import Pipeline
from wsengine.pipeline.processors import Processors
from wsengine.testing.feed import Feed
from wsengine.testing.stamp import read_sequence, read_stamp
from wsengine.websocket.producer import WebSocketProducer

if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Self, TextIO

    from wsengine.cli.table import View
    from wsengine.message import Message
    from wsengine.testing import FeedLog
    from wsengine.websocket.retry import RetryState

__all__ = ["Options", "TradeCheck", "run"]

#: Seconds between looks at the clock and at signals.
TICK = 0.05
#: Seconds before the demo connects again after the cut: long enough to be seen.
PAUSE = 0.3
#: Seconds that a connection which shall not come back is told to wait.
NEVER = 1e6
#: Seconds that the end may take: for reading what is on its way, and for handling it.
PATIENCE = 30.0
#: Bytes of the largest message: the default of the producer's max_size.
LARGEST = 2**20
SMALLEST = 96


@dataclass(frozen=True, slots=True)
class Options:
    """Of the demo, as on its command line. `rate` 0 is flat out."""

    seconds: float = 10.0
    concurrency: int = 8
    max_demand: int = 100
    min_demand: int = 0
    rate: float = 200_000.0
    size: int = 128
    port: int = 0
    cut: bool = True


class TradeCheck(Pipeline):
    """Enters each trade into the ledger: about the least that a handler can do and still know what it was given."""

    def __init__(self, producer: WebSocketProducer, processors: Processors) -> None:
        super().__init__(producer, processors=processors, name="demo")
        self.ledger = Ledger()
        self.latencies = Latencies()

    def handle_messages(self, messages: list[Message]) -> None:
        self.latencies.note(time.monotonic_ns() - read_stamp(messages[0].data))
        self.ledger.enter([read_sequence(message.data) for message in messages])


class Retry:
    """The retry policy: come back soon after the cut, and not at all once the demo is ending."""

    def __init__(self) -> None:
        self.ending = False  # the main thread sets it, the supervisor reads it
        self.resting = threading.Event()  # the supervisor sets it: the connection is gone, and stays away

    def __call__(self, state: RetryState) -> float:
        if not self.ending:
            return PAUSE
        self.resting.set()
        return NEVER


class Signals:
    """SIGINT and SIGTERM as a wish to end, read by the loop; a second one interrupts at once. Main thread only.

    An exception in the middle of a question to the server would leave its answer behind for the next question.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Notes(logging.Handler):
    """Keeps what the producer logs, in its threads, until the main thread shows it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._texts: deque[str] = deque()
        self.logger = logging.Logger("wsengine.cli.demo", logging.INFO)
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.append(record.getMessage())

    def show(self, view: View) -> None:
        """Show what there is."""
        while self._texts:
            view.note(self._texts.popleft())


def run(options: Options, stream: TextIO, *, plain: bool = False) -> int:
    """Run the demo on `stream`; returns 0 when the sum is proven, 1 when not, 128 + n when signal n ended it.

    Main thread only. Blocks for about `options.seconds`.

    Raises:
        ConfigurationError: an option is wrong, or the port is in use.
        KeyboardInterrupt: at a second signal.
        RuntimeError: the server's process ended by itself. TimeoutError: it does not answer.
    """
    processors = Processors(concurrency=options.concurrency, max_demand=options.max_demand,
                            min_demand=options.min_demand)
    feed = Feed.trades(size=whole("size", options.size, minimum=SMALLEST, maximum=LARGEST),
                       rate=options.rate or None, port=options.port)
    with Signals() as signals, feed:
        demo = Demo(options, processors, feed, signals)
        with open_view(stream, plain=plain) as view, demo.pipeline:
            log, figures = demo.play(view)
        reckoning = demo.pipeline.ledger.reckon(log.messages)
        for line in summarize(log, reckoning, figures):
            print(line, file=stream, flush=True)
        if faults(log, reckoning, figures.failed):
            return 1
        return 0 if signals.number is None else 128 + signals.number


class Demo:
    """One run, on a feed that is started."""

    def __init__(self, options: Options, processors: Processors, feed: Feed, signals: Signals) -> None:
        self._options = options
        self._feed = feed
        self._signals = signals
        self._retry = Retry()
        self._notes = Notes()
        # A ping a second, so that the round trip is there to be seen.
        self._producer = WebSocketProducer(feed.url, path="/trades", keepalive=1.0, retry=self._retry, proxy=None,
                                           logger=self._notes.logger, telemetry_id="demo")
        self.pipeline = TradeCheck(self._producer, processors)

    def play(self, view: View) -> tuple[FeedLog, Figures]:
        """From the first message to the last; the pipeline is started, and is stopped at the end."""
        self._view, self._next_view, self._shown = view, 0.0, (0.0, 0)
        self._round_trip: float | None = None
        self._started, self._cpu = time.monotonic(), time.process_time()
        self._introduce()
        self._until_over()
        log = self._end_feed()
        self._until_handled()
        elapsed, cpu = time.monotonic() - self._started, time.process_time() - self._cpu
        self._show()
        reconnects = self._producer.connections[0].reconnects
        result = self.pipeline.stop()
        latencies = self.pipeline.latencies
        return log, Figures(
            seconds=elapsed, cpu_seconds=cpu, size=self._options.size, failed=result.failed if result else 0,
            reconnects=reconnects, round_trip=self._round_trip, p50=latencies.percentile(0.5),
            p99=latencies.percentile(0.99))

    def _introduce(self) -> None:
        options = self._options
        pace = f"{options.rate:,.0f} messages a second" if options.rate else "as many messages as the pipeline takes"
        self._view.note(f"A feed at {self._feed.url} sends {pace}, of {options.size:,} bytes each. A pipeline of "
                        f"{options.concurrency} processor{'s' if options.concurrency != 1 else ''} takes them, with "
                        f"max_demand {options.max_demand}, for {options.seconds:g} s.")

    def _until_over(self) -> None:
        cut_due = self._options.seconds / 2 if self._options.cut else float("inf")
        while (elapsed := time.monotonic() - self._started) < self._options.seconds and self._signals.number is None:
            if elapsed >= cut_due and self._producer.connections[0].is_ready:
                cut_due = float("inf")
                self._view.note("the server now ends the connection, without a word and without losing anything")
                self._feed.cut()
            self._turn()
            time.sleep(min(TICK, max(self._started + self._options.seconds - time.monotonic(), 0)))

    def _end_feed(self) -> FeedLog:
        """The log of everything sent, all of which has been read: so the server closes after the client, not before."""
        self._notes.show(self._view)
        self._view.note("the feed ends; the pipeline handles what it still has")
        self._notes.logger.disabled = True  # it would tell of a connection that is lost
        self._retry.ending = True
        deadline = time.monotonic() + PATIENCE
        while not self._retry.resting.wait(TICK) and time.monotonic() < deadline:
            self._feed.cut(PATIENCE)  # again, if it was connecting at that moment
        self._feed.log()  # a server that has ended by itself is told as such, and not by an empty sum
        return self._feed.stop()

    def _until_handled(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.pipeline.stats().held_messages and time.monotonic() < deadline:
            self._turn()
            time.sleep(0.001)

    def _turn(self) -> None:
        self._notes.show(self._view)
        if time.monotonic() >= self._next_view:
            self._show()

    def _show(self) -> None:
        stats, elapsed, period = self.pipeline.stats(), time.monotonic() - self._started, self._view.period
        before, count = self._shown
        self._shown = elapsed, stats.successful
        self._next_view = self._started + (elapsed // period + 1) * period
        snapshot = Snapshot.of(
            stats, elapsed=elapsed, seconds=self._options.seconds, max_demand=self._options.max_demand,
            rate=(stats.successful - count) / max(elapsed - before, 1e-9), ended=self._retry.resting.is_set())
        # A connection that is new knows no round trip yet; the summary tells that of the one before.
        self._round_trip = self._round_trip if snapshot.round_trip is None else snapshot.round_trip
        self._view.show(snapshot)
