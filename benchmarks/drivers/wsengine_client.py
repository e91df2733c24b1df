"""wsengine as a measured client: a pipeline with one of several handlers, with or without a batcher and with telemetry
heard or not. Which of these are compared is the business of the suites and of compare."""

from __future__ import annotations

import functools
import json
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from wsengine import (
    Batcher,
    BatchInfo,
    ByteSlice,
    EventCounter,
    JSONField,
    Message,
    Pipeline,
    Processors,
    WebSocketProducer,
    telemetry,
)
from wsengine.testing.peers.window import Tally, arguments, measure, report
from wsengine.testing.stamp import read_stamp

if TYPE_CHECKING:
    from collections.abc import Callable


class Measured(Pipeline):
    """A pipeline with a tally."""

    def __init__(self, *args, each: int, **options):
        super().__init__(*args, **options)
        self.tally = Tally(each)


class PassMessage(Measured):
    """Does nothing."""

    def handle_message(self, message: Message) -> None:
        pass


class PassMessages(Measured):
    """Does nothing by chunks."""

    def handle_messages(self, messages: list[Message]) -> None:
        pass


class CountMessage(Measured):
    """Counts. The payload is bytes by then, whether a handler looks at it or not."""

    def handle_message(self, message: Message) -> None:
        self.tally.messages += 1


class TakeMessage(Measured):
    """Takes each payload and counts."""

    def handle_message(self, message: Message) -> None:
        _ = message.data
        self.tally.messages += 1


class CountMessages(Measured):
    """Counts by chunks."""

    def handle_messages(self, messages: list[Message]) -> None:
        self.tally.messages += len(messages)


class TakeMessages(Measured):
    """Counts by chunks, and takes each payload."""

    def handle_messages(self, messages: list[Message]) -> None:
        for message in messages:
            _ = message.data
        self.tally.messages += len(messages)


class StampMessage(Measured):
    """Notes how old each message is."""

    def handle_message(self, message: Message) -> None:
        tally = self.tally
        tally.messages += 1
        tally.latencies.append(time.monotonic_ns() - read_stamp(message.data))


class StampMessages(Measured):
    """The same by chunks, each message with a look at the clock of its own."""

    def handle_messages(self, messages: list[Message]) -> None:
        tally = self.tally
        tally.messages += len(messages)
        tally.latencies += [time.monotonic_ns() - read_stamp(message.data) for message in messages]


class ParseMessage(Measured):
    """Parses JSON, as json_loop.py does without an engine."""

    def handle_message(self, message: Message) -> None:
        tally = self.tally
        tally.messages += 1
        tally.size += len(message.data)
        message.data = json.loads(message.data)


class ParseMessages(Measured):
    """The same by chunks."""

    def handle_messages(self, messages: list[Message]) -> None:
        tally = self.tally
        for message in messages:
            tally.messages += 1
            tally.size += len(message.data)
            message.data = json.loads(message.data)


class BusyMessage(Measured):
    """Computes for at least 50 microseconds of CPU time, in Python, and shares nothing with other threads."""

    def handle_message(self, message: Message) -> None:
        clock = time.thread_time_ns
        until = clock() + 50_000
        while clock() < until:
            pass


class Batched:
    """What --batcher adds to a handler: one for batches that does nothing, for what is measured is the way there."""

    def handle_batch(self, messages: list[Message], batch_info: BatchInfo) -> None:
        pass


def up_to(most: int) -> tuple[int, Callable[[Message, int], tuple[str, int]]]:
    """What --batch-bytes says: batches that do not exceed so many bytes."""

    def grown(message: Message, size: int) -> tuple[str, int]:
        each = len(message.data)
        return ("cont", size + each) if size + each <= most else ("emit_before", each)

    return 0, grown


#: What --partition-by may say: how the symbol of a trade is found.
PARTITIONS = {
    "nothing": None, "field": JSONField("sym"), "slice": ByteSlice(-16),
    "function": lambda message: json.loads(message.data)["sym"],
}

HANDLERS = {
    ("flood", "pass"): PassMessage, ("flood", "pass-chunks"): PassMessages,
    ("flood", "message"): CountMessage, ("flood", "message-data"): TakeMessage,
    ("flood", "messages"): CountMessages, ("flood", "messages-data"): TakeMessages,
    ("latency", "message"): StampMessage, ("latency", "messages"): StampMessages,
    ("flood", "json"): ParseMessage, ("flood", "json-chunks"): ParseMessages, ("flood", "busy"): BusyMessage,
}

