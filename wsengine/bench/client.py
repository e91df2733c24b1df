"""The pipeline of a case as a measured client: `python -m wsengine.bench.client URL --case JSON`, which prints one line.

It is measured as the peers are (`testing/peers/window`). Under a flood, latencies are those of the first message of each
chunk, taken just before its handler is called: a look at the clock for every message would be a cost of its own. At a rate,
and where the handler takes long, they are those of all messages, taken by the handler, as with the peers.
"""

from __future__ import annotations

import json
import os
import ssl
import time
from typing import TYPE_CHECKING, Any

from wsengine.bench.case import Case
from wsengine.bench.handlers import work_of
from wsengine.event_counter import EventCounter
from wsengine.pipeline.latency import Latency
from wsengine.pipeline.pipeline import Pipeline
from wsengine.pipeline.processors import Processors
from wsengine.testing.fault import Fault
from wsengine.testing.peers.window import Tally, arguments, measure, report
from wsengine.testing.stamp import read_stamp
from wsengine.websocket.producer import WebSocketProducer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from wsengine.message import Message

__all__ = ["main", "pipeline_of"]


#: Costs of which a chunk may take as long as is measured.
SLOW = ("spin:", "sleep:")


class Measured(Pipeline):
    """A pipeline with a tally and the work of its handler."""

    def __init__(
        self, producer: WebSocketProducer, tally: Tally, work: Callable[[bytes], object] | None, **options: Any
    ) -> None:
        super().__init__(producer, name="bench", **options)
        self.tally = tally
        self.work: Any = work


class Stamped:
    """What is added where the feed stamps its messages."""

    tally: Tally

    def prepare_messages(self, messages: list[Message]) -> None:
        self.tally.latencies.append(time.monotonic_ns() - read_stamp(messages[0].data))


class CountMessage(Measured):
    """Counts. The payload is bytes by then."""

    def handle_message(self, message: Message) -> None:
        self.tally.messages += 1


class CountChunk(Measured):
    """The same by chunks."""

    def handle_messages(self, messages: list[Message]) -> None:
        self.tally.messages += len(messages)


class WorkMessage(Measured):
    """Does its work with each payload."""

    def handle_message(self, message: Message) -> None:
        self.work(message.data)


class WorkChunk(Measured):
    """The same by chunks."""

    def handle_messages(self, messages: list[Message]) -> None:
        work = self.work
        for message in messages:
            work(message.data)


def then(first: Callable[[bytes], object], work: Callable[[bytes], object] | None) -> Callable[[bytes], object]:
    """One thing, and then the work, if there is any."""

    def both(payload: bytes) -> None:
        first(payload)
        if work is not None:
            work(payload)

    return both


def pipeline_of(
    case: Case, producer: WebSocketProducer, tally: Tally, *, stamped: str, counter: EventCounter | None = None
) -> Measured:
    """The pipeline of a case, not started.

    Args:
        stamped: "no" latencies are taken; "chunk": of the first message of each; "message": of each one, as the drivers of
            the peers do it.
        counter: counts each message as its work begins, where that takes so long that a chunk is too coarse.
    """
    work = work_of(case.cost)
    if counter is not None:
        work = then(lambda payload: counter((), {}, {}, None), work)
    if stamped == "message":
        work = then(lambda payload: tally.latencies.append(time.monotonic_ns() - read_stamp(payload)), work)
    kind: type[Measured] = {("message", False): CountMessage, ("message", True): WorkMessage, ("chunk", False): CountChunk,
                            ("chunk", True): WorkChunk}[case.handler, work is not None]
    if stamped == "chunk":
        kind = type(f"Stamped{kind.__name__}", (Stamped, kind), {})
    processors = Processors(concurrency=case.concurrency, min_demand=case.min_demand, max_demand=case.max_demand)
    return kind(producer, tally, work, processors=processors)


def producer_of(case: Case, options: argparse.Namespace, fault: Fault) -> WebSocketProducer:
    """The producer of a case."""
    context = ssl.create_default_context(cafile=options.ca) if options.ca else None
    return WebSocketProducer(options.url, ssl=context, compression="deflate" if case.deflate else None,
                             proxy=True if options.foreign else None, process_exception=fault)


def stamped_of(case: Case, options: argparse.Namespace) -> str:
    """Which messages' latencies are taken, see `pipeline_of`."""
    if not options.stamped:
        return "no"
    return "message" if options.mode == "latency" or case.cost.startswith(SLOW) else "chunk"


def count_of(pipeline: Measured, counter: EventCounter | None, fault: Fault) -> Callable[[], tuple[int, int]]:
    """Messages so far, for `measure`, and no bytes: see `size_of`."""

    def handled() -> int:
        # The engine's own counts: with several processors `+=` loses some now and then.
        if counter is not None:
            return counter.value
        stats = pipeline.stats()
        return stats.successful + stats.failed

    def read() -> tuple[int, int]:
        count = handled()
        if not count:
            fault.check()
        return count, 0

    return read


def size_of(result: dict[str, Any], producer: WebSocketProducer) -> dict[str, Any]:
    """The bytes of the messages that were handled, at the mean size of all that came.

    What came meanwhile may be a queue more or less; and handlers count no bytes, which would cost as much as a message does.
    """
    counts = [one.counts() for one in producer.connections]
    mean = sum(one["bytes"] for one in counts) / sum(one["messages"] for one in counts)
    return {"bytes": round(mean * result["messages"]), "bytes_per_second": mean * result["messages_per_second"]}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--case", required=True, help="its settings as JSON")
    parser.add_argument("--ca", help="file with the CA of the feed's certificate")
    parser.add_argument("--stamped", action="store_true", help="the feed stamps its messages")
    parser.add_argument("--foreign", action="store_true", help="the server is not a feed of this machine")
    options = parser.parse_args()
    case = Case(**json.loads(options.case))
    os.environ.pop("WSENGINE_TLS_PATH", None)
    if case.tls == "B":
        os.environ["WSENGINE_TLS_PATH"] = "B"
    tally = Tally(case.size)
    fault = Fault()
    producer = producer_of(case, options, fault)
    counter = EventCounter() if case.cost.startswith(SLOW) else None
    stamped = stamped_of(case, options)
    pipeline = pipeline_of(case, producer, tally, stamped=stamped, counter=counter)

    with pipeline:
        result = measure(count_of(pipeline, counter, fault), tally.latencies,
                         seconds=options.seconds, warmup=options.warmup)
        result |= size_of(result, producer)
        stats, topology = pipeline.stats(), pipeline._wsengine_topology
        latency = topology.latency if topology is not None else Latency()
        path = [one.tls_path for one in producer.connections]
        reason = producer.connections[0].tls_reason
        pipeline.stop(0)
    if case.tls != "none" and path[0] != case.tls:
        raise RuntimeError(f"TLS takes path {path[0]} here, not {case.tls}: {reason}")
    result["failed"] = stats.failed
    result["reconnects"] = sum(one.reconnects for one in producer.connections)
    result["dropped"] = sum(one.counts()["dropped"] for one in producer.connections)
    if not tally.latencies and latency.percentile(0.5) > 0:
        result |= {name: latency.percentile(share) / 1e3
                   for name, share in (("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999))}
    report(result, {"client": "wsengine", "utf8_checked": True, "stamped": stamped, "tls_path": path[0]}
           | case.settings())


if __name__ == "__main__":
    main()
