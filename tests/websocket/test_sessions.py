"""`frame_handler` on real connections: generations, replies, failures, slow handlers, and the recorded exchanges.

How the dispatcher treats single frames is tested beside it (tests/pipeline/test_dispatcher.py).
"""

from __future__ import annotations

import itertools
import json
import struct
import threading
import time
from collections import Counter

import pytest

from tests.waiting import until
from wsengine import (
    Backoff,
    ConfigurationError,
    Emit,
    Fail,
    FrameHandlerError,
    Message,
    Processors,
    RetriesExhausted,
    Skip,
    WebSocketProducer,
    telemetry,
)
from wsengine.testing import Collector, Feed, ScriptedServer, build_server_frame, capture, load_recording, steps

pytestmark = pytest.mark.usefixtures("no_leaks")

ID = "sessions"
SUCCESS, FAILURE, DISCONNECTED, STATUS, DROP, HIGH = EVENTS = (
    *(telemetry.connection_event(ID, name) for name in ("success", "failure", "disconnected", "status")),
    *(telemetry.queue_event(ID, name) for name in ("drop", "high")))
TEXT, BINARY, CLOSE = 1, 2, 8
SERVE = steps.serve()


def producer(url, handler, state=None, **options):
    return WebSocketProducer(url, frame_handler=handler, frame_handler_state=state, **{
        "telemetry_id": ID, "retry": Backoff(0.02, factor=1, jitter="none"), "keepalive": None, **options})


def send(*payloads):
    return steps.send(b"".join(build_server_frame(TEXT, payload) for payload in payloads))


def figures(pipeline):
    return pipeline.stats().producers[0]["frame_handler"]


# ------------------------------------------------------------------------------------------------------ what is emitted


def test_what_is_emitted_carries_where_its_frame_came_from():
    def handler(payload, state):
        return Emit([b"1 of " + payload, {"2 of": payload}], state)

    before = time.monotonic_ns()
    with ScriptedServer([[steps.accept(), steps.text("a"), steps.binary(b"b"), SERVE]]) as server:
        with Collector(producer(server.url, handler)) as pipeline:
            messages = pipeline.wait(4)
            connection = pipeline._wsengine_producers[0].connections[0]
            assert [(m.data, m.opcode, m.seq, m.epoch, m.connection_index) for m in messages] == [
                (b"1 of a", TEXT, 0, 1, 0), ({"2 of": b"a"}, TEXT, 0, 1, 0),
                (b"1 of b", BINARY, 1, 1, 0), ({"2 of": b"b"}, BINARY, 1, 1, 0)]
            assert all(m.connection is connection for m in messages)
            assert all(before < m.received_ns < time.monotonic_ns() for m in messages)
            assert messages[3].metadata["url"] == connection.url
            assert messages[3].metadata["seq"] == 1


def test_the_transformer_gets_what_is_emitted_and_its_metadata():
    def transformer(data, metadata):
        return Message((data, metadata["seq"], threading.current_thread().name))

    with ScriptedServer([[steps.accept(), send(b"a", b"b"), SERVE]]) as server:
        handler = producer(server.url, lambda payload, state: Emit([payload * 2], state), transformer=transformer)
        with Collector(handler, name="transforming") as pipeline:
            messages = pipeline.wait(2)
    assert [m.data for m in messages] == [(b"aa", 0, "wsengine:transforming:dispatcher"),
                                          (b"bb", 1, "wsengine:transforming:dispatcher")]


def test_eight_processors_behind_it_handle_everything_exactly_once_over_reconnects():
    count = 30_000

    def handler(payload, state):
        seq = json.loads(payload)["seq"]
        if state is not None:
            assert seq == state + 1, "in order within a generation"
        return Emit([seq] if seq % 3 == 1 else [seq, -seq] if seq % 3 else [], seq)

    with Feed.trades(count=count, rate=20_000) as feed:
        pipeline = Collector(producer(feed.url, handler, retry=Backoff(0.001, maximum=0.001)), max_queue=4096,
                             processors=Processors(concurrency=8, max_demand=32))
        with pipeline:
            for cut in range(4):
                feed.wait(lambda log, cut=cut: len(log.connections) > cut and log.messages >= (cut + 1) * 5000)
                feed.cut()
            until(lambda: figures(pipeline)["taken"] == count, 60)
            result = pipeline.stop()
        assert len(feed.log().connections) == 5
    expected = Counter(itertools.chain.from_iterable(
        [seq] if seq % 3 == 1 else [seq, -seq] if seq % 3 else [] for seq in range(count)))
    assert Counter(m.data for m in pipeline.received) == expected
    assert (result.drained, result.successful, result.failed, result.discarded) == (True, expected.total(), 0, 0)


