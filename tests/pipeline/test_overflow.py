"""What becomes of messages for which there is no room: every policy, counted to the message, at real servers.

That "block" holds the server back is a matter of tests/stress/test_backpressure.py.
"""

from __future__ import annotations

import threading
import time

import pytest

from tests.waiting import until
from wsengine import Backoff, ConfigurationError, Emit, Pipeline, Processors, QueueOverflow, WebSocketProducer, telemetry
from wsengine.testing import Collector, Feed, ScriptedServer, build_server_frame, capture, steps
from wsengine.testing.stamp import read_sequence

pytestmark = pytest.mark.usefixtures("no_leaks")

ID = "full"
DROP = telemetry.queue_event(ID, "drop")
FAILURE, STATUS = telemetry.connection_event(ID, "failure"), telemetry.connection_event(ID, "status")


def producer(url, **options):
    return WebSocketProducer(url, **{"telemetry_id": ID, "keepalive": None, "retry": Backoff(0.05, factor=1, jitter="none"),
                                     **options})


class Held(Collector):
    """Its handler waits for `gate` with the first message."""

    def __init__(self, producers, **options):
        super().__init__(producers, **options)
        self.gate, self.blocked = threading.Event(), threading.Event()

    def handle_messages(self, messages):
        self.blocked.set()
        assert self.gate.wait(30)
        super().handle_messages(messages)


def flood(overflow, count, concurrency=1, **options):
    """A flood of `count` messages against a handler that is blocked until all have come; what came of them."""
    with Feed.payloads([(2, b"%d" % number) for number in range(count)]) as feed, capture(DROP) as told:
        source = producer(feed.url, concurrency=concurrency)
        with Held(source, overflow=overflow, processors=Processors(max_demand=8), **options) as pipeline:
            try:
                until(lambda: sum(one.counts()["messages"] for one in source.connections) == count * concurrency)
                dropped = sum(one.counts()["dropped"] for one in source.connections)
                assert not any(one.paused for one in source.connections)
            finally:
                pipeline.gate.set()
            pipeline.wait(count * concurrency - dropped)
            result = pipeline.stop()
    assert (result.successful, result.failed, result.left) == (count * concurrency - dropped, 0, 0)
    assert sum(one.measurements["count"] for one in told.events) == dropped
    return pipeline.received, dropped, told.events, source


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_a_flood_is_read_to_its_end_and_each_message_is_handled_or_counted_as_dropped(overflow, concurrency):
    """B-8: unlike the ancestor, which drops with no more than a line in the log."""
    received, dropped, events, source = flood(overflow, 5000, concurrency, max_queue=64)
    assert dropped >= 5000 * concurrency - 64 - 8
    for connection in source.connections:
        mine = [one for one in received if one.connection_index == connection.index]
        assert [one.data for one in mine] == [b"%d" % one.seq for one in mine]      # `seq` shows the gaps
        assert [one.seq for one in mine] == sorted({one.seq for one in mine})
        assert len(mine) + connection.counts()["dropped"] == 5000
    assert {one.metadata["index"] for one in events} <= set(range(concurrency))
    assert all(one.metadata["reason"] == "the pipeline was full" for one in events)


