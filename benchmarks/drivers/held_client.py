"""A handler that holds the GIL for seconds in one C call, while the feed logs pings and pongs."""

from __future__ import annotations

import argparse
import ctypes
import threading
import time

from wsengine import Message, Pipeline, WebSocketProducer
from wsengine.testing.peers.window import report


class Held(Pipeline):
    """Its first message is the last thing that any Python code of this process sees for some seconds."""

    def __init__(self, *args, microseconds: int, **options):
        super().__init__(*args, **options)
        self.microseconds = microseconds
        self.held: tuple[int, int] | None = None
        self.ended = threading.Event()

    def handle_message(self, message: Message) -> None:
        if self.held is not None:
            return
        # A function of PyDLL, unlike one of CDLL, is called with the GIL.
        usleep = ctypes.PyDLL(None).usleep
        begin = time.monotonic_ns()
        usleep(self.microseconds)
        self.held = (begin, time.monotonic_ns())
        self.ended.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--keepalive", type=float, default=1.0, help="seconds between pings")
    options = parser.parse_args()
    pipeline = Held(WebSocketProducer(options.url, keepalive=options.keepalive),
                    microseconds=int(options.seconds * 1e6))
    with pipeline:
        if not pipeline.ended.wait(options.seconds + 15):
            raise TimeoutError("no message came, or its handler did not return")
        assert pipeline.held is not None
        begin, end = pipeline.held
        pipeline.stop(0)
    report({"held_from_ns": begin, "held_to_ns": end}, {"keepalive": options.keepalive})


if __name__ == "__main__":
    main()
