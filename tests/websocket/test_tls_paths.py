"""A producer over TLS: both paths deliver the same, end the same, and say which they are.

Verification and the TLS handshake are tests of the dial, records and keys those of the engine. What only path A can do,
going on while a handler holds the GIL, is a test of tests/stress.
"""

from __future__ import annotations

import ssl
import threading
import time

import pytest

from wsengine import Backoff, ConnectionClosed, WebSocketProducer, telemetry
from wsengine.engine import tls as engine_tls
from wsengine.testing import Collector, Feed, ScriptedServer, build_server_frame, capture, steps
from wsengine.testing.stamp import read_sequence

pytestmark = pytest.mark.usefixtures("no_leaks")

ID = "tls"
DISCONNECTED, FAILURE = (telemetry.connection_event(ID, name) for name in ("disconnected", "failure"))


@pytest.fixture(params=["A", "B"])
def path(request, monkeypatch):
    if request.param == "B":
        monkeypatch.setenv(engine_tls.FORCED, "B")
    elif reason := engine_tls.why_not(ssl.create_default_context()):
        pytest.skip(f"no path A here: {reason}")
    return request.param


@pytest.fixture
def producer(certificates):
    def make(url, **options):
        return WebSocketProducer(url, **{"ssl": certificates.context(), "telemetry_id": ID, "keepalive": None,
                                         "retry": Backoff(0.02, factor=1, jitter="none"), **options})

    return make


def until(condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.001)


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
            until(lambda: source.connections[0].paused, 20)
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