#: Those that come once a message; all others come once a chunk or batch, or more seldom.
MESSAGE_EVENTS = (telemetry.MESSAGE_START, telemetry.MESSAGE_STOP, telemetry.MESSAGE_EXCEPTION)
#: What --telemetry may say: the events that have a handler.
HEARD: dict[str, tuple[telemetry.Event, ...]] = {
    "nothing": (), "unrelated": (("benchmark", "unrelated"),), "message": MESSAGE_EVENTS, "all": telemetry.all_events(),
    "chunk": tuple(event for event in telemetry.all_events() if event not in MESSAGE_EVENTS),
}


class FunctionCount:
    """What a telemetry handler in Python counts up."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


def count_event(event, measurements, metadata, tally) -> None:
    """The handler: no event does less."""
    tally.count += 1


def listen(events: tuple[telemetry.Event, ...], compiled: bool) -> dict[telemetry.Event, Callable[[], int]]:
    """Attach a handler to each event, with a count of its own: how to read those."""
    counts: dict[telemetry.Event, Callable[[], int]] = {}
    for event in events:
        if compiled:
            counter = EventCounter()
            telemetry.attach(event, event, counter)
            counts[event] = functools.partial(getattr, counter, "value")
        else:
            count = FunctionCount()
            telemetry.attach(event, event, count_event, count)
            counts[event] = functools.partial(getattr, count, "count")
    return counts


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--handler", choices=sorted({handler for _, handler in HANDLERS}), default="message")
    parser.add_argument("--concurrency", type=int, default=1, help="processors")
    parser.add_argument("--max-demand", type=int, default=100)
    parser.add_argument("--spin", type=float, default=0.0, help="microseconds a processor looks before it sleeps")
    parser.add_argument("--batcher", type=int, default=0, help="threads of a batcher's handle_batch; 0 for no batcher")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--batch-bytes", type=int, default=0, help="instead: bytes of a batch, which a function adds up")
    parser.add_argument("--telemetry", choices=HEARD, default="nothing", help="the events that have a counting handler")
    parser.add_argument("--counter", choices=("function", "compiled"), default="function",
                        help="that handler: a function in Python, or an EventCounter")
    parser.add_argument("--partition-by", choices=PARTITIONS, default="nothing")
    options = parser.parse_args()
    if (options.mode, options.handler) not in HANDLERS:
        parser.error(f"--mode {options.mode} has no handler {options.handler!r}")
    heard = listen(HEARD[options.telemetry], options.counter == "compiled")
    sizes = {"batch_size": up_to(options.batch_bytes), "max_demand": 8192} if options.batch_bytes else {
        "batch_size": options.batch_size}
    batchers = {"default": Batcher(concurrency=options.batcher, **sizes)} if options.batcher else {}
    kind = HANDLERS[options.mode, options.handler]
    if batchers:
        kind = type(f"Batched{kind.__name__}", (Batched, kind), {})
    pipeline = kind(
        WebSocketProducer(options.url), each=options.size,
        processors=Processors(concurrency=options.concurrency, max_demand=options.max_demand, spin=options.spin),
        batchers=batchers, partition_by=PARTITIONS[options.partition_by],
    )

    def read() -> tuple[int, int]:
        # With several processors `+=` loses counts now and then, the engine's own count does not.
        successful = pipeline.stats().successful
        return successful, pipeline.tally.size or successful * options.size

    with pipeline:
        result = measure(read, pipeline.tally.latencies, seconds=options.seconds, warmup=options.warmup)
        failed = pipeline.stats().failed
        pipeline.stop(0)
    if failed:
        raise RuntimeError(f"{failed} messages failed, so the figures are of something else")
    report(result, {
        "client": "wsengine", "version": _version(), "handler": options.handler, "concurrency": options.concurrency,
        "max_demand": options.max_demand, "spin_us": options.spin, "utf8_checked": True, "batcher": options.batcher,
        "telemetry": options.telemetry, "partition_by": options.partition_by,
        "events_heard": sum(read() for read in heard.values()),
    })


def _version() -> str:
    try:
        return version("wsengine")
    except PackageNotFoundError:
        return "from its sources, not installed"


if __name__ == "__main__":
    main()
