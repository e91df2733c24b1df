"""A server that takes what a client sends, looks at nothing, and is therefore hardly ever what a client waits for.

For one connection: it accepts the upgrade and reads until the client ends. Prints its port at the start.
"""

from __future__ import annotations

import contextlib
import socket

from wsengine.testing.wire import accept_response, parse_request

BUFFER = 1 << 20


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        sock, _ = listener.accept()
    with sock:
        received = b""
        while (parsed := parse_request(received)) is None:
            received += sock.recv(65536)
        sock.sendall(accept_response(parsed[0].header("Sec-WebSocket-Key"), [], []))
        taken = bytearray(BUFFER)
        with contextlib.suppress(ConnectionResetError):  # a measured client ends by ending its process
            while sock.recv_into(taken):
                pass


if __name__ == "__main__":
    main()
