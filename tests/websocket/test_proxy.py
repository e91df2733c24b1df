"""Proxies: tinyproxy and Dante as they are installed, scripted ones for what those never do, and which one is chosen."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest

from wsengine import Backoff, ConfigurationError, InvalidStatus, ProxyError, RetriesExhausted, WebSocketProducer
from wsengine.engine import tls as engine_tls
from wsengine.testing import Collector, ScriptedServer, build_server_frame, steps
from wsengine.websocket.deadline import Cancellation, Cancelled
from wsengine.websocket.dial import dial
from wsengine.websocket.proxies_environment import environment_proxy
from wsengine.websocket.proxy import Proxy, Tunnel, parse_proxy
from wsengine.websocket.uri import parse_uri
from wsengine.websocket.way import Way

pytestmark = pytest.mark.usefixtures("no_leaks")

HELLO = build_server_frame(1, b"hello")
TINYPROXY = shutil.which("tinyproxy")
DANTED = shutil.which("danted", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or shutil.which("sockd")


def reach(url, proxy, context=None, **options):
    way = {name: options.pop(name) for name in ("proxy_ssl", "allow_plaintext_credentials") if name in options}
    uri = parse_uri(url)
    return dial(uri, Way(uri, proxy=proxy, ssl=context, **way), **options)


def read(dialed, size):
    data, end = dialed.leftover, time.monotonic() + 10
    while len(data) < size and time.monotonic() < end:
        try:
            data += dialed.layer.recv(65536)
        except (ssl.SSLWantReadError, BlockingIOError):
            time.sleep(0.005)
    return data


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def program(port, *command):
    """A program that listens on the port, as a process of its own."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20
        while True:
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            assert time.monotonic() < end, f"{command[0]} does not listen"
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def tinyproxy(folder, *lines):
    if TINYPROXY is None:
        pytest.skip("tinyproxy is not installed")
    port = free_port()
    config = folder / "tinyproxy.conf"
    config.write_text("\n".join([f"Port {port}", "Listen 127.0.0.1", "Timeout 60", "Allow 127.0.0.1",
                                 f'LogFile "{folder}/tinyproxy.log"', f'PidFile "{folder}/tinyproxy.pid"', *lines, ""]))
    with program(port, TINYPROXY, "-d", "-c", str(config)):
        yield port


@contextlib.contextmanager
def dante(folder, rule="pass"):
    if DANTED is None:
        pytest.skip("Dante is not installed")
    port = free_port()
    config = folder / "danted.conf"
    config.write_text(f"""logoutput: {folder}/danted.log
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
clientmethod: none
socksmethod: none
user.privileged: root
user.notprivileged: nobody
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks {rule} {{ from: 0.0.0.0/0 to: 0.0.0.0/0 log: error connect }}
""" if os.getuid() == 0 else f"""logoutput: {folder}/danted.log
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
clientmethod: none
socksmethod: none
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks {rule} {{ from: 0.0.0.0/0 to: 0.0.0.0/0 log: error connect }}
""")
    with program(port, DANTED, "-f", str(config), "-p", str(folder / "danted.pid")):
        yield port


@contextlib.contextmanager
def serving(certificates, secure):
    """A server that accepts and says hello, its URL, and the context for it."""
    tls = certificates.server() if secure else None
    with ScriptedServer([[steps.accept(glued=HELLO), steps.serve()]], tls=tls) as server:
        url = f"{'wss' if secure else 'ws'}://localhost:{server.port}/feed"
        yield server, url, certificates.context() if secure else None


