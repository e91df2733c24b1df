"""The supervisor through a pipeline and real servers: one attempt at a time, one owner of a connection, an orderly end."""

from __future__ import annotations

import errno
import functools
import ssl
import threading
import time

import pytest

from tests.waiting import until
from wsengine import (
    Backoff,
    ConfigurationError,
    ConnectionClosedError,
    ConnectionClosedOK,
    EngineError,
    PayloadTooBig,
    ProtocolError,
    RetriesExhausted,
    WebSocketProducer,
    telemetry,
)
from wsengine.engine.receiver import Note
from wsengine.testing import Collector, Feed, ScriptedServer, capture, steps
from wsengine.websocket.connection import Connection
from wsengine.websocket.failures import worth_a_retry
from wsengine.websocket.supervisor import Supervisor, outcome

pytestmark = pytest.mark.usefixtures("no_leaks")

ID = "supervisor"
SUCCESS, FAILURE, DISCONNECTED, STATUS = EVENTS = tuple(
    telemetry.connection_event(ID, name) for name in ("success", "failure", "disconnected", "status"))


def producer(url, **options):
    return WebSocketProducer(url, **{"telemetry_id": ID, "retry": Backoff(0.02, factor=1, jitter="none"), **options})


# ------------------------------------------------------------------------------------------------- what a note comes to


def note(cause, code=0, error=0, text=b"", detail=0):
    return Note("ended", 0, 1, cause, code, error, text, detail, 0.0)


@pytest.mark.parametrize(("given", "event", "kind", "shown"), [
    (note("closed", 1000), "disconnected", ConnectionClosedOK, "connection closed with 1000"),
    (note("closed", 1012, text=b"restart"), "disconnected", ConnectionClosedError, "connection closed with 1012 (restart)"),
    (note("failed", 1002, text=b"reserved opcode"), "failure", ProtocolError, "reserved opcode (closed with 1002)"),
    (note("failed", 1009, detail=70), "failure", PayloadTooBig, "a message of at least 70 bytes is over max_size=64"),
    (note("eof"), "disconnected", ConnectionClosedError, "connection closed with 1006"),
    (note("error", error=errno.ECONNRESET), "disconnected", ConnectionResetError, "Connection reset by peer"),
    (note("idle"), "timeout", TimeoutError, "nothing was received for ws_timeout"),
    (note("pong"), "timeout", TimeoutError, "keepalive ping timeout"),
    (note("tls", text=b"tlsv13 alert certificate required"), "disconnected", ssl.SSLError,
     "tlsv13 alert certificate required"),
    (note("memory"), "failure", MemoryError, "no memory"),
], ids=lambda one: one.cause if isinstance(one, Note) else "")
def test_each_cause_of_an_end_has_its_event_and_its_error(given, event, kind, shown):
    name, error = outcome(given, 64)
    assert name == event
    assert type(error) is kind
    assert shown in str(error)


@pytest.mark.parametrize(("text", "retried"), [
    (b"tlsv13 alert certificate required", False), (b"ssl/tls alert bad certificate", False),
    (b"sslv3 alert certificate expired", False), (b"tlsv1 alert unknown ca", False),
    (b"decryption failed or bad record mac", True), (b"tlsv1 alert internal error", True),
])
def test_what_tls_says_behind_the_handshake_is_judged_as_in_it(text, retried):
    assert worth_a_retry(outcome(note("tls", text=text), 64)[1]) is retried


# ------------------------------------------------------------------------------------------------------------ attempts


def test_a_server_that_accepts_and_drops_is_met_with_growing_delays_and_uses_up_the_budget():
    with ScriptedServer([[steps.accept(), steps.text("x"), steps.cut()]]) as server, capture(*EVENTS) as seen:
        pipeline = Collector(producer(server.url, retry=Backoff(0.02, factor=2, jitter="none", max_retries=3)))
        pipeline.start()
        result = pipeline.join(10)
        assert [one.measurements["delay"] for one in seen.of(DISCONNECTED)] == [0.02, 0.04, 0.08, None]
        assert [one.measurements["attempt"] for one in seen.of(SUCCESS)] == [1, 2, 3, 4]
        assert [one.measurements["value"] for one in seen.of(STATUS)] == [1, 0] * 4
        assert isinstance(result.error, RetriesExhausted)
        assert result.error.attempts == 4
        assert isinstance(result.error.last, ConnectionClosedError)
        assert [(one.connection_index, one.epoch, one.data) for one in pipeline.received] == [
            (0, epoch, b"x") for epoch in range(1, 5)]


