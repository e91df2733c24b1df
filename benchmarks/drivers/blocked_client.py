"""Resident memory of a pipeline whose handlers do not return while the server goes on sending."""

from __future__ import annotations

import argparse
import threading
import time

import psutil

from benchmarks.drivers.resident import PERIOD
from wsengine import Message, Pipeline, Processors, WebSocketProducer
from wsengine.testing.peers.window import report


class Blocked(Pipeline):
    """Handles nothing until it is let go."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.release = threading.Event()

    def handle_message(self, message: Message) -> None:
        self.release.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=3.0, help="for which the handlers are blocked")
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--max-queue-bytes", type=int, default=64 << 20)
    options = parser.parse_args()
    process = psutil.Process()
    pipeline = Blocked(WebSocketProducer(options.url), processors=Processors(concurrency=options.concurrency),
                       max_queue_bytes=options.max_queue_bytes)
    before = most = process.memory_info().rss
    with pipeline:
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            most = max(most, process.memory_info().rss)
            time.sleep(PERIOD)
        stats = pipeline.stats()
        # Told to stop before it is let go, so that what was held is not handled first.
        pipeline.request_stop(0)
        pipeline.release.set()
        pipeline.stop(0)
    report({
        "growth_bytes": most - before, "max_queue_bytes": options.max_queue_bytes, "held_bytes": stats.held_bytes,
        "held_messages": stats.held_messages,
    }, {"concurrency": options.concurrency, "max_queue_bytes": options.max_queue_bytes})


if __name__ == "__main__":
    main()
