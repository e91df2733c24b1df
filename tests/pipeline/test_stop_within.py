"""`stop` within a thread of the pipeline, of every role that there is: it requests the stop and does not wait, because the
stop waits for that thread. Within any other thread it waits, and has the result."""

from __future__ import annotations

import contextlib
import itertools
import threading

import pytest

from tests.waiting import until
from wsengine import Batcher, EngineStopped, Message, Processors, Producer, WebSocketProducer, telemetry
from wsengine.pipeline import monitor
from wsengine.testing import DummyProducer, Feed


class Stopping:
    """Stops its pipeline where it is called first, and keeps in which thread that was and what it was told."""

    def __init__(self):
        self.pipeline, self.answers = None, []
        self.lock = threading.Lock()

    def __call__(self, *ignored):
        with self.lock:
            if self.answers:
                return
            self.answers.append(None)
        self.answers[:] = [(threading.current_thread().name, self.pipeline.stop())]

    def assert_requested(self, role):
        """Whoever called was of this role, and was told nothing; everything was drained, long before the deadline."""
        result = self.pipeline.join(20)
        until(lambda: self.answers and self.answers != [None])
        assert self.answers == [(f"wsengine:{self.pipeline.name}:{role}", None)]
        assert (result.drained, result.threads_alive) == (True, ())
        assert result.seconds < 10
        return result


@pytest.fixture
def stopping():
    return Stopping()


@pytest.fixture
def launched(build, stopping):
    """Start a pipeline with a deadline that no test waits for, which `stopping` stops."""
    def make(*given, **options):
        stopping.pipeline = build(*given, shutdown_timeout=30.0, **options)
        return stopping.pipeline.start()

    return make


@pytest.fixture
def deadly(monkeypatch):
    """Have the loop of a processor die of a chunk that holds "die", where no callback runs; the monitor looks often."""
    class Death(BaseException):
        pass

    real = telemetry.execute

    def execute(event, measurements=None, metadata=None):
        if event == telemetry.PROCESSOR_START and any(m.data == "die" for m in metadata["messages"]):
            raise Death
        real(event, measurements, metadata)

    telemetry.attach("test-deadly", telemetry.PROCESSOR_START, lambda *event: None)
    monkeypatch.setattr(telemetry, "execute", execute)
    monkeypatch.setattr(monitor, "PERIOD", 0.003)
    yield
    telemetry.detach("test-deadly")


@pytest.fixture
def attached():
    """Attach handlers to telemetry until the test ends."""
    names = []

    def attach(event, function):
        names.append(f"test-stop-within-{len(names)}")
        telemetry.attach(names[-1], event, function)

    yield attach
    for name in names:
        telemetry.detach(name)


# ---- threads that handle messages


def test_within_a_processor(launched, stopping, book):
    launched(stopping).push_messages(book.message(1))
    stopping.assert_requested("processor_0")


@pytest.mark.parametrize("partition_by", [None, lambda message: message.data])
def test_within_a_processor_that_a_resize_from_elsewhere_made(launched, stopping, book, partition_by):
    """Without partitions the caller of `resize` makes it, with partitions the partitioner does."""
    pipeline = launched(lambda message: stopping() if threading.current_thread().name.endswith("_1") else None,
                        partition_by=partition_by, processors=Processors(max_demand=1))
    pipeline.resize(2)
    until(lambda: len(pipeline.stats().processors) == 2)
    with contextlib.suppress(EngineStopped):     # until it takes no more
        for number in itertools.count():
            pipeline.push_messages(Message(number))
    stopping.assert_requested("processor_1")


@pytest.mark.usefixtures("deadly")
def test_within_a_processor_that_replaced_another(launched, stopping, book):
    pipeline = launched(stopping)
    pipeline.push_messages(book.message("die"))
    book.wait(1)
    pipeline.push_messages(book.message("go on"))
    assert stopping.assert_requested("processor_0").failed == 1


def test_within_a_batch_processor(launched, stopping, book):
    launched(handle_batch=stopping, batchers={"default": Batcher()}).push_messages(book.message(1))
    stopping.assert_requested("batch_processor_default_0")


def test_within_a_batcher(launched, stopping, book):
    def size(message, count):
        stopping()
        return ("emit", 0)

    launched(handle_batch=lambda messages, info: None,
             batchers={"default": Batcher(batch_size=(0, size), max_demand=10)}).push_messages(book.message(1))
    stopping.assert_requested("batcher_default")


def test_within_a_function_that_partitions(launched, stopping, book):
    launched(partition_by=lambda message: stopping() or message.data).push_messages(book.messages(range(10)))
    stopping.assert_requested("partitioner")
    book.assert_each_once(range(10))


