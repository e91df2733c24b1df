"""Many connections of one producer: how long they take to connect, and what each costs while it is idle."""

from __future__ import annotations

import argparse
import threading
import time

from benchmarks.drivers.idle import PATIENCE, Idle
from wsengine import Message, Pipeline, WebSocketProducer
from wsengine.testing.feed_server import allow_many_files
from wsengine.testing.peers.window import report


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
    parser.add_argument("--compression", action="store_true", help="offer permessage-deflate")
    options = parser.parse_args()
    compression = "deflate" if options.compression else None
    allow_many_files()
    with Greeted(WebSocketProducer(options.url, compression=compression)) as first:
        first.wait(1)
    pipeline = Greeted(WebSocketProducer(options.url, concurrency=options.connections, keepalive=options.keepalive,
                                         compression=compression))
    idle = Idle(options.connections)
    with pipeline:
        pipeline.wait(options.connections)
        idle.connected()
        time.sleep(options.seconds)
        found = idle.result()
        threads = sum(":producer_" in one.name and ":dialer_" not in one.name for one in threading.enumerate())
        pipeline.stop()
    report({**found, "engine_threads": threads},
           {"connections": options.connections, "keepalive": options.keepalive, "compression": compression})


if __name__ == "__main__":
    main()
