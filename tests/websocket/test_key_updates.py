"""A server that asks for new TLS keys again and again and does not read our answers: what they cost, over both paths.

That keys which change are followed is tested with the layer (test_tls) and the engine (tests/engine/test_tls.py).
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import hashlib
import select
import socket
import ssl
import threading
import time

import pytest

import wsengine
from tests.waiting import until
from wsengine.engine import tls as engine_tls
from wsengine.testing import build_server_frame

pytestmark = pytest.mark.usefixtures("no_leaks")

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Asking(threading.Thread):
    """A server at one end of a socket pair: a message and a request for new keys, `count` times; it does not read until
    `reads` is set, and asks no more then."""

    def __init__(self, sock, context, count):
        super().__init__()
        self.sock, self.context, self.count = sock, context, count
        self.sent, self.over, self.reads = 0, threading.Event(), threading.Event()

    def run(self):
        with self.context.wrap_socket(self.sock, server_side=True) as tls:
            head = b""
            while b"\r\n\r\n" not in head:
                head += tls.recv(4096)
            [key] = [line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")]
            accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
            tls.sendall(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept
                        + b"\r\n\r\n")
            tls.setblocking(False)
            while self.sent < self.count and not self.over.is_set() and not self.reads.is_set():
                self.ask(tls)
            while not self.over.wait(0.002):
                if self.reads.is_set():
                    with contextlib.suppress(OSError):
                        tls.recv(65536)

    def ask(self, tls):
        """One message and one request, as far as the client takes them."""
        libssl = ctypes.PyDLL(engine_tls._ssl.__file__)
        place = ctypes.c_void_p.from_address(id(tls._sslobj) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p))
        pointer, message = ctypes.c_void_p(place.value), build_server_frame(2, b"m")
        for step in (lambda: tls.send(message), lambda: self.update(libssl, pointer, tls)):
            while not self.over.is_set() and not self.reads.is_set():
                try:
                    step()
                    break
                except (ssl.SSLWantWriteError, ssl.SSLWantReadError, BlockingIOError):
                    select.select([], [tls], [], 0.02)
                except OSError:                  # the client has gone
                    self.over.set()
        self.sent += 1

    @staticmethod
    def update(libssl, place, tls):
        libssl.SSL_key_update(place, 1)
        tls.do_handshake()


@pytest.fixture
def asked(certificates):
    """Connect to such a server: asked(count, **options of connect)."""
    servers = []

    def connect(count, **options):
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**22)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        files = certificates.server()
        context.load_cert_chain(files.certificate, files.key)
        server = Asking(theirs, context, count)
        servers.append(server)
        server.start()
        connection = wsengine.connect("wss://127.0.0.1/", sock=ours, proxy=None, keepalive=None, ws_timeout=None,
                                      close_timeout=0.5, **options)
        return server, connection

    yield connect
    for server in servers:
        server.over.set()
        server.join(10)


def reader_seconds():
    """CPU time of the reader that all connections share, so far."""
    [thread] = [one for one in threading.enumerate() if one.name == "wsengine:connect:reader"]
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def test_a_full_queue_and_answers_that_nobody_takes_cost_no_cpu(asked, certificates):
    if reason := engine_tls.why_not(ssl.create_default_context()):
        pytest.skip(f"no path A here: {reason}")
    server, connection = asked(20_000, ssl=certificates.context(), max_queue=65536)
    with connection:
        settled = []
        until(lambda: settled.append(connection.counts()["messages"]) or settled[-50:].count(settled[-1]) == 50, 60)
        stuck = settled[-1]
    assert 2 < stuck < 20_000, "the answers had room"
    for room in (stuck - 1, stuck - 2, stuck - 5):
        server, connection = asked(20_000, ssl=certificates.context(), max_queue=room)
        with connection:
            until(lambda connection=connection: connection.paused)
            server.reads.set()                   # so that the socket would take the answer
            before = reader_seconds()
            time.sleep(0.5)
            assert reader_seconds() - before < 0.25
            server.over.set()


def test_over_path_b_answers_that_nobody_takes_are_bounded(asked, certificates):
    context = certificates.context()
    context._msg_callback = lambda *_: None          # a reason for a layer between memory buffers
    server, connection = asked(60_000, ssl=context, max_queue=65536)
    with connection:
        assert connection.tls_path == "B"
        layer = connection._pump._layer
        settled = []
        until(lambda: settled.append(server.sent) or settled[-100:].count(settled[-1]) == 100, 60)
        assert server.sent < 60_000, "the server is not held back"
        assert layer._outgoing.pending < 2**18
        server.over.set()
