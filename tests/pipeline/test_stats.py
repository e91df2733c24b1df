"""The figures of a pipeline: counts, rates over the time that has really passed, workloads that decay, latencies."""

from __future__ import annotations

import math
import random
import threading
import time

import pytest

from tests.waiting import until
from wsengine import Batcher, Message, Processors, Producer, Retry, WebSocketProducer, telemetry
from wsengine.pipeline.latency import Latency
from wsengine.pipeline.pace import Rate, Workload
from wsengine.testing import DummyProducer, Feed, capture

# ---- rates (D-3)


def test_a_rate_is_by_the_time_that_has_passed_however_often_it_is_asked():
    """D-3, P31: unlike the ancestor's dashboard, which takes any two looks for a second apart."""
    rate = Rate(window=2.0)
    assert rate.at(0.0, 5) == 0.0
    rate.note(0.0, 0)
    assert rate.at(0.0, 0) == 0.0
    assert rate.at(0.5, 100) == 200.0
    assert rate.at(0.5, 100) == 200.0, "asking changes nothing"
    for tenth in range(1, 100):
        rate.note(tenth / 10, tenth * 10)
    assert rate.at(9.9, 990) == pytest.approx(100)
    rate.note(17.9, 990)
    assert rate.at(17.9, 990) < 20, "a look that came late is divided by its own time"
    rate.note(19.9, 990)
    rate.note(21.9, 990)
    assert rate.at(21.9, 990) == 0.0


# ---- workloads (D-2)


def test_a_workload_goes_to_what_is_and_decays_to_nothing():
    """D-2, P31."""
    load = Workload(memory=2.0)
    busy = now = 0.0
    load.note(now, busy)
    for _ in range(100):
        now, busy = now + 0.1, busy + 0.1
        load.note(now, busy)
    assert load.share > 0.99
    for _ in range(20):
        now += 0.1
        load.note(now, busy)
    assert load.share == pytest.approx(math.exp(-1), abs=0.01)
    now += 30
    load.note(now, busy)
    assert load.share < 0.001


def test_half_the_time_is_a_half_whatever_the_period():
    for period in (0.01, 0.1, 0.7):
        load, now, busy = Workload(), 0.0, 0.0
        load.note(now, busy)
        while now < 20:
            now, busy = now + period, busy + period / 2
            load.note(now, busy)
        assert load.share == pytest.approx(0.5, abs=0.01)


def test_a_share_is_never_above_one_nor_below_nothing():
    load = Workload()
    load.note(0.0, 0.0)
    load.note(1.0, 5.0)
    assert 0 < load.share <= 1
    load.note(2.0, 0.0)
    load.note(2.0, 9.0)
    assert 0 <= load.share <= 1


# ---- latencies


def test_percentiles_are_right_to_an_eighth():
    rng, latency = random.Random(7), Latency()
    times = sorted(int(rng.lognormvariate(11, 2)) + 8 for _ in range(20_000))
    for one in times:
        latency.count(one)
    assert latency.total == 20_000
    for share in (0.01, 0.5, 0.9, 0.99, 0.999, 1.0):
        exact = times[max(math.ceil(share * 20_000) - 1, 0)]
        assert latency.percentile(share) == pytest.approx(exact, rel=0.125)


def test_latencies_count_runs_and_add_up():
    one, other = Latency(), Latency()
    assert one.percentile(0.5) == 0.0
    one.count(1000, 99)
    other.count(10**9)
    other.count(-5)
    one.add(other)
    assert one.total == 101
    assert one.percentile(0.5) == pytest.approx(1000, rel=0.125)
    assert one.percentile(1.0) == pytest.approx(10**9, rel=0.125)
    assert one.percentile(0.0) <= 9


def test_every_time_has_a_class():
    latency = Latency()
    for exponent in range(63):
        for step in (-1, 0, 1):
            latency.count(max(2**exponent + step, 0))
    assert latency.total == 3 * 63


# ---- of a pipeline


