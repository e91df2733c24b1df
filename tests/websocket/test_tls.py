"""TLS in a dial: verification, names, versions, both paths, and every way in which a handshake can go wrong.

Servers run in processes of their own, with certificates made for this run; both paths run the same tests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import select
import shutil
import socket
import ssl
import struct
import threading
import time

import pytest
import trustme

from wsengine import Backoff, WebSocketProducer
from wsengine.engine import tls as engine_tls
from wsengine.errors import ConfigurationError, InvalidMessage, InvalidStatus
from wsengine.testing import Collector, Feed, OpenSSLServer, ScriptedServer, build_server_frame, steps
from wsengine.websocket.channel import Channel
from wsengine.websocket.deadline import Cancellation, Cancelled
from wsengine.websocket.dial import dial
from wsengine.websocket.failures import worth_a_retry
from wsengine.websocket.tls import TlsLayer, default_context, open_tls
from wsengine.websocket.uri import parse_uri
from wsengine.websocket.way import Way

pytestmark = pytest.mark.usefixtures("no_leaks")

HELLO = build_server_frame(1, b"hello")


@pytest.fixture
def client(certificates):
    return certificates.context()


def reach(url, context=None, **options):
    """Dial; options of the way and of the dial."""
    uri = parse_uri(url)
    way = {name: options.pop(name) for name in ("server_hostname", "sock") if name in options}
    return dial(uri, Way(uri, ssl=context, **way), **options)


def read(dialed, size):
    """What comes over the layer, with the leftover before it."""
    data, end = dialed.leftover, time.monotonic() + 10
    while len(data) < size and time.monotonic() < end:
        try:
            more = dialed.layer.recv(65536)
        except (ssl.SSLWantReadError, BlockingIOError):
            time.sleep(0.005)
            continue
        if not more:
            break
        data += more
    return data


def refused(kind, url, context, **options):
    """The error of a dial that must fail, with no secret in it."""
    with pytest.raises(kind) as caught:
        reach(f"{url}/feed?token=s3cret", context, **options)
    assert "s3cret" not in str(caught.value)
    return caught.value


# ---------------------------------------------------------------------------------------------------------------- success


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_wss_on_any_port_is_verified_tls_c32(certificates, client, path, version):
    tls = certificates.server(minimum=version, maximum=version)
    with ScriptedServer([[steps.accept(glued=HELLO), steps.serve()]], tls=tls) as server:
        dialed = reach(f"wss://localhost:{server.port}/feed", client)
        with contextlib.closing(dialed.layer):
            assert (dialed.tls_path, dialed.tls_reason is None) == (path, path == "A")
            assert read(dialed, len(HELLO)) == HELLO
            assert dialed.layer.version() == f"TLSv{version}"
            assert dialed.sock.getblocking() is False
            assert dialed.layer.fileno() == dialed.sock.fileno()
            assert dialed.timings["tls"] > 0
            assert isinstance(dialed.layer, ssl.SSLSocket if path == "A" else TlsLayer)
        assert server.connections[0].tls["server_name"] == "localhost"


def test_what_comes_behind_the_101_survives_in_the_leftover_and_in_the_layer(certificates, client, path):
    frames = b"".join(build_server_frame(2, bytes([number]) * 9000) for number in range(40))
    with ScriptedServer([[steps.accept(glued=frames), steps.serve()]], tls=certificates.server()) as server:
        dialed = reach(server.url, client)
        with contextlib.closing(dialed.layer):
            assert read(dialed, len(frames)) == frames


def test_the_default_context_verifies_asks_for_http_1_1_and_trusts_what_the_environment_says(certificates, monkeypatch,
                                                                                             path):
    monkeypatch.setenv("SSL_CERT_FILE", certificates.ca_file)
    with ScriptedServer([[steps.accept(), steps.serve()]], tls=certificates.server(alpn=["h2", "http/1.1"])) as server:
        reach(server.url).layer.close()
        assert server.connections[0].tls["alpn"] == "http/1.1"
    context = default_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_context_is_used_as_it_is_and_not_changed(certificates, client, path):
    before = {name: getattr(client, name) for name in ("options", "verify_mode", "check_hostname", "minimum_version")}
    with ScriptedServer([[steps.accept(), steps.serve()]], tls=certificates.server()) as server:
        reach(server.url, client).layer.close()
        assert server.connections[0].tls["alpn"] is None
    assert {name: getattr(client, name) for name in before} == before


def test_server_hostname_replaces_the_host_in_sni_and_in_the_check(certificates, client, path):
    with ScriptedServer([[steps.accept(), steps.serve()]], tls=certificates.server("feed.example")) as server:
        reach(server.url, client, server_hostname="feed.example").layer.close()
        record = server.connections[0]
        assert record.tls["server_name"] == "feed.example"
        assert record.header("Host") == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_client_certificate_is_shown(certificates, client, path, version):
    client.load_cert_chain(certificates.issue("me@example.org", common_name="me"))
    tls = certificates.server(client_ca=certificates.ca_file, minimum=version, maximum=version)
    with ScriptedServer([[steps.accept(), steps.serve()]], tls=tls) as server:
        reach(server.url, client).layer.close()
        assert server.connections[0].tls["client"] == "me"


def test_a_context_that_makes_connections_in_its_own_way_goes_by_path_b(certificates):
    class Own(ssl.SSLContext):  # as truststore's is
        def wrap_socket(self, *arguments, **options):
            raise AssertionError("it expects the handshake to be made at once")

    context = Own(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificates.ca_file)
    with ScriptedServer([[steps.accept(glued=HELLO), steps.serve()]], tls=certificates.server()) as server:
        dialed = reach(server.url, context)
        with contextlib.closing(dialed.layer):
            assert dialed.tls_path == "B"
            assert "Own makes connections in its own way" in dialed.tls_reason
            assert read(dialed, len(HELLO)) == HELLO


def test_a_key_log_means_path_b_with_its_reason(certificates, client, tmp_path):
    client.keylog_filename = str(tmp_path / "keys")
    with ScriptedServer([[steps.accept(), steps.serve()]], tls=certificates.server()) as server:
        dialed = reach(server.url, client)
        dialed.layer.close()
        assert (dialed.tls_path, "key log" in dialed.tls_reason) == ("B", True)
    client.keylog_filename = None  # closes it


def test_a_layer_moves_megabytes_both_ways_and_ends(certificates, client, monkeypatch):
    monkeypatch.setenv(engine_tls.FORCED, "B")
    with Feed.binary(50_000, count=40, tls=certificates.server()) as feed:
        dialed = reach(feed.url, client)
        with contextlib.closing(dialed.layer) as layer:
            ping = b"\x89\x84\x00\x00\x00\x00ping"
            frame = build_server_frame(2, bytes(50_000))
            data, rest = dialed.leftover, memoryview(ping * 20_000)
            end = time.monotonic() + 30
            while (rest or len(data) < 40 * len(frame) + 20_000 * 6) and time.monotonic() < end:
                with contextlib.suppress(ssl.SSLWantReadError):
                    data += layer.recv(100_000)
                with contextlib.suppress(ssl.SSLWantWriteError):
                    rest = rest[layer.send(rest):] if rest else rest
            assert data.replace(build_server_frame(10, b"ping"), b"") == frame * 40
            layer.unwrap()
            feed.cut()
            assert read(dialed, 10**9)[len(dialed.leftover):] == b""


# --------------------------------------------------------------------------------------------------------- certificates


@pytest.mark.parametrize(("names", "options", "said", "remedy"), [
    (("other.example",), {}, "127.0.0.1", "server_hostname"),
    (("127.0.0.1",), {"not_after": datetime.datetime(2020, 1, 1)}, "expired", "the server must renew it"),
    (("127.0.0.1",), {"not_before": datetime.datetime(2100, 1, 1), "not_after": datetime.datetime(2101, 1, 1)},
     "not yet valid", "clock"),
    (("127.0.0.1",), {"ca": trustme.CA()}, "issuer", "SSL_CERT_FILE"),
], ids=["another host", "expired", "not valid yet", "an unknown CA"])
def test_a_certificate_that_is_not_good_is_told_with_what_to_do(certificates, client, path, names, options, said, remedy):
    tls = certificates.server.__func__(certificates, *names)
    tls = type(tls)(certificates.issue(*names, **options))
    with ScriptedServer([[steps.accept()]], tls=tls) as server:
        error = refused(ssl.SSLCertVerificationError, server.url, client, headers={"Authorization": "s3cret"})
        assert f"127.0.0.1:{server.port}" in str(error)
        assert said in str(error)
        assert remedy in str(error)
        assert error.verify_code
        assert server.wait_ended(1)[0].request_line is None


def test_a_self_signed_certificate_is_told_with_what_to_do(certificates, client, tmp_path, path):
    own = trustme.CA()
    file = tmp_path / "own.pem"
    file.write_bytes(own.private_key_pem.bytes() + own.cert_pem.bytes())
    with ScriptedServer([[steps.accept()]], tls=type(certificates.server())(file)) as server:
        error = refused(ssl.SSLCertVerificationError, server.url, client)
        assert "self-signed" in str(error)
        assert "cafile" in str(error)
        assert "truststore" in str(error)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_missing_client_certificate_is_told_also_where_tls_1_3_says_it_late(certificates, client, path, version):
    tls = certificates.server(client_ca=certificates.ca_file, minimum=version, maximum=version)
    with ScriptedServer([[steps.accept()]], tls=tls) as server:
        error = refused(ssl.SSLError, server.url, client)
        assert "load_cert_chain" in str(error)
        assert ("the wait for the upgrade response" in str(error)) == (version == "1.3")


def late_sender(monkeypatch):
    """Hold the upgrade request back until the peer's reset has arrived, which else is a matter of microseconds."""
    real = Channel.send

    def send(channel, data):
        end = time.monotonic() + 10
        while not was_reset(channel.sock) and time.monotonic() < end:
            time.sleep(0.005)
        return real(channel, data)

    monkeypatch.setattr(Channel, "send", send)