def test_failures_are_forgotten_after_a_stable_time():
    scripts = [[steps.respond(500)], [steps.respond(500)], [steps.accept(), steps.wait(0.3), steps.cut()],
               [steps.accept(), steps.serve()]]
    retry = Backoff(0.02, factor=2, jitter="none", stable_after=0.15)
    with ScriptedServer(scripts) as server, capture(*EVENTS) as seen, Collector(producer(server.url, retry=retry)):
        seen.wait(SUCCESS, 2)
        assert [one.measurements["delay"] for one in seen.of(FAILURE)] == [0.02, 0.04]
        assert [one.measurements["delay"] for one in seen.of(DISCONNECTED)] == [0.02]


def test_a_retry_callable_gets_the_state_and_has_the_last_word():
    states = []

    def retry(state):
        states.append((state.attempt, state.failures, type(state.last_error).__name__))
        return 0.01 if len(states) < 3 else None

    with ScriptedServer([[steps.respond(503)]]) as server:
        pipeline = Collector(producer(server.url, retry=retry))
        pipeline.start()
        result = pipeline.join(10)
    assert states == [(2, 1, "InvalidStatus"), (3, 2, "InvalidStatus"), (4, 3, "InvalidStatus")]
    assert isinstance(result.error, RetriesExhausted)


@pytest.mark.parametrize("kind", ["raises", "answers wrongly"])
@pytest.mark.parametrize("when", ["an attempt failed", "a connection was lost"])
def test_a_retry_callable_that_fails_gives_up_visibly_and_tells_the_failure_as_well(kind, when):
    def retry(state):
        if kind == "raises":
            raise LookupError("no such delay")
        return "soon"

    script = [steps.respond(503)] if when == "an attempt failed" else [steps.accept(), steps.cut()]
    with ScriptedServer([script]) as server, capture(*EVENTS) as seen:
        pipeline = Collector(producer(server.url, retry=retry), shutdown_timeout=2)
        pipeline.start()
        result = pipeline.join(10)
        assert result is not None
        error = result.error.last if isinstance(result.error, RetriesExhausted) else result.error
        assert isinstance(error, ConfigurationError)
        assert error.path == "retry"
        assert result.threads_alive == ()
        assert result.drained
        names = [one.event[2] for one in seen.events]
    assert names == (["failure"] if when == "an attempt failed" else ["success", "status", "disconnected", "status"])


def test_one_connection_that_gave_up_does_not_end_the_others():
    scripts = [[steps.respond(503)], [steps.accept(), *[step for _ in range(40) for step in
                                                        (steps.text("on"), steps.serve(0.05))]]]
    with ScriptedServer(scripts) as server, capture(*EVENTS) as seen:
        with Collector(producer(server.url, concurrency=2, retry=Backoff(0.01, max_retries=0))) as pipeline:
            seen.wait(FAILURE)
            seen.wait(SUCCESS)
            pipeline.wait(3)
            assert pipeline.state == "running"
            assert sorted(one.state for one in pipeline._wsengine_producers[0].connections) == ["ready", "stopped"]


def test_many_connections_that_are_refused_are_each_tried_and_given_up():
    with ScriptedServer([[steps.respond(503)]]) as server, capture(*EVENTS) as seen:
        pipeline = Collector(producer(server.url, concurrency=20, retry=Backoff(0.01, max_retries=1)))
        pipeline.start()
        result = pipeline.join(10)
        assert isinstance(result.error, RetriesExhausted)
        assert len(seen.of(FAILURE)) == 40
        assert len(server.connections) == 40
        assert server.most_live <= 8  # as many as there are dialers


# ------------------------------------------------------------------------------------------------------------- slow hooks


def test_a_slow_telemetry_hook_delays_reconnects_and_nothing_else():
    """Connection 0 or 1 is lost; while the hook sleeps, the other one goes on, and its pings are answered."""
    event = telemetry.connection_event(ID, "disconnected")
    entered, gate = threading.Event(), threading.Event()

    def slow(*_):
        entered.set()
        gate.wait(5)

    stream = [step for _ in range(60) for step in (steps.text("on"), steps.ping(b"?"), steps.serve(0.03))]
    scripts = [[steps.accept(), steps.wait(0.1), steps.cut()], [steps.accept(), *stream]]
    telemetry.attach("slow", event, slow)
    try:
        with ScriptedServer(scripts) as server, Collector(producer(server.url, concurrency=2)) as pipeline:
            try:
                assert entered.wait(5)
                before, connections = len(pipeline.received), len(server.connections)
                pongs = len(server.connections[1].frames)
                time.sleep(0.4)
                assert len(server.connections) == connections == 2
                assert len(pipeline.received) >= before + 5
                assert len(server.connections[1].frames) >= pongs + 5
            finally:
                gate.set()
            server.wait_connections(3)
    finally:
        telemetry.detach("slow")


