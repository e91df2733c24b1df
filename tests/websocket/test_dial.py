"""Behaviour of `wsengine.websocket.dial` against real sockets: scripted servers in threads, no descriptor leaked.

The resolver alone is replaced where a test needs it slow or with certain answers: no real one can be told to be.
"""

import base64
import contextlib
import errno
import fcntl
import hashlib
import os
import re
import signal
import socket
import struct
import sys
import threading
import time

import psutil
import pytest

from wsengine.errors import (
    ConfigurationError,
    HeadersError,
    InvalidMessage,
    InvalidRedirect,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
    WebSocketException,
)
from wsengine.websocket import addresses
from wsengine.websocket.deadline import Cancellation, Cancelled, Deadline
from wsengine.websocket.dial import dial
from wsengine.websocket.socket_options import SocketOptions
from wsengine.websocket.uri import parse_uri
from wsengine.websocket.way import Way

FRAMES = b"\x81\x05hello\x82\x01\n"
SECRETS = [("Authorization", "Bearer s3cret"), ("Cookie", "id=s3cret")]


@pytest.fixture(autouse=True)
def no_descriptor_leaks():
    process = psutil.Process()
    before = process.num_fds()
    yield
    deadline = time.monotonic() + 3
    while process.num_fds() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # a look-up thread that outlives its dial closes its descriptor by itself
    assert process.num_fds() <= before


class Server:
    """Accepts connections one after the other and runs a script, `script(connection, request)`, on each."""

    def __init__(self, script, *, receive_buffer=None):
        self.script = script
        self.requests = []
        self.errors = []
        self.accepted = 0
        self.released = threading.Event()  # set when the test is over: scripts that hold a connection wait for it
        self.listener = socket.socket()
        if receive_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.port = self.listener.getsockname()[1]
        self.uri = parse_uri(f"ws://127.0.0.1:{self.port}/feed?token=s3cret")
        self.thread = threading.Thread(target=self.serve)

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            with connection:
                try:
                    self.script(self, connection)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client went first, as many of these tests want it to
                except Exception as error:
                    self.errors.append(error)

    def request(self, connection):
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            part = connection.recv(65536)
            if not part:
                raise ConnectionResetError
            data += part
        self.requests.append(data)
        return data

    def hold(self):
        self.released.wait(20)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)
        self.listener.close()
        assert not self.thread.is_alive()
        assert self.errors == []


def accepting_head(request, *extra):
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", request)[1]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return b"\r\n".join([b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade",
                         b"Sec-WebSocket-Accept: " + accept, *extra, b"", b""])


def accept_then(data=b"", *extra):
    def script(server, connection):
        connection.sendall(accepting_head(server.request(connection), *extra) + data)
        server.hold()
    return script


def reply(data):
    def script(server, connection):
        server.request(connection)
        connection.sendall(data)
    return script


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextlib.contextmanager
def unused_port():
    """Yield a port of 127.0.0.1 on which nobody listens, and which stays ours."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextlib.contextmanager
def silent_port():
    """Yield a port whose accept queue is full: the kernel drops every further SYN, as a dead host would."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        time.sleep(0.05)
        yield listener.getsockname()[1]


def resolver(monkeypatch, *ports, before=lambda: None):
    """Make the resolver answer with 127.0.0.1 at each of the ports."""
    def answer(host, port, family=0, type=0, flags=0):
        before()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", one)) for one in ports]
    monkeypatch.setattr(socket, "getaddrinfo", answer)


def within(seconds, kind, call, *, at_least=0.0):
    """Run the call, which must raise `kind` in the given time; return the error."""
    start = time.monotonic()
    with pytest.raises(kind) as caught:
        call()
    assert at_least <= time.monotonic() - start < seconds
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(caught.value)
    return caught.value


# Success

