"""Processors whose loop dies outside a callback: replaced alone, what they held failed and acknowledged once."""

from __future__ import annotations

import threading

import pytest

from wsengine import Batcher, Message, Processors, telemetry
from wsengine.pipeline import monitor
from wsengine.testing import capture


class LoopFault(BaseException):
    """What no callback raised."""


@pytest.fixture
def deadly(monkeypatch):
    """Make the loop raise where it tells telemetry of a chunk that holds b"die"; the monitor looks often."""
    real, watch = telemetry.execute, "wsengine.tests.watch"

    def execute(event, measurements=None, metadata=None):
        if event == telemetry.PROCESSOR_START and any(m.data == "die" for m in metadata["messages"]):
            raise LoopFault("the loop is hit")
        real(event, measurements, metadata)

    telemetry.attach(watch, telemetry.PROCESSOR_START, lambda *args: None)
    monkeypatch.setattr(telemetry, "execute", execute)
    monkeypatch.setattr(monitor, "PERIOD", 0.003)
    yield
    telemetry.detach(watch)


def test_a_hundred_deaths_cost_their_own_messages_only(deadly, launch, book, caplog):
    """B-11, P18: unlike the ancestor, which ends after the fourth."""
    pipeline = launch(processors=Processors(concurrency=2, max_demand=1))
    pipeline.push_messages(book.messages(data for i in range(100) for data in ("die", i)))
    book.wait(200, timeout=15)
    result = pipeline.stop()
    assert book.failed == ["die"] * 100
    assert sorted(book.ok) == list(range(100))
    assert (result.successful, result.failed, result.drained) == (100, 100, True)
    assert sum("died and was replaced" in one.message for one in caplog.records) == 100


def test_the_chunk_of_a_dead_processor_is_failed_as_a_whole_with_the_reason(deadly, launch, book, gate, eventually):
    begun = threading.Event()

    def handle_message(message):
        begun.set()
        gate.wait(5)

    pipeline = launch(handle_message, processors=Processors(max_demand=10))
    pipeline.push_messages(book.message("before"))
    assert begun.wait(5)
    pipeline.push_messages(book.messages(["a", "die", "b"]))
    gate.set()
    book.wait(4)
    assert book.calls[1:] == [("ref", [], ["a", "die", "b"])]
    assert "LoopFault" in book.reasons["a"].reason
    eventually(lambda: pipeline.stats().held_messages == 0)
    assert pipeline.stats().processors[0].outstanding == 0


def test_only_the_dead_processor_is_replaced(deadly, launch, book, gate, eventually):
    """B-11, P18."""
    held = {}

    def handle_message(message):
        held[message.data] = threading.current_thread()
        if message.data == "hold":
            gate.wait(5)

    pipeline = launch(handle_message, processors=Processors(concurrency=2, max_demand=1))
    pipeline.push_messages(book.message("hold"))
    eventually(lambda: "hold" in held)
    before = [seat.thread for seat in pipeline._wsengine_topology.seats]
    with capture(telemetry.WORKER_REPLACED) as seen:
        pipeline.push_messages(book.message("die"))
        # the patched hook passes this event on
        [event] = seen.wait(telemetry.WORKER_REPLACED)
    after = [seat.thread for seat in pipeline._wsengine_topology.seats]
    assert [one is other for one, other in zip(before, after, strict=True)].count(False) == 1
    assert held["hold"] in after
    assert book.failed == ["die"]
    assert event.measurements == {"count": 1, "failed_messages": 1}
    assert event.metadata["topology_name"] == pipeline.name
    assert isinstance(event.metadata["reason"], LoopFault)
    assert event.metadata["name"] == f"wsengine:{pipeline.name}:processor_{event.metadata['index']}"
    pipeline.push_messages(book.message("next"))
    book.wait(2)
    assert book.ok == ["next"]
    gate.set()
    assert pipeline.stop().drained


def test_open_batches_survive_the_death_of_a_processor(deadly, launch, book):
    """B-11: unlike the ancestor, where all that is downstream starts again and forgets what it had."""
    batches = []
    pipeline = launch(handle_batch=lambda messages, info: batches.append([one.data for one in messages]),
                      processors=Processors(max_demand=1), batchers={"default": Batcher(batch_size=3, batch_timeout=60.0)})
    behind = pipeline._wsengine_topology.batching[0].seats[0].thread
    pipeline.push_messages(book.messages([1, 2, "die", 3]))
    book.wait(4)
    assert (batches, book.failed) == ([[1, 2, 3]], ["die"])
    assert pipeline._wsengine_topology.batching[0].seats[0].thread is behind
    assert pipeline.stop().drained


