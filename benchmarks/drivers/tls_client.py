"""A client over TLS that counts messages: wsengine's pipeline, or picows on uvloop. Prints seconds and CPU-seconds as JSON,
from the first message to the last."""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import threading
import time


class Count:
    """From the first message to the last."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.begun = (0.0, 0.0)
        self.ended = (0.0, 0.0)

    def first(self) -> None:
        self.begun = time.monotonic(), time.process_time()

    def last(self) -> None:
        self.ended = time.monotonic(), time.process_time()

    def report(self, **more: object) -> None:
        seconds, cpu = (after - before for before, after in zip(self.begun, self.ended, strict=True))
        print(json.dumps({"seconds": seconds, "cpu": cpu, **more}))


def wsengine_client(options: argparse.Namespace, context: ssl.SSLContext) -> None:
    from wsengine import Pipeline, WebSocketProducer

    done = threading.Event()

    class Counting(Pipeline):
        seen = 0

        def handle_message(self, message):
            self.seen += 1
            if self.seen == 1:
                count.first()
            elif self.seen == options.count:
                count.last()
                done.set()

    count = Count(options.count)
    producer = WebSocketProducer(options.url, ssl=context, proxy=None)
    with Counting(producer):
        done.wait(120)
        path = producer.connections[0].tls_path
    count.report(tls_path=path)


def picows_client(options: argparse.Namespace, context: ssl.SSLContext) -> None:
    import picows
    import uvloop

    count = Count(options.count)

    class Counting(picows.WSListener):
        seen = 0

        def on_ws_frame(self, transport, frame):
            _ = frame.get_payload_as_bytes()
            self.seen += 1
            if self.seen == 1:
                count.first()
            elif self.seen == options.count:
                count.last()
                over.set()

    async def run() -> None:
        global over
        over = asyncio.Event()
        transport, _ = await picows.ws_connect(Counting, options.url, ssl_context=context, max_frame_size=1 << 28)
        await over.wait()
        transport.disconnect()

    uvloop.run(run())
    count.report()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", choices=("wsengine", "picows"))
    parser.add_argument("url")
    parser.add_argument("ca")
    parser.add_argument("--count", type=int, default=1_000_000)
    options = parser.parse_args()
    context = ssl.create_default_context(cafile=options.ca)
    {"wsengine": wsengine_client, "picows": picows_client}[options.client](options, context)


if __name__ == "__main__":
    main()