def test_a_telemetry_hook_that_raises_is_detached_and_the_connection_goes_on(caplog):
    calls = []

    def broken(*_):
        calls.append(1)
        raise RuntimeError("hook")

    telemetry.attach("broken", SUCCESS, broken)
    try:
        with Feed.trades(count=5) as feed, Collector(producer(feed.url)) as pipeline:
            pipeline.wait(5)
            feed.cut()
            deadline = time.monotonic() + 5
            while len(feed.log().connections) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(feed.log().connections) == 2
    finally:
        if any(one.handler_id == "broken" for one in telemetry.list_handlers()):
            telemetry.detach("broken")
    assert calls == [1]


# ---------------------------------------------------------------------------------------------------------------- the end


def test_a_stop_closes_with_1000_and_waits_for_the_answer():
    with ScriptedServer([[steps.accept(), steps.serve()]]) as server, capture(*EVENTS) as seen:
        with Collector(producer(server.url)) as pipeline:
            seen.wait(SUCCESS)
            result = pipeline.stop()
            connection = pipeline._wsengine_producers[0].connections[0]
            assert (connection.state, connection.close_code) == ("stopped", 1000)
        [record] = server.wait_ended(1)
    assert record.ended == "closed by client"
    assert result.drained
    assert result.seconds < 2


def test_a_peer_that_does_not_answer_the_close_delays_the_stop_by_close_timeout_and_no_more():
    with ScriptedServer([[steps.accept(), steps.read_until_close(), steps.stall()]]) as server, capture(*EVENTS) as seen:
        with Collector(producer(server.url, close_timeout=0.3)) as pipeline:
            seen.wait(SUCCESS)
            result = pipeline.stop()
    assert 0.25 <= result.seconds < 1.5
    assert result.threads_alive == ()
    assert [one.measurements["value"] for one in seen.of(STATUS)] == [1, 0]


def test_a_stop_does_not_wait_longer_than_its_own_time_for_a_close():
    with ScriptedServer([[steps.accept(), steps.stall()]]) as server, capture(*EVENTS) as seen:
        with Collector(producer(server.url, close_timeout=30)) as pipeline:
            seen.wait(SUCCESS)
            result = pipeline.stop(0.3)
    assert result.seconds < 2
    assert result.threads_alive == ()


def test_a_pipeline_can_be_started_again_and_connects_anew():
    with Feed.trades(count=10, resume=False) as feed:
        pipeline = Collector(producer(feed.url))
        for round_ in (1, 2, 3):
            with pipeline:
                pipeline.wait(10 * round_)
        assert [one.close_code for one in feed.log().connections] == [1000] * 3


def test_a_place_in_backoff_does_not_wake_the_supervisor_while_the_pipeline_drains(monkeypatch):
    class Blocked(Collector):
        def handle_messages(self, messages):
            gate.wait(30)

    gate, lost = threading.Event(), telemetry.connection_event("draining", "disconnected")
    looks, has_work = [], Supervisor._has_work
    monkeypatch.setattr(Supervisor, "_has_work", lambda self: looks.append(1) or has_work(self))
    with ScriptedServer([[steps.accept(), steps.text("x"), steps.cut()]]) as server, capture(lost) as seen:
        pipeline = Blocked(WebSocketProducer(server.url, telemetry_id="draining", retry=Backoff(0.3, jitter="none")))
        pipeline.start()
        seen.wait(lost)
        stopping = threading.Thread(target=pipeline.stop, args=(20,))
        stopping.start()
        time.sleep(0.5)  # what was due meanwhile would spin from here on
        before = len(looks)
        time.sleep(0.5)
        seen_meanwhile = len(looks) - before
        gate.set()
        stopping.join(20)
    assert seen_meanwhile < 20


# ---------------------------------------------------------------------------------------- what user code does is its own


class Mute(Exception):
    """Has no text."""

    def __str__(self):
        raise LookupError("no text to be had")

    __repr__ = __str__


class Odd(float):
    """A number that cannot be compared, nor shown."""

    def __lt__(self, other):
        raise SystemExit("no order to be had")

    __eq__ = __gt__ = __le__ = __ge__ = __lt__
    __hash__ = float.__hash__

    def __repr__(self):
        raise LookupError("no text to be had")