# ---------------------------------------------------------------------------------------------------------- generations


@pytest.mark.parametrize("state", [list, []], ids=["made by a callable", "copied deeply"])
def test_each_generation_of_each_connection_begins_with_a_state_of_its_own(state):
    seen = []

    def handler(payload, state):
        state.append(payload)
        seen.append((payload, list(state)))
        return Emit([payload], state)

    given = state
    with ScriptedServer([[steps.accept(), send(b"a", b"b"), steps.cut()]]) as server:
        with Collector(producer(server.url, handler, given, concurrency=3)) as pipeline:
            server.wait_ended(6)
            pipeline.wait(12)
    assert seen
    assert all(now == ([b"a"] if payload == b"a" else [b"a", b"b"]) for payload, now in seen)
    assert given in (list, [])


def test_generations_pass_the_handler_one_after_the_other_each_whole():
    seen = []

    def handler(payload, state):
        seen.append(payload)
        return Emit([payload], state)

    scripts = [[steps.accept(), send(*(b"%d.%d" % (life, n) for n in range(500))), steps.cut()] for life in range(4)]
    with ScriptedServer([*scripts, [steps.accept(), SERVE]]) as server:
        with Collector(producer(server.url, handler, retry=Backoff(0.001, maximum=0.001)), max_queue=64) as pipeline:
            messages = pipeline.wait(2000)
    assert seen == [b"%d.%d" % (life, n) for life in range(4) for n in range(500)]
    assert [(m.epoch, m.seq) for m in messages] == [(life + 1, n) for life in range(4) for n in range(500)]


# ------------------------------------------------------------------------------------------------------ session markers


def shown(messages):
    return [(m.epoch, "marker" if m.marker else m.data) for m in messages]


@pytest.mark.parametrize("handler", [None, lambda payload, state: Emit([payload], state)], ids=["alone", "with a handler"])
def test_a_marker_stands_ahead_of_each_generation_in_order(handler):
    """Reference W-32."""
    scripts = [[steps.accept(), send(b"a", b"b"), steps.cut()], [steps.accept(), steps.cut()],
               [steps.accept(), send(b"c"), SERVE]]
    with ScriptedServer(scripts) as server:
        with Collector(producer(server.url, handler, session_markers=True)) as pipeline:
            messages = pipeline.wait(6)
            connection = pipeline._wsengine_producers[0].connections[0]
        assert shown(messages) == [(1, "marker"), (1, b"a"), (1, b"b"), (2, "marker"), (3, "marker"), (3, b"c")]
        [first, _, _, _, second, _] = messages
        assert (second.data, second.opcode, second.seq, second.connection_index) == (None, 0, 0, 0)
        assert second.connection is connection
        assert second.metadata["epoch"] == 3
        assert first.received_ns < second.received_ns
        assert pipeline.stop().successful == 6


def test_a_marker_comes_when_the_connection_is_ready_and_not_with_its_first_message():
    lives = [[steps.accept(), steps.receive(1), steps.text("data"), steps.cut()], [steps.accept(), SERVE]]
    with ScriptedServer(lives) as server:
        feed = WebSocketProducer(server.url, session_markers=True, retry=Backoff(0.02))
        with Collector(feed) as pipeline:
            assert shown(pipeline.wait(1)) == [(1, "marker")], "the server has sent nothing yet"
            pipeline.received[0].connection.send("go on")
            assert shown(pipeline.wait(3)) == [(1, "marker"), (1, b"data"), (2, "marker")]
            assert pipeline.stop().drained


@pytest.mark.parametrize("handler", [None, lambda payload, state: Emit([payload], state)], ids=["alone", "with a handler"])
def test_markers_of_many_connections_stand_between_their_generations_whatever_the_others_bring(handler):
    lives = [[steps.accept(), send(*(b"%d" % n for n in range(life * 40))), steps.cut()] for life in (3, 0, 1, 0, 0, 2)] * 4
    with ScriptedServer([*lives, [steps.accept(), send(b"0"), SERVE]]) as server:
        feed = WebSocketProducer(server.url, frame_handler=handler, session_markers=True, concurrency=4,
                                 retry=Backoff(0.001, maximum=0.001))
        with Collector(feed, max_queue=64) as pipeline:
            until(lambda: sum(m.marker for m in list(pipeline.received)) == len(lives) + 4
                  and len(pipeline.received) == len(lives) + 4 + 4 * 6 * 40 + 4)
    for index in range(4):
        mine = [m for m in pipeline.received if m.connection_index == index]
        assert [m.epoch for m in mine] == sorted(m.epoch for m in mine)
        assert [m.epoch for m in mine if m.marker] == list(range(1, mine[-1].epoch + 1))
        assert [m.marker for m in mine] == [at == 0 or mine[at - 1].epoch != m.epoch for at, m in enumerate(mine)]