def was_reset(sock):
    """Whether the kernel knows that the peer is gone for good; leaves what has arrived where it is."""
    poller = select.poll()
    poller.register(sock.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poller.poll(0))


def resetting_server(certificates):
    """TLS 1.3 with a client certificate wanted; it says so, and goes with a reset behind it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificates.issue("127.0.0.1"))
    context.load_verify_locations(certificates.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_the_alert_is_told_where_it_has_arrived_before_the_request_is_sent(certificates, client, path, monkeypatch):
    late_sender(monkeypatch)
    listener = socket.create_server(("127.0.0.1", 0))
    context = resetting_server(certificates)

    def serve():
        raw, _ = listener.accept()
        with contextlib.suppress(OSError), context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False) as sock:
            try:
                sock.do_handshake()
            finally:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        error = refused(ssl.SSLError, f"wss://127.0.0.1:{listener.getsockname()[1]}", client)
        assert error.reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
        assert "load_cert_chain" in str(error)
        assert not worth_a_retry(error)
    finally:
        thread.join(10)
        listener.close()


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_server_that_ends_without_an_alert_is_told_with_what_may_be_wrong(certificates, client, path, version):
    """As servers on asyncio do, which close the transport before the alert is out."""
    steps_of = {"1.2": [steps.skip_tls(), steps.cut()], "1.3": [steps.cut()]}
    with ScriptedServer([steps_of[version]], tls=certificates.server()) as server:
        error = refused((ssl.SSLEOFError, InvalidMessage), server.url, client)
        assert isinstance(error, ssl.SSLEOFError) == (version == "1.2")
        assert "every time" in str(error)
        assert "load_cert_chain" in str(error)
        assert ("one for TLS" in str(error)) == (version == "1.2")
        assert worth_a_retry(error)


def test_versions_without_one_in_common_are_told(certificates, client, path):
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with ScriptedServer([[steps.accept()]], tls=certificates.server(minimum="1.3")) as server:
        assert "versions of TLS" in str(refused(ssl.SSLError, server.url, client))


# ----------------------------------------------------------------------------------------------------- not TLS, or broken


def test_a_plain_server_on_a_tls_port_is_told(client, path):
    with ScriptedServer([[steps.skip_request(), steps.respond(400, body=b"what?")]]) as server:
        error = refused(ssl.SSLError, f"wss://127.0.0.1:{server.port}", client)
        assert "the answer is not TLS" in str(error)


def test_a_tls_server_on_a_plain_port_is_told(certificates):
    with ScriptedServer([[steps.accept()]], tls=certificates.server()) as server:
        with pytest.raises(InvalidMessage, match="use wss://"):
            reach(f"ws://127.0.0.1:{server.port}/")


@pytest.mark.parametrize(("script", "kind", "text"), [
    ([steps.cut()], ssl.SSLEOFError, "closed the connection during the TLS handshake"),
    ([steps.stall(0.5), steps.reset()], ConnectionResetError, "during the TLS handshake"),
    ([steps.raw(b"\x16\x03\x03\x00\x05zzzzz"), steps.stall()], ssl.SSLError, "during the TLS handshake"),
])
def test_a_handshake_that_breaks_off_is_a_defined_error(certificates, client, path, script, kind, text):
    with ScriptedServer([[steps.skip_tls(), *script]], tls=certificates.server()) as server:
        error = refused(kind, server.url, client)
        assert text in str(error)
        assert f"127.0.0.1:{server.port}" in str(error)


def test_the_end_of_tls_before_the_answer_is_a_defined_error(certificates, client, path):
    for step in (steps.cut(), steps.truncate()):
        with ScriptedServer([[step]], tls=certificates.server()) as server:
            assert "without answering" in str(refused(InvalidMessage, server.url, client))


def test_a_refusal_over_tls_has_its_body(certificates, client, path):
    with ScriptedServer([[steps.respond(403, body=b"not you")]], tls=certificates.server()) as server:
        assert refused(InvalidStatus, server.url, client).response.body == b"not you"


# ------------------------------------------------------------------------------------------------ deadline, cancellation

PHASES = {
    "the TLS handshake": [steps.skip_tls(), steps.stall()],
    "the TLS handshake, dripping": [steps.skip_tls(), steps.drip(b"\x16\x03\x03\x40\x00" + bytes(1000), 1, 0.02)],
    "the wait for the upgrade response": [steps.stall()],
    "the wait for the upgrade response, dripping": [steps.accept(chunk=1, interval=0.05)],
}


@pytest.mark.parametrize("phase", PHASES)
def test_the_deadline_holds_in_each_phase(certificates, client, path, phase):
    with ScriptedServer([PHASES[phase]], tls=certificates.server()) as server:
        start = time.monotonic()
        error = refused(TimeoutError, server.url, client, open_timeout=0.5)
        assert phase.partition(",")[0] in str(error)
        assert 0.5 <= time.monotonic() - start < 5


@pytest.mark.parametrize("phase", PHASES)
def test_a_cancellation_ends_each_phase(certificates, client, path, phase):
    with ScriptedServer([PHASES[phase]], tls=certificates.server()) as server, Cancellation() as cancellation:
        outcome = []

        def work():
            try:
                reach(server.url, client, cancellation=cancellation, open_timeout=None)
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        server.wait_connections(1)
        thread.join(0.3)
        assert thread.is_alive()
        cancellation.cancel()
        thread.join(5)
    assert isinstance(outcome[0], Cancelled)
    assert phase.partition(",")[0] in str(outcome[0])


# -------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(("url", "options", "name"), [
    ("wss://h", {"ssl": True}, "ssl"), ("wss://h", {"ssl": "x.pem"}, "ssl"),
    ("wss://h", {"ssl": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}, "ssl"),
    ("wss://h", {"server_hostname": ""}, "server_hostname"), ("wss://h", {"server_hostname": 5}, "server_hostname"),
    ("ws://h", {"ssl": ssl.create_default_context()}, "ssl"), ("ws://h", {"server_hostname": "h"}, "server_hostname"),
    ("wss://h", {"socket_options": {"nodelay": True}}, "socket_options"),
    ("ws://h", {"allow_plaintext_credentials": 1}, "allow_plaintext_credentials"),
])
def test_a_wrong_option_is_named(url, options, name):
    with pytest.raises(ConfigurationError) as caught:
        Way(parse_uri(url), **options)
    assert caught.value.path == name


@pytest.mark.parametrize(("url", "headers"), [
    ("ws://user:s3cret@feed.example/", None), ("ws://feed.example/", {"authorization": "s3cret"}),
    ("ws://feed.example/", [("Cookie", "s3cret")]), ("ws://10.0.0.1/", {"Proxy-Authorization": "s3cret"}),
    ("ws://feed.example/", {"X-Api-Key": "s3cret"}), ("ws://feed.example/", {"Accept": "*/*", "x-auth-token": "s3cret"}),
])
def test_plain_ws_sends_no_credentials_to_another_machine_unless_allowed_c32(monkeypatch, url, headers):
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: pytest.fail("something was dialed"))
    uri = parse_uri(url)
    for call in (lambda: Way(uri).check_headers(headers), lambda: dial(uri, headers=headers),
                 lambda: dial(uri, headers=headers and (lambda: headers))):
        with pytest.raises(ConfigurationError, match="allow_plaintext_credentials=True") as caught:
            call()
        assert "s3cret" not in str(caught.value)
    Way(uri, allow_plaintext_credentials=True).check_headers(headers)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "[::1]", "localhost", "feed.localhost", "[::ffff:127.0.0.1]"])
def test_this_machine_may_be_sent_credentials_in_clear(host):
    Way(parse_uri(f"ws://user:s3cret@{host}:9/")).check_headers({"Cookie": "x"})


def test_allowed_credentials_are_sent(monkeypatch):
    with ScriptedServer([[steps.accept(), steps.serve()]]) as server:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        uri = parse_uri("ws://user:pass@feed.example/")
        dial(uri, Way(uri, allow_plaintext_credentials=True), headers={"Cookie": "a=b"}).sock.close()
        record = server.connections[0]
    assert record.header("Authorization").startswith("Basic ")
    assert record.header("Cookie") == "a=b"


# ----------------------------------------------------------------------------------------------------- through a pipeline


def test_a_pipeline_over_wss_gets_every_message_and_reconnects(certificates, client, path):
    scripts = [[steps.accept(glued=HELLO), steps.binary(bytes(300_000)), end] for end in (steps.cut(), steps.truncate())]
    scripts.append([steps.accept(), steps.text("last"), steps.serve()])
    with ScriptedServer(scripts, tls=certificates.server()) as server:
        one = WebSocketProducer(server.url, ssl=client, retry=Backoff(0.02, factor=1, jitter="none"))
        with Collector(one) as pipeline:
            received = [(message.epoch, message.data) for message in pipeline.wait(5, 20)]
            assert one.connections[0].tls_path == path
    assert received == [(1, b"hello"), (1, bytes(300_000)), (2, b"hello"), (2, bytes(300_000)), (3, b"last")]


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None or shutil.which("stdbuf") is None,
                                   reason="there is no program openssl, or no stdbuf")


@needs_openssl
@pytest.mark.parametrize(("version", "answer"), [("1.2", False), ("1.3", True), ("1.3", False)],
                         ids=["renegotiation", "KeyUpdate both ways", "KeyUpdate"])
def test_keys_that_change_under_way_are_followed_by_the_layer(certificates, client, path, version, answer):
    with OpenSSLServer(certificates.server(minimum=version, maximum=version)) as server:
        thread = threading.Thread(target=server.accept)
        thread.start()
        dialed = reach(server.url, client)
        with contextlib.closing(dialed.layer):
            thread.join()
            for number in range(3):
                if version == "1.2":
                    server.renegotiate()
                else:
                    server.update_keys(answer)
                frame, said = build_server_frame(1, b"%d" % number), b"from the client %d\n" % number
                server.send(frame)
                assert read(dataclasses.replace(dialed, leftover=b""), len(frame)) == frame
                assert say(dialed.layer, said) == len(said)
                server.wait_received(said)


def say(layer, data):
    """Send, as often as the layer asks for it again."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return layer.send(data)
    raise TimeoutError


@needs_openssl
@pytest.mark.parametrize("answer", [True, False])
def test_keys_that_change_under_way_cost_a_pipeline_no_message(certificates, client, path, answer):
    with OpenSSLServer(certificates.server(minimum="1.3", maximum="1.3")) as server:
        thread = threading.Thread(target=server.accept)
        thread.start()
        with Collector(WebSocketProducer(server.url, ssl=client, close_timeout=0.2)) as pipeline:
            thread.join()
            for number in range(3):
                server.update_keys(answer)
                server.send(build_server_frame(1, b"%d" % number))
                pipeline.wait(number + 1)
        assert [message.data for message in pipeline.received] == [b"0", b"1", b"2"]


def test_a_socket_that_was_reset_before_tls_is_closed_although_somebody_holds_the_error(certificates):
    if reason := engine_tls.why_not(certificates.context()):
        pytest.skip(f"no path A here: {reason}")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()
    sock.settimeout(0)
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    assert poller.poll(5000), "the reset has not arrived"
    fd = sock.fileno()
    try:
        with pytest.raises(ConnectionResetError) as held:
            open_tls(sock, certificates.context(), "127.0.0.1")
        assert held.value.__traceback__ is not None
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    finally:
        sock.close()
