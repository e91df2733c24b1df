"""The `websockets` server (asyncio)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from closings import MAX_SIZE, SUBPROTOCOLS, Closings, main
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from websockets.http11 import Request, Response
    from websockets.typing import Subprotocol

CLOSINGS = Closings()


def asked(path: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(path)
    return parts.path, {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}


def pieces(message: str | bytes, size: int) -> list[str | bytes]:
    return [message[start:start + size] for start in range(0, len(message), size)] or [message]


async def handle(connection: ServerConnection) -> None:
    assert connection.request is not None
    path, query = asked(connection.request.path)
    with contextlib.suppress(ConnectionClosed):
        await serve_path(connection, path, query)
    if "id" in query:
        CLOSINGS.note(query["id"], connection.close_code, connection.close_reason)


async def serve_path(connection: ServerConnection, path: str, query: dict[str, str]) -> None:
    match path:
        case "/close":
            await connection.close(int(query["code"]), query.get("reason", ""))
        case "/log":
            await connection.send(await CLOSINGS.wait(query["id"]))
        case "/ping":
            await (await connection.ping(query["payload"]))
            await connection.send("pong " + query["payload"])
    size = int(query.get("size", 0)) if path == "/fragments" else 0
    async for message in connection:
        await connection.send(pieces(message, size) if size else message)


def choose(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return next((one for one in SUBPROTOCOLS if one in offered), None)


def pad(_connection: ServerConnection, request: Request, response: Response) -> None:
    path, query = asked(request.path)
    if path == "/head":
        response.headers["X-Padding"] = "x" * int(query["bytes"])


async def start(context: ssl.SSLContext) -> tuple[int, int]:
    ports = []
    for one in (None, context):
        server = await serve(handle, "127.0.0.1", 0, ssl=one, max_size=MAX_SIZE, select_subprotocol=choose,
                             process_response=pad, compression="deflate", ping_interval=None)
        ports.append(next(iter(server.sockets)).getsockname()[1])
    return ports[0], ports[1]


if __name__ == "__main__":
    main(start)