# ----------------------------------------------------------------------------------------------------------- real proxies


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_tinyproxy_connects_us(certificates, tmp_path, secure):
    with serving(certificates, secure) as (server, url, context), tinyproxy(tmp_path) as port:
        dialed = reach(url, f"http://127.0.0.1:{port}", context)
        with contextlib.closing(dialed.layer):
            assert read(dialed, len(HELLO)) == HELLO
            assert dialed.remote_address == ("127.0.0.1", port)
            assert dialed.timings["proxy"] > 0
        assert server.connections[0].header("Host") == f"localhost:{server.port}"


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_tinyproxy_asks_for_user_name_and_password(certificates, tmp_path, secure):
    with serving(certificates, secure) as (server, url, context), tinyproxy(tmp_path, "BasicAuth user s3cret") as port:
        reach(url, f"http://user:s3cret@127.0.0.1:{port}", context).layer.close()
        for wrong in ("", "user:s3cr3t@"):
            with pytest.raises(ProxyError, match=r"user name and password|HTTP 401") as caught:
                reach(url, f"http://{wrong}127.0.0.1:{port}", context)
            assert caught.value.fatal
            assert "s3cr" not in str(caught.value) + repr(caught.value)
        assert server.connections[0].header("Proxy-Authorization") is None


def test_tinyproxy_says_that_the_server_is_not_there(tmp_path):
    with tinyproxy(tmp_path) as port:
        with pytest.raises(ProxyError, match="it answered HTTP 50") as caught:
            reach(f"ws://localhost:{free_port()}/", f"http://127.0.0.1:{port}")
        assert caught.value.response.body
        assert not caught.value.fatal


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("scheme", ["socks4", "socks5", "socks5h"])  # Dante takes the name of a SOCKS4a request for 0.0.0.1
def test_dante_connects_us(certificates, tmp_path, scheme, secure):
    with serving(certificates, secure) as (_, url, context), dante(tmp_path) as port:
        dialed = reach(url, f"{scheme}://127.0.0.1:{port}", context)
        with contextlib.closing(dialed.layer):
            assert read(dialed, len(HELLO)) == HELLO
            assert dialed.remote_address == ("127.0.0.1", port)


def test_dante_refuses_by_its_rules_and_tells_of_a_server_that_is_not_there(tmp_path):
    with dante(tmp_path) as port, pytest.raises(ProxyError, match="refused") as caught:
        reach(f"ws://127.0.0.1:{free_port()}/", f"socks5h://127.0.0.1:{port}")
    assert not caught.value.fatal
    with dante(tmp_path, "block") as port, pytest.raises(ProxyError, match="ruleset") as caught:
        reach("ws://127.0.0.1:9/", f"socks5h://127.0.0.1:{port}")
    assert caught.value.fatal


# ------------------------------------------------------------------------------------------------- a proxy of our own