def test_drop_newest_keeps_the_first_and_drop_oldest_the_last():
    first = [one.seq for one in flood("drop_newest", 5000, max_queue=64)[0]]
    last = [one.seq for one in flood("drop_oldest", 5000, max_queue=64)[0]]
    assert first == list(range(len(first)))
    assert len(first) == 64
    kept = [number for number in last if number >= 5000 - 64 - 8]
    assert kept == list(range(5000 - len(kept), 5000))
    assert len(kept) > 64 - 64 // 16 - 8
    assert len(last) - len(kept) <= 8, "of the older ones there is only what the handler had claimed"


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_the_bound_in_bytes_drops_as_well_and_memory_stays_within_it(overflow):
    count, size = 400, 100_000
    with Feed.payloads([(2, number.to_bytes(4, "big") * (size // 4)) for number in range(count)]) as feed:
        source = producer(feed.url)
        with Held(source, overflow=overflow, max_queue_bytes=2**21, processors=Processors(max_demand=2)) as pipeline:
            try:
                until(lambda: source.connections[0].counts()["messages"] == count)
                held, dropped = pipeline.stats().held_bytes, source.connections[0].counts()["dropped"]
            finally:
                pipeline.gate.set()
            pipeline.wait(count - dropped)
    assert held <= 2**21 + 2**20                 # and one message under way
    assert dropped > count // 2
    assert all(one.data == one.seq.to_bytes(4, "big") * (size // 4) for one in pipeline.received)
    assert len(pipeline.received) == count - dropped


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_fragments_and_compressed_messages_are_dropped_whole(overflow):
    def fragmented(number):
        payload = b"%d" % number
        return build_server_frame(2, payload[:1], fin=False) + build_server_frame(0, payload[1:])

    count = 2000
    wire = b"".join(fragmented(number) if number % 3 else build_server_frame(2, b"%d" % number) for number in range(count))
    with ScriptedServer([[steps.accept(), steps.send(wire), steps.serve()]]) as server:
        source = producer(server.url)
        with Held(source, overflow=overflow, max_queue=16, processors=Processors(max_demand=4)) as pipeline:
            try:
                until(lambda: source.connections[0].counts()["messages"] == count)
                dropped = source.connections[0].counts()["dropped"]
            finally:
                pipeline.gate.set()
            pipeline.wait(count - dropped)
    assert dropped >= count - 16 - 4
    assert all(one.data == b"%d" % one.seq for one in pipeline.received)


HOOKS = {"plain": {}, "frame_handler": {"frame_handler": lambda payload, state: Emit([payload], state)},
         "session_markers": {"session_markers": True},
         "both": {"frame_handler": lambda payload, state: Emit([payload], state), "session_markers": True}}


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("hooks", HOOKS)
@pytest.mark.parametrize("max_queue", [1, 64])
def test_drop_oldest_is_bound_by_the_same_whatever_stands_ahead_of_the_processors(max_queue, hooks, concurrency):
    """What waits for a dispatcher, in it and behind it counts alike, and of all that the oldest goes."""
    count, markers = 5000, concurrency * ("session_markers" in HOOKS[hooks])
    payloads = [(2, b"%d" % number) for number in range(count)]
    with Feed.payloads(payloads, rate=10_000) as feed, capture(DROP) as told:
        source = producer(feed.url, concurrency=concurrency, **HOOKS[hooks])
        with Held(source, overflow="drop_oldest", processors=Processors(max_demand=8), max_queue=max_queue) as pipeline:
            most = 0
            try:
                while sum(one.counts()["messages"] for one in source.connections) < count * concurrency:
                    most = max(most, pipeline.stats().held_messages)
                    time.sleep(0.005)
                until(lambda: pipeline.stats().held_messages <= max_queue + 2 + markers)
                dropped = sum(one.counts()["dropped"] for one in source.connections)
            finally:
                pipeline.gate.set()
            received = [one for one in pipeline.wait(count * concurrency - dropped + markers) if not one.marker]
            result = pipeline.stop()
    # one over the bound may wait in the ring, and one with the dispatcher; markers wait beside them
    assert most <= max_queue + 2 + markers
    assert (result.successful, result.left) == (len(received) + markers, 0)
    assert len(received) + dropped == count * concurrency
    assert len(pipeline.received) == len(received) + markers
    assert sum(one.measurements["count"] for one in told.events) == dropped
    for connection in source.connections:
        mine = [one.seq for one in received if one.connection_index == connection.index]
        assert mine == sorted(set(mine))
        assert len(mine) + connection.counts()["dropped"] == count
    assert max(one.seq for one in received) == count - 1
    if concurrency == 1 and max_queue == 64:
        kept = [one.seq for one in received if one.seq >= count - max_queue]
        assert kept == list(range(count - len(kept), count))
        assert len(kept) >= max_queue - 8 - max_queue // 16 - 4, "the newest; of the older ones those that were on their way"


@pytest.mark.parametrize("hooks", HOOKS)
def test_drop_oldest_keeps_to_its_bound_in_bytes_whatever_stands_ahead_of_the_processors(hooks):
    count, size = 3000, 400
    payloads = [(2, number.to_bytes(4, "big") * (size // 4)) for number in range(count)]
    with Feed.payloads(payloads, rate=5000) as feed:
        source = producer(feed.url, max_size=1000, **HOOKS[hooks])
        with Held(source, overflow="drop_oldest", processors=Processors(max_demand=8), max_queue_bytes=2**16) as pipeline:
            most = 0
            try:
                while source.connections[0].counts()["messages"] < count:
                    most = max(most, pipeline.stats().held_bytes)
                    time.sleep(0.005)
                dropped = source.connections[0].counts()["dropped"]
            finally:
                pipeline.gate.set()
            pipeline.wait(count - dropped + ("session_markers" in HOOKS[hooks]))
    received = [one for one in pipeline.received if not one.marker]
    assert most <= 2**16 + 2**14                 # receive buffers count whole
    assert dropped > count // 2
    assert len(received) == count - dropped
    assert received[-1].seq == count - 1
    assert all(one.data == one.seq.to_bytes(4, "big") * (size // 4) for one in received)


def test_drop_oldest_hands_on_to_every_processor_while_one_is_slow():
    """With nothing queued ahead, each claim has to bring the next message on, and not only each acknowledgement."""
    busy, gate = threading.Semaphore(0), threading.Event()

    class Slow(Collector):
        def handle_messages(self, messages):
            busy.release()
            assert gate.wait(30)
            super().handle_messages(messages)

    with Feed.payloads([(2, b"%d" % number) for number in range(500)], rate=1000) as feed:
        with Slow(producer(feed.url, session_markers=True), overflow="drop_oldest", max_queue=16,
                  processors=Processors(concurrency=4)) as pipeline:
            try:
                for _ in range(4):
                    assert busy.acquire(timeout=20)
            finally:
                gate.set()
            until(lambda: pipeline.received and max(one.seq for one in list(pipeline.received)) == 499)


def test_emissions_of_several_go_on_in_order_while_the_oldest_frames_are_dropped():
    handler = {"frame_handler": lambda payload, state: Emit([payload, payload + b"+", payload + b"-"], state)}
    with Feed.payloads([(2, b"%d" % number) for number in range(3000)]) as feed:
        source = producer(feed.url, **handler)
        with Held(source, overflow="drop_oldest", processors=Processors(max_demand=8), max_queue=16) as pipeline:
            try:
                until(lambda: source.connections[0].counts()["messages"] == 3000)
                dropped = source.connections[0].counts()["dropped"]
            finally:
                pipeline.gate.set()
            pipeline.wait((3000 - dropped) * 3)
    received = pipeline.received
    assert [one.data for one in received] == [b"%d%s" % (one.seq, (b"", b"+", b"-")[at % 3])
                                              for at, one in enumerate(received)]
    assert received[-1].seq == 2999


def test_once_there_is_room_again_nothing_more_is_dropped():
    # The queue holds two seconds of the feed, so that a machine that stops for a moment drops nothing.
    with Feed.trades(rate=500, count=2500) as feed:
        source = producer(feed.url)
        with Held(source, overflow="drop_oldest", max_queue=1024) as pipeline:
            until(lambda: source.connections[0].counts()["dropped"] > 100)
            pipeline.gate.set()
            until(lambda: pipeline.stats().held_messages < 64)
            dropped = source.connections[0].counts()["dropped"]
            pipeline.wait(2500 - dropped)
            assert source.connections[0].counts()["dropped"] == dropped
    assert [read_sequence(one.data) for one in pipeline.received] == [one.seq for one in pipeline.received]


def test_error_fails_the_connection_delivers_what_came_before_and_the_retry_policy_decides():
    wire = b"".join(build_server_frame(2, b"%d" % number) for number in range(1000))
    script = [steps.accept(), steps.send(wire), steps.echo_close(), steps.until_eof()]
    with ScriptedServer([script, [steps.accept(), steps.serve()]]) as server, capture(FAILURE, STATUS) as told:
        source = producer(server.url)
        with Held(source, overflow="error", max_queue=64) as pipeline:
            record = server.wait_connections(2)[0]
            assert record.frames[-1].payload == (1008).to_bytes(2, "big") + b"queue overflow"
            pipeline.gate.set()
            pipeline.wait(64)
            until(lambda: source.connections[0].is_ready)
            counts = source.connections[0].counts()
    assert [one.data for one in pipeline.received] == [b"%d" % number for number in range(64)]
    assert counts["dropped"] == 0
    assert counts["discarded"] == 1000 - 64      # what had been read behind it is counted, too
    failures = [one for one in told.events if one.event == FAILURE]
    assert [type(one.metadata["reason"]) for one in failures] == [QueueOverflow]
    assert [one.measurements["value"] for one in told.events if one.event == STATUS] == [1, 0, 1, 0]


def test_pings_are_answered_while_messages_are_dropped():
    with Feed.trades(size=128, rate=50_000, ping_interval=0.05) as feed:
        with Held(producer(feed.url), overflow="drop_newest", max_queue=16) as pipeline:
            assert pipeline.blocked.wait(10)
            time.sleep(1)
            pipeline.gate.set()
        log = feed.log()
    answered = [one for one in log.connections[0].pongs if one.delay is not None]
    assert len(answered) >= 8


def test_an_unknown_policy_is_refused_by_name():
    class Some(Pipeline):
        def handle_message(self, message):
            return message

    with pytest.raises(ConfigurationError, match=r"pipeline\.overflow.*drop_oldest"):
        Some(producer("ws://127.0.0.1:9"), overflow="drop")