async def later():
    return 1.0


@pytest.mark.parametrize(("options", "shown"), [
    ({"retry": lambda state: Odd(1)}, "whether to connect again cannot be decided: SystemExit: no order to be had"),
    ({"retry": lambda state: later()}, "retry=<coroutine>: the callable returned this"),
    ({"retry": lambda state: Mute()}, "retry=<Mute>: the callable returned this"),
    ({"process_exception": lambda error: later()}, "process_exception=<coroutine>: the callable returned this"),
    ({"process_exception": lambda error: Mute()}, "gave up without another attempt: <Mute>"),
    ({"process_exception": lambda error: Odd(1)}, "process_exception=<Odd>: the callable returned this"),
], ids=["retry odd", "retry coroutine", "retry mute", "process coroutine", "process mute", "process odd"])
@pytest.mark.parametrize("when", ["an attempt failed", "a connection was lost"])
def test_what_a_callable_returns_costs_its_own_connection_only(caplog, options, shown, when):
    lost = [steps.respond(503)] if when == "an attempt failed" else [steps.accept(), steps.wait(0.2), steps.cut()]
    script = [steps.accept(), *[step for _ in range(400) for step in (steps.text("on"), steps.serve(0.02))]]
    with ScriptedServer([lost, script]) as server, capture(*EVENTS) as seen:
        with Collector(producer(server.url, concurrency=2, **options)) as pipeline:
            seen.wait(FAILURE if when == "an attempt failed" else DISCONNECTED)
            connections = pipeline._wsengine_producers[0].connections
            until(lambda: sorted(one.state for one in connections) == ["ready", "stopped"])
            pipeline.wait(len(pipeline.received) + 3)
            assert pipeline.state == "running"
            result = pipeline.stop(10)
    assert (result.error, result.threads_alive) == (None, ())
    assert shown in caplog.text
    assert "supervisor" not in "".join(one.getMessage() for one in caplog.records)


class Asynchronous:
    async def __call__(self, given):
        return None


@pytest.mark.parametrize("value", [later, functools.partial(later), Asynchronous()], ids=["function", "partial", "object"])
@pytest.mark.parametrize("option", ["retry", "process_exception", "transformer", "on_upgrade", "frame_handler"])
def test_an_async_callable_is_refused_at_construction(option, value):
    with pytest.raises(ConfigurationError, match=f"{option}=.*define it without async"):
        producer("ws://127.0.0.1:1", **{option: value})


# ------------------------------------------------------------------------------------ a connection that cannot be taken


@pytest.mark.parametrize("fault", [EngineError("no way to read it"), OSError(errno.EMFILE, "no descriptors"), MemoryError()],
                         ids=lambda one: type(one).__name__)
def test_nothing_is_taken_to_be_sent_on_a_connection_that_the_reader_did_not_get(monkeypatch, fault):
    real, calls = Connection.stream, []

    def stream(self, *given):
        calls.append(1)
        if len(calls) == 1:
            raise fault
        return real(self, *given)

    monkeypatch.setattr(Connection, "stream", stream)
    with ScriptedServer([[steps.accept(), steps.serve()]]) as server, capture(*EVENTS) as seen:
        with Collector(producer(server.url, retry=Backoff(3, jitter="none"))) as pipeline:
            [event] = seen.wait(FAILURE)
            assert event.metadata["reason"] is fault
            connection = pipeline._wsengine_producers[0].connections[0]
            until(lambda: connection.state == "backoff")
            with pytest.raises(ConnectionClosedError) as caught:
                connection.send("lost")
            assert caught.value.__cause__ is fault
            seen.wait(SUCCESS, timeout=20)
            connection.send("taken")


# ---------------------------------------------------------------------------------------------------- a blocked hook


def test_a_hook_that_blocks_delays_a_stop_to_its_deadline_and_is_named():
    entered, gate = threading.Event(), threading.Event()

    def on_upgrade(upgrade):
        entered.set()
        gate.wait(60)

    with ScriptedServer([[steps.accept(), steps.until_eof()]]) as server:
        pipeline = Collector(producer(server.url, on_upgrade=on_upgrade))
        pipeline.start()
        try:
            assert entered.wait(20)
            result = pipeline.stop(0.5)
        finally:
            gate.set()
        assert result.threads_alive == ("wsengine:Collector:producer_0:dialer_0",)
        until(lambda: not any("dialer" in one.name for one in threading.enumerate()))
        server.wait_ended(1)  # what the dialer brought behind the end is closed