def test_markers_that_wait_at_the_deadline_of_a_stop_are_let_go_and_counted():
    entered, gate = threading.Event(), threading.Event()

    def handler(payload, state):
        entered.set()
        gate.wait(30)
        return Emit([payload], state)

    scripts = [[steps.accept(), send(b"a"), steps.cut()], [steps.accept(), steps.cut()], [steps.accept(), SERVE]]
    with ScriptedServer(scripts) as server, capture(*EVENTS) as seen:
        pipeline = Collector(producer(server.url, handler, session_markers=True))
        pipeline.start()
        try:
            assert entered.wait(15)
            seen.wait(SUCCESS, 3)
            until(lambda: pipeline.stats().held_messages == 3)      # the frame in hand, and two markers behind it
            result = pipeline.stop(0.2)
            assert (result.drained, result.successful, result.left) == (False, 1, 3)
            assert pipeline.stats().held_messages == 0
        finally:
            gate.set()
        until(lambda: not any(f"wsengine:{pipeline.name}" in one.name for one in threading.enumerate()))


def test_a_marker_passes_the_transformer_and_stands_though_the_first_message_is_skipped_or_fails():
    def handler(payload, state):
        return Fail("no") if payload == b"bad" else Skip(state) if payload == b"skip" else Emit([payload], state)

    scripts = [[steps.accept(), send(b"bad", b"worse"), SERVE], [steps.accept(), send(b"skip", b"x"), SERVE]]
    with ScriptedServer(scripts) as server:
        feed = producer(server.url, handler, session_markers=True, transformer=lambda data, metadata: Message(data * 2))
        with Collector(feed) as pipeline:
            assert shown(pipeline.wait(3)) == [(1, "marker"), (2, "marker"), (2, b"xx")]


def test_without_the_option_there_is_no_marker():
    with ScriptedServer([[steps.accept(), send(b"x"), SERVE]]) as server:
        with Collector(WebSocketProducer(server.url)) as pipeline:
            assert shown(pipeline.wait(1)) == [(1, b"x")]
    assert not Message(b"by hand").marker


# ------------------------------------------------------------------------------------------------------------- failures


def boom(payload, state):
    raise ValueError("not a frame of ours")


BAD = {"raises": (boom, ValueError), "returns nonsense": (lambda payload, state: payload, TypeError),
       "says so": (lambda payload, state: Fail("gap", state), None),
       "says so in the ancestor's way": (lambda payload, state: ("error", "gap", state), None)}


@pytest.mark.parametrize("bad", BAD)
def test_c22_twenty_bad_frames_in_one_segment_make_one_failure_and_one_reconnect(bad, caplog):
    wrong, cause = BAD[bad]

    def handler(payload, state):
        return wrong(payload, state) if payload == b"bad" else Emit([payload], state)

    scripts = [[steps.accept(), send(b"good", *[b"bad"] * 20), SERVE], [steps.accept(), send(b"better"), SERVE]]
    with ScriptedServer(scripts) as server, capture(*EVENTS) as seen:
        with Collector(producer(server.url, handler)) as pipeline:
            assert [(m.epoch, m.data) for m in pipeline.wait(2)] == [(1, b"good"), (2, b"better")]
            seen.wait(SUCCESS, 2)
            [failure], [drop] = seen.of(FAILURE), seen.of(DROP)
            assert figures(pipeline) == {"taken": 22, "emitted": 2, "dropped": 19, "replies_dropped": 0}
        assert len(server.connections) == 2
        assert server.most_live == 1
        [close] = [frame.payload for frame in server.connections[0].frames if frame.opcode == CLOSE]
    reason = failure.metadata["reason"]
    assert isinstance(reason, FrameHandlerError)
    assert type(reason.__cause__) is (cause or type(None))
    assert (failure.metadata["epoch"], failure.measurements["count"]) == (1, 1)
    assert (drop.measurements["count"], drop.metadata["epoch"]) == (19, 1)
    assert seen.of(DISCONNECTED) == []
    assert [one.measurements["value"] for one in seen.of(STATUS)] == [1, 0, 1, 0]
    assert close == struct.pack(">H", 1011) + b"frame handler failed"
    assert caplog.text.count("is lost after") == 1


