"""A server over TLS that has encrypted everything before it sends: so it is never what a client waits for.

For one connection: it makes the TLS handshake and the upgrade, encrypts all its frames into memory, one record a message or
as many as fit into 16 KiB, and writes the bytes out. Prints its port at the start.
"""

from __future__ import annotations

import argparse
import socket
import ssl

from wsengine.testing.wire import accept_response, build_server_frame, parse_request

RECORD = 16384


def handshake(sock: socket.socket, context: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.MemoryBIO, bytes]:
    """TLS and the upgrade; what encrypts, where it puts the bytes, and what waits there."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)

    def drive(step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))

    drive(tls.do_handshake)
    received = b""
    while (parsed := parse_request(received)) is None:
        received += drive(lambda: tls.read(65536))
    tls.write(accept_response(parsed[0].header("Sec-WebSocket-Key"), [], []))
    return tls, outgoing, outgoing.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("certificate")
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--coalesce", type=int, default=1, help="1: as many frames as fit into a record; 0: one")
    options = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate)
    frame = build_server_frame(1, b"x" * options.size)
    many = RECORD // len(frame) if options.coalesce else 1
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        sock, _ = listener.accept()
    with sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls, outgoing, accepted = handshake(sock, context)
        for at in range(0, options.count, many):
            tls.write(frame * min(many, options.count - at))
        encrypted = outgoing.read()
        sock.sendall(accepted)
        sock.sendall(encrypted)
        sock.settimeout(60)
        while sock.recv(65536):
            pass


if __name__ == "__main__":
    main()
