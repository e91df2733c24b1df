"""What a producer tells: its telemetry with measurements, one log line for each change of state, and never a secret."""

from __future__ import annotations

import base64
import logging
import threading
import time
import traceback

import pytest

from tests.gated import Gated
from tests.waiting import until
from wsengine import (
    Backoff,
    ConnectionClosedError,
    HeadersError,
    InvalidStatus,
    WebSocketProducer,
    telemetry,
)
from wsengine.testing import Feed, ScriptedServer, build_server_frame, capture, steps
from wsengine.websocket.supervisor import Supervisor

pytestmark = pytest.mark.usefixtures("no_leaks")

ID = "events"
CONNECTION = {name: telemetry.connection_event(ID, name) for name in telemetry.CONNECTION_EVENTS}
QUEUE = {name: telemetry.queue_event(ID, name) for name in telemetry.QUEUE_EVENTS}


def producer(url, **options):
    return WebSocketProducer(url, **{"telemetry_id": ID, "retry": Backoff(0.05, jitter="none"), **options})


# ----------------------------------------------------------------------------------------------------------- telemetry


def test_each_connection_event_names_pipeline_url_connection_and_generation():
    scripts = [[steps.respond(503)], [steps.accept(), steps.text("abc"), steps.cut()], [steps.accept(), steps.serve()]]
    with ScriptedServer(scripts) as server, capture(*CONNECTION.values()) as seen:
        with Gated(producer(server.url, path="/feed?token=abc"), name="named"):
            seen.wait(CONNECTION["success"], 2)
            seen.wait(CONNECTION["status"], 3)
        shown = server.connections[0].header("Host")
    assert [(one.event[2], one.metadata["epoch"]) for one in seen.events] == [
        ("failure", 1), ("success", 2), ("status", 2), ("disconnected", 2), ("status", 2), ("success", 3), ("status", 3),
        ("status", 3)]
    for one in seen.events:
        assert (one.metadata["pipeline"], one.metadata["index"]) == ("named", 0)
        assert one.metadata["url"].startswith(f"ws://{shown}/feed")
        assert "abc" not in one.metadata["url"]


def test_the_measurements_of_a_loss_are_those_of_that_generation_alone():
    payloads = [[b"a" * 10], [b"b" * 200, b"c"]]
    scripts = [[steps.accept(), *map(steps.binary, one), steps.wait(0.1), steps.cut()] for one in payloads]
    with ScriptedServer([*scripts, [steps.accept(), steps.serve()]]) as server, capture(*CONNECTION.values()) as seen:
        with Gated(producer(server.url)):
            first, second = seen.wait(CONNECTION["disconnected"], 2)
    assert {key: first.measurements[key] for key in ("count", "messages", "bytes", "frames")} == {
        "count": 1, "messages": 1, "bytes": 10, "frames": 1}
    assert {key: second.measurements[key] for key in ("count", "messages", "bytes", "frames")} == {
        "count": 1, "messages": 2, "bytes": 201, "frames": 2}
    assert 0.05 < first.measurements["duration"] < 1
    assert (first.measurements["delay"], second.measurements["delay"]) == (0.05, 0.1)


def test_pings_and_pongs_are_told_only_where_they_are_not_silenced():
    script = [steps.accept(), steps.ping(b"hello"), steps.serve()]
    names = CONNECTION["ping"], CONNECTION["pong"]
    with ScriptedServer([script]) as server, capture(*names) as seen:
        with Gated(producer(server.url, keepalive=0.05, silence_pings=False)) as pipeline:
            [ping, *_] = seen.wait(names[0])
            pong = seen.wait(names[1], 2)[0]
            latency = pipeline._wsengine_producers[0].connections[0].latency
        assert ping.metadata["payload"] == b"hello"
        assert "round_trip" not in ping.measurements
        assert 0 < pong.measurements["round_trip"] < 1
        assert 0 < latency < 1
        seen.clear()
        with Gated(producer(server.url, keepalive=0.05)) as pipeline:
            until(lambda: pipeline._wsengine_producers[0].connections[0].latency is not None)
        assert seen.events == []