@pytest.mark.parametrize("batched", [False, True])
def test_latency_is_from_receive_to_acknowledgement(launch, batched):
    held = 0.15

    def hold(*_):
        time.sleep(held)

    options = {"handle_message": hold} if not batched else {
        "handle_batch": hold, "batchers": {"default": Batcher(batch_size=5, batch_timeout=0.05)}}
    with Feed.trades(rate=5) as feed:
        pipeline = launch(**options, producers=WebSocketProducer(f"ws://127.0.0.1:{feed.port}/"))
        until(lambda: pipeline.stats().latency_p50)
        stats = pipeline.stats()
    assert held * 0.85 < stats.latency_p50 < 3
    assert stats.latency_p50 <= stats.latency_p99


class Slow:
    """An acknowledger that takes its time."""

    seconds = 0.3

    def ack(self, ack_ref, successful, failed):
        time.sleep(self.seconds)


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("batched", [False, True])
def test_latency_has_the_time_of_the_acknowledger_in_it(launch, batched, failing):
    def handle_message(message):
        if failing:
            message.fail("no price")

    options = {} if not batched else {"handle_batch": lambda messages, info: None,
                                      "batchers": {"default": Batcher(batch_size=1)}}
    pipeline = launch(handle_message, **options)
    pipeline.push_messages(Message(1, acknowledger=(Slow(), "r", None)))
    assert pipeline.stop().drained
    assert Slow.seconds * 0.85 < pipeline.stats().latency_p50 < 5


@pytest.mark.parametrize("way", ["push_messages", "emit", "a producer of one's own"])
def test_messages_that_are_pushed_have_a_latency(launch, way):
    """Unlike a message of a connection, which is received before, they are when they are pushed."""
    held, received = 0.15, []

    class Own(Producer):
        def run(self, inbox):
            inbox.push([Message(n) for n in range(3)])

    def handle_messages(messages):
        received.extend(message.received_ns for message in messages)
        time.sleep(held)

    dummy = DummyProducer()
    began = time.monotonic_ns()
    pipeline = launch(handle_messages=handle_messages, producers=Own() if way.startswith("a") else dummy)
    if not way.startswith("a"):
        (dummy.emit if way == "emit" else pipeline.push_messages)([Message(n) for n in range(3)])
    until(lambda: pipeline.stats().successful == 3)
    pipeline.stop()
    assert all(began < one < time.monotonic_ns() for one in received)
    assert len(set(received)) == 1, "one look at the clock for a list"
    assert held * 0.85 < pipeline.stats().latency_p50 <= pipeline.stats().latency_p99 < 5


def test_what_takes_the_place_of_a_message_was_received_with_it(launch):
    given, made = [], []

    def handle_message(message):
        given.append(message.received_ns)
        made.append(Message("another"))
        return made[-1]

    pipeline = launch(handle_message)
    pipeline.push_messages(Message("one"))
    assert pipeline.stop().drained
    assert [message.received_ns for message in made] == given
    assert pipeline.stats().latency_p50 > 0


def test_a_message_for_which_there_was_no_room_has_not_been_received(launch, gate):
    pipeline = launch(lambda message: gate.wait(60), max_queue=1, processors=Processors(max_demand=1))
    pipeline.push_messages(Message("first"))
    late = Message("late")
    assert pipeline.push_messages(late, timeout=0.01) == 0
    assert (late.received_ns, late.received_at) == (0, 0.0)
    gate.set()
    began = time.monotonic_ns()
    assert pipeline.push_messages(late, timeout=10) == 1
    assert began < late.received_ns < time.monotonic_ns()


def test_the_workload_of_a_busy_thread_rises_while_it_is_in_its_callback_and_falls_when_it_is_idle(launch, book, gate):
    """Unlike the ancestor's dashboard (D-2), where an idle stage keeps its last value for ever."""
    pipeline = launch(lambda message: gate.wait(30), processors=Processors(concurrency=2, max_demand=1))
    pipeline.push_messages(book.message(0))
    until(lambda: max(one.workload for one in pipeline.stats().processors) > 0.6)
    assert min(one.workload for one in pipeline.stats().processors) < 0.1
    gate.set()
    until(lambda: max(one.workload for one in pipeline.stats().processors) < 0.2)


