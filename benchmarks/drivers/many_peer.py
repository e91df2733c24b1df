"""Many connections of one process of a client: how long they take to connect, and what each costs while it is idle.

Every connection has somebody who would take its messages: a task, a thread or a listener, whichever the client is made for.
Each pings its server in the same period, by its own means. Which clients are compared is the business of compare.many.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import threading
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NoReturn

from benchmarks.drivers.idle import PATIENCE, Idle
from wsengine.testing.feed_server import allow_many_files
from wsengine.testing.peers.window import report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: Connections that are being opened at a time. Our pipeline's own limit is eight.
AT_ONCE = 32
#: The stack of each thread, of which only what is touched is resident: the usual 8 MiB would run out of addresses.
STACK = 512 * 1024


class Count:
    """Of the connections that have had their message."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def one(self) -> None:
        with self._lock:
            self.count += 1


def deflate(options: argparse.Namespace) -> str | None:
    """What to offer, as our client and websockets are told."""
    return "deflate" if options.compression else None


def finish(idle: Idle, options: argparse.Namespace, settings: dict[str, Any]) -> NoReturn:
    """Print the figures and end the process: closing so many connections is not measured, and takes long."""
    report(idle.result(), {"client": options.client, "connections": options.connections, "keepalive": options.keepalive,
                           "at_once": AT_ONCE, "compression": "deflate" if options.compression else None, **settings})
    os._exit(0)


def in_threads(options: argparse.Namespace, consume: Callable[[Callable[[], None], Any], None], **settings: object) -> None:
    """A thread for each connection, which opens it and takes its messages for ever.

    Args:
        consume: is given what to call at each message, and a lock to be held while connecting.
    """
    count, gate = Count(), threading.BoundedSemaphore(AT_ONCE)
    threading.stack_size(STACK)

    def open_one() -> None:
        threading.Thread(target=consume, args=(count.one, gate), daemon=True).start()

    def wait(wanted: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while count.count < wanted:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{count.count} of {wanted} connections within {PATIENCE} s")
            time.sleep(0.001)

    open_one()
    wait(1)
    idle = Idle(options.connections)
    for _ in range(options.connections):
        open_one()
    wait(options.connections + 1)
    idle.connected()
    time.sleep(options.seconds)
    finish(idle, options, settings)


async def in_a_loop(options: argparse.Namespace, open_one: Callable[[], Awaitable[None]], **settings: object) -> None:
    """All in one loop. `open_one` returns when its connection has had its message."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def gated() -> None:
        async with gate:
            await open_one()

    await open_one()
    idle = Idle(options.connections)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(gated() for _ in range(options.connections)))
    idle.connected()
    await asyncio.sleep(options.seconds)
    finish(idle, options, settings)


def connect(options: argparse.Namespace) -> None:
    """wsengine's connect(): a thread of the user for each, and no other."""
    import wsengine

    def consume(told: Callable[[], None], gate: Any) -> None:
        with gate:
            connection = wsengine.connect(options.url, proxy=None, keepalive=options.keepalive,
                                          compression=deflate(options))
        for _ in connection:
            told()

    in_threads(options, consume, api="connect(), a thread each")


def websockets(options: argparse.Namespace) -> None:
    """The synchronous client: a thread of the user and two of its own for each."""
    from websockets.sync.client import connect

    def consume(told: Callable[[], None], gate: Any) -> None:
        with gate:
            connection = connect(options.url, proxy=None, ping_interval=options.keepalive, compression=deflate(options))
        for _ in connection:
            told()

    in_threads(options, consume, version=version("websockets"), api="sync, a thread each")


def websocket_client(options: argparse.Namespace) -> None:
    """WebSocketApp: a thread of the user and one of its own, which pings, for each."""
    import websocket

    def consume(told: Callable[[], None], gate: Any) -> None:
        def opened(app: Any, message: Any) -> None:
            gate.release()
            told()

        gate.acquire()
        websocket.WebSocketApp(options.url, on_message=opened).run_forever(ping_interval=options.keepalive)

    in_threads(options, consume, version=version("websocket-client"), api="run_forever(), a thread each")


def websockets_asyncio(options: argparse.Namespace) -> None:
    """A task of the user and one of its own for each."""
    from websockets.asyncio.client import connect

    tasks = []

    async def consume(connection: Any, greeted: asyncio.Event) -> None:
        async for _ in connection:
            greeted.set()

    async def open_one() -> None:
        greeted = asyncio.Event()
        connection = await connect(options.url, proxy=None, ping_interval=options.keepalive, compression=deflate(options))
        tasks.append(asyncio.create_task(consume(connection, greeted)))
        await greeted.wait()

    asyncio.run(in_a_loop(options, open_one, version=version("websockets"), loop="asyncio", api="a task each"))


def aiohttp(options: argparse.Namespace) -> None:
    """One session without its limit of 100 connections, and a task of the user for each."""
    import aiohttp
    import uvloop

    tasks = []

    async def consume(connection: Any, greeted: asyncio.Event) -> None:
        async for _ in connection:
            greeted.set()

    async def run() -> None:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

        async def open_one() -> None:
            greeted = asyncio.Event()
            connection = await session.ws_connect(options.url, heartbeat=options.keepalive,
                                                  compress=15 if options.compression else 0)
            tasks.append(asyncio.create_task(consume(connection, greeted)))
            await greeted.wait()

        await in_a_loop(options, open_one, version=version("aiohttp"), loop=f"uvloop {version('uvloop')}",
                        api="a task each")

    uvloop.run(run())


def picows(options: argparse.Namespace) -> None:
    """A listener for each."""
    import picows
    import uvloop

    held = []

    class Listener(picows.WSListener):
        def __init__(self) -> None:
            self.greeted = asyncio.Event()

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            self.greeted.set()

    async def open_one() -> None:
        transport, listener = await picows.ws_connect(
            Listener, options.url, enable_auto_ping=True, auto_ping_idle_timeout=options.keepalive,
            auto_ping_reply_timeout=options.keepalive)
        held.append(transport)
        await listener.greeted.wait()

    uvloop.run(in_a_loop(options, open_one, version=version("picows"), loop=f"uvloop {version('uvloop')}",
                         api="a listener each"))


CLIENTS = {
    "connect": connect, "websockets": websockets, "websockets-asyncio": websockets_asyncio, "aiohttp": aiohttp,
    "picows": picows, "websocket-client": websocket_client,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    # The url is the first of all drivers' arguments.
    parser.add_argument("url")
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("--seconds", type=float, default=3.0, help="for which they are idle, and CPU is counted")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--keepalive", type=float, default=20.0, help="seconds between the pings of a connection")
    parser.add_argument("--compression", action="store_true", help="offer permessage-deflate, where the client can")
    options = parser.parse_args()
    allow_many_files()
    CLIENTS[options.client](options)


if __name__ == "__main__":
    main()
