"""TLS of the embedded servers, seen by clients of the standard library: versions, certificates, ends."""

from __future__ import annotations

import shutil
import socket
import ssl
from contextlib import contextmanager

import pytest

from wsengine.errors import ConfigurationError
from wsengine.testing import Feed, OpenSSLServer, ScriptedServer, ServerTLS, build_server_frame, steps
from wsengine.testing.wire import accept_response

pytestmark = pytest.mark.usefixtures("no_leaks")

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
REQUEST = f"GET /feed HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode()


@contextmanager
def visit(server, context, name="localhost", **options):
    """A client whose upgrade is accepted."""
    with socket.create_connection(("127.0.0.1", server.port), 10) as plain:
        with context.wrap_socket(plain, server_hostname=name, **options) as sock:
            sock.sendall(REQUEST)
            assert read(sock, len(accept_response(KEY))) == accept_response(KEY)
            yield sock


def read(sock, size):
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


def read_to_end(sock):
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_scripted_server_speaks_tls_and_records_what_was_agreed(certificates, version):
    context = certificates.context()
    context.set_alpn_protocols(["http/1.1"])
    tls = certificates.server(minimum=version, maximum=version)
    with ScriptedServer([[steps.accept(), steps.text("hello")]], tls=tls) as server:
        assert server.url == f"wss://127.0.0.1:{server.port}"
        with visit(server, context) as sock:
            assert read_to_end(sock) == build_server_frame(1, b"hello")
        (record,) = server.wait_ended(1)
    assert record.request_line == "GET /feed HTTP/1.1"
    assert record.tls == {"version": f"TLSv{version}", "alpn": "http/1.1", "server_name": "localhost", "client": None}


@pytest.mark.parametrize(("step", "notified"), [(steps.cut(), True), (steps.truncate(), False)])
def test_an_end_comes_with_close_notify_or_as_told_without(certificates, step, notified):
    context = certificates.context()
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF     # which some builds of Python set by default
    with ScriptedServer([[steps.accept(), step]], tls=certificates.server()) as server:
        with visit(server, context, suppress_ragged_eofs=False) as sock:
            if notified:
                assert sock.recv(10) == b""
            else:
                with pytest.raises(ssl.SSLError, match=r"(?i)eof"):
                    sock.recv(10)


def test_what_the_client_sends_after_the_cut_is_still_read(certificates):
    with ScriptedServer([[steps.accept(), steps.cut()]], tls=certificates.server()) as server:
        with visit(server, certificates.context()) as sock:
            sock.sendall(b"\x81\x83abcd" + bytes(a ^ b for a, b in zip(b"xyz", b"abc", strict=True)))
            assert server.wait(lambda records: records[0].frames)[0].frames[0].payload == b"xyz"


def test_skip_tls_speaks_plainly(certificates):
    with ScriptedServer([[steps.skip_tls(), steps.raw(b"SSH-2.0-x\r\n")]], tls=certificates.server()) as server:
        with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
            assert read(sock, 11) == b"SSH-2.0-x\r\n"


def test_a_client_certificate_is_asked_for_and_recorded(certificates):
    context = certificates.context()
    context.load_cert_chain(certificates.issue("me@example.org", common_name="me"))
    tls = certificates.server(client_ca=certificates.ca_file)
    with ScriptedServer([[steps.accept(), steps.until_eof()]], tls=tls) as server:
        with visit(server, context):
            assert server.connections[0].tls["client"] == "me"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            with visit(server, certificates.context()):
                pass
        assert "TLS handshake failed (PEER_DID_NOT_RETURN_A_CERTIFICATE)" in server.wait_ended(2)[1].ended


def test_a_version_outside_the_bounds_is_refused(certificates):
    context = certificates.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with ScriptedServer([[steps.accept()]], tls=certificates.server(minimum="1.3")) as server:
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"), visit(server, context):
            pass
        assert "TLS handshake failed" in server.wait_ended(1)[0].ended


def test_a_feed_over_tls_sends_what_its_log_says(certificates):
    with Feed.binary(1000, count=3000, tls=certificates.server()) as feed:
        assert feed.url.startswith("wss://")
        with visit(feed, certificates.context()) as sock:
            frame = build_server_frame(2, bytes(1000))
            assert read(sock, len(frame) * 3000) == frame * 3000
            assert feed.wait(lambda log: log.messages == 3000).last_sequence == 2999


def test_a_feed_over_tls_answers_pings_and_loses_nothing_by_a_cut(certificates):
    with Feed.binary(100_000, tls=certificates.server()) as feed:
        with visit(feed, certificates.context()) as sock:
            sock.sendall(b"\x89\x84\x00\x00\x00\x00ping")
            frame = build_server_frame(2, bytes(100_000))
            pong = build_server_frame(10, b"ping")
            head = b""
            while pong not in head:
                head += sock.recv(65536)
            feed._running().request("end", how="cut")
            data = head + read_to_end(sock)
        log = feed.wait(lambda log: log.connections[0].ended)
        assert log.connections[0].ended == "cut"
        assert data.replace(pong, b"") == frame * log.messages
        assert [one.payload for one in log.connections[0].pings] == [b"ping"]


@pytest.mark.parametrize(("options", "path"), [
    ({"certificate": "/nowhere.pem"}, "tls.certificate"), ({"key": "/nowhere.pem"}, "tls.key"),
    ({"minimum": "1.1"}, "tls.minimum"), ({"maximum": 3}, "tls.maximum"),
])
def test_a_wrong_option_is_named(certificates, options, path):
    with pytest.raises(ConfigurationError) as caught:
        ServerTLS(**{"certificate": certificates.ca_file, **options})
    assert caught.value.path == path


def test_a_file_without_a_key_is_refused_by_the_start(certificates):
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        ScriptedServer([[steps.accept()]], tls=ServerTLS(certificates.ca_file)).start()
    with pytest.raises(ConfigurationError, match="give a ServerTLS"):
        ScriptedServer([[steps.accept()]], tls=certificates.ca_file)


@pytest.mark.skipif(shutil.which("openssl") is None or shutil.which("stdbuf") is None, reason="there is no program openssl")
def test_the_openssl_server_accepts_sends_and_changes_its_keys(certificates):
    with OpenSSLServer(certificates.server(minimum="1.3", maximum="1.3")) as server:
        with socket.create_connection(("127.0.0.1", server.port), 10) as plain:
            with certificates.context().wrap_socket(plain, server_hostname="localhost") as sock:
                assert server.url == f"wss://127.0.0.1:{server.port}"
                sock.sendall(REQUEST)
                server.accept(glued=b"\x81\x01a")
                assert read(sock, len(accept_response(KEY)) + 3) == accept_response(KEY) + b"\x81\x01a"
                server.update_keys()
                server.send(b"\x81\x01b")
                assert read(sock, 3) == b"\x81\x01b"
                sock.sendall(b"said\n")
                server.wait_received(b"said\n")
                with pytest.raises(TimeoutError, match="has not said"):
                    server.wait_received(b"never", timeout=0.1)
                with pytest.raises(ConfigurationError, match="an order"):
                    server.send(b"Quit")