def test_within_an_acknowledger_that_the_partitioner_calls(launched, stopping, gate, new_book):
    """B-21: for a message that found its partition full; whoever is told of it finds it counted."""
    class Book(type(new_book())):
        def ack(self, ref, successful, failed):
            super().ack(ref, successful, failed)
            counted.append(stopping.pipeline.stats().failed)
            stopping()
            gate.set()

    book, counted = Book(), []
    pipeline = launched(lambda message: gate.wait(20) and None, partition_by=lambda message: 0, max_queue=4,
                        overflow="drop_newest", processors=Processors(concurrency=2, max_demand=1))
    pushed = threading.Thread(target=lambda: [pipeline.push_messages(book.message(number), timeout=20)
                                              for number in range(4)])
    pushed.start()
    result = stopping.assert_requested("partitioner")
    pushed.join(20)
    assert counted[0] == 1
    assert (result.successful, result.failed) == (len(book.ok), len(book.failed))


# ---- threads that bring messages


def test_within_the_run_of_a_producer(launched, stopping):
    class Once(Producer):
        def run(self, inbox):
            stopping()

    launched(producers=Once())
    stopping.assert_requested("producer_0")


def test_within_the_start_of_a_producer(build, stopping):
    """It runs in the thread that starts the pipeline, which has not begun to look for requests."""
    class Hasty(DummyProducer):
        def start(self):
            super().start()
            stopping.answers.append(stopping.pipeline.stop())

    stopping.pipeline = build(producers=Hasty())
    stopping.pipeline.start()
    assert stopping.pipeline.join(20).drained
    assert stopping.answers == [None]
    assert stopping.pipeline.stop() is stopping.pipeline.join()


def test_within_a_headers_callable(launched, stopping):
    with Feed.trades(count=None) as feed:
        launched(producers=WebSocketProducer(feed.url, headers=lambda: stopping() or []))
        stopping.assert_requested("producer_0:dialer_0")


def test_within_a_retry_policy(launched, stopping):
    launched(producers=WebSocketProducer("ws://127.0.0.1:9", retry=lambda state: stopping() or 0.01))
    stopping.assert_requested("producer_0:supervisor")


def test_within_a_handler_of_an_event_of_a_connection(launched, stopping, attached):
    attached(telemetry.connection_event("test_within", "success"), stopping)
    with Feed.trades(count=None) as feed:
        launched(producers=WebSocketProducer(feed.url, telemetry_id="test_within"))
        stopping.assert_requested("producer_0:supervisor")


def test_within_a_frame_handler(launched, stopping):
    with Feed.trades(count=None) as feed:
        launched(producers=WebSocketProducer(feed.url, frame_handler=lambda payload, state: stopping() or ("skip", state)))
        stopping.assert_requested("dispatcher")


# ---- threads that watch


@pytest.mark.usefixtures("deadly")
def test_within_the_monitor(launched, stopping, attached, book):
    attached(telemetry.WORKER_REPLACED, stopping)
    launched().push_messages(book.message("die"))
    assert stopping.assert_requested("monitor").failed == 1


@pytest.mark.usefixtures("deadly")
def test_within_whoever_watches_while_the_monitor_stops_the_pipeline(launched, stopping, attached, book, gate):
    attached(telemetry.WORKER_REPLACED, stopping)
    entered = threading.Event()

    def handle_message(message):
        entered.set()
        gate.wait(20)
        if message.data == "last":               # whoever replaced the dead one has not ended when that is told
            until(lambda: stopping.answers not in ([], [None]))

    pipeline = launched(handle_message, processors=Processors(max_demand=1))
    pipeline.push_messages(book.messages(["first", "die", "last"]))
    assert entered.wait(20)
    pipeline.request_stop()
    until(lambda: pipeline.state == "stopping")
    gate.set()
    assert stopping.assert_requested("watch").failed == 1


# ---- threads of others


def test_within_a_thread_of_another_pipeline_it_waits(launch, book):
    """Also where one's name begins with the other's."""
    other = launch(name="chain")
    results = []
    pipeline = launch(lambda message: results.append(other.stop()), name="chain:next")
    pipeline.push_messages(book.message(1))
    book.wait(1)
    assert [one.drained for one in results] == [True]
    assert other.state == "stopped"
    assert pipeline.state == "running"


def test_within_a_thread_that_a_handler_started_it_waits(launch, book):
    results = []

    def handle_message(message):
        threading.Thread(target=lambda: results.append(pipeline.stop())).start()

    pipeline = launch(handle_message)
    pipeline.push_messages(book.message(1))
    until(lambda: results)
    assert results == [pipeline.join()]


def test_a_pipeline_that_a_handler_starts_is_not_that_handlers(launch, build, book, eventually):
    """Its threads belong to it, and not to the pipeline in whose thread it was started."""
    inner, results = build(lambda message: results.append(outer.stop()), name="inner"), []
    outer = launch(lambda message: inner.start() and None, name="outer")
    outer.push_messages(book.message(1))
    book.wait(1)
    inner.push_messages(book.message(2))
    eventually(lambda: results)
    assert results[0] is outer.join()
    assert results[0].drained