def test_d1_each_failure_is_counted_once(launch, book):
    """D-1, P31: unlike the ancestor's dashboard, which counts an exception of a handler twice."""
    def handle_message(message):
        if message.data < 5:
            raise ValueError("in the processor")

    def handle_batch(messages, info):
        raise ValueError("in the batch")

    pipeline = launch(handle_message, handle_batch=handle_batch, batchers={"default": Batcher(batch_size=5)})
    pipeline.push_messages(book.messages(range(10)))
    book.wait(10)
    pipeline.stop()
    stats = pipeline.stats()
    assert (stats.successful, stats.failed) == (0, 10)
    assert (stats.processors[0].failed, stats.batchers[0].batch_processors[0].failed) == (5, 5)


def test_d3_several_readers_of_the_rate_do_not_disturb_each_other(launch, book):
    """D-3, P31."""
    pipeline = launch(lambda message: time.sleep(0.001))
    over, rates = threading.Event(), []

    def read():
        while not over.wait(0.005):
            rates.append(pipeline.stats().rate)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        pipeline.push_messages(book.messages(range(1500)))
        book.wait(1000, 20)
        rates.clear()
        book.wait(1400, 20)
    finally:
        over.set()
        for reader in readers:
            reader.join()
    assert len(rates) > 10
    assert max(rates) < 4 * min(rates), "a steady pace reads as one"


def test_d4_latency_depth_batches_retries_and_connections_are_told(launch, gate):
    """D-4: none of which the ancestor's dashboard shows."""
    def handle_batch(messages, info):
        gate.wait(60)
        if not told.of(telemetry.BATCH_RETRY):
            raise OSError("once")

    def all_told(stats):
        [batcher], [processor] = stats.batchers, stats.processors
        return batcher.waiting >= 10 and 0 < stats.depth == 50 - batcher.held - processor.outstanding

    with Feed.trades(count=50) as feed, capture(telemetry.BATCH_RETRY, telemetry.BATCH_PROCESSOR_STOP) as told:
        pipeline = launch(handle_batch=handle_batch, processors=Processors(max_demand=5),
                          producers=WebSocketProducer(feed.url),
                          batchers={"default": Batcher(batch_size=10, batch_timeout=60.0, max_demand=10,
                                                       retry=Retry(initial=0.01))})
        until(lambda: all_told(pipeline.stats()))
        gate.set()
        until(lambda: pipeline.stats().held_messages == 0)
        stats = pipeline.stats()
    assert stats.successful == 50
    assert 0 < stats.latency_p50 <= stats.latency_p99
    [connection] = stats.producers[0]["connections"]
    assert (connection["messages"], connection["reconnects"]) == (50, 0)
    assert (stats.batchers[0].batch_processors[0].batches, stats.failed) == (5, 0)
    assert [one.metadata["batch_info"].size for one in told.of(telemetry.BATCH_PROCESSOR_STOP)] == [10] * 5
    assert [one.measurements["messages"] for one in told.of(telemetry.BATCH_RETRY)] == [10]


def test_d5_figures_need_no_handler_in_the_path_of_the_messages(launch, book):
    """D-5: unlike the ancestor's dashboard, which counts in handlers of telemetry."""
    pipeline = launch(handle_batch=lambda messages, info: None, batchers={"default": Batcher(batch_size=10)})
    assert telemetry.list_handlers() == []
    pipeline.push_messages(book.messages(range(100)))
    book.wait(100)
    pipeline.stop()
    stats = pipeline.stats()
    assert (stats.successful, stats.batchers[0].batch_processors[0].batches) == (100, 10)
    assert stats.processors[0].busy_seconds > 0
    assert telemetry.list_handlers() == []
