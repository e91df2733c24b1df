"""A client that counts compressed messages: wsengine's pipeline or connect(), or `websockets` sync. Prints seconds and
CPU-seconds as JSON, from the first message to the last."""

from __future__ import annotations

import argparse
import json
import threading
import time


def pipeline_client(options: argparse.Namespace) -> tuple[float, float]:
    from wsengine import Pipeline, WebSocketProducer

    done, times = threading.Event(), []

    class Counting(Pipeline):
        seen = 0

        def handle_message(self, message):
            self.seen += 1
            if self.seen in (1, options.count):
                times.append((time.monotonic(), time.process_time()))
                if len(times) == 2:
                    done.set()

    with Counting(WebSocketProducer(options.url, compression="deflate", proxy=None)):
        done.wait(120)
    return times[1][0] - times[0][0], times[1][1] - times[0][1]


def loop_client(options: argparse.Namespace, connection) -> tuple[float, float]:
    with connection:
        connection.recv()
        begun = time.monotonic(), time.process_time()
        for _ in range(options.count - 1):
            connection.recv()
        return time.monotonic() - begun[0], time.process_time() - begun[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", choices=("wsengine", "connect", "websockets"))
    parser.add_argument("url")
    parser.add_argument("--count", type=int, default=200_000)
    options = parser.parse_args()
    if options.client == "wsengine":
        seconds, cpu = pipeline_client(options)
    elif options.client == "connect":
        import wsengine

        seconds, cpu = loop_client(options, wsengine.connect(options.url, compression="deflate", proxy=None))
    else:
        from websockets.sync.client import connect

        seconds, cpu = loop_client(options, connect(options.url, proxy=None))
    print(json.dumps({"seconds": seconds, "cpu": cpu}))


if __name__ == "__main__":
    main()