def test_a_handler_that_always_fails_uses_up_the_budget_with_growing_delays():
    with ScriptedServer([[steps.accept(), send(b"x"), SERVE]]) as server, capture(*EVENTS) as seen:
        retry = Backoff(0.02, factor=2, jitter="none", max_retries=3)
        result = Collector(producer(server.url, boom, retry=retry)).start().join(20)
        assert [one.measurements["delay"] for one in seen.of(FAILURE)] == [0.02, 0.04, 0.08, None]
        assert isinstance(result.error, RetriesExhausted)
        assert isinstance(result.error.last, FrameHandlerError)


def test_a_failed_connection_ends_though_its_peer_never_answers_the_close():
    with ScriptedServer([[steps.accept(), send(b"x"), steps.stall()]]) as server, capture(*EVENTS) as seen:
        with Collector(producer(server.url, boom, close_timeout=0.1)):
            failures = seen.wait(FAILURE, 2)
    assert all(isinstance(one.metadata["reason"], FrameHandlerError) for one in failures)


def test_a_failure_of_a_generation_that_is_over_changes_nothing_and_is_logged(caplog):
    over = threading.Event()

    def handler(payload, state):
        if payload == b"bad":
            assert over.wait(15)
            return Fail("too late")
        return Emit([payload], state)

    scripts = [[steps.accept(), send(b"bad", b"worse"), steps.close(1000), steps.cut()],
               [steps.accept(), send(b"good"), SERVE]]
    with ScriptedServer(scripts) as server, capture(*EVENTS) as seen:
        with Collector(producer(server.url, handler)) as pipeline:
            seen.wait(SUCCESS, 2)
            over.set()
            assert [(m.epoch, m.data) for m in pipeline.wait(1)] == [(2, b"good")]
            until(lambda: "generation 1, which is over" in caplog.text)
            assert len(server.connections) == 2
        assert seen.of(FAILURE) == []
        assert len(seen.of(DISCONNECTED)) == 1
        assert [one.measurements["count"] for one in seen.of(DROP)] == [1]


def test_one_connection_that_fails_does_not_touch_the_others():
    def handler(payload, state):
        return Fail("mine") if payload == b"bad" else Emit([payload], state)

    scripts = [[steps.accept(), send(b"bad"), SERVE], [steps.accept(), send(b"good"), SERVE],
               [steps.accept(), send(b"good"), SERVE]]
    with ScriptedServer(scripts) as server, capture(*EVENTS) as seen:
        with Collector(producer(server.url, handler, concurrency=2)) as pipeline:
            assert {m.connection_index for m in pipeline.wait(2)} == {0, 1}
            assert len(seen.of(FAILURE)) == 1
            assert len(server.connections) == 3


# -------------------------------------------------------------------------------------------------------------- replies


def test_replies_go_out_in_order_on_the_connection_whose_frame_asked_for_them():
    """An authentication challenge, and pings of the application's own."""
    def handler(payload, state):
        if payload.startswith(b"challenge"):
            return Skip(state, ["answer to " + payload.decode(), b"\x00signed"])
        return ("emit", [payload], state, [b"got " + payload])

    script = [steps.accept(), send(b"challenge 5"), steps.receive(2), send(b"data"), steps.receive(1), SERVE]
    with ScriptedServer([script]) as server, Collector(producer(server.url, handler)) as pipeline:
        assert [m.data for m in pipeline.wait(1)] == [b"data"]
        [record] = server.wait(lambda records: len([f for f in records[0].frames if f.opcode < CLOSE]) == 3)
    assert [(f.opcode, f.payload) for f in record.frames if f.opcode < CLOSE] == [
        (TEXT, b"answer to challenge 5"), (BINARY, b"\x00signed"), (BINARY, b"got data")]


