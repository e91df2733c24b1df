"""A flood against a batcher whose handler blocks: memory stays bounded, however many batches are open, and nothing is lost.

Each flood runs in a process of its own (this file, run as a program), so that resident memory is that of the pipeline. A
second each in a normal run and with a lower bound; a minute with WSENGINE_LONG=1, with the bounds that are the defaults. For
handlers of processors that block see test_backpressure.py.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from array import array

import psutil
import pytest

from tests.blocked_child import blocked_then_freed, peak_while
from tests.waiting import until
from wsengine import Batcher, Pipeline, WebSocketProducer
from wsengine.testing import Feed
from wsengine.testing.stamp import read_sequence

pytestmark = pytest.mark.stress

LONG = os.environ.get("WSENGINE_LONG") == "1"
BLOCKED = 60.0 if LONG else 0.8
MIB = 2**20
MAX_QUEUE_BYTES = (64 if LONG else 16) * MIB
SLACK = 32 * MIB
KEYS = 100_000


class Blocked(Pipeline):
    """Its handle_batch waits for the gate; it then notes whether each trade comes once, and in the order of its key."""

    def __init__(self, producers, *, keys, count, **options):
        super().__init__(producers, **options)
        self.gate = threading.Event()
        self.keys = keys
        self.claimed = self.batches = self.largest = self.twice = 0
        self.seen = bytearray(count)
        self.last = array("q", [-1]) * keys
        self.in_order = True

    def handle_messages(self, messages):
        if self.keys > 1:
            for message in messages:
                message.batch_key = message.seq % self.keys
        self.claimed += len(messages)

    def handle_batch(self, messages, batch_info):
        self.gate.wait()
        self.batches += 1
        self.largest = max(self.largest, len(messages))
        for message in messages:
            key = message.seq % self.keys
            self.in_order = self.in_order and self.last[key] < message.seq == read_sequence(message.data)
            self.last[key] = message.seq
            self.twice += self.seen[message.seq]
            self.seen[message.seq] = 1


def flood(url, seconds, count, keys, max_queue_bytes):
    """The child: block until reading has been paused and for a time on, tell how memory grew; go on when told; tell what
    arrived."""
    process = psutil.Process()
    options = {"batchers": {"default": Batcher()}}
    if keys > 1:  # no batch is ever complete by itself, and bytes are what bounds them
        options = {"batchers": {"default": Batcher(batch_size=1000, batch_timeout=None)}, "max_queue": 2**17}
    producer = WebSocketProducer(url)
    pipeline = Blocked(producer, keys=keys, count=count, max_queue_bytes=max_queue_bytes, **options)
    before = process.memory_info().rss
    with pipeline:
        until(lambda: producer.connections and producer.connections[0].paused)
        peak = peak_while(process, seconds, lambda: True)
        stats = pipeline.stats()
        print(json.dumps({"growth": peak - before, "paused": producer.connections[0].paused, "held": stats.held_bytes,
                          "messages": stats.held_messages}), flush=True)
        sys.stdin.readline()
        pipeline.gate.set()
        drain = peak_while(process, 100, lambda: pipeline.claimed < count)
        result = pipeline.stop(60)
    print(json.dumps({
        "seen": sum(pipeline.seen), "twice": pipeline.twice, "in_order": pipeline.in_order, "successful": result.successful,
        "failed": result.failed, "drained": result.drained, "epoch": producer.connections[0].epoch,
        "batches": pipeline.batches, "largest": pipeline.largest, "drain_growth": drain - before}), flush=True)


@pytest.mark.parametrize(("size", "count", "keys"), [
    pytest.param(128, 400_000 if LONG else 150_000, 1, id="128 B"),
    pytest.param(128, 400_000 if LONG else 150_000, KEYS, id="128 B, many keys"),
    pytest.param(MIB, 150, 1, id="1 MiB"),
    pytest.param(MIB, 150, KEYS, id="1 MiB, many keys"),
])
def test_memory_is_bounded_and_each_message_comes_once(no_leaks, size, count, keys):
    with Feed.trades(size=size, count=count) as feed:
        blocked, during, after, log = blocked_then_freed(feed, [
            sys.executable, "-m", "tests.stress.test_blocked_batcher", feed.url, str(BLOCKED), str(count), str(keys),
            str(MAX_QUEUE_BYTES)])
    print(f"{size} B, {keys} keys: memory grew by {blocked['growth'] / MIB:.1f} MiB of {MAX_QUEUE_BYTES / MIB:.0f} MiB with "
          f"{blocked['messages']} messages held, by {after['drain_growth'] / MIB:.1f} MiB while draining; "
          f"{after['batches']} batches of up to {after['largest']}")
    assert blocked["growth"] <= MAX_QUEUE_BYTES + SLACK
    assert blocked["paused"] is True
    assert during.messages < count
    assert (after["seen"], after["twice"], after["in_order"], after["epoch"]) == (count, 0, True, 1)
    assert (after["successful"], after["failed"], after["drained"]) == (count, 0, True)
    assert log.messages == count


if __name__ == "__main__":
    flood(sys.argv[1], float(sys.argv[2]), *map(int, sys.argv[3:]))