def test_deaths_during_a_stop_are_seen_to_as_well(deadly, launch, book, gate):
    begun = threading.Event()

    def handle_message(message):
        begun.set()
        gate.wait(5)

    pipeline = launch(handle_message, processors=Processors(max_demand=1))
    pipeline.push_messages(book.message("first"))
    assert begun.wait(5)
    pipeline.push_messages(book.messages(["die", 1, "die", 2, "die"]))
    pipeline.request_stop()
    gate.set()
    result = pipeline.join(10)
    assert (result.drained, result.successful, result.failed) == (True, 3, 3)
    assert book.failed == ["die"] * 3


def test_a_message_acknowledged_at_once_by_a_processor_that_dies_is_not_acknowledged_again(monkeypatch, launch, book):
    real = telemetry.execute

    def execute(event, measurements=None, metadata=None):
        real(event, measurements, metadata)
        if event == telemetry.MESSAGE_STOP and metadata["message"].data == "die":
            raise LoopFault("between two messages")

    telemetry.attach("watch", telemetry.MESSAGE_STOP, lambda *args: None)
    monkeypatch.setattr(telemetry, "execute", execute)
    monkeypatch.setattr(monitor, "PERIOD", 0.003)
    try:
        pipeline = launch(Message.ack_immediately, processors=Processors(max_demand=5))
        pipeline.push_messages(book.messages(["die", 1, 2]))
        book.wait(3)
        pipeline.stop()
    finally:
        telemetry.detach("watch")
    book.assert_each_once(["die", 1, 2])
    assert "die" in book.ok


def test_what_a_dead_processor_had_handled_counts_as_successful(monkeypatch, launch, book, gate):
    real, begun = telemetry.execute, threading.Event()

    def execute(event, measurements=None, metadata=None):
        if event == telemetry.MESSAGE_START and metadata["message"].data == "die":
            raise LoopFault("between two messages")
        real(event, measurements, metadata)

    def handle_message(message):
        begun.set()
        gate.wait(5)

    telemetry.attach("watch", telemetry.MESSAGE_START, lambda *args: None)
    monkeypatch.setattr(telemetry, "execute", execute)
    try:
        pipeline = launch(handle_message, processors=Processors(max_demand=10))
        pipeline.push_messages(book.message(0))
        assert begun.wait(5)
        pipeline.push_messages(book.messages([1, 2, "die", 3]))
        gate.set()
        book.wait(5)
        result = pipeline.stop()
    finally:
        telemetry.detach("watch")
    assert book.ok == [0, 1, 2]
    assert book.failed == ["die", 3]
    assert (result.successful, result.failed) == (3, 2)


def test_processors_are_replaced_also_where_the_logger_raises(deadly, launch, book):
    def broken_filter(record):
        raise LookupError("no such field")

    monitor.logger.addFilter(broken_filter)
    try:
        pipeline = launch(processors=Processors(max_demand=1))
        pipeline.push_messages(book.messages(["die", 1, "die", 2]))
        book.wait(4)
        result = pipeline.stop(10)
    finally:
        monitor.logger.removeFilter(broken_filter)
    assert (result.drained, result.threads_alive) == (True, ())
    assert (book.ok, book.failed) == ([1, 2], ["die", "die"])


@pytest.mark.parametrize("fault", [RuntimeError("can't start new thread"), MemoryError(), OSError("no more threads")],
                         ids=lambda one: type(one).__name__)
def test_a_stop_is_carried_out_where_there_is_no_thread_to_watch_it(monkeypatch, launch, book, caplog, fault):
    real = monitor.spawn

    def spawn(name, body):
        if name.endswith(":watch"):
            raise fault
        return real(name, body)

    monkeypatch.setattr(monitor, "spawn", spawn)
    pipeline = launch()
    pipeline.push_messages(book.messages([1, 2]))
    pipeline.request_stop()
    result = pipeline.join(20)
    assert result is not None
    assert (result.drained, result.successful, result.threads_alive) == (True, 2, ())
    assert "stops, and processors that die meanwhile are not replaced" in caplog.text
