"""Rates of pipelines whose acknowledgements come in lumps, and counts of calls; on real feeds, with handlers of known speed.
"""

from __future__ import annotations

import threading
import time

import pytest

from tests.waiting import until
from wsengine import Batcher, Pipeline, Processors, WebSocketProducer
from wsengine.testing import Feed
from wsengine.tune.watch import Count, Lumps, Watch


class Chunks(Pipeline):
    """4 ms a message, told once a chunk."""

    def handle_messages(self, messages):
        time.sleep(0.004 * len(messages))


class Calls(Pipeline):
    def handle_message(self, message):
        time.sleep(0.01)


class Raises(Pipeline):
    def handle_message(self, message):
        time.sleep(0.01)
        raise ValueError("bad")


class Batches(Pipeline):
    def handle_message(self, message):
        pass

    def handle_batch(self, messages, batch_info):
        time.sleep(0.2)
        return messages


class Fed:
    """A pipeline that always has messages, until the end of the `with`."""

    def __init__(self, kind, **options):
        self.feed = Feed.trades()
        self.kind, self.options = kind, options

    def __enter__(self):
        url = self.feed.__enter__().url
        self.pipeline = self.kind(WebSocketProducer(url), **self.options)
        self.count = Count(self.pipeline)
        self.pipeline.start()
        self.count.began()
        until(lambda: self.pipeline.stats().held_messages > 1000)
        return self

    def __exit__(self, *error):
        self.pipeline.stop(0)
        self.feed.__exit__(*error)

    def watch(self, seconds, patience=5.0):
        return Watch(self.pipeline, self.count).run(seconds, patience)


@pytest.mark.parametrize(("concurrency", "max_demand"), [(1, 100), (4, 100), (4, 10)])
def test_the_rate_of_chunks_is_that_of_the_handler_however_large_they_are(concurrency, max_demand):
    """A chunk of 100 takes 0.4 s, nearly as long as is measured: lumps divided by that time would be off by half."""
    with Fed(Chunks, processors=Processors(concurrency=concurrency, max_demand=max_demand)) as fed:
        found = fed.watch(0.5)
    assert found["rate"] == pytest.approx(250 * concurrency, rel=0.2)
    assert found["latency_p50"] is None or found["latency_p50"] > 0


def test_the_rate_of_batches_is_that_of_the_batch_processor():
    with Fed(Batches, batchers={"default": Batcher(batch_size=50)}) as fed:
        assert not fed.count.by_calls
        found = fed.watch(0.3)
    assert found["rate"] == pytest.approx(250, rel=0.25)


def test_calls_are_counted_before_their_chunk_is_acknowledged():
    with Fed(Calls) as fed:
        found = fed.watch(0.5)
        assert fed.pipeline.stats().successful == 0
    assert found["rate"] == pytest.approx(95, rel=0.3)
    assert found["latency_p50"] is None


def test_calls_that_raise_are_known_before_their_chunk_is_acknowledged():
    with Fed(Raises) as fed:
        found = fed.watch(0.3)
    assert found["problem"] == "100% of the messages fail"


def test_a_handler_that_does_not_return_is_late():
    gate = threading.Event()
    kind = type("Stuck", (Pipeline,), {"handle_message": lambda self, message: gate.wait(30) and None})
    with Fed(kind) as fed:
        found = fed.watch(0.1, patience=0.1)
        gate.set()
    assert found["late"]
    assert "no call of the handler has ended in the 0.1 s measured" in found["problem"]


def test_a_thread_that_had_little_to_do_is_not_taken_for_a_fast_one():
    lumps = Lumps(10.0, 5)
    lumps.look(10.9, 15)
    lumps.look(10.92, 25)
    assert lumps.enough
    assert lumps.rate(11.0, at_work=True) == pytest.approx(500)
    assert lumps.rate(11.0, at_work=False) == 20
