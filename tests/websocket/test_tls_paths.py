"""A producer over TLS: both paths deliver the same, end the same, and say which they are.

Verification and the TLS handshake are tests of the dial, records and keys those of the engine. What only path A can do,
going on while a handler holds the GIL, is a test of tests/stress.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import ssl
import threading
import time

import pytest

from tests.waiting import until
from wsengine import Backoff, ConnectionClosed, RetriesExhausted, WebSocketProducer, telemetry
from wsengine.engine import tls as engine_tls
from wsengine.testing import Collector, Feed, ScriptedServer, build_server_frame, capture, steps
from wsengine.testing.stamp import read_sequence

pytestmark = pytest.mark.usefixtures("no_leaks")

ID = "tls"
DISCONNECTED, FAILURE = (telemetry.connection_event(ID, name) for name in ("disconnected", "failure"))


@pytest.fixture
def producer(certificates):
    def make(url, **options):
        return WebSocketProducer(url, **{"ssl": certificates.context(), "telemetry_id": ID, "keepalive": None,
                                         "retry": Backoff(0.02, factor=1, jitter="none"), **options})

    return make


@pytest.mark.parametrize(("concurrency", "processors"), [(1, 1), (3, 4)])
def test_a_flood_arrives_exactly_once_over_either_path(path, producer, certificates, concurrency, processors):
    from wsengine import Processors

    with Feed.trades(size=300, count=20_000, tls=certificates.server()) as feed:
        source = producer(feed.url, concurrency=concurrency)
        with Collector(source, processors=Processors(concurrency=processors)) as pipeline:
            pipeline.wait(20_000 * concurrency, 30)
            assert {one.tls_path for one in source.connections} == {path}
            assert all((one.tls_reason is None) == (path == "A") for one in source.connections)
            result = pipeline.stop()
    assert (result.successful, result.failed) == (20_000 * concurrency, 0)
    for index in range(concurrency):
        numbers = [read_sequence(m.data) for m in pipeline.received if m.connection_index == index]
        assert sorted(numbers) == list(range(20_000))


def test_path_b_is_warned_of_once_with_the_reason(path, producer, certificates, caplog):
    with Feed.trades(count=5, tls=certificates.server()) as feed:
        with Collector(producer(feed.url, concurrency=3)) as pipeline:
            pipeline.wait(15)
    warned = [one for one in caplog.records if "path B" in one.getMessage()]
    assert len(warned) == (0 if path == "A" else 1)
    assert path == "A" or engine_tls.FORCED in warned[0].getMessage()


def test_what_comes_with_the_upgrade_and_in_records_of_one_byte_is_delivered_in_order(path, producer, certificates):
    frames = b"".join(build_server_frame(2, b"%d" % number) for number in range(200))
    script = [steps.accept_glued(frames[:300]), steps.drip(frames[300:400], 1, 0.0), steps.send(frames[400:]), steps.serve()]
    with ScriptedServer([script], tls=certificates.server()) as server:
        with Collector(producer(server.url)) as pipeline:
            pipeline.wait(200)
    assert [one.data for one in pipeline.received] == [b"%d" % number for number in range(200)]


def test_messages_go_out_and_pings_are_answered_over_either_path(path, producer, certificates):
    script = [steps.accept(), steps.ping(b"there?"), steps.serve()]
    with ScriptedServer([script], tls=certificates.server()) as server:
        source = producer(server.url)
        with Collector(source):
            until(lambda: source.connections[0].is_ready)
            source.connections[0].send("grün")
            source.connections[0].send(b"x" * 3_000_000)
            assert source.connections[0].ping().wait(10)
            frames = server.wait(lambda records: len(records[0].frames) == 4)[0].frames
        [record] = server.wait_ended(1)
    assert sorted(one.opcode for one in frames) == [1, 2, 9, 10]
    assert [one.payload for one in frames if one.opcode == 1] == ["grün".encode()]
    assert [len(one.payload) for one in frames if one.opcode == 2] == [3_000_000]
    assert record.frames[-1].opcode == 8


ENDINGS = {"cut": steps.cut(), "no close_notify": steps.truncate(), "reset": steps.reset(),
           "close": steps.close(1012, "later")}


@pytest.mark.parametrize("how", ENDINGS)
def test_a_connection_that_ends_is_told_once_and_replaced_over_either_path(path, producer, certificates, how):
    script = [steps.accept(), steps.binary(b"one"), steps.wait(0.1), ENDINGS[how]]
    scripts = [script, [steps.accept(), steps.binary(b"two"), steps.serve()]]
    with ScriptedServer(scripts, tls=certificates.server()) as server:
        source = producer(server.url)
        with capture(DISCONNECTED, FAILURE) as seen, Collector(source) as pipeline:
            pipeline.wait(2)
            until(lambda: source.connections[0].epoch == 2)
        assert len(server.connections) == 2
    assert [one.data for one in pipeline.received] == [b"one", b"two"]
    [told] = seen.events
    assert told.event == DISCONNECTED
    if how == "reset":
        assert isinstance(told.metadata["reason"], OSError)
    if how == "close":
        assert told.measurements["close_code"] == 1012


def test_a_full_pipeline_holds_the_server_back_and_loses_nothing_over_either_path(path, producer, certificates):
    gate = threading.Event()

    class Slow(Collector):
        def handle_messages(self, messages):
            gate.wait(20)
            super().handle_messages(messages)

    with Feed.trades(size=4096, count=20_000, tls=certificates.server()) as feed:
        source = producer(feed.url)
        with Slow(source, max_queue=64) as pipeline:
            until(lambda: source.connections[0].paused)
            time.sleep(0.3)
            assert feed.log().messages < 20_000
            gate.set()
            pipeline.wait(20_000, 60)
    assert [read_sequence(one.data) for one in pipeline.received] == list(range(20_000))


def test_a_stop_closes_with_1000_and_a_send_afterwards_is_refused(path, producer, certificates):
    with Feed.trades(rate=100, tls=certificates.server()) as feed:
        source = producer(feed.url)
        with Collector(source) as pipeline:
            pipeline.wait(5)
            pipeline.stop()
        with pytest.raises(ConnectionClosed):
            source.connections[0].send("x")
        log = feed.wait(lambda log: not any(one.open for one in log.connections))
    assert log.connections[0].close_code == 1000


# -------------------------------------------------------------------------------------------- a certificate that is missing


class LateAsker:
    """A server over TLS 1.3 that asks for a client certificate behind the 101 (RFC 8446 §4.6.2), and takes none but one."""

    def __init__(self, certificates):
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificates.issue("127.0.0.1"))
        self._context.load_verify_locations(certificates.ca_file)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.post_handshake_auth = True
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"wss://127.0.0.1:{self._listener.getsockname()[1]}/"
        self.asked = 0
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(20)
            with contextlib.suppress(OSError), self._context.wrap_socket(sock, server_side=True) as layer:
                self._ask(layer)

    def _ask(self, layer):
        request = b""
        while b"\r\n\r\n" not in request:
            request += layer.recv(4096)
        key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        layer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n" + build_server_frame(1, b"first"))
        self.asked += 1
        layer.verify_client_post_handshake()
        layer.sendall(build_server_frame(1, b"second"))
        with contextlib.suppress(ssl.SSLError):  # the answer: no certificate; the alert goes out
            layer.recv(4096)
        layer.unwrap()


def gives_up(pipeline):
    """Run it to its end; the failure, which must not have been worth another attempt."""
    pipeline.start()
    try:
        result = pipeline.join(20)
        assert result is not None, "it goes on trying"
    finally:
        pipeline.stop(5)
    assert isinstance(result.error, RetriesExhausted)
    assert result.error.fatal
    assert isinstance(result.error.last, ssl.SSLError)
    return result.error.last


def test_a_missing_client_certificate_is_fatal_where_the_alert_comes_behind_the_handshake(path, producer, certificates):
    tls = certificates.server(client_ca=certificates.ca_file, minimum="1.3")
    with ScriptedServer([[steps.accept(), steps.serve()]], tls=tls) as server:
        assert "CERTIFICATE_REQUIRED" in gives_up(Collector(producer(server.url))).reason


def test_a_missing_client_certificate_is_fatal_where_the_alert_comes_after_ready(path, producer, certificates):
    context = certificates.context()
    context.post_handshake_auth = True
    with LateAsker(certificates) as server:
        pipeline = Collector(producer(server.url, ssl=context))
        error = gives_up(pipeline)
    assert "CERTIFICATE_REQUIRED" in error.reason
    assert "certificate required" in str(error).lower().replace("_", " ")
    assert [one.data for one in pipeline.received][:1] == [b"first"]
    assert server.asked == 1
