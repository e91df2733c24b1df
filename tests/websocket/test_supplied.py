"""`sock=` and `unix=`: connections that need no look-up, in a dial and through a pipeline."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

import pytest

from wsengine import Backoff, ConfigurationError, InvalidRedirect, InvalidStatus, RetriesExhausted, WebSocketProducer
from wsengine.testing import Collector, ScriptedServer, build_server_frame, steps
from wsengine.testing.wire import accept_response, parse_request
from wsengine.websocket.dial import dial
from wsengine.websocket.uri import parse_uri
from wsengine.websocket.way import Way

pytestmark = pytest.mark.usefixtures("no_leaks")

URI = parse_uri("ws://feed.example/feed")
QUICK = Backoff(0.02, factor=1, jitter="none")


def connected(server):
    return socket.create_connection(("127.0.0.1", server.port))


@contextlib.contextmanager
def unix_server(path, frames=b""):
    """Accepts upgrades on a Unix socket until it is left; yields the requests."""
    requests, sockets = [], []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def work():
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                sockets.append(sock)
                request, _ = parse_request(sock.recv(65536))
                requests.append(request)
                sock.sendall(accept_response(request.header("Sec-WebSocket-Key")) + frames)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield requests
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        for sock in [listener, *sockets]:
            sock.close()


def test_a_connected_socket_is_used_and_nothing_is_looked_up(monkeypatch):
    with ScriptedServer([[steps.accept(), steps.serve()]]) as server:
        sock = connected(server)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("something was looked up"))
        dialed = dial(URI, Way(URI, sock=sock))
        with dialed.sock:
            assert dialed.sock is sock
            assert sock.getblocking() is False
            assert dialed.remote_address == ("127.0.0.1", server.port)
        assert server.connections[0].header("Host") == "feed.example"


def test_tls_goes_over_a_connected_socket(certificates):
    uri = parse_uri("wss://feed.example/")
    with ScriptedServer([[steps.accept(), steps.serve()]], tls=certificates.server("feed.example")) as server:
        dialed = dial(uri, Way(uri, sock=connected(server), ssl=certificates.context()))
        dialed.layer.close()
        assert server.connections[0].tls["server_name"] == "feed.example"


def test_a_socket_that_failed_is_closed():
    with ScriptedServer([[steps.respond(503)]]) as server:
        sock = connected(server)
        with pytest.raises(InvalidStatus):
            dial(URI, Way(URI, sock=sock))
        assert sock.fileno() == -1


def test_a_redirect_is_not_followed_over_a_socket_of_the_users():
    with ScriptedServer([[steps.respond(302, [("Location", "/elsewhere")])]]) as server:
        with pytest.raises(InvalidStatus) as caught:
            dial(URI, Way(URI, sock=connected(server)))
        assert type(caught.value) is InvalidStatus


def respond_over(path, *answers):
    """A server on a Unix socket that gives each connection one answer: its thread, and what it was asked."""
    asked = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    listener.settimeout(20)

    def work():
        with listener, contextlib.suppress(TimeoutError):
            for answer in answers:
                sock, _ = listener.accept()
                with sock:
                    asked.append(sock.recv(65536))
                    sock.sendall(answer)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, asked


NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def redirect(location):
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


def test_a_redirect_within_the_origin_is_followed_over_a_unix_socket(tmp_path):
    thread, asked = respond_over(str(tmp_path / "s"), redirect("/elsewhere"), NOT_FOUND)
    with pytest.raises(InvalidStatus, match="404"):
        dial(URI, Way(URI, unix=tmp_path / "s"), headers={"X-Api-Key": "mine"})
    thread.join(10)
    assert asked[1].startswith(b"GET /elsewhere HTTP/1.1\r\n")
    assert b"X-Api-Key: mine\r\n" in asked[1]


def test_a_redirect_to_another_origin_is_not_followed_over_a_unix_socket(tmp_path):
    thread, asked = respond_over(str(tmp_path / "s"), redirect("ws://other.example/?s3cret"))
    with pytest.raises(InvalidRedirect, match="one server behind it") as caught:
        dial(URI, Way(URI, unix=tmp_path / "s"))
    thread.join(10)
    assert len(asked) == 1
    assert "s3cret" not in str(caught.value)


def test_a_pipeline_with_one_socket_makes_one_connection():
    with ScriptedServer([[steps.accept(), steps.text("x"), steps.cut()]]) as server:
        one = WebSocketProducer(URI.url, sock=connected(server), retry=QUICK)
        pipeline = Collector(one)
        pipeline.start()
        result = pipeline.join(10)
        assert [message.data for message in pipeline.received] == [b"x"]
        assert isinstance(result.error, RetriesExhausted)
        assert result.error.fatal
        assert len(server.connections) == 1


def test_a_callable_gives_a_socket_for_each_attempt():
    scripts = [[steps.respond(503)], [steps.accept(), steps.cut()], [steps.accept(), steps.text("x"), steps.serve()]]
    asked = []
    with ScriptedServer(scripts) as server:
        def give():
            asked.append(threading.current_thread().name)
            if len(asked) == 1:
                raise ConnectionRefusedError("the tunnel is not there yet")
            return connected(server)

        with Collector(WebSocketProducer(URI.url, sock=give, retry=QUICK)) as pipeline:
            pipeline.wait(1)
        assert len(server.connections) == 3
    assert len(asked) == 4
    assert all(":dialer_" in name for name in asked)


@pytest.mark.parametrize("wrong", [lambda: None, lambda: 1 / 0, lambda: socket.socket()])
def test_a_callable_that_is_wrong_ends_the_connection(wrong):
    pipeline = Collector(WebSocketProducer(URI.url, sock=wrong, retry=QUICK))
    pipeline.start()
    result = pipeline.join(10)
    assert isinstance(result.error.last, ConfigurationError)
    assert result.error.last.path == "producer.sock"


def test_wrong_sockets_are_named():
    with socket.socket() as unconnected, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        with ssl.create_default_context().wrap_socket(socket.socket(), server_hostname="x") as tls:
            wrong = ((unconnected, "is connected"), (datagram, "SOCK_STREAM"), (tls, "below the TLS"), (5, "give"))
            for value, remedy in wrong:
                with pytest.raises(ConfigurationError, match=remedy) as caught:
                    WebSocketProducer(URI.url, sock=value)
                assert caught.value.path == "producer.sock"


def test_contradictions_are_refused():
    with ScriptedServer([[steps.accept()]]) as server, connected(server) as sock:
        with pytest.raises(ConfigurationError, match="not both"):
            WebSocketProducer(URI.url, sock=sock, unix="/tmp/x")
        with pytest.raises(ConfigurationError, match="one socket serves one connection"):
            WebSocketProducer(URI.url, sock=sock, concurrency=2)


def test_credentials_go_over_a_socket_of_this_machine():
    with ScriptedServer([[steps.accept(), steps.serve()]]) as server:
        dial(URI, Way(URI, sock=connected(server)), headers={"Cookie": "a=b"}).sock.close()
        assert server.connections[0].header("Cookie") == "a=b"


def test_a_pipeline_over_a_unix_socket_gets_its_messages_and_sends_its_credentials(tmp_path):
    path = tmp_path / "s"
    with unix_server(str(path), build_server_frame(1, b"hello")) as requests:
        one = WebSocketProducer("ws://user:pass@feed.example/feed?a=1", unix=path)
        with Collector(one) as pipeline:
            pipeline.wait(1)
            assert one.connections[0].remote_address == str(path)
        assert [message.data for message in pipeline.received] == [b"hello"]
    [request] = requests
    assert request.line == "GET /feed?a=1 HTTP/1.1"
    assert request.header("Host") == "feed.example"
    assert request.header("Authorization") is not None


def test_a_unix_socket_that_is_not_there_is_told_by_its_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        dial(URI, Way(URI, unix=str(tmp_path / "none")))
