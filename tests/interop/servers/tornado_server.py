"""The server of `tornado`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from closings import MAX_SIZE, SUBPROTOCOLS, Closings, main
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketHandler

if TYPE_CHECKING:
    import ssl

CLOSINGS = Closings()


class Connection(WebSocketHandler):
    def check_origin(self, origin: str) -> bool:
        return True

    def get_compression_options(self) -> dict[str, Any]:
        return {}

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return next((one for one in SUBPROTOCOLS if one in subprotocols), None)

    def prepare(self) -> None:
        if self.request.path == "/head":
            self.set_header("X-Padding", "x" * int(self.get_query_argument("bytes")))

    async def open(self, *_arguments: str) -> None:
        match self.request.path:
            case "/close":
                self.close(int(self.get_query_argument("code")), self.get_query_argument("reason", ""))
            case "/log":
                await self.write_message(await CLOSINGS.wait(self.get_query_argument("id")))
            case "/ping":
                self.ping(self.get_query_argument("payload").encode())

    async def on_message(self, message: str | bytes) -> None:
        await self.write_message(message, binary=isinstance(message, bytes))

    def on_pong(self, data: bytes) -> None:
        self.write_message("pong " + data.decode())

    def on_close(self) -> None:
        if connection := self.get_query_argument("id", ""):
            CLOSINGS.note(connection, self.close_code, self.close_reason)


async def start(context: ssl.SSLContext) -> tuple[int, int]:
    application = Application([(r"/.*", Connection)], websocket_max_message_size=MAX_SIZE)
    ports = []
    for one in (None, context):
        sockets = bind_sockets(0, "127.0.0.1")
        HTTPServer(application, ssl_options=one).add_sockets(sockets)
        ports.append(sockets[0].getsockname()[1])
    return ports[0], ports[1]


if __name__ == "__main__":
    main(start)