def test_a_reply_for_a_generation_that_is_over_is_dropped_and_counted():
    over = threading.Event()

    def handler(payload, state):
        if payload == b"old":
            assert over.wait(15)
        return Emit([payload], state, [b"re: " + payload, b"re: " + payload])

    scripts = [[steps.accept(), send(b"old"), steps.cut()], [steps.accept(), send(b"new"), SERVE]]
    with ScriptedServer(scripts) as server, capture(*EVENTS) as seen:
        with Collector(producer(server.url, handler)) as pipeline:
            seen.wait(SUCCESS, 2)
            over.set()
            assert [m.data for m in pipeline.wait(2)] == [b"old", b"new"]
            server.wait(lambda records: len(records[1].frames) == 2)
            assert figures(pipeline)["replies_dropped"] == 2
        assert [frame.payload for frame in server.connections[1].frames if frame.opcode < CLOSE] == [b"re: new"] * 2
        assert seen.of(FAILURE) == []


def test_a_server_that_does_not_read_the_replies_is_failed_after_close_timeout():
    with ScriptedServer([[steps.accept(), send(b"x"), steps.stall()]]) as server, capture(*EVENTS) as seen:
        handler = producer(server.url, lambda payload, state: Skip(state, [bytes(2**20)] * 20), close_timeout=0.2)
        with Collector(handler):
            failure = seen.wait(FAILURE)[0]
    assert isinstance(failure.metadata["reason"].__cause__, TimeoutError)


# -------------------------------------------------------------------------------------------------------- slow handlers


def test_a_slow_handler_pauses_the_socket_and_memory_stays_bounded():
    gate = threading.Event()

    def handler(payload, state):
        gate.wait(30)
        return Emit([payload], state)

    try:
        with Feed.trades(count=50_000) as feed, capture(HIGH) as seen:
            pipeline = Collector(producer(feed.url, handler), max_queue=1024, max_queue_bytes=2**20)
            with pipeline:
                seen.wait(HIGH)
                until(lambda: pipeline._wsengine_producers[0].connections[0].paused)
                stats = pipeline.stats()
                assert stats.held_messages <= 1024
                assert stats.held_bytes <= 2**20 + 2**18
                assert pipeline.received == []
                gate.set()
                pipeline.wait(50_000, 60)
    finally:
        gate.set()
    assert [m.seq for m in pipeline.received] == list(range(50_000))


def test_a_ping_is_answered_while_the_handler_blocks():
    gate = threading.Event()

    def handler(payload, state):
        gate.wait(30)
        return Skip(state)

    script = [steps.accept(), send(b"x"), steps.ping(b"there?"), SERVE]
    try:
        with ScriptedServer([script]) as server:
            pipeline = Collector(producer(server.url, handler)).start()
            server.wait(lambda records: records and any(f.payload == b"there?" for f in records[0].frames))
            gate.set()
            pipeline.stop()
    finally:
        gate.set()


def test_a_stop_in_the_midst_accounts_for_every_message():
    def handler(payload, state):
        time.sleep(0.0001)
        return Emit([json.loads(payload)["seq"]], state)

    with Feed.trades(count=200_000) as feed:
        pipeline = Collector(producer(feed.url, handler), max_queue=2048).start()
        pipeline.wait(500, 30)
        result = pipeline.stop(30)
        taken = figures(pipeline)["taken"]
    assert result.drained
    assert [m.data for m in pipeline.received] == list(range(taken))
    assert (result.successful, result.failed, result.left) == (taken, 0, 0)
    counts = pipeline._wsengine_producers[0].connections[0].counts()
    assert counts["messages"] == taken
    assert counts["discarded"] == result.discarded


# ----------------------------------------------------------------------------------------- exchanges with channel ids


def kraken(payload, channels):
    """Book updates are arrays whose first element is a channel id that a subscriptionStatus has introduced."""
    data = json.loads(payload)
    if isinstance(data, dict):
        if data["event"] == "subscriptionStatus":
            channels[data["channelID"]] = (data["channelName"], data["pair"])
        return Skip(channels)
    if data[0] not in channels:
        return Fail(f"channel {data[0]} is unknown in this session")
    name, pair = channels[data[0]]
    assert (name, pair) == (data[-2], data[-1]), "Kraken says both: the mapping can be checked"
    return Emit([(name, pair, update) for update in data[1:-2]], channels)


def bitfinex(payload, channels):
    """Updates are arrays [channel id, update or "hb", ..., sequence]; `subscribed` events introduce the ids. A channel's
    heartbeat may come before its introduction: the recording has two such."""
    data = json.loads(payload)
    if isinstance(data, dict):
        if data["event"] == "subscribed":
            channels[data["chanId"]] = (data["channel"], data["symbol"])
        return Skip(channels)
    if data[1] == "hb":
        return Skip(channels)
    if data[0] not in channels:
        return Fail(f"channel {data[0]} is unknown in this session")
    return Emit([(*channels[data[0]], data[1:-1])], channels)


