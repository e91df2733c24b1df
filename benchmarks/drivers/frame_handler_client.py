"""A producer with a frame handler as a measured client: each payload handed on as it is, or ten messages made of it."""

from __future__ import annotations

from benchmarks.drivers.wsengine_client import PassMessage
from wsengine import Emit, Processors, WebSocketProducer
from wsengine.testing.peers.window import arguments, measure, report


def one(payload, state):
    return Emit([payload], state)


def ten(payload, state):
    return Emit([payload] * 10, state)


HANDLERS = {"one": one, "ten": ten}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--emits", choices=HANDLERS, default="one")
    parser.add_argument("--concurrency", type=int, default=1, help="processors")
    options = parser.parse_args()
    producer = WebSocketProducer(options.url, frame_handler=HANDLERS[options.emits])
    pipeline = PassMessage(producer, each=options.size, processors=Processors(concurrency=options.concurrency))

    def read() -> tuple[int, int]:
        successful = pipeline.stats().successful
        return successful, successful * options.size

    with pipeline:
        result = measure(read, (), seconds=options.seconds, warmup=options.warmup)
        pipeline.stop(0)
    # What the feed sent is told in frames, and is not to be compared with these.
    result["emitted"] = result.pop("messages")
    report(result, {"client": "wsengine", "emits": options.emits, "concurrency": options.concurrency})


if __name__ == "__main__":
    main()