class OwnProxy:
    """CONNECT with a bridge behind it, over TLS if there is a context; counts what it was asked."""

    def __init__(self, context=None):
        self.asked = []
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets = []

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(10)
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(10)
        for sock in [self._listener, *self._sockets]:
            sock.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._sockets.append(sock)
                self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
                self._threads[-1].start()

    def _serve(self, sock):
        with contextlib.suppress(OSError):
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
                self._sockets.append(sock)
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(65536)
            self.asked.append(head.decode())
            port = int(head.split()[1].rpartition(b":")[2])
            server = socket.create_connection(("127.0.0.1", port))
            self._sockets.append(server)
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=self._pump, args=(server, sock))
            self._threads.append(back)
            back.start()
            self._pump(sock, server)

    def _pump(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            socket.socket.shutdown(target, socket.SHUT_WR)


def own_tls(certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.issue("localhost"))
    return context


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_an_https_proxy_gets_connect_over_tls_and_wss_runs_inside_it_by_path_b(certificates, secure):
    frames = b"".join(build_server_frame(2, bytes([number]) * 9000) for number in range(40))
    tls = certificates.server() if secure else None
    with OwnProxy(own_tls(certificates)) as proxy, ScriptedServer(
            [[steps.accept(glued=frames), steps.receive(), steps.text("got it"), steps.serve()]], tls=tls) as server:
        context = certificates.context()
        dialed = reach(f"{'wss' if secure else 'ws'}://127.0.0.1:{server.port}/", f"https://user:pw@localhost:{proxy.port}",
                       context if secure else None, proxy_ssl=context)
        target = f"127.0.0.1:{server.port}"
        with contextlib.closing(dialed.layer):
            if secure:
                assert (dialed.tls_path, dialed.tls_reason) == ("B", "TLS runs inside the TLS of the proxy")
            else:
                assert dialed.tls_path == ("A" if engine_tls.why_not(context) is None else "B")
            assert read(dialed, len(frames)) == frames
            assert dialed.layer.send(b"\x81\x82\0\0\0\0hi") == 8
            late = type(dialed)(**{**vars(dialed), "leftover": b""})
            assert read(late, 8) == build_server_frame(1, b"got it")
            assert dialed.layer.fileno() == dialed.sock.fileno()
    [asked] = proxy.asked
    assert asked.startswith(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n")
    assert "Proxy-Authorization: Basic dXNlcjpwdw==\r\n" in asked
    assert "User-Agent: wsengine/" in asked


def test_the_certificate_of_an_https_proxy_is_verified(certificates):
    with OwnProxy(own_tls(certificates)) as proxy:
        with pytest.raises(ssl.SSLCertVerificationError, match="the proxy localhost"):
            reach("ws://127.0.0.1:9/", f"https://localhost:{proxy.port}")
        assert proxy.asked == []


def test_a_pipeline_goes_through_a_proxy_and_on_after_a_cut():
    scripts = [[steps.accept(), steps.text("a"), steps.cut()], [steps.accept(), steps.text("b"), steps.serve()]]
    with OwnProxy() as proxy, ScriptedServer(scripts) as server:
        one = WebSocketProducer(server.url, proxy=f"http://127.0.0.1:{proxy.port}", retry=Backoff(0.02, jitter="none"))
        with Collector(one) as pipeline:
            assert [message.data for message in pipeline.wait(2)] == [b"a", b"b"]
    assert len(proxy.asked) == 2


def test_a_pipeline_over_wss_goes_through_an_https_proxy(certificates):
    context = certificates.context()
    script = [steps.accept(glued=HELLO), steps.binary(bytes(200_000)), steps.serve()]
    with OwnProxy(own_tls(certificates)) as proxy, ScriptedServer([script], tls=certificates.server()) as server:
        one = WebSocketProducer(server.url, ssl=context, proxy=f"https://localhost:{proxy.port}", proxy_ssl=context)
        with Collector(one) as pipeline:
            assert [message.data for message in pipeline.wait(2, 20)] == [b"hello", bytes(200_000)]
            assert one.connections[0].tls_path == "B"


# ------------------------------------------------------------------------------------------------------------ misbehaviour

REFUSALS = {
    "407": ([steps.respond(407, [("Proxy-Authenticate", "Basic")], b"who?")], "HTTP 407", 407, True),
    "403": ([steps.respond(403)], "HTTP 403", 403, True),
    "502": ([steps.respond(502, body=b"no such backend", reason="Bad Gateway")], "HTTP 502 Bad Gateway", 502, False),
    "503": ([steps.respond(503)], "HTTP 503", 503, False),
    "a 101": ([steps.raw(b"HTTP/1.1 101 Switching\r\n\r\n"), steps.cut()], "HTTP 101", 101, True),
    "garbage": ([steps.raw(b"\0\1\2\3garbage\r\n\r\n")], "not HTTP", None, False),
    "an endless head": ([steps.raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000), steps.stall()], "larger than", None, False),
    "an end": ([steps.cut()], "without a complete answer", None, False),
    "half an answer": ([steps.raw(b"HTTP/1.1 200 OK\r\nX"), steps.cut()], "without a complete answer", None, False),
    "bytes too early": ([steps.raw(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 X"), steps.stall()], "of its own", None, False),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_proxy_that_refuses_or_misbehaves_is_a_proxy_error(refusal):
    script, text, status, fatal = REFUSALS[refusal]
    with ScriptedServer([script]) as proxy:
        with pytest.raises(ProxyError, match=text) as caught:
            reach("ws://127.0.0.1:9/", f"http://user:s3cret@127.0.0.1:{proxy.port}")
        assert caught.value.proxy == f"http://127.0.0.1:{proxy.port}"
        assert caught.value.fatal is fatal
        assert (caught.value.response and caught.value.response.status_code) == status
        assert "s3cret" not in str(caught.value) + repr(caught.value)
        if refusal == "502":
            assert caught.value.response.body == b"no such backend"


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks4a"])
@pytest.mark.parametrize("how", ["deadline", "cancellation", "reset"])
def test_a_silent_proxy_ends_by_deadline_cancellation_or_reset(scheme, how):
    script = [steps.skip_request(), *([steps.stall(0.5), steps.reset()] if how == "reset" else [steps.stall()])]
    with ScriptedServer([script]) as proxy, Cancellation() as cancellation:
        if how == "cancellation":
            threading.Timer(0.4, cancellation.cancel).start()
        kind = {"deadline": TimeoutError, "cancellation": Cancelled, "reset": ConnectionResetError}[how]
        with pytest.raises(kind) as caught:
            reach("ws://127.0.0.1:9/", f"{scheme}://127.0.0.1:{proxy.port}", cancellation=cancellation,
                  open_timeout=0.4 if how == "deadline" else 30)
        assert f"the proxy 127.0.0.1:{proxy.port}" in str(caught.value)
        phase = {"http": "proxy", "https": "TLS handshake with the proxy"}.get(scheme, "SOCKS handshake")
        assert phase in str(caught.value)


def test_a_proxy_that_is_not_there_is_named():
    port = free_port()
    with pytest.raises(ConnectionRefusedError, match=f"cannot connect to the proxy 127.0.0.1:{port}"):
        reach("ws://127.0.0.1:9/", f"http://127.0.0.1:{port}")


def test_407_ends_a_pipeline_at_once():
    with ScriptedServer([[steps.respond(407)]]) as proxy:
        pipeline = Collector(WebSocketProducer("ws://127.0.0.1:9/", proxy=f"http://127.0.0.1:{proxy.port}"))
        pipeline.start()
        result = pipeline.join(10)
        assert isinstance(result.error, RetriesExhausted)
        assert isinstance(result.error.last, ProxyError)
        assert len(proxy.connections) == 1


SOCKS = {
    "not SOCKS": ([b"HTTP/1.1 400 Bad\r\n\r\n"], "version", False),
    "no way to say who": ([b"\x05\xff"], "authentication", True),
    "a wrong password": ([b"\x05\x02", b"\x01\x01"], "authentication", True),
    "a ruleset": ([b"\x05\x00", b"\x05\x02\x00\x01\0\0\0\0\0\0"], "ruleset", True),
    "an unreachable host": ([b"\x05\x00", b"\x05\x04\x00\x01\0\0\0\0\0\0"], "unreachable", False),
    "an end": ([b"\x05"], "closed", False),
    "a host that is not text": ([b"\x05\x00", b"\x05\x00\x00\x03\x02\xff\xfe\0\x50"], "not text", False),
}


@contextlib.contextmanager
def socks_server(answers):
    """Reads once before each answer; yields its port and what it has read."""
    received = []
    listener = socket.create_server(("127.0.0.1", 0))

    def work():
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            with sock:
                for answer in answers:
                    received.append(sock.recv(65536))
                    sock.sendall(answer)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield listener.getsockname()[1], received
    finally:
        thread.join(10)
        listener.close()


@pytest.mark.parametrize("answer", SOCKS)
def test_a_socks_proxy_that_refuses_or_misbehaves_is_a_proxy_error(answer):
    answers, text, fatal = SOCKS[answer]
    with socks_server(answers) as (port, _), pytest.raises(ProxyError, match=f"(?i){text}") as caught:
        reach("ws://127.0.0.1:9/", f"socks5://user:s3cret@127.0.0.1:{port}")
    assert caught.value.fatal is fatal
    assert "s3cret" not in str(caught.value)


def test_socks_sends_user_name_and_password_and_leaves_the_look_up_to_the_proxy(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", _numeric_only(socket.getaddrinfo))
    with socks_server([b"\x05\x02", b"\x01\x00", b"\x05\x05\x00\x01\0\0\0\0\0\0"]) as (port, received):
        with pytest.raises(ProxyError, match="refused"):
            reach("ws://feed.example:81/", f"socks5h://user:p%40ss@127.0.0.1:{port}")
    assert received[1] == b"\x01\x04user\x04p@ss"
    assert received[2] == b"\x05\x01\x00\x03\x0cfeed.example\x00\x51"


def test_socks4a_leaves_the_look_up_to_the_proxy_and_goes_on_behind_its_answer(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", _numeric_only(socket.getaddrinfo))
    granted = b"\x00\x5a\0\0\0\0\0\0"
    with socks_server([granted, b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"]) as (port, received):
        with pytest.raises(InvalidStatus, match="404"):
            reach("ws://feed.example:81/", f"socks4a://user@127.0.0.1:{port}")
    assert received[0] == b"\x04\x01\x00\x51\0\0\0\x01user\0feed.example\0"
    assert received[1].startswith(b"GET / HTTP/1.1\r\nHost: feed.example:81\r\n")


@pytest.mark.parametrize(("code", "fatal"), [(91, False), (92, True), (93, True)])
def test_a_refusal_of_socks4_is_a_proxy_error(code, fatal):
    with socks_server([bytes((0, code)) + bytes(6)]) as (port, _), pytest.raises(ProxyError) as caught:
        reach("ws://127.0.0.1:9/", f"socks4://127.0.0.1:{port}")
    assert caught.value.fatal is fatal


def _numeric_only(real):
    def lookup(host, *arguments, **options):
        assert host == "127.0.0.1", f"{host} was looked up"
        return real(host, *arguments, **options)
    return lookup


# ------------------------------------------------------------------------------------------------------------------- URLs


@pytest.mark.parametrize(("url", "parts"), [
    ("http://proxy", ("http", "proxy", 80, None, None)), ("https://proxy/", ("https", "proxy", 443, None, None)),
    ("http://u:p%20w@proxy:3128", ("http", "proxy", 3128, "u", "p w")),
    ("socks5h://[::1]", ("socks5h", "::1", 1080, None, None)),
    ("socks4a://u@proxy", ("socks4a", "proxy", 1080, "u", "")),
])
def test_a_proxy_url_is_taken_apart(url, parts):
    assert parse_proxy("proxy", url) == Proxy(*parts)


@pytest.mark.parametrize("url", [
    "proxy:3128", "ftp://proxy", "http://", "http://proxy:99999", "http://proxy/path", "http://proxy?x", "http://a b",
    "http://proxy:0", "http://u\ud800:s3cret@h", "user:s3cret@proxy:8080", "http:/user:s3cret@h", "http:user:s3cret@h", "http://h/?key=s3cret",
    "http://user:s3c@s3cret@h/x", "http://h/#s3cret", "http://user:s3cret\n@h/", "http://h?a\ns3cret",
    "http://user:a?b@s3cret@h:x", "http://user:a#s3cret@h", "HTTP://u:s3cret@h/x", "https://h:1?@s3cret#s3cret",
    "http://u:s3cret@", "http://u:s3cret\x01@proxy", "http://u%3Av:s3cret@proxy", 5, False, "socks5://ü:s3cret@proxy",
    f"socks5://{'u' * 256}:s3cret@proxy", "socks6://u:s3cret@proxy",
])
def test_a_wrong_proxy_url_is_refused_without_its_secrets(url):
    with pytest.raises(ConfigurationError) as caught:
        WebSocketProducer("ws://127.0.0.1:9", proxy=url)
    assert caught.value.path == "producer.proxy"
    assert "s3cret" not in f"{caught.value} {caught.value!r} {caught.value.value} {caught.value.args}"


def test_what_is_no_secret_of_a_wrong_proxy_url_is_shown():
    for url, shown in (("http://u:p@proxy:99999", "http://***@proxy:99999"), ("http://proxy/path?a", "http://proxy/path?***"),
                       ("ftp://proxy", "ftp://proxy"), ("u:p@proxy:8080", "***@proxy:8080")):
        with pytest.raises(ConfigurationError) as caught:
            parse_proxy("proxy", url)
        assert caught.value.value == shown


def test_no_text_of_a_proxy_has_its_credentials():
    proxy = parse_proxy("proxy", "http://user:s3cret@proxy:3128")
    assert str(proxy) == repr(proxy) == "http://proxy:3128"
    assert "s3cret" not in f"{proxy!r} {vars(Tunnel)}"


def test_contradictions_are_refused(certificates):
    context = certificates.context()
    for options in ({"proxy": "http://proxy", "unix": "/tmp/x"}, {"proxy": "http://proxy", "proxy_ssl": context},
                    {"proxy": None, "proxy_ssl": context}):
        with pytest.raises(ConfigurationError, match="leave it out"):
            WebSocketProducer("ws://127.0.0.1:9", **options)


def test_credentials_in_clear_stay_on_this_machine_also_with_a_proxy():
    uri = parse_uri("ws://user:pw@127.0.0.1/")
    Way(uri, proxy="http://localhost:1").check_headers(None)
    with pytest.raises(ConfigurationError, match="in clear"):
        Way(uri, proxy="http://proxy.example:1").check_headers(None)


# ------------------------------------------------------------------------------------------------------- the environment


@pytest.mark.parametrize(("url", "variables", "expected"), [
    ("ws://h", {}, None),
    ("ws://h", {"http_proxy": "http://a"}, ("http_proxy", "http://a")),
    ("wss://h", {"http_proxy": "http://a"}, None),
    ("ws://h", {"http_proxy": "http://a", "https_proxy": "http://b"}, ("https_proxy", "http://b")),
    ("wss://h", {"HTTPS_PROXY": "http://b", "ALL_PROXY": "socks5://c"}, ("https_proxy", "http://b")),
    ("ws://h", {"HTTP_PROXY": "http://b", "ALL_PROXY": "socks5://c"}, ("http_proxy", "http://b")),
    ("wss://h", {"http_proxy": "http://b", "all_proxy": "socks5://c"}, ("all_proxy", "socks5://c")),
    ("wss://h", {"socks_proxy": "http://d:1", "all_proxy": "http://c"}, ("socks_proxy", "socks5h://d:1")),
    ("wss://h", {"socks_proxy": "socks5://d", "wss_proxy": "http://e"}, ("wss_proxy", "http://e")),
    ("ws://h", {"ws_proxy": "e:3128", "wss_proxy": "http://f"}, ("ws_proxy", "http://e:3128")),
    ("ws://h", {"http_proxy": "http://a", "no_proxy": "h"}, None),
    ("ws://a.h:81", {"http_proxy": "http://a", "no_proxy": "x,.h"}, None),
    ("ws://h:81", {"http_proxy": "http://a", "no_proxy": "h:82"}, ("http_proxy", "http://a")),
    ("ws://h:82", {"http_proxy": "http://a", "no_proxy": "h:82"}, None),
    ("ws://h", {"http_proxy": "http://a", "no_proxy": "*"}, None),
    ("ws://localhost", {"http_proxy": "http://a"}, ("http_proxy", "http://a")),
    ("ws://127.0.0.1:81", {"http_proxy": "http://a"}, ("http_proxy", "http://a")),
    ("ws://[::1]", {"http_proxy": "http://a", "no_proxy": "127.0.0.1"}, ("http_proxy", "http://a")),
    ("ws://localhost", {"http_proxy": "http://a", "no_proxy": "localhost,127.0.0.1"}, None),
    ("ws://127.0.0.1:81", {"http_proxy": "http://a", "NO_PROXY": "localhost, 127.0.0.1"}, None),
])
def test_the_environment_names_the_proxy(monkeypatch, url, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy(parse_uri(url)) == expected


def test_the_environments_proxy_is_used_by_default_and_not_with_none(monkeypatch):
    with ScriptedServer([[steps.accept(), steps.serve()]]) as server, OwnProxy() as proxy:
        monkeypatch.setenv("ws_proxy", f"http://127.0.0.1:{proxy.port}")
        uri = parse_uri(f"ws://feed.example:{server.port}/")
        dial(uri).sock.close()
        assert proxy.asked[0].startswith(f"CONNECT feed.example:{server.port} ")
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(socket.gaierror(-2, "unknown")))
        with pytest.raises(socket.gaierror):
            dial(uri, Way(uri, proxy=None))
        monkeypatch.undo()
        monkeypatch.setenv("no_proxy", "feed.example")
        monkeypatch.setenv("ws_proxy", "http://user:s3cret@bad host")
        Way(uri)
        monkeypatch.delenv("no_proxy")
        with pytest.raises(ConfigurationError, match="the environment's ws_proxy") as caught:
            Way(uri)
        assert "s3cret" not in str(caught.value)
