"""How each connection of a server ended, and the life of the server's process: what all servers in Python have in common.

What a server does on a connection stands with that server. The paths that all of them serve are told in ../conftest.py.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["MAX_SIZE", "SUBPROTOCOLS", "Closings", "main"]

#: Bytes of a message at most.
MAX_SIZE = 64 << 20
#: In the server's order of preference.
SUBPROTOCOLS = ("feed.v2", "feed.v1")


class Closings:
    """The close code and reason of each connection that gave an id; belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._seen: dict[str, asyncio.Future[str]] = {}

    def _of(self, connection: str) -> asyncio.Future[str]:
        return self._seen.setdefault(connection, asyncio.get_running_loop().create_future())

    def note(self, connection: str, code: int | None, reason: str | None) -> None:
        """A connection has ended; an id counts once."""
        if not self._of(connection).done():
            self._of(connection).set_result(json.dumps({"code": code, "reason": reason or ""}))

    async def wait(self, connection: str) -> str:
        """What was noted of it, as JSON, once it is."""
        return await asyncio.shield(self._of(connection))


def main(serve: Callable[[ssl.SSLContext], Awaitable[tuple[int, int]]]) -> None:
    """Run a server: its certificate and key are the arguments, one line with its ports is the answer, EOF ends it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])

    async def run() -> None:
        plain, tls = await serve(context)
        print(json.dumps({"plain": plain, "tls": tls}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

    asyncio.run(run())
