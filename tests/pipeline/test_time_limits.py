"""Time limits of what runs in the threads of batchers and partitioners (those of handlers: test_message_retry)."""

from __future__ import annotations

import time

import pytest

from tests.waiting import until
from wsengine import Batcher, Processors, telemetry
from wsengine.testing import capture

LIMIT = 0.1


def refuse(*_):
    raise LookupError("so that handle_failed is called")


class Slow:
    """A key whose comparison is slow."""

    def __init__(self, slow_callback):
        self.slow_callback = slow_callback

    def __hash__(self):
        return 1

    def __eq__(self, other):
        self.slow_callback()
        return False


@pytest.mark.parametrize("kind", ["partition_by", "handle_failed of a partition", "batch_size", "handle_failed of a size",
                                  "key"])
def test_a_function_in_a_batchers_or_partitioners_thread_that_takes_too_long_is_told_once(launch, book, gate, kind, caplog):
    """P37 (B-7)."""
    answer = 0 if kind == "partition_by" else ("cont", 0)

    def slow_callback(*_):
        gate.wait(30)
        return answer if not kind.startswith("handle_failed") else None

    sized = {"max_demand": 5, "batch_timeout": 0.01, "time_limit": LIMIT}
    event, thread = telemetry.BATCH_PROCESSOR_OVERDUE, "batcher_default"
    given, expected = book.messages(range(2)), 2
    options = {"handle_batch": lambda messages, info: None, "processors": Processors()}
    if kind == "batch_size":
        options["batchers"] = {"default": Batcher(batch_size=(0, slow_callback), **sized)}
    elif kind == "handle_failed of a size":
        options.update(handle_failed=slow_callback, batchers={"default": Batcher(batch_size=(0, refuse), **sized)})
    elif kind == "key":
        options["batchers"] = {"default": Batcher(batch_size=(0, lambda *_: answer), **sized)}
        for message in given:
            message.batch_key = Slow(slow_callback)
    else:
        event, thread = telemetry.PROCESSOR_OVERDUE, "partitioner"
        options = {"processors": Processors(time_limit=LIMIT), "partition_by": slow_callback}
        if kind != "partition_by":
            options.update(partition_by=lambda _: 0, handle_failed=slow_callback, max_queue=2, overflow="drop_newest")
            options["processors"] = Processors(concurrency=2, time_limit=LIMIT)
    with capture(event) as seen:
        pipeline = launch(**options)
        if kind == "handle_failed of a partition":
            pipeline.pause()                     # so that the partition, of one message, stays full
        pipeline.push_messages(given)
        [overdue] = seen.wait(event)
        time.sleep(4 * LIMIT)
        assert len(seen.of(event)) == 1
        gate.set()
        pipeline.resume()
        book.wait(expected)
    assert overdue.measurements["duration"] >= LIMIT * 1e9
    assert overdue.metadata["name"] == f"wsengine:{pipeline.name}:{thread}"
    assert "slow_callback" in overdue.metadata["stack"]
    assert f"has taken more than {LIMIT} s" in caplog.text
    assert pipeline.stop().drained


def test_a_partitioner_that_waits_for_room_is_not_told(launch, book):
    """It is in no callback then, however long the partition is full."""
    with capture(telemetry.PROCESSOR_OVERDUE) as seen:
        pipeline = launch(processors=Processors(concurrency=2, time_limit=LIMIT), partition_by=lambda _: 0, max_queue=8)
        pipeline.pause()
        pipeline.push_messages(book.messages(range(8)))
        until(lambda: pipeline.stats().partitions[0].stalls)
        time.sleep(4 * LIMIT)
        pipeline.resume()
        book.wait(8)
    assert seen.of(telemetry.PROCESSOR_OVERDUE) == []


def test_many_short_calls_of_a_size_function_are_not_told(launch, book):
    def function(message, count):
        time.sleep(LIMIT / 5)
        return "cont", count

    with capture(telemetry.BATCH_PROCESSOR_OVERDUE) as seen:
        pipeline = launch(handle_batch=lambda messages, info: None, batchers={
            "default": Batcher(batch_size=(0, function), max_demand=50, time_limit=LIMIT, batch_timeout=0.05)})
        pipeline.push_messages(book.messages(range(25)))
        book.wait(25)
        time.sleep(2 * LIMIT)
    assert seen.of(telemetry.BATCH_PROCESSOR_OVERDUE) == []