def test_a_dial_hands_over_a_socket_ready_for_the_engine():
    with Server(accept_then(FRAMES, b"Sec-WebSocket-Protocol: v1", b"X-Node: 7")) as server:
        dialed = dial(server.uri, headers=SECRETS, origin="https://me.example", subprotocols=["v1"])
        with dialed.sock as sock:
            assert (dialed.subprotocol, dialed.response.status_code) == ("v1", 101)
            assert dialed.response.header("X-Node") == "7"
            received = dialed.leftover
            while len(received) < len(FRAMES):
                with contextlib.suppress(BlockingIOError):
                    received += sock.recv(100)
            assert received == FRAMES
            assert dialed.local_address == sock.getsockname()
            assert dialed.remote_address == sock.getpeername() == ("127.0.0.1", server.port)
            assert sock.getblocking() is False
            assert fcntl.fcntl(sock.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert set(dialed.timings) == {"dns", "tcp", "proxy", "tls", "upgrade", "total"}
            assert (dialed.layer, dialed.tls_path, dialed.tls_reason) == (sock, None, None)
            assert dialed.timings["dns"] == 0
            assert 0 < dialed.timings["tcp"] + dialed.timings["upgrade"] <= dialed.timings["total"] < 5
        assert "s3cret" not in repr(dialed)
        assert b"Origin: https://me.example\r\n" in server.requests[0]
        assert b"GET /feed?token=s3cret HTTP/1.1\r\n" in server.requests[0]


def test_a_host_name_is_looked_up_in_a_daemon_thread(monkeypatch):
    real, threads = socket.getaddrinfo, []
    monkeypatch.setattr(socket, "getaddrinfo",
                        lambda *args, **named: threads.append(threading.current_thread()) or real(*args, **named))
    with Server(accept_then()) as server:
        dialed = dial(parse_uri(f"ws://localhost:{server.port}/"))
        dialed.sock.close()
    assert dialed.timings["dns"] > 0
    assert [(thread.name, thread.daemon) for thread in threads] == [("wsengine:dns", True)]


def test_an_ip_address_starts_no_thread(monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", lambda thread: pytest.fail("a thread was started"))
    with unused_port() as port:
        within(1, ConnectionRefusedError, lambda: dial(parse_uri(f"ws://127.0.0.1:{port}/")))


def test_frames_behind_the_101_survive_every_split_of_the_bytes():
    cuts = iter(range(0, 1000, 7))

    def script(server, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = accepting_head(server.request(connection)) + FRAMES
        cut = min(next(cuts), len(data))
        connection.sendall(data[:cut])
        time.sleep(0.002)
        connection.sendall(data[cut:])

    with Server(script) as server:
        for _ in range(22):
            dialed = dial(server.uri)
            with dialed.sock as sock:
                sock.settimeout(5)
                received = dialed.leftover
                while len(received) < len(FRAMES):
                    received += sock.recv(100)
            assert received == FRAMES


def test_a_response_that_comes_byte_by_byte_is_accepted():
    def script(server, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in accepting_head(server.request(connection)):
            connection.sendall(bytes([byte]))
        server.hold()

    with Server(script) as server:
        dial(server.uri).sock.close()


def test_a_callable_gives_new_headers_at_each_dial():
    tokens = iter("ab")
    with Server(reply(b"HTTP/1.1 503 Busy\r\n\r\n")) as server:
        for _ in range(2):
            within(5, InvalidStatus, lambda: dial(server.uri, headers=lambda: {"X-Token": next(tokens)}))
        assert [b"X-Token: a\r\n" in server.requests[0], b"X-Token: b\r\n" in server.requests[1]] == [True, True]


def test_socket_options_reach_the_kernel():
    options = SocketOptions(keepalive_idle=11, keepalive_interval=3, keepalive_count=4, nodelay=False,
                            receive_buffer=65536, **({"user_timeout": 2.5} if sys.platform == "linux" else {}))
    with Server(accept_then()) as server, dial(server.uri, Way(server.uri, socket_options=options)).sock as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 3
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4
        assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) in (65536, 131072)
        if sys.platform == "linux":
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 11
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2500
    with Server(accept_then()) as server, dial(server.uri).sock as sock:
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


# Answers that are no upgrade (conformance item 19)

@pytest.mark.parametrize(("data", "kind", "text"), [
    (b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: 4\r\n\r\nlater", InvalidStatus, "HTTP 503 Busy"),
    (b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nSet-Cookie: s3cret\r\n\r\n", InvalidStatus, "HTTP 401"),
    (b"HTTP/1.1 302 Found\r\nLocation: ftp://elsewhere/?s3cret\r\n\r\n", InvalidRedirect, "HTTP 302"),
    (b"HTTP/1.1 200 OK\r\n\r\n<html>", InvalidStatus, "HTTP 200"),
    (b"SSH-2.0-OpenSSH_9.6\r\n", InvalidMessage, "not HTTP"),
    (b"HTTP/1.1 101 X\r\nno header\r\n", InvalidMessage, "header line 1"),
    (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, InvalidMessage, "larger than 65536"),
    (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
     b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", InvalidUpgrade, "does not answer our key"),
    (b"HTTP/1.1 101 X\r\n\r\n", InvalidUpgrade, "Upgrade"),
    (b"", InvalidMessage, "without answering"),
    (b"HTTP/1.1 101 Switch", InvalidMessage, "after 19 bytes"),
    (b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\n", InvalidMessage, "after 36 bytes"),
])
def test_an_answer_that_is_no_upgrade_is_a_defined_error(data, kind, text):
    with Server(reply(data)) as server:
        error = within(5, kind, lambda: dial(server.uri, headers=SECRETS))
        assert text in str(error)
        assert server.accepted == 1


def test_a_503_carries_its_retry_after_and_body():
    with Server(reply(b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\n\r\nlater")) as server:
        error = within(5, InvalidStatus, lambda: dial(server.uri))
        assert (error.response.retry_after, error.response.body) == (9, b"later")


def test_an_extension_that_was_not_offered_is_refused():
    with Server(accept_then(b"", b"Sec-WebSocket-Extensions: permessage-deflate")) as server:
        assert "permessage-deflate" in str(within(5, NegotiationError, lambda: dial(server.uri)))


@pytest.mark.parametrize("sent", [None, b"", b"HTTP/1.1 101 Switching Protocols\r\nUpg"])
def test_a_reset_keeps_its_cause_and_names_the_peer(sent):
    def script(server, connection):
        if sent is not None:
            server.request(connection)
            connection.sendall(sent)
        reset(connection)

    with Server(script) as server:
        error = within(5, (ConnectionResetError, BrokenPipeError), lambda: dial(server.uri, headers=SECRETS))
        assert f"127.0.0.1:{server.port}" in str(error)
        assert error.errno in (errno.ECONNRESET, errno.EPIPE)


def test_end_of_file_right_after_the_connect_is_a_defined_error():
    def script(server, connection):
        connection.shutdown(socket.SHUT_WR)
        server.request(connection)

    with Server(script) as server:
        within(5, InvalidMessage, lambda: dial(server.uri))


def refuse_unread(server, connection):
    """Refuse as soon as the request begins, and go with the rest of it unread: the client's next send fails."""
    connection.recv(1000)
    connection.sendall(b"HTTP/1.1 431 Too Large\r\nContent-Length: 8\r\n\r\nno, less")


def test_an_early_refusal_is_told_and_not_that_the_rest_of_the_request_could_not_be_sent():
    with Server(refuse_unread) as server:
        for _ in range(5):
            error = within(5, InvalidStatus, lambda: dial(server.uri, headers=LARGE))
            assert (error.response.status_code, error.response.body) == (431, b"no, less")


# The deadline, in each phase

def slow_drip(server, connection):
    head = accepting_head(server.request(connection))
    for byte in head:
        connection.sendall(bytes([byte]))
        if server.released.wait(0.05):
            return


def silence(server, connection):
    server.request(connection)
    server.hold()


@pytest.mark.parametrize("script", [silence, slow_drip])
def test_the_deadline_bounds_the_wait_for_the_response(script):
    with Server(script) as server:
        error = within(1.5, TimeoutError, lambda: dial(server.uri, headers=SECRETS, open_timeout=0.4), at_least=0.4)
        assert str(error) == ("timed out during the wait for the upgrade response "
                              f"to 127.0.0.1:{server.port} after 0.4 s (open_timeout=0.4)")


def test_the_deadline_bounds_an_endless_row_of_informational_responses():
    def script(server, connection):
        server.request(connection)
        while not server.released.wait(0.02):
            connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")

    with Server(script) as server:
        within(1.5, TimeoutError, lambda: dial(server.uri, open_timeout=0.3), at_least=0.3)


LARGE = {"X-Large": "x" * 6_000_000}  # more than the buffers of both kernels take


def unread(server, connection):
    server.hold()


def test_the_deadline_bounds_the_sending_of_the_request():
    with Server(unread, receive_buffer=4096) as server:
        error = within(5, TimeoutError, lambda: dial(server.uri, headers=LARGE, open_timeout=1.5), at_least=1.5)
        assert "sending" in str(error)


def test_a_request_larger_than_the_buffers_is_sent_in_full():
    with Server(accept_then()) as server:
        dial(server.uri, headers=LARGE).sock.close()
        assert len(server.requests[0]) > 6_000_000


def test_the_deadline_bounds_the_connect():
    with silent_port() as port:
        uri = parse_uri(f"ws://127.0.0.1:{port}/?s3cret")
        error = within(1.5, TimeoutError, lambda: dial(uri, open_timeout=0.3), at_least=0.3)
        assert "timed out during the TCP connect" in str(error)


def test_the_deadline_bounds_the_look_up(monkeypatch):
    release = threading.Event()
    resolver(monkeypatch, 1, before=lambda: release.wait(10))
    uri = parse_uri("ws://hanging.example/?s3cret")
    error = within(1.5, TimeoutError, lambda: dial(uri, open_timeout=0.3), at_least=0.3)
    assert "the DNS lookup to hanging.example:80" in str(error)
    release.set()  # the thread's late answer finds nobody, and no descriptor is left: see the fixture


def dns_threads():
    return [one for one in threading.enumerate() if one.name == "wsengine:dns"]


def test_attempts_that_time_out_join_the_look_up_that_hangs_instead_of_beginning_another(monkeypatch):
    release, asked, outcomes = threading.Event(), [], []
    before = {*dns_threads()}
    with Server(reply(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")) as server:
        resolver(monkeypatch, server.port, before=lambda: asked.append(1) or release.wait(20))
        uri = parse_uri("ws://joined.example/")

        def work():
            try:
                dial(uri, open_timeout=20)
            except InvalidStatus as error:
                outcomes.append(error)

        descriptors = psutil.Process().num_fds()
        for _ in range(10):
            with pytest.raises(TimeoutError, match="the DNS lookup"):
                dial(uri, open_timeout=0.02)
        assert len(asked) == len({*dns_threads()} - before) == 1
        assert psutil.Process().num_fds() == descriptors
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 10
        while len(addresses._pending[("joined.example", 80, 0)].waiting) < 3 and time.monotonic() < end:
            time.sleep(0.01)
        release.set()
        for thread in threads:
            thread.join(20)
    assert (len(outcomes), len(asked)) == (3, 1)
    assert ("joined.example", 80, 0) not in addresses._pending


def test_an_error_of_a_look_up_reaches_everybody_who_waits_for_it(monkeypatch):
    release = threading.Event()

    def answer(*_, **__):
        release.wait(20)
        raise socket.gaierror(-2, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    errors = []

    def work():
        try:
            dial(parse_uri("ws://unknown.example/"))
        except socket.gaierror as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    release.set()
    for thread in threads:
        thread.join(20)
    assert [str(error) for error in errors] == ["[Errno -2] cannot look up unknown.example:80: unknown"] * 4
    assert len({*map(id, errors)}) == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_forked_child_does_not_wait_for_a_look_up_of_its_parent(child):
    script = child("""
        import socket
        from wsengine.websocket.dial import dial
        from wsengine.websocket.uri import parse_uri

        real, release = socket.getaddrinfo, threading.Event()
        socket.getaddrinfo = lambda *_, **__: release.wait()
        def attempt():
            try:
                dial(parse_uri("ws://localhost:1/"), open_timeout=5)
            except Exception as error:
                return type(error).__name__
        thread = threading.Thread(target=attempt)
        thread.start()
        while not any(one.name == "wsengine:dns" for one in threading.enumerate()):
            time.sleep(0.01)
        pid = os.fork()
        if pid == 0:
            socket.getaddrinfo = real
            say(attempt())
            os._exit(0)
        os.waitpid(pid, 0)
        os._exit(0)
    """)
    assert script.line() == "ConnectionRefusedError"


def test_the_time_of_the_headers_callable_counts():
    def slow():
        time.sleep(0.2)
        return SECRETS

    with unused_port() as port:
        uri = parse_uri(f"ws://127.0.0.1:{port}/")
        error = within(1, TimeoutError, lambda: dial(uri, headers=slow, open_timeout=0.1))
        assert "the headers callable" in str(error)


def test_one_deadline_covers_all_phases_together(monkeypatch):
    with Server(silence) as server:
        resolver(monkeypatch, server.port, before=lambda: time.sleep(0.3))
        uri = parse_uri("ws://slow.example/")
        within(0.9, TimeoutError, lambda: dial(uri, open_timeout=0.5), at_least=0.5)


def test_without_a_deadline_a_slow_answer_is_awaited():
    def script(server, connection):
        head = accepting_head(server.request(connection))
        time.sleep(0.3)
        connection.sendall(head)

    with Server(script) as server:
        dial(server.uri, open_timeout=None).sock.close()


# Addresses

def test_a_refused_connect_names_host_and_port():
    with unused_port() as port:
        uri = parse_uri(f"ws://user:s3cret@127.0.0.1:{port}/?s3cret")
        error = within(1, ConnectionRefusedError, lambda: dial(uri))
        assert error.errno == errno.ECONNREFUSED
        assert f"cannot connect to 127.0.0.1:{port} (127.0.0.1: Connection refused)" in str(error)
        assert isinstance(error.__cause__, ConnectionRefusedError)


def test_a_dead_address_gives_way_to_a_live_one(monkeypatch):
    with unused_port() as dead, Server(accept_then()) as server:
        resolver(monkeypatch, dead, server.port)
        dialed = dial(parse_uri("ws://two.example/"))
        dialed.sock.close()
        assert dialed.remote_address == ("127.0.0.1", server.port)


def test_when_every_address_fails_each_is_named(monkeypatch):
    with unused_port() as dead, unused_port() as other:
        resolver(monkeypatch, dead, other)
        error = within(2, ConnectionRefusedError, lambda: dial(parse_uri("ws://two.example/")))
        assert "two.example:80 (127.0.0.1: Connection refused; 127.0.0.1: Connection refused)" in str(error)


def test_a_time_out_names_the_addresses_that_failed_before(monkeypatch):
    with silent_port() as silent, unused_port() as dead:
        resolver(monkeypatch, dead, silent)
        error = within(2, TimeoutError, lambda: dial(parse_uri("ws://two.example/"), open_timeout=0.3))
        assert "before: 127.0.0.1: Connection refused" in str(error)


def test_an_unknown_host_is_a_gaierror_that_names_it():
    # .invalid never resolves (RFC 2606); a machine without a network answers with another errno.
    error = within(10, socket.gaierror, lambda: dial(parse_uri("ws://nowhere.invalid/?s3cret")))
    assert "cannot look up nowhere.invalid:80" in str(error)
    assert isinstance(error.errno, int)


def test_a_thread_that_cannot_be_started_is_a_network_error(monkeypatch):
    def exhausted(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", exhausted)
    assert within(1, OSError, lambda: dial(parse_uri("ws://some.example/"))).errno == errno.EAGAIN


def test_a_dial_that_meets_itself_is_a_refusal(monkeypatch):
    # The kernel may choose the target as source port; here it is made to.
    plain = socket.socket.connect_ex

    def bound_to_its_target(sock, address):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        return plain(sock, address)

    with unused_port() as port:
        pass
    monkeypatch.setattr(socket.socket, "connect_ex", bound_to_its_target)
    error = within(2, ConnectionRefusedError, lambda: dial(parse_uri(f"ws://127.0.0.1:{port}/")))
    assert "itself" in str(error)


# Cancellation, in each phase

def cancelled_within_50_ms(uri, server=None, **options):
    """Dial in a thread, cancel 0.2 s after the server (if there is one) has accepted it; return the error as text."""
    outcome = []
    with Cancellation() as cancellation:
        def work():
            try:
                dial(uri, cancellation=cancellation, **options)
            except BaseException as error:
                outcome.append((time.monotonic(), error))

        thread = threading.Thread(target=work)
        thread.start()
        while server is not None and not server.accepted:
            thread.join(0.01)
        thread.join(0.2)
        assert thread.is_alive()
        start = time.monotonic()
        cancellation.cancel()
        thread.join(5)
    ended, error = outcome[0]
    assert isinstance(error, Cancelled)
    assert not isinstance(error, (WebSocketException, OSError))
    assert ended - start < 0.05
    return str(error)


def test_cancelling_ends_the_wait_for_the_response():
    with Server(silence) as server:
        assert "response" in cancelled_within_50_ms(server.uri, server)


def test_cancelling_ends_the_sending():
    with Server(unread, receive_buffer=4096) as server:
        assert "sending" in cancelled_within_50_ms(server.uri, server, headers=LARGE)


def test_cancelling_ends_the_connect():
    with silent_port() as port:
        assert "TCP connect" in cancelled_within_50_ms(parse_uri(f"ws://127.0.0.1:{port}/"), open_timeout=None)


def test_cancelling_ends_the_look_up(monkeypatch):
    release = threading.Event()
    resolver(monkeypatch, 1, before=lambda: release.wait(10))
    assert "DNS" in cancelled_within_50_ms(parse_uri("ws://cancelled.example/"))
    release.set()


def test_a_cancelled_dial_never_begins():
    with Server(silence) as server, Cancellation() as cancellation:
        cancellation.cancel()
        within(1, Cancelled, lambda: dial(server.uri, cancellation=cancellation))
        within(1, Cancelled, lambda: dial(server.uri, cancellation=cancellation))
        assert server.accepted == 0


def test_one_cancellation_ends_many_dials():
    ended = []
    with Server(silence) as server, Cancellation() as cancellation:
        def work():
            with contextlib.suppress(Cancelled):
                dial(server.uri, cancellation=cancellation)
            ended.append(1)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        cancellation.cancel()
        for thread in threads:
            thread.join(2)
    assert ended == [1] * 4


def test_a_cancellation_is_one_shot_and_idempotent():
    cancellation = Cancellation()
    assert not cancellation.cancelled
    assert cancellation.fileno() >= 0
    cancellation.cancel()
    cancellation.cancel()
    assert cancellation.cancelled
    cancellation.close()
    cancellation.close()
    cancellation.cancel()
    with pytest.raises(ValueError, match="closed"):
        cancellation.fileno()
    late = Cancellation()
    late.close()
    late.cancel()
    assert late.cancelled


def test_an_interrupt_closes_the_socket():
    class Interrupt(BaseException):
        pass

    def interrupt(*_):
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Server(silence) as server:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            within(2, Interrupt, lambda: dial(server.uri))
    finally:
        signal.signal(signal.SIGALRM, before)


# Options

@pytest.mark.parametrize(("options", "path"), [
    ({"open_timeout": 0}, "open_timeout"), ({"open_timeout": "5"}, "open_timeout"),
    ({"subprotocols": "v1"}, "subprotocols"),
    ({"headers": {"X": 1}}, "headers['X']"),
])
def test_a_wrong_option_is_refused_before_anything_is_sent(options, path):
    with Server(silence) as server:
        assert within(1, ConfigurationError, lambda: dial(server.uri, **options)).path == path
        assert server.accepted == 0


def test_a_failing_headers_callable_opens_no_socket():
    with Server(silence) as server:
        within(1, HeadersError, lambda: dial(server.uri, headers=lambda: 1 / 0))
        assert server.accepted == 0


@pytest.mark.parametrize(("name", "value"), [
    ("keepalive_idle", 0), ("keepalive_idle", 1.5), ("keepalive_interval", 40_000), ("keepalive_count", 128),
    ("user_timeout", 0), ("nodelay", 1), ("receive_buffer", 0), ("no_delay", True),
])
def test_a_wrong_socket_option_is_named_with_its_path(name, value):
    with pytest.raises(ConfigurationError) as caught:
        SocketOptions(**{name: value})
    assert caught.value.path == f"socket_options.{name}"


def test_an_option_the_platform_lacks_is_refused(monkeypatch):
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT", raising=False)
    with pytest.raises(ConfigurationError, match="platform"):
        SocketOptions(user_timeout=1)


def test_a_deadline_counts_down_to_zero_and_stays():
    deadline = Deadline(0.05)
    assert 0 < deadline.remaining() <= 0.05
    assert 0 < deadline.share(2).remaining() <= 0.025
    assert deadline.share(1) is deadline
    assert not deadline.expired
    time.sleep(0.06)
    assert deadline.expired
    assert deadline.remaining() == 0
    assert deadline.elapsed >= 0.06


def test_no_deadline_never_expires():
    deadline = Deadline(None)
    assert deadline.remaining() is None
    assert not deadline.expired
    assert deadline.share(3).remaining() is None


def test_descriptors_are_not_inherited_by_a_child():
    with Server(accept_then()) as server, Cancellation() as cancellation, dial(server.uri).sock as sock:
        for fd in (cancellation.fileno(), sock.fileno()):
            assert not os.get_inheritable(fd)