def test_the_queue_is_high_when_reading_pauses_and_low_when_it_goes_on():
    with Feed.trades(size=128, count=20_000) as feed, capture(*QUEUE.values()) as seen:
        pipeline = Gated(producer(feed.url), max_queue=1000, max_queue_bytes=2**22)
        pipeline.gate.clear()
        with pipeline:
            [high] = seen.wait(QUEUE["high"])
            time.sleep(0.2)
            assert [one.event for one in seen.events] == [QUEUE["high"]]
            assert pipeline._wsengine_producers[0].connections[0].paused
            assert pipeline.stats().producers[0]["connections"][0]["pauses"] == 1
            pipeline.gate.set()
            seen.wait(QUEUE["low"])
            until(lambda: len(pipeline.received) == 20_000)
    assert (high.measurements["max_messages"], high.measurements["max_bytes"]) == (1024, 2**22)
    assert high.measurements["messages"] == 1024 or high.measurements["bytes"] >= 2**22
    names = [one.event[2] for one in seen.events]
    assert names == ["high", "low"] * (len(names) // 2)


def test_what_a_stop_did_not_take_is_told_as_dropped_and_counted_in_the_result():
    with Feed.trades(size=128) as feed, capture(QUEUE["drop"]) as seen:
        pipeline = Gated(producer(feed.url), max_queue=256)
        pipeline.gate.clear()
        with pipeline:
            assert pipeline.entered.wait(5)
            feed.wait(lambda log: log.messages > 2000)
            threading.Timer(0.2, pipeline.gate.set).start()
            result = pipeline.stop(5)
    assert result.discarded > 0
    assert sum(one.measurements["count"] for one in seen.events) == result.discarded
    assert {one.metadata["reason"] for one in seen.events} == {"the pipeline was stopping"}


def test_nothing_is_built_for_events_that_nobody_listens_to_and_the_connection_works_all_the_same():
    with Feed.trades(count=10) as feed:
        assert not any(telemetry.listening(one) for one in CONNECTION.values())
        with Gated(producer(feed.url)) as pipeline:
            until(lambda: len(pipeline.received) == 10)


# ----------------------------------------------------------------------------------------------------------------- logs


def lines(caplog):
    return [(one.levelname, one.getMessage()) for one in caplog.records if one.name == "wsengine.connection"]


def test_each_change_of_state_is_one_line(caplog):
    caplog.set_level(logging.DEBUG)
    scripts = [[steps.accept(), steps.close(1012, "restart"), steps.until_eof()], [steps.respond(503, reason="Busy")],
               [steps.accept(), steps.serve()]]
    with ScriptedServer(scripts) as server, capture(CONNECTION["success"]) as seen:
        with Gated(producer(server.url)):
            seen.wait(CONNECTION["success"], 2)
        shown = server.connections[0].header("Host")
    told = lines(caplog)
    assert [level for level, _ in told] == ["INFO", "WARNING", "WARNING", "INFO", "INFO"]
    parts = ["is open (attempt 1", "is lost after", "failed (attempt 2): InvalidStatus: server answered the upgrade with "
             "HTTP 503 Busy; next attempt in", "is open (attempt 3", "is closed after"]
    for (_, message), part in zip(told, parts, strict=True):
        assert message.startswith(f"connection 0 to ws://{shown}/ ")
        assert part in message
    assert "connection closed with 1012 (restart); next attempt in 0.05 s" in told[1][1]


def test_giving_up_is_one_error_line(caplog):
    with ScriptedServer([[steps.respond(500)]]) as server:
        pipeline = Gated(producer(server.url, retry=Backoff(0.01, max_retries=1)))
        pipeline.start()
        assert pipeline.join(10) is not None
    told = lines(caplog)
    assert [level for level, _ in told] == ["WARNING", "WARNING", "ERROR"]
    assert told[1][1].endswith("giving up")
    assert "gave up after 2 failed attempts" in told[2][1]


def test_a_logger_of_ones_own_gets_the_lines(caplog):
    caplog.set_level(logging.INFO)
    with Feed.trades(count=1) as feed:
        with Gated(producer(feed.url, logger=logging.getLogger("mine"))) as pipeline:
            until(lambda: len(pipeline.received) == 1)
    assert [one.name for one in caplog.records] == ["mine", "mine"]


# -------------------------------------------------------------------------------------------------------------- secrets

SECRETS = ("hunter2", "t0ken-in-query", "bearer-s3cret", "c00kie", "callable-s3cret",
           base64.b64encode(b"user:hunter2").decode())


def spoken(caplog, seen, *others):
    """All that was said, in one text: log lines with tracebacks, events, and reprs."""
    said = [caplog.text, *map(repr, others)]
    for one in seen.events:
        said += [repr(one), str(one.metadata.get("reason"))]
        said += [f"{key}: {value!r} {value}" for key, value in one.metadata.items()]
    for record in caplog.records:
        if record.exc_info:
            said += traceback.format_exception(record.exc_info[1])
    return "\n".join(said)


@pytest.mark.parametrize("outcome", ["refused", "lost", "nobody listens"])
def test_credentials_query_and_headers_are_never_told(caplog, outcome):
    caplog.set_level(logging.DEBUG)
    script = {"refused": [steps.respond(401, [("Set-Cookie", "session=c00kie")], b"c00kie")],
              "lost": [steps.accept(headers=[("Set-Cookie", "session=c00kie")]), steps.text("x"), steps.ping(),
                       steps.wait(0.05), steps.cut()], "nobody listens": []}[outcome]
    server = ScriptedServer([script]).start()
    try:
        address = f"127.0.0.1:{server.port}"
        if outcome == "nobody listens":
            server.stop()
        one = producer(f"ws://user:hunter2@{address}/feed?token=t0ken-in-query", silence_pings=False,
                       headers=[("X-Api-Key", "bearer-s3cret")], retry=Backoff(0.01, max_retries=1))
        with capture(*telemetry.all_events(ID)) as seen:
            pipeline = Gated(one)
            pipeline.start()
            result = pipeline.join(10)
            said = spoken(caplog, seen, one, pipeline, pipeline.stats(), result, result.error, str(result.error),
                          one.connections[0], one.connections[0].response, pipeline.topology())
        if outcome != "nobody listens":  # it did send them, so there was something to hide
            request = server.connections[0]
            assert "t0ken-in-query" in request.request_line
            assert request.header("Authorization") == "Basic " + SECRETS[-1]
            assert request.header("X-Api-Key") == "bearer-s3cret"
    finally:
        if outcome != "nobody listens":
            server.stop()
    assert f"ws://{address}/feed" in said
    assert [secret for secret in SECRETS if secret in said] == []


def test_what_a_headers_callable_raises_is_told_without_its_text(caplog):
    caplog.set_level(logging.DEBUG)

    def headers():
        raise OSError("cannot reach https://auth.example/?key=callable-s3cret")

    with ScriptedServer([[steps.accept()]]) as server, capture(*telemetry.all_events(ID)) as seen:
        pipeline = Gated(producer(server.url, headers=headers, retry=Backoff(0.01, max_retries=1)))
        pipeline.start()
        result = pipeline.join(10)
        said = spoken(caplog, seen, result.error, str(result.error))
        assert server.connections == []
    assert isinstance(result.error.last, HeadersError)
    assert "the headers callable raised OSError" in said
    assert "callable-s3cret" not in said


def test_the_authorization_header_is_not_told_where_it_is_given_as_one(caplog):
    caplog.set_level(logging.DEBUG)
    with ScriptedServer([[steps.respond(403)]]) as server, capture(*telemetry.all_events(ID)) as seen:
        pipeline = Gated(producer(server.url, headers={"Authorization": "Bearer bearer-s3cret"},
                                  retry=Backoff(0.01, max_retries=0)))
        pipeline.start()
        result = pipeline.join(10)
        said = spoken(caplog, seen, result, pipeline._wsengine_producers[0])
        assert server.connections[0].header("Authorization") == "Bearer bearer-s3cret"
    assert isinstance(result.error.last, InvalidStatus)
    assert "bearer-s3cret" not in said


def test_a_payload_is_not_told_in_the_failure_that_it_causes(caplog):
    caplog.set_level(logging.DEBUG)
    bad = build_server_frame(1, b"account c00kie \xff")
    with ScriptedServer([[steps.accept(), steps.send(bad), steps.until_eof()]]) as server:
        with capture(*CONNECTION.values()) as seen, Gated(producer(server.url, retry=Backoff(5, jitter="none"))):
            seen.wait(CONNECTION["status"], 2)
            assert "c00kie" not in spoken(caplog, seen)


# ------------------------------------------------------------------------------------------------- a logger that raises


class Raising(logging.Filter):
    """Raises on every line, and counts them."""

    def __init__(self):
        super().__init__()
        self.lines = 0

    def filter(self, record):
        self.lines += 1
        raise LookupError("no such field")


@pytest.fixture
def raising():
    """A logger whose filter raises; one for each test, as its fault is told once."""
    logger, bad = logging.Logger("raising"), Raising()
    logger.addFilter(bad)
    return logger, bad


@pytest.mark.parametrize("adapter", [False, True])
def test_a_logger_that_raises_is_told_once_and_the_connections_go_on(raising, adapter, capfd):
    logger, bad = raising
    with Feed.trades(count=5) as feed, capture(*CONNECTION.values()) as seen:
        with Gated(producer(feed.url, logger=logging.LoggerAdapter(logger, {}) if adapter else logger)) as pipeline:
            until(lambda: len(pipeline.received) == 5)
            feed.cut()
            seen.wait(CONNECTION["success"], 2)
            connection = pipeline._wsengine_producers[0].connections[0]
            until(lambda: connection.state == "ready")
            result = pipeline.stop(10)
    assert [one.event[2] for one in seen.events] == ["success", "status", "disconnected", "status", "success", "status",
                                                     "status"]
    assert (result.threads_alive, result.error, connection.state) == ((), None, "stopped")
    assert bad.lines == 4
    err = capfd.readouterr().err
    assert err.count("its lines are missing, the connections go on") == err.count("LookupError: no such field") == 1


def test_giving_up_ends_the_pipeline_also_where_the_logger_raises(raising):
    with ScriptedServer([[steps.respond(500)]]) as server:
        pipeline = Gated(producer(server.url, retry=Backoff(0.01, max_retries=1), logger=raising[0]))
        pipeline.start()
        result = pipeline.join(20)
    assert result is not None
    assert isinstance(result.error.last, InvalidStatus)
    assert result.threads_alive == ()


def test_a_supervisor_that_dies_while_it_closes_leaves_nothing_open(raising, monkeypatch):
    def die(self):
        raise MemoryError("a fault of ours")

    with ScriptedServer([[steps.accept(), steps.serve()]]) as server, capture(CONNECTION["success"]) as seen:
        with Gated(producer(server.url, logger=raising[0])) as pipeline:
            seen.wait(CONNECTION["success"])
            real, connection = Supervisor._close, pipeline._wsengine_producers[0].connections[0]
            monkeypatch.setattr(Supervisor, "_close", lambda self, one: (real(self, one), die(self)))
            result = pipeline.stop(10)
            assert (connection.state, result.threads_alive) == ("stopped", ())
        server.wait_ended(1)


def test_a_supervisor_that_dies_ends_the_pipeline_whatever_its_logger_does(raising, monkeypatch):
    def die(self, note):
        raise SystemExit("a fault of ours")

    monkeypatch.setattr(Supervisor, "_take_note", die)
    with Feed.trades(count=5) as feed:
        pipeline = Gated(producer(feed.url, logger=raising[0]))
        pipeline.start()
        until(lambda: len(pipeline.received) == 5)
        connection = pipeline._wsengine_producers[0].connections[0]
        feed.cut()
        result = pipeline.join(20)
        assert result is not None
        assert isinstance(result.error, SystemExit)
        assert (connection.state, result.threads_alive) == ("stopped", ())
        with pytest.raises(ConnectionClosedError, match="the supervisor died"):
            connection.send("x")


class Mute(OSError):
    def __str__(self):
        raise LookupError("no text to be had")


def test_a_failure_without_a_text_is_told_by_its_type(caplog):
    def sock():
        raise Mute("x")

    pipeline = Gated(producer("ws://127.0.0.1:1", sock=sock, retry=Backoff(0.01, max_retries=1)))
    pipeline.start()
    assert pipeline.join(20).threads_alive == ()
    assert [level for level, _ in lines(caplog)] == ["WARNING", "WARNING", "ERROR"]
    assert "Mute" in caplog.text


def test_the_reason_of_a_servers_close_writes_no_line_of_its_own(caplog):
    script = [steps.accept(), steps.close(4000, "bye\nCRITICAL root: fake line\x1b[2J"), steps.until_eof()]
    with ScriptedServer([script]) as server, capture(CONNECTION["disconnected"]) as seen:
        with Gated(producer(server.url, retry=Backoff(5, jitter="none"))):
            [event] = seen.wait(CONNECTION["disconnected"])
    assert event.metadata["reason"].reason == "bye\nCRITICAL root: fake line\x1b[2J"
    assert r"(bye\nCRITICAL root: fake line\x1b[2J)" in lines(caplog)[-1][1]
    assert all(message.isprintable() for _, message in lines(caplog))
