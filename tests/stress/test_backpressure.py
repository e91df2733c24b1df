"""A flood against handlers that block: memory stays bounded, the server is held back, and nothing is lost.

Each flood runs in a process of its own (this file, run as a program), so that resident memory is that of the pipeline.
A second or so in a normal run, a minute with WSENGINE_LONG=1.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time

import psutil
import pytest

from tests.blocked_child import blocked_then_freed, peak_while
from wsengine import Backoff, Pipeline, WebSocketProducer
from wsengine.testing import Feed
from wsengine.testing.stamp import read_sequence

pytestmark = pytest.mark.stress

LONG = os.environ.get("WSENGINE_LONG") == "1"
BLOCKED = 60.0 if LONG else 1.5
MIB = 2**20
SLACK = 32 * MIB


class Blocked(Pipeline):
    """Its handler waits for the gate; it then notes whether the trades come in order."""

    def __init__(self, producers, **options):
        super().__init__(producers, **options)
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.count = 0
        self.in_order = True

    def handle_messages(self, messages):
        self.entered.set()
        self.gate.wait()
        for message in messages:
            self.in_order = self.in_order and read_sequence(message.data) == self.count == message.seq
            self.count += 1


def flood(url, seconds, count, max_queue_bytes):
    """The child: block for a time, tell how memory grew; go on when told; tell what arrived."""
    process = psutil.Process()
    pipeline = Blocked(WebSocketProducer(url), max_queue_bytes=max_queue_bytes)
    before = process.memory_info().rss
    with pipeline:
        peak = peak_while(process, seconds, lambda: True)
        producer = pipeline.stats().producers[0]
        print(json.dumps({"growth": peak - before, "paused": producer["connections"][0]["paused"],
                          "held": pipeline.stats().held_bytes}), flush=True)
        sys.stdin.readline()
        pipeline.gate.set()
        drain = peak_while(process, 100, lambda: pipeline.count < count)
        result = pipeline.stop()
    print(json.dumps({"received": pipeline.count, "in_order": pipeline.in_order, "epoch": pipeline._wsengine_producers[0]
                      .connections[0].epoch, "failed": result.failed, "drain_growth": drain - before}), flush=True)


@pytest.mark.parametrize(("size", "count", "max_queue_bytes"), [
    pytest.param(128, 400_000, 4 * MIB, id="128 B, bound by bytes"),
    pytest.param(128, 400_000, 64 * MIB, id="128 B, bound by messages"),
    pytest.param(MIB, 150, 64 * MIB, id="1 MiB"),
])
def test_memory_is_bounded_the_server_is_held_back_and_all_arrives(no_leaks, size, count, max_queue_bytes):
    with Feed.trades(size=size, count=count) as feed:
        blocked, during, after, log = blocked_then_freed(
            feed, [sys.executable, __file__, feed.url, str(BLOCKED), str(count), str(max_queue_bytes)])
    print(f"{size} B: memory grew by {blocked['growth'] / MIB:.1f} MiB of {max_queue_bytes / MIB:.0f} MiB while blocked, by "
          f"{after['drain_growth'] / MIB:.1f} MiB while draining; the server was held for "
          f"{during.connections[0].blocked_seconds:.1f} s")
    assert blocked["growth"] <= max_queue_bytes + SLACK
    assert blocked["paused"] is True
    assert during.messages < count
    assert during.connections[0].blocked_seconds >= BLOCKED * 0.25
    assert (after["received"], after["in_order"], after["failed"], after["epoch"]) == (count, True, 0, 1)
    assert log.messages == count


def test_a_peer_that_resets_while_reading_is_paused_costs_no_core_and_loses_nothing_that_was_read(no_leaks):
    process = psutil.Process()
    with Feed.trades(size=1024) as feed:
        producer = WebSocketProducer(feed.url, retry=Backoff(30, jitter="none"), keepalive=None)
        pipeline = Blocked(producer, max_queue_bytes=4 * MIB)
        with pipeline:
            assert pipeline.entered.wait(5)
            feed.wait(lambda log: log.connections[0].blocked_seconds > 0.3)
            assert producer.connections[0].paused
            assert feed.reset() == 1
            before = sum(process.cpu_times()[:2])
            time.sleep(1.0)
            spent = sum(process.cpu_times()[:2]) - before
            held = pipeline.stats().held_messages
            assert spent < 0.3, f"{spent:.2f} s of CPU in one second of waiting"
            assert held > 1000
            pipeline.gate.set()
            deadline = time.monotonic() + 10
            while producer.connections[0].state != "backoff" and time.monotonic() < deadline:
                time.sleep(0.01)
            assert producer.connections[0].state == "backoff"
            pipeline.stop()
        assert pipeline.in_order
        assert pipeline.count >= held
        assert pipeline.count == producer.connections[0].counts()["messages"]
    del pipeline, producer
    gc.collect()


if __name__ == "__main__":
    flood(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