def by_hand(path, handler):
    """What the handler emits for the recording, told without a pipeline."""
    channels, emitted = {}, []
    for payload in load_recording(path).payloads:
        result = handler(payload, channels)
        emitted += result.payloads if isinstance(result, Emit) else []
    return emitted


EXCHANGES = {"kraken": (kraken, 4280), "bitfinex": (bitfinex, 1628)}


@pytest.mark.recording
@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_channel_ids_of_a_recorded_exchange_are_resolved_for_every_update(recordings, exchange, concurrency):
    handler, count = EXCHANGES[exchange]
    expected = by_hand(recordings / f"{exchange}.jsonl.gz", handler)
    assert len(expected) == count
    with Feed.recording(recordings / f"{exchange}.jsonl.gz", speed=None) as feed, capture(*EVENTS) as seen:
        pipeline = Collector(producer(feed.url, handler, dict), processors=Processors(concurrency=concurrency))
        with pipeline:
            pipeline.wait(count, 60)
    received = [m.data for m in pipeline.received]
    key = repr
    assert received == expected if concurrency == 1 else sorted(received, key=key) == sorted(expected, key=key)
    assert seen.of(FAILURE) == []


@pytest.mark.recording
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_recorded_session_that_begins_anew_is_resolved_anew(recordings, exchange):
    """The server starts over at each connection, as an exchange does; the ids of the session before mean nothing."""
    handler, _ = EXCHANGES[exchange]
    path = recordings / f"{exchange}.jsonl.gz"
    expected = by_hand(path, handler)
    with Feed.recording(path, speed=60.0, resume=False) as feed, capture(*EVENTS) as seen:
        pipeline = Collector(producer(feed.url, handler, dict, retry=Backoff(0.001, maximum=0.001)))
        with pipeline:
            for life in range(2):
                until(lambda life=life: sum(m.epoch == life + 1 for m in list(pipeline.received)) > 100, 60)
                feed.cut()
            until(lambda: sum(m.epoch == 3 for m in list(pipeline.received)) == len(expected), 60)
        assert len(feed.log().connections) == 3
    for epoch in (1, 2, 3):
        received = [m.data for m in pipeline.received if m.epoch == epoch]
        assert received == expected[:len(received)]
        assert len(received) > 100
    assert seen.of(FAILURE) == []


@pytest.mark.recording
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_ids_of_a_session_that_was_never_introduced_fail_the_connection_once(recordings, exchange):
    """Resumed in the middle, without the introductions: a handler that carried its state over would not notice."""
    handler, _ = EXCHANGES[exchange]
    with Feed.recording(recordings / f"{exchange}.jsonl.gz", speed=60.0) as feed, capture(*EVENTS) as seen:
        with Collector(producer(feed.url, handler, dict, retry=Backoff(0.001, max_retries=1))) as pipeline:
            until(lambda: len(pipeline.received) >= 100, 60)
            feed.cut()
            [failure] = seen.wait(FAILURE)
            assert pipeline.join(20) is not None
    assert "is unknown in this session" in str(failure.metadata["reason"])
    assert {m.epoch for m in pipeline.received} == {1}


# ----------------------------------------------------------------------------------------------------------- validation


async def coroutine(payload, state):
    """No handler."""


@pytest.mark.parametrize(("options", "path", "remedy"), [
    ({"frame_handler": "json"}, "producer.frame_handler", "(payload, state) -> Emit, Skip or Fail"),
    ({"frame_handler": coroutine}, "producer.frame_handler", "without async"),
    ({"frame_handler_state": {}}, "producer.frame_handler_state", "give a frame_handler, too"),
    ({"frame_handler": boom, "frame_handler_state": threading.Lock()}, "producer.frame_handler_state", "give a callable"),
    ({"frame_handler": boom, "frame_handler_state": coroutine}, "producer.frame_handler_state", "without async"),
    ({"session_markers": 1}, "producer.session_markers", "True or False"),
    ({"on_message": boom}, "producer.on_message", "use frame_handler"),
    ({"on_open": boom}, "producer.on_open", "use on_upgrade"),
])
def test_a_wrong_hook_is_refused_with_its_path_and_a_remedy(options, path, remedy):
    with pytest.raises(ConfigurationError) as caught:
        WebSocketProducer("ws://127.0.0.1:1", **options)
    assert caught.value.path == path
    assert remedy in caught.value.remedy
