"""Reconnects in a row: the server ends connections by FIN or RST at random byte offsets, and the client comes back.

150 of them in a normal run, 1,000 with WSENGINE_LONG=1. Which offsets is drawn from the seed of the run.
"""

from __future__ import annotations

import os
import random
import threading
import time

import psutil
import pytest

from wsengine import Backoff, Processors, WebSocketProducer
from wsengine.testing import Collector, ScriptedServer, build_server_frame, steps

pytestmark = [pytest.mark.stress, pytest.mark.usefixtures("no_leaks")]

RECONNECTS = 1000 if os.environ.get("WSENGINE_LONG") == "1" else 150
END = b"the end"


class Keeper(Collector):
    """`ended` is set by the last message of all."""

    def __init__(self, producers, **options):
        super().__init__(producers, **options)
        self.ended = threading.Event()

    def handle_messages(self, messages):
        super().handle_messages(messages)
        if any(one.data == END for one in messages):
            self.ended.set()

    def seen(self):
        return [(one.epoch, one.seq, one.data) for one in self.received]


class Life:
    """One connection, drawn from the seed: what is sent, where it is cut off, and how."""

    def __init__(self, source, number):
        sizes = [source.choice((0, 1, 20, 125, 126, 200, 1500, 5000)) for _ in range(source.randrange(1, 9))]
        if source.random() < 0.05:
            sizes.append(70_000)
        self.payloads = [b"%d:%d:" % (number, seq) + b"x" * size for seq, size in enumerate(sizes)]
        frames = [build_server_frame(2, one) for one in self.payloads]
        wire = b"".join(frames)
        offset = source.randrange(len(wire) + 1)
        self.sent = wire[:offset]
        self.complete = sum(sum(map(len, frames[:n + 1])) <= offset for n in range(len(frames)))
        self.by_reset = source.random() < 0.5
        self.glued = source.random() < 0.3

    def script(self):
        head = [steps.accept_glued(self.sent)] if self.glued else [steps.accept(), steps.send(self.sent)]
        return [*head, steps.reset() if self.by_reset else steps.cut()]


def received_by_life(received):
    """The (seq, data) of each epoch, in order of arrival."""
    lives = {}
    for epoch, seq, data in received:
        lives.setdefault(epoch, []).append((seq, data))
    return lives


def settle(read, wanted, timeout=3):
    """Wait until `read` gives what is wanted; what it gave last."""
    deadline = time.monotonic() + timeout
    while (seen := read()) != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return seen


@pytest.mark.parametrize("concurrency", [1, 3])
def test_reconnects_in_a_row_deliver_a_gap_free_prefix_of_each_connection_once(seed, concurrency):
    source = random.Random(f"{seed}-{concurrency}")
    lives = [Life(source, number) for number in range(RECONNECTS)]
    scripts = [life.script() for life in lives] + [[steps.accept(), steps.binary(END), steps.serve()]]
    with ScriptedServer(scripts) as server:
        producer = WebSocketProducer(server.url, retry=Backoff(0.0005, factor=1, maximum=0.0005))
        pipeline = Keeper(producer, processors=Processors(concurrency=concurrency))
        with pipeline:
            assert pipeline.ended.wait(120), f"{producer.connections[0]!r} after {RECONNECTS} lives"
            held = settle(lambda: pipeline.stats().held_messages, 0)
            slabs = settle(lambda: pipeline.stats().producers[0]["slabs"], 1)
            epoch = producer.connections[0].epoch
            result = pipeline.stop()
        records, most_live = server.connections, server.most_live
    assert len(records) == epoch == RECONNECTS + 1
    assert most_live == 1
    assert (held, slabs) == (0, 1)  # the reader keeps the one it fills
    assert result.threads_alive == ()
    by_life = received_by_life(pipeline.seen())
    for number, life in enumerate(lives):
        got = by_life.get(number + 1, [])
        if concurrency > 1:
            got.sort()
        expected = list(enumerate(life.payloads))
        assert got == expected[:len(got)], f"life {number}: not a gap-free prefix"
        assert len(got) <= life.complete, f"life {number}: more than was sent"
        if not life.by_reset:
            assert len(got) == life.complete, f"life {number}: FIN lost messages that were sent completely"
    assert by_life[RECONNECTS + 1] == [(0, END)]
    assert len(pipeline.received) == sum(map(len, by_life.values()))
    assert any(by_life.get(number + 1) for number, life in enumerate(lives) if life.by_reset)


def test_reconnects_of_several_connections_at_once_leave_each_with_one_socket(seed):
    """Eight connections share a reader; each life is a short burst, so they come and go past each other."""
    burst = b"".join(build_server_frame(1, b"%d" % n) for n in range(20))
    count = RECONNECTS // 2
    ways = [steps.cut, steps.reset]
    source = random.Random(seed)
    scripts = [[steps.accept_glued(burst), source.choice(ways)()] for _ in range(count)]
    with ScriptedServer([*scripts, [steps.accept(), steps.serve()]]) as server:
        producer = WebSocketProducer(server.url, concurrency=8, retry=Backoff(0.001, factor=1, maximum=0.001))
        pipeline = Keeper(producer)
        with pipeline:
            server.wait(lambda records: len(records) == count + 8 and all(
                one.request_line is not None and one.step == "serve" for one in records if one.open), 60)
            settle(lambda: [one.state for one in producer.connections], ["ready"] * 8)
            states = [one.state for one in producer.connections]
            epochs = sum(one.epoch for one in producer.connections)
            pipeline.stop()
        assert server.most_live <= 8
    assert states == ["ready"] * 8
    assert epochs == count + 8
    assert len(set(pipeline.seen())) <= len(pipeline.received) <= 20 * count


def test_descriptors_and_threads_do_not_grow_with_reconnects():
    process = psutil.Process()
    scripts = [[steps.accept(), steps.text("x"), steps.cut()]]
    with ScriptedServer(scripts) as server:
        with Keeper(WebSocketProducer(server.url, retry=Backoff(0.001, factor=1, maximum=0.001))):
            server.wait_connections(10)
            files, threads = process.num_fds(), threading.active_count()
            server.wait_connections(60)
            assert process.num_fds() <= files + 3  # one socket and a dialer may be under way
            assert threading.active_count() <= threads + 2
