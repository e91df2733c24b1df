"""wsengine as a measured client: a pipeline with one of several handlers."""

from __future__ import annotations

import json
import time
from importlib.metadata import PackageNotFoundError, version

from benchmarks.drivers.window import Tally, arguments, measure, report
from wsengine import Message, Pipeline, Processors, WebSocketProducer
from wsengine.testing.stamp import read_stamp


class Measured(Pipeline):
    """A pipeline with a tally."""

    def __init__(self, *args, each: int, **options):
        super().__init__(*args, **options)
        self.tally = Tally(each)


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


HANDLERS = {
    ("flood", "message"): CountMessage, ("flood", "message-data"): TakeMessage,
    ("flood", "messages"): CountMessages, ("flood", "messages-data"): TakeMessages,
    ("latency", "message"): StampMessage, ("latency", "messages"): StampMessages,
    ("flood", "json"): ParseMessage, ("flood", "json-chunks"): ParseMessages, ("flood", "busy"): BusyMessage,
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--handler", choices=sorted({handler for _, handler in HANDLERS}), default="message")
    parser.add_argument("--concurrency", type=int, default=1, help="processors")
    parser.add_argument("--max-demand", type=int, default=100)
    parser.add_argument("--spin", type=float, default=0.0, help="microseconds a processor looks before it sleeps")
    options = parser.parse_args()
    if (options.mode, options.handler) not in HANDLERS:
        parser.error(f"--mode {options.mode} has no handler {options.handler!r}")
    pipeline = HANDLERS[options.mode, options.handler](
        WebSocketProducer(options.url), each=options.size,
        processors=Processors(concurrency=options.concurrency, max_demand=options.max_demand, spin=options.spin),
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
        "max_demand": options.max_demand, "spin_us": options.spin, "utf8_checked": True,
    })


def _version() -> str:
    try:
        return version("wsengine")
    except PackageNotFoundError:
        return "from its sources, not installed"


if __name__ == "__main__":
    main()
