"""What a producer tells: its telemetry with measurements, one log line for each change of state, and never a secret."""

from __future__ import annotations

import base64
import logging
import threading
import time
import traceback

import pytest

from wsengine import Backoff, HeadersError, InvalidStatus, Pipeline, WebSocketProducer, telemetry
from wsengine.testing import Feed, ScriptedServer, build_server_frame, capture, steps

pytestmark = pytest.mark.usefixtures("no_leaks")

ID = "events"
CONNECTION = {name: telemetry.connection_event(ID, name) for name in telemetry.CONNECTION_EVENTS}
QUEUE = {name: telemetry.queue_event(ID, name) for name in telemetry.QUEUE_EVENTS}


class Gated(Pipeline):
    """Counts its messages; while `gate` is closed, its handler waits."""

    def __init__(self, producers, **options):
        super().__init__(producers, **options)
        self.count = 0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def handle_messages(self, messages):
        self.entered.set()
        self.gate.wait(30)
        self.count += len(messages)


def producer(url, **options):
    return WebSocketProducer(url, **{"telemetry_id": ID, "retry": Backoff(0.05, jitter="none"), **options})


def until(condition, timeout=5):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.005)


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
    assert 0.09 < first.measurements["duration"] < 1
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
            until(lambda: pipeline.count == 20_000)
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
            until(lambda: pipeline.count == 10)


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
            until(lambda: pipeline.count == 1)
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
