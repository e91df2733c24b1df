"""Resident memory of a client whose consumer takes one message and does not return while the server goes on sending.

Each is used as its documentation shows, with its own limits of queues and sizes. Which of them are compared is the business
of compare.memory.
"""

from __future__ import annotations

import argparse
import asyncio
import queue
import threading
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from benchmarks.drivers.resident import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds that a blocked consumer sleeps: the process ends before.
LONG = 1e6


def blocked(watch: Watch) -> None:
    """What a consumer does with its first message."""
    watch.block()
    time.sleep(LONG)


def connect(url: str, watch: Callable[..., Watch]) -> None:
    """wsengine's connect(): the reader goes on until the queue is full."""
    import wsengine

    looking = watch(max_queue=1024, max_queue_bytes=2**24)
    with wsengine.connect(url, proxy=None) as connection:
        for _ in connection:
            blocked(looking)


def websockets(url: str, watch: Callable[..., Watch]) -> None:
    """Its thread reads until 16 messages wait."""
    from websockets.sync.client import connect

    looking = watch(version=version("websockets"), api="sync, for", max_queue=16)
    with connect(url, proxy=None) as connection:
        for _ in connection:
            blocked(looking)


def websockets_asyncio(url: str, watch: Callable[..., Watch]) -> None:
    """The loop is free, and reads until 16 messages wait."""
    from websockets.asyncio.client import connect

    looking = watch(version=version("websockets"), loop="asyncio", api="async for", max_queue=16)

    async def run() -> None:
        async with connect(url, proxy=None) as connection:
            async for _ in connection:
                looking.block()
                await asyncio.sleep(LONG)

    asyncio.run(run())


def aiohttp(url: str, watch: Callable[..., Watch]) -> None:
    """The loop is free, and reads until a queue of its own is full."""
    import aiohttp
    import uvloop

    looking = watch(version=version("aiohttp"), loop=f"uvloop {version('uvloop')}", api="async for")

    async def run() -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as connection:
            async for _ in connection:
                looking.block()
                await asyncio.sleep(LONG)

    uvloop.run(run())


def picows(url: str, watch: Callable[..., Watch]) -> None:
    """It has no queue: the listener is the consumer, and blocks the loop, so nothing is read, and no ping answered."""
    looking = watch(version=version("picows"), loop=f"uvloop {version('uvloop')}", queue=None, listener="blocks")
    listen(url, lambda payload: blocked(looking))


def picows_queue(url: str, watch: Callable[..., Watch]) -> None:
    """The loop is free; the listener gives each payload to a thread, by a queue that nothing bounds."""
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    looking = watch(version=version("picows"), loop=f"uvloop {version('uvloop')}", queue="queue.SimpleQueue",
                    listener="puts", held=waiting.qsize)

    def consume() -> None:
        waiting.get()
        blocked(looking)

    threading.Thread(target=consume, daemon=True).start()
    listen(url, waiting.put)


def listen(url: str, take: Callable[[bytes], None]) -> None:
    """picows on uvloop, with a listener that hands each payload on."""
    import picows
    import uvloop

    class Listener(picows.WSListener):
        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            take(frame.get_payload_as_bytes())

    async def run() -> None:
        transport, _ = await picows.ws_connect(Listener, url)
        await transport.wait_disconnected()

    uvloop.run(run())


def websocket_client(url: str, watch: Callable[..., Watch]) -> None:
    """It has neither a queue nor a thread: what nobody takes is not read."""
    import websocket

    looking = watch(version=version("websocket-client"), api="WebSocketApp", queue=None)
    websocket.WebSocketApp(url, on_message=lambda app, message: blocked(looking)).run_forever()


CLIENTS = {
    "connect": connect, "websockets": websockets, "websockets-asyncio": websockets_asyncio, "aiohttp": aiohttp,
    "picows": picows, "picows-queue": picows_queue, "websocket-client": websocket_client,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    # The url is the first of all drivers' arguments.
    parser.add_argument("url")
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("--seconds", type=float, default=3.0, help="for which the consumer is blocked")
    parser.add_argument("--ceiling", type=int, default=512 << 20, help="bytes of growth at which it ends")
    options = parser.parse_args()

    def watch(*, held: Callable[[], int] | None = None, **settings: object) -> Watch:
        return Watch(seconds=options.seconds, ceiling=options.ceiling, held=held,
                     settings={"client": options.client, **settings})

    CLIENTS[options.client](options.url, watch)
    raise SystemExit("the client ended before it was told to")


if __name__ == "__main__":
    main()
