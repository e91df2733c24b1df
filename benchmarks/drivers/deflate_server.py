"""A server that has compressed everything before it sends: so it is never what a client waits for.

For one connection: it compresses a recorded feed, over and over with the context taken over, into memory, accepts the
upgrade with permessage-deflate, and writes the bytes out. Prints its port, and how many payload bytes there are.
"""

from __future__ import annotations

import argparse
import socket
from itertools import cycle, islice

from wsengine.testing import load_recording
from wsengine.testing.wire import ServerDeflate, accept_response, build_server_frame, parse_request

EXTENSION = ("Sec-WebSocket-Extensions", "permessage-deflate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording")
    parser.add_argument("--count", type=int, default=200_000)
    options = parser.parse_args()
    deflate, size, frames = ServerDeflate(takeover=True), 0, []
    for payload in islice(cycle(load_recording(options.recording).payloads), options.count):
        frames.append(build_server_frame(1, deflate.compress(payload), rsv=4))
        size += len(payload)
    image = b"".join(frames)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], size, len(image), flush=True)
        sock, _ = listener.accept()
    with sock:
        received = b""
        while (parsed := parse_request(received)) is None:
            received += sock.recv(65536)
        sock.sendall(accept_response(parsed[0].header("Sec-WebSocket-Key"), [list(EXTENSION)], []))
        sock.sendall(image)
        sock.settimeout(60)
        while sock.recv(65536):
            pass


if __name__ == "__main__":
    main()
