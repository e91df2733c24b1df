"""The server of `aiohttp`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web
from closings import MAX_SIZE, SUBPROTOCOLS, Closings, main

if TYPE_CHECKING:
    import ssl

CLOSINGS = Closings()


async def handle(request: web.Request) -> web.WebSocketResponse:
    path, query = request.path, request.query
    # With autoping the pong to our ping would be swallowed.
    socket = web.WebSocketResponse(protocols=SUBPROTOCOLS, max_msg_size=MAX_SIZE, autoping=path != "/ping")
    if path == "/head":
        socket.headers["X-Padding"] = "x" * int(query["bytes"])
    await socket.prepare(request)
    match path:
        case "/close":
            await socket.close(code=int(query["code"]), message=query.get("reason", "").encode())
        case "/log":
            await socket.send_str(await CLOSINGS.wait(query["id"]))
        case "/ping":
            await socket.ping(query["payload"].encode())
    reason = ""
    while True:
        message = await socket.receive()
        match message.type:
            case WSMsgType.TEXT:
                await socket.send_str(message.data)
            case WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            case WSMsgType.PONG:
                await socket.send_str("pong " + message.data.decode())
            case WSMsgType.CLOSE:
                reason = message.extra or ""
                break
            case WSMsgType.CLOSING | WSMsgType.CLOSED | WSMsgType.ERROR:
                break
    if "id" in query:
        CLOSINGS.note(query["id"], socket.close_code, reason)
    return socket


async def start(context: ssl.SSLContext) -> tuple[int, int]:
    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    for one in (None, context):
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=one).start()
    plain, tls = runner.addresses
    return plain[1], tls[1]


if __name__ == "__main__":
    main(start)
