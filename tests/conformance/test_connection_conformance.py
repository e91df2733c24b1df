"""Conformance of a connection's life, items C19, C20, C22 to C27 and C29, each through a whole pipeline and a real server.

The server runs in a process of its own and keeps the record that the tests compare with. What a single module does is
tested beside that module (tests/websocket, tests/engine).
"""

from __future__ import annotations

import struct
import time

import pytest

from tests.gated import Gated
from wsengine import (
    Backoff,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidMessage,
    InvalidRedirect,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
    ProtocolError,
    RetriesExhausted,
    WebSocketProducer,
    telemetry,
)
from wsengine.testing import Feed, ScriptedServer, build_server_frame, capture, steps

pytestmark = pytest.mark.usefixtures("no_leaks")


ID = "conformance"
SUCCESS, FAILURE, DISCONNECTED, TIMEOUT, STATUS = CONNECTION = tuple(
    telemetry.connection_event(ID, name) for name in ("success", "failure", "disconnected", "timeout", "status"))
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

#: A server that stays, and is never silent for longer than 50 ms during the first second.
CHATTY = [step for _ in range(20) for step in (steps.ping(), steps.serve(0.05))]


class Collector(Gated):
    """Gives what has come as (epoch, seq, data)."""

    def wait(self, count):
        return [(one.epoch, one.seq, one.data) for one in super().wait(count)]


def producer(url, **options):
    """A producer with quick retries and without jitter."""
    options = {"telemetry_id": ID, "retry": Backoff(0.05, factor=1, jitter="none"), "keepalive": None, **options}
    return WebSocketProducer(url, **options)


def connection_of(pipeline, index=0):
    return pipeline._wsengine_producers[0].connections[index]


# ------------------------------------------------------------------------------------------ C19: the opening handshake

