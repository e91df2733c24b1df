"""`DummyProducer`: quiet until told, and a proper producer in all that a pipeline asks of one."""

from __future__ import annotations

import threading

import pytest

from wsengine import EngineStopped, Message, Pipeline, Processors
from wsengine.testing import DummyProducer

pytestmark = pytest.mark.usefixtures("no_leaks")


class Collect(Pipeline):
    def __init__(self, producer, **options):
        super().__init__(producer, **options)
        self.arrived = threading.Semaphore(0)
        self.seen = []

    def handle_message(self, message):
        self.seen.append(message.data)
        self.arrived.release()


def test_it_brings_nothing_by_itself_and_lets_the_pipeline_run():
    with Collect(DummyProducer()) as pipeline:
        assert pipeline.join(0.3) is None
        assert pipeline.state == "running"
        assert pipeline.stats().successful == 0
    assert pipeline.seen == []


def test_pushed_messages_are_all_that_is_handled():
    with Collect(DummyProducer()) as pipeline:
        assert pipeline.push_messages([Message(1), Message(2)]) == 2
        for _ in range(2):
            assert pipeline.arrived.acquire(timeout=5)
    assert pipeline.seen == [1, 2]


def test_emitted_messages_are_handled_in_order():
    producer = DummyProducer()
    with Collect(producer) as pipeline:
        assert producer.emit(Message(0)) == 1
        assert producer.emit([Message(number) for number in range(1, 500)]) == 499
        result = pipeline.stop()
    assert pipeline.seen == list(range(500))
    assert result.drained
    assert result.successful == 500
    assert result.threads_alive == ()


def test_emit_blocks_while_the_pipeline_is_full_and_tells_how_many_it_took():
    release = threading.Event()

    class Blocked(Pipeline):
        def handle_message(self, message):
            release.wait(10)

    producer = DummyProducer()
    with Blocked(producer, max_queue=4, processors=Processors(max_demand=1)):
        assert producer.emit([Message(number) for number in range(10)], timeout=0.2) == 4
        release.set()


def test_finishing_handles_what_is_there_and_ends_the_pipeline():
    producer = DummyProducer()
    pipeline = Collect(producer).start()
    producer.emit([Message(number) for number in range(50)])
    producer.finish()
    result = pipeline.join(10)
    assert result is not None
    assert result.error is None
    assert result.successful == 50
    assert pipeline.seen == list(range(50))


def test_an_error_ends_the_pipeline_and_is_in_the_result():
    producer, error = DummyProducer(), LookupError("the source is gone")
    pipeline = Collect(producer).start()
    producer.emit(Message("before"))
    producer.finish(error)
    result = pipeline.join(10)
    assert result is not None
    assert result.error is error
    assert pipeline.seen == ["before"]


def test_emitting_or_finishing_outside_a_running_pipeline_is_an_error():
    producer = DummyProducer()
    with pytest.raises(EngineStopped, match="has not been started"):
        producer.emit(Message(1))
    with pytest.raises(EngineStopped, match="has not been started"):
        producer.finish()
    with Collect(producer):
        producer.emit(Message(1))
    with pytest.raises(EngineStopped):
        producer.emit(Message(2))


def test_a_pipeline_that_is_started_again_has_its_producer_back():
    producer = DummyProducer()
    pipeline = Collect(producer)
    for turn in range(3):
        pipeline.start()
        producer.emit(Message(turn))
        producer.finish(None if turn else ValueError("of the first turn"))
        result = pipeline.join(10)
        assert result is not None
        assert (result.error is None) == bool(turn)
    assert pipeline.seen == [0, 1, 2]
