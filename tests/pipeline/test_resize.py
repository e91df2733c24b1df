"""P35: `resize`: more or fewer processors while the pipeline runs, nothing lost and nothing done twice (reference B-16)."""

from __future__ import annotations

import itertools
import random
import threading
import time

import pytest

from tests.waiting import until
from wsengine import Batcher, ConfigurationError, EngineStopped, Processors, WebSocketProducer, telemetry
from wsengine.testing import Feed, capture


def processors_of(pipeline):
    prefix = f"wsengine:{pipeline.name}:processor_"
    return sorted(one.name.removeprefix(prefix) for one in threading.enumerate() if one.name.startswith(prefix))


def test_new_processors_begin_at_once_and_share_the_work(launch, book):
    """B-16."""
    barrier = threading.Barrier(4, timeout=20)
    pipeline = launch(lambda message: barrier.wait() and None, processors=Processors(max_demand=1))
    pipeline.push_messages(book.messages(range(4)))
    pipeline.resize(4)
    book.wait(4, 20)
    assert processors_of(pipeline) == ["0", "1", "2", "3"]
    assert pipeline.topology()["processors"][0]["concurrency"] == 4
    assert len(pipeline.stats().processors) == 4


def test_those_too_many_end_behind_what_they_have_and_their_figures_stay(launch, book, gate):
    """B-16."""
    begun = itertools.count(1)
    count = [0]

    def handle_message(message):
        count[0] = next(begun)
        gate.wait(30)

    pipeline = launch(handle_message, processors=Processors(concurrency=4, max_demand=1))
    pipeline.push_messages(book.messages(range(20)))
    until(lambda: count[0] == 4)
    pipeline.resize(2)
    assert pipeline.stats().held_messages == 20
    assert len(pipeline.stats().processors) == 2
    gate.set()
    book.wait(20)
    until(lambda: processors_of(pipeline) == ["0", "1"])
    until(lambda: pipeline.stats().successful == 20)
    result = pipeline.stop()
    assert (result.successful, result.failed, result.drained) == (20, 0, True)
    book.assert_each_once(range(20))


@pytest.mark.parametrize("concurrency", [1, 3])
def test_the_same_number_changes_nothing(launch, book, concurrency):
    pipeline = launch(processors=Processors(concurrency=concurrency))
    before = {one.ident for one in threading.enumerate()}
    pipeline.resize(concurrency)
    pipeline.push_messages(book.messages(range(10)))
    book.wait(10)
    assert {one.ident for one in threading.enumerate()} == before


def test_a_processor_that_is_stuck_while_it_is_to_leave_is_held_to_the_deadline(launch, book, gate):
    begun = threading.Event()

    def handle_message(message):
        begun.set()
        gate.wait(60)

    pipeline = launch(handle_message, processors=Processors(concurrency=2, max_demand=3))
    pipeline.push_messages(book.messages(range(2)))
    assert begun.wait(5)
    until(lambda: sum(one.outstanding for one in pipeline.stats().processors) == 2)
    pipeline.resize(1)
    result = pipeline.stop(0.3)
    assert result.left == 2
    assert len(result.threads_alive) == 2
    gate.set()
    book.assert_each_once(range(2))


def test_a_handler_may_resize_its_own_pipeline_away(launch, book):
    pipeline = launch(lambda message: pipeline.resize(message.data), processors=Processors(concurrency=3, max_demand=1))
    pipeline.push_messages(book.messages([2, 1, 5, 1, 3]))
    book.wait(5)
    until(lambda: len(processors_of(pipeline)) == len(pipeline.stats().processors))
    assert pipeline.stop().drained


def test_the_number_holds_after_another_start(launch, book):
    pipeline = launch()
    pipeline.resize(3)
    pipeline.stop()
    pipeline.start()
    assert processors_of(pipeline) == ["0", "1", "2"]


@pytest.mark.parametrize("concurrency", [0, 1025, 1.5, None, True])
def test_a_wrong_number_is_refused(launch, concurrency):
    with pytest.raises(ConfigurationError, match="concurrency"):
        launch().resize(concurrency)


def test_only_a_running_pipeline_is_resized(build):
    with pytest.raises(EngineStopped):
        build().resize(2)


def test_the_bound_of_a_batcher_follows(launch, book, gate):
    pipeline = launch(handle_batch=lambda messages, info: gate.wait(60) and None, processors=Processors(max_demand=4),
                      batchers={"default": Batcher(batch_size=5, max_demand=20)})
    pipeline.push_messages(book.messages(range(300)))
    until(lambda: pipeline.stats().batchers[0].waiting > 10)
    time.sleep(0.1)
    assert pipeline.stats().batchers[0].waiting < 35
    pipeline.resize(4)
    until(lambda: pipeline.stats().batchers[0].waiting >= 80)
    gate.set()
    book.wait(300)


def test_a_new_processor_has_the_time_limit_of_the_others(launch, book, gate):
    def handle_message(message):
        gate.wait(30)

    with capture(telemetry.PROCESSOR_OVERDUE) as seen:
        pipeline = launch(handle_message, processors=Processors(max_demand=1, time_limit=0.1))
        pipeline.resize(2)
        pipeline.push_messages(book.messages(range(2)))
        events = seen.wait(telemetry.PROCESSOR_OVERDUE, 2)
        gate.set()
    assert {event.metadata["index"] for event in events} == {0, 1}


@pytest.mark.parametrize("rate", [500, None], ids=["quiet", "flood"])
def test_a_feed_goes_on_through_many_changes(launch, rate, seed):
    """From one, which when idle polls the socket itself, to several and back."""
    rng, seen, lock = random.Random(seed), [], threading.Lock()

    def handle_messages(messages):
        with lock:
            seen.extend(message.seq for message in messages)

    with Feed.trades(rate=rate) as feed:
        pipeline = launch(handle_messages=handle_messages, producers=WebSocketProducer(f"ws://127.0.0.1:{feed.port}/"),
                          max_queue=4096)
        for _ in range(40):
            before = len(seen)
            pipeline.resize(rng.choice([1, 1, 2, 5]))
            until(lambda before=before: len(seen) > before + 3)
        pipeline.resize(1)
        until(lambda: len(processors_of(pipeline)) == 1)
        before = len(seen)
        until(lambda: len(seen) > before + 100)
        assert len(feed.log().connections) == 1
        result = pipeline.stop()
    assert result.drained
    assert sorted(seen) == list(range(len(seen)))


def test_one_processor_polls_the_socket_itself_again_when_the_others_have_ended(launch):
    with Feed.trades(rate=200) as feed:
        producer = WebSocketProducer(f"ws://127.0.0.1:{feed.port}/")
        pipeline = launch(lambda message: None, producers=producer)
        until(lambda: producer._receiver.lent > 20)
        pipeline.resize(3)
        until(lambda: len(processors_of(pipeline)) == 3)
        time.sleep(0.3)
        before = producer._receiver.lent
        time.sleep(0.5)
        assert producer._receiver.lent <= before + 1
        pipeline.resize(1)
        until(lambda: producer._receiver.lent > before + 20)