REFUSALS = {
    "503 with Retry-After": ([steps.respond(503, [("Retry-After", "0")], b"busy")], InvalidStatus),
    "502": ([steps.respond(502, body=b"<html>no backend</html>")], InvalidStatus),
    "garbage": ([steps.raw(b"\x00\xffnot http at all\r\n\r\n")], InvalidMessage),
    "an end before the answer": ([steps.cut()], InvalidMessage),
    "silence": ([steps.stall()], TimeoutError),
    "a slow drip of headers": ([steps.accept(chunk=1, interval=0.02), steps.stall()], TimeoutError),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_c19_a_failed_handshake_is_a_failure_with_its_cause_and_is_retried_until_the_budget_is_used_up(refusal):
    script, kind = REFUSALS[refusal]
    with ScriptedServer([script]) as server, capture(*CONNECTION) as seen:
        pipeline = Collector(producer(server.url, open_timeout=0.2,
                                      retry=Backoff(0.02, factor=2, jitter="none", max_retries=3)))
        pipeline.start()
        result = pipeline.join(10)
        assert result is not None, "the pipeline did not end"
        failures = seen.of(FAILURE)
        assert [one.measurements["delay"] for one in failures] == [0.02, 0.04, 0.08, None]
        assert [one.measurements["attempt"] for one in failures] == [1, 2, 3, 4]
        assert all(isinstance(one.metadata["reason"], kind) for one in failures), failures
        assert {one.event for one in seen.events} == {FAILURE}
        assert isinstance(result.error, RetriesExhausted)
        assert result.error.attempts == 4
        assert isinstance(result.error.last, kind)
        assert result.threads_alive == ()
        assert len(server.connections) == 4
        assert server.most_live == 1


FATAL = {
    "401": ([steps.respond(401, [("WWW-Authenticate", "Bearer")])], InvalidStatus),
    "302 without a Location": ([steps.respond(302)], InvalidRedirect),
    "200 with a body": ([steps.respond(200, body=b"<html>hello</html>")], InvalidStatus),
    "a wrong accept": ([steps.wrong_accept()], InvalidUpgrade),
    "no Upgrade header": ([steps.accept(without=["Upgrade"])], InvalidUpgrade),
    "an extension": ([steps.accept(headers=[("Sec-WebSocket-Extensions", "permessage-deflate")])], NegotiationError),
}


@pytest.mark.parametrize("refusal", FATAL)
def test_c19_a_failed_handshake_that_would_only_fail_again_is_told_by_name_and_ends_the_connection(refusal):
    script, kind = FATAL[refusal]
    with ScriptedServer([script]) as server, capture(*CONNECTION) as seen:
        pipeline = Collector(producer(server.url))
        pipeline.start()
        result = pipeline.join(10)
        assert result is not None, "the pipeline did not end"
        [failure] = seen.of(FAILURE)
        assert failure.measurements["delay"] is None
        assert type(failure.metadata["reason"]) is kind
        assert isinstance(result.error, RetriesExhausted)
        assert result.error.fatal
        assert type(result.error.last) is kind
        assert result.threads_alive == ()
        assert len(server.connections) == 1


def test_c19_attempts_come_no_sooner_than_their_delays():
    with ScriptedServer([[steps.respond(500)]]) as server:
        pipeline = Collector(producer(server.url, retry=Backoff(0.1, factor=2, jitter="none", max_retries=2)))
        pipeline.start()
        assert pipeline.join(10) is not None
        opened = [one.opened_ns / 1e9 for one in server.connections]
    assert opened[1] - opened[0] >= 0.1
    assert opened[2] - opened[1] >= 0.2


def test_c19_a_retry_after_is_added_to_the_delay():
    with ScriptedServer([[steps.respond(503, [("Retry-After", "7")])]]) as server, capture(FAILURE) as seen:
        with Collector(producer(server.url)):
            [failure] = seen.wait(FAILURE)
        assert failure.measurements["delay"] == pytest.approx(7.05)
        assert len(server.connections) == 1


def test_c19_a_server_that_recovers_gets_its_connection():
    with ScriptedServer([[steps.respond(503)], [steps.respond(503)], [steps.accept(), steps.text("up"), *CHATTY]]) as server:
        with capture(*CONNECTION) as seen, Collector(producer(server.url)) as pipeline:
            assert pipeline.wait(1) == [(3, 0, b"up")]
            assert [one.event for one in seen.events] == [FAILURE, FAILURE, SUCCESS, STATUS]
            assert seen.of(SUCCESS)[0].measurements["attempt"] == 3


def test_c19_a_port_on_which_nobody_listens_is_a_failure_with_its_errno():
    with ScriptedServer([[]]) as server:
        url = server.url
    with capture(*CONNECTION) as seen:
        pipeline = Collector(producer(url, retry=Backoff(0.01, max_retries=0)))
        pipeline.start()
        result = pipeline.join(10)
        assert result is not None
        assert isinstance(result.error, RetriesExhausted)
        assert isinstance(result.error.last, ConnectionRefusedError)
        assert [one.event for one in seen.events] == [FAILURE]


# ------------------------------------------------------------------------------- C20: frames glued to the 101 response


@pytest.mark.parametrize("count", [1, 2, 500])
def test_c20_frames_that_come_with_the_101_are_delivered_in_order(count):
    glued = b"".join(build_server_frame(TEXT, b"%d" % number) for number in range(count))
    with ScriptedServer([[steps.accept_glued(glued), steps.text("behind"), *CHATTY]]) as server:
        with Collector(producer(server.url)) as pipeline:
            received = pipeline.wait(count + 1)
    assert received == [(1, number, b"%d" % number) for number in range(count)] + [(1, count, b"behind")]


@pytest.mark.parametrize("at", [1, 2, 3, 9])
def test_c20_a_frame_that_begins_with_the_101_and_ends_later_is_delivered_whole(at):
    frames = build_server_frame(TEXT, b"glued") + build_server_frame(BINARY, b"\x00\x01")
    script = [steps.accept_glued(frames[:at]), steps.wait(0.05), steps.send(frames[at:]), *CHATTY]
    with ScriptedServer([script]) as server, Collector(producer(server.url)) as pipeline:
        assert pipeline.wait(2) == [(1, 0, b"glued"), (1, 1, b"\x00\x01")]


def test_c20_a_ping_that_comes_with_the_101_is_answered():
    with ScriptedServer([[steps.accept_glued(build_server_frame(PING, b"early")), steps.serve()]]) as server:
        with Collector(producer(server.url)):
            [record] = server.wait(lambda all_: all_ and any(f.opcode == PONG for f in all_[0].frames))
            assert [f.payload for f in record.frames] == [b"early"]


def test_c20_a_close_that_comes_with_the_101_ends_what_was_open():
    glued = build_server_frame(TEXT, b"last words") + build_server_frame(CLOSE, struct.pack("!H", 1001))
    with ScriptedServer([[steps.accept_glued(glued), steps.until_eof()], [steps.accept(), *CHATTY]]) as server:
        with capture(*CONNECTION) as seen, Collector(producer(server.url)) as pipeline:
            seen.wait(SUCCESS, 2)
            assert pipeline.wait(1) == [(1, 0, b"last words")]
            names = [(one.event[2], one.measurements.get("value")) for one in seen.events][:4]
            assert names == [("success", None), ("status", 1), ("disconnected", None), ("status", 0)]


# --------------------------------------------------------------------------------- C22: many errors, one failure (W-2)


def test_c22_twenty_protocol_errors_in_one_segment_are_one_failure_and_one_reconnect():
    errors = b"".join(build_server_frame(3, b"reserved opcode") for _ in range(20))
    scripts = [[steps.accept(), steps.text("a"), steps.send(errors), steps.until_eof()],
               [steps.accept(), steps.text("b"), *CHATTY]]
    with ScriptedServer(scripts) as server, capture(*CONNECTION) as seen:
        with Collector(producer(server.url)) as pipeline:
            assert pipeline.wait(2) == [(1, 0, b"a"), (2, 0, b"b")]
            time.sleep(0.3)  # six times the delay: a second pending attempt would show
            assert len(server.connections) == 2
            [failure] = seen.of(FAILURE)
            assert isinstance(failure.metadata["reason"], ProtocolError)
            assert failure.metadata["reason"].code == 1002
            assert [one.event[2] for one in seen.events] == ["success", "status", "failure", "status", "success", "status"]
        assert server.most_live == 1


# ------------------------------------------------------------------------------------------------- C23: the peer's Close

CLOSES = {
    "1000": ([steps.close(1000)], 1000, ""),
    "1001 with a reason": ([steps.close(1001, "going away")], 1001, "going away"),
    "1012": ([steps.close(1012, "restart")], 1012, "restart"),
    "1013": ([steps.close(1013, "try later")], 1013, "try later"),
    "4003": ([steps.close(4003, "subscription ended")], 4003, "subscription ended"),
    "a reason of 123 bytes": ([steps.close(1008, "é" * 61 + "x")], 1008, "é" * 61 + "x"),
    "no code": ([steps.close(None)], 1005, ""),
    "no Close at all": ([steps.cut()], 1006, ""),
    "a Close that ends within its reason": ([steps.raw(b"\x88\x12\x03\xe8trunc"), steps.cut()], 1006, ""),
}


@pytest.mark.parametrize("how", CLOSES)
def test_c23_the_code_and_reason_of_a_close_are_told_once_and_the_connection_comes_back(how):
    script, code, reason = CLOSES[how]
    delay = 0.3
    scripts = [[steps.accept(), *script, steps.until_eof()], [steps.accept(), steps.text("back"), *CHATTY]]
    with ScriptedServer(scripts) as server, capture(*CONNECTION) as seen:
        with Collector(producer(server.url, retry=Backoff(delay, jitter="none"))) as pipeline:
            [event] = seen.wait(DISCONNECTED)
            connection = connection_of(pipeline)
            assert (connection.close_code, connection.close_reason) == (code, reason)
            error = event.metadata["reason"]
            assert type(error) is (ConnectionClosedOK if code in (1000, 1001, 1005) else ConnectionClosedError)
            assert (error.code, error.reason) == (code, reason)
            assert event.measurements["close_code"] == code
            assert event.measurements["delay"] == delay
            assert pipeline.wait(1) == [(2, 0, b"back")]
            assert (connection.close_code, connection.close_reason) == (None, None)
            assert len(seen.of(DISCONNECTED)) == 1
            assert len(server.connections) == 2


@pytest.mark.parametrize("code", [1000, 1012, 4003])
def test_c23_a_close_is_answered_with_its_own_code(code):
    with ScriptedServer([[steps.accept(), steps.close(code), steps.until_eof()], [steps.accept(), *CHATTY]]) as server:
        with Collector(producer(server.url)):
            first, *_ = server.wait_ended(1)
    assert [(f.opcode, f.payload, f.masked) for f in first.frames] == [(CLOSE, struct.pack("!H", code), True)]


def test_c23_a_reason_truncated_within_a_character_fails_the_connection_with_1007():
    broken = build_server_frame(CLOSE, struct.pack("!H", 1000) + "tschüss".encode()[:5])
    scripts = [[steps.accept(), steps.send(broken), steps.until_eof()], [steps.accept(), *CHATTY]]
    with ScriptedServer(scripts) as server, capture(*CONNECTION) as seen, Collector(producer(server.url)):
        seen.wait(SUCCESS, 2)
        [failure] = seen.of(FAILURE)
        assert failure.metadata["reason"].code == 1007
        first = server.connections[0]
        assert [f.payload[:2] for f in first.frames] == [struct.pack("!H", 1007)]
        assert seen.of(DISCONNECTED) == []


def test_c23_messages_before_a_close_in_the_same_segment_are_delivered_and_those_behind_are_not():
    data = b"".join(build_server_frame(opcode, payload) for opcode, payload in
                    [(TEXT, b"one"), (TEXT, b"two"), (CLOSE, struct.pack("!H", 1012)), (TEXT, b"after the end")])
    scripts = [[steps.accept(), steps.send(data), steps.until_eof()], [steps.accept(), steps.text("next"), *CHATTY]]
    with ScriptedServer(scripts) as server, Collector(producer(server.url)) as pipeline:
        assert pipeline.wait(3) == [(1, 0, b"one"), (1, 1, b"two"), (2, 0, b"next")]


# ------------------------------------------------------------------------------------------------- C24 to C27: liveness


def test_c24_a_silent_peer_that_answers_close_costs_one_reconnect_and_no_duplicate():
    scripts = [[steps.accept(), steps.text("a"), steps.echo_close(), steps.until_eof()],
               [steps.accept(), steps.text("b"), *CHATTY]]
    with ScriptedServer(scripts) as server, capture(*CONNECTION) as seen:
        with Collector(producer(server.url, ws_timeout=0.25)) as pipeline:
            assert pipeline.wait(2) == [(1, 0, b"a"), (2, 0, b"b")]
            time.sleep(0.4)
            assert pipeline.wait(2) == [(1, 0, b"a"), (2, 0, b"b")]
            records = server.connections
            assert len(records) == 2
            assert records[0].frames[0].payload[:2] == struct.pack("!H", 1001)
            assert [one.event[2] for one in seen.events] == ["success", "status", "timeout", "status", "success", "status"]
            assert isinstance(seen.of(TIMEOUT)[0].metadata["reason"], TimeoutError)
        assert server.most_live == 1


def test_c25_a_peer_that_stops_answering_is_lost_within_keepalive_and_pong_timeout():
    with ScriptedServer([[steps.accept(), steps.stall()]]) as server, capture(*CONNECTION) as seen:
        with Collector(producer(server.url, keepalive=0.1, pong_timeout=0.15, retry=Backoff(30, jitter="none"))):
            [event] = seen.wait(TIMEOUT)
            assert "keepalive ping timeout" in str(event.metadata["reason"])
            assert 0.24 <= event.measurements["duration"] <= 0.45


def test_c25_a_peer_that_answers_pings_is_kept_although_it_says_nothing_else():
    with ScriptedServer([[steps.accept(), steps.serve()]]) as server, capture(*CONNECTION) as seen:
        with Collector(producer(server.url, keepalive=0.05, ws_timeout=0.2, pong_timeout=0.2)) as pipeline:
            time.sleep(0.6)
            assert [one.event[2] for one in seen.events] == ["success", "status"]
            assert 0 < connection_of(pipeline).latency < 0.2


def test_c25_a_silent_peer_is_lost_after_ws_timeout():
    with ScriptedServer([[steps.accept(), steps.stall()]]) as server, capture(*CONNECTION) as seen:
        with Collector(producer(server.url, ws_timeout=0.2, retry=Backoff(30, jitter="none"))):
            [event] = seen.wait(TIMEOUT)
            assert 0.19 <= event.measurements["duration"] <= 0.4


def test_c26_pings_are_answered_with_their_payload_while_the_handler_blocks():
    payloads = [b"", b"are you there", bytes(range(125))]
    script = [steps.accept(), steps.text("x"), steps.wait(0.1), *map(steps.ping, payloads), steps.serve()]
    with ScriptedServer([script]) as server:
        pipeline = Collector(producer(server.url))
        pipeline.gate.clear()
        with pipeline:
            try:
                assert pipeline.entered.wait(5)
                [record] = server.wait(lambda all_: all_ and len(all_[0].frames) >= 3, 3)
                assert [(f.opcode, f.payload, f.masked) for f in record.frames] == [(PONG, one, True) for one in payloads]
                assert pipeline.received == []
            finally:
                pipeline.gate.set()
            pipeline.wait(1)


def test_c27_a_ws_timeout_shorter_than_the_backoff_makes_no_further_timeouts_or_connects():
    scripts = [[steps.accept(), steps.stall()], [steps.accept(), *CHATTY]]
    with ScriptedServer(scripts) as server, capture(*CONNECTION) as seen:
        with Collector(producer(server.url, ws_timeout=0.15, retry=Backoff(0.7, jitter="none"))):
            seen.wait(TIMEOUT)
            time.sleep(0.5)  # three more times the ws_timeout
            assert len(server.connections) == 1
            seen.wait(SUCCESS, 2)
            time.sleep(0.3)
            assert [one.event[2] for one in seen.events] == ["success", "status", "timeout", "status", "success", "status"]
            first, second = server.connections
            assert second.opened_ns - first.ended_ns >= 0.65e9


# ---------------------------------------------------------------------------------------------------------- C29: status


def statuses(seen):
    return [one.measurements["value"] for one in seen.of(STATUS)]


def test_c29_status_is_told_once_for_each_transition_and_at_a_graceful_stop():
    with Feed.trades(count=100) as feed, capture(*CONNECTION) as seen:
        with Collector(producer(feed.url)) as pipeline:
            for generation in range(1, 4):
                seen.wait(SUCCESS, generation)
                feed.cut()
            seen.wait(SUCCESS, 4)
            seen.wait(STATUS, 7)
            assert statuses(seen) == [1, 0, 1, 0, 1, 0, 1]
            pipeline.stop()
        assert statuses(seen) == [1, 0, 1, 0, 1, 0, 1, 0]
        assert seen.of(STATUS)[-1].metadata["reason"] == "stopped"
        assert len(seen.of(DISCONNECTED)) == 3
        last = feed.wait(lambda log: not log.connections[-1].open).connections[-1]
    assert (last.ended, last.close_code) == ("closed by client", 1000)


def test_c29_a_stop_in_the_backoff_tells_no_second_down():
    with ScriptedServer([[steps.accept(), steps.cut()]]) as server, capture(*CONNECTION) as seen:
        with Collector(producer(server.url, retry=Backoff(30, jitter="none"))):
            seen.wait(STATUS, 2)
        assert statuses(seen) == [1, 0]


def test_c29_a_stop_while_dialing_tells_nothing_and_does_not_wait_for_the_dial():
    with ScriptedServer([[steps.stall()]]) as server, capture(*CONNECTION) as seen:
        with Collector(producer(server.url, open_timeout=30)) as pipeline:
            server.wait_connections(1)
            result = pipeline.stop()
        assert seen.events == []
        assert result.seconds < 2
        assert result.threads_alive == ()
        server.wait_ended(1)


def test_c29_each_connection_of_a_producer_has_its_own_status():
    with Feed.trades(count=10) as feed, capture(*CONNECTION) as seen, Collector(producer(feed.url, concurrency=3)):
        seen.wait(SUCCESS, 3)
        feed.cut()
        seen.wait(SUCCESS, 6)
    for index in range(3):
        mine = [one.measurements["value"] for one in seen.of(STATUS) if one.metadata["index"] == index]
        assert mine == [1, 0, 1, 0], f"connection {index}"


def test_a_close_error_is_a_connection_closed():
    """The events' reasons can be caught by one class, as the error tree draws it."""
    assert issubclass(ConnectionClosedOK, ConnectionClosed)
    assert issubclass(ConnectionClosedError, ConnectionClosed)
