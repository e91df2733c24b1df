"""Many connections of one producer: how long they take to connect, and what each costs while it is idle."""

from __future__ import annotations

import argparse
import gc
import threading
import time

import psutil

from wsengine import Message, Pipeline, WebSocketProducer
from wsengine.testing.feed_server import allow_many_files
from wsengine.testing.peers.window import report

#: Seconds that connecting may take at the most.
PATIENCE = 120.0


class Greeted(Pipeline):
    """Counts the connections that have sent their one message."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.count = 0

    def handle_message(self, message: Message) -> None:
        self.count += 1

    def wait(self, count: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.count < count:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{self.count} of {count} connections within {PATIENCE} s")
            time.sleep(0.001)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=3.0, help="for which they are idle, and CPU is counted")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--keepalive", type=float, default=20.0)
    options = parser.parse_args()
    allow_many_files()
    process = psutil.Process()
    with Greeted(WebSocketProducer(options.url)) as first:  # what the first takes, the others do not take again
        first.wait(1)
    pipeline = Greeted(WebSocketProducer(options.url, concurrency=options.connections, keepalive=options.keepalive))
    gc.collect()
    before, begin = process.memory_info().rss, time.monotonic()
    with pipeline:
        pipeline.wait(options.connections)
        connected = time.monotonic() - begin
        gc.collect()
        each = (process.memory_info().rss - before) / options.connections
        spent = sum(process.cpu_times()[:2])
        time.sleep(options.seconds)
        spent = sum(process.cpu_times()[:2]) - spent
        threads = sum(":producer_" in one.name and ":dialer_" not in one.name for one in threading.enumerate())
        pipeline.stop()
    report({"connect_seconds": connected, "bytes_each": each, "idle_cpu_share": spent / options.seconds,
            "engine_threads": threads}, {"connections": options.connections, "keepalive": options.keepalive})


if __name__ == "__main__":
    main()
