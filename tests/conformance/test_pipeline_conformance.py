"""The items of docs/conformance.md on a pipeline, each shown once from the outside; the details are in tests/pipeline.
Those on batches, flow and retries stand in test_batching_conformance.py."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.conformance import test_batching_conformance
from tests.pipeline.book import Book
from tests.waiting import until
from wsengine import ConfigurationError, Message, Pipeline, Processors, Producer, WebSocketProducer, telemetry
from wsengine.pipeline import monitor
from wsengine.testing import Feed, capture


class Given(Producer):
    """Brings a list of messages in one push, then waits for the end."""

    def __init__(self, messages=()):
        self.messages = messages
        self.over = threading.Event()

    def run(self, inbox):
        inbox.push(self.messages)
        self.over.wait()

    def drain(self):
        super().drain()
        self.over.set()


class Blocked(Pipeline):
    """Records its chunks; the message "first" is held until `gate` is set."""

    def __init__(self, *args, **options):
        self.gate, self.begun, self.chunks = threading.Event(), threading.Event(), []
        super().__init__(*args, **options)

    def handle_messages(self, messages):
        if messages[0].data == "first":
            self.begun.set()
            self.gate.wait(10)
        else:
            self.chunks.append([m.data for m in messages])


class Function(Pipeline):
    """Calls a function for each message."""

    def __init__(self, function, *args, **options):
        self.function = function
        super().__init__(*args, **options)

    def handle_message(self, message):
        return self.function(message)


def chunk_sizes(min_demand, max_demand, count=20):
    with Blocked(Given(), processors=Processors(min_demand=min_demand, max_demand=max_demand)) as pipeline:
        pipeline.push_messages(Message("first"))
        assert pipeline.begun.wait(5)
        pipeline.push_messages(Message(i) for i in range(count))
        pipeline.gate.set()
    return [len(chunk) for chunk in pipeline.chunks]


def test_every_item_for_the_pipeline_in_the_document_has_a_test_here():
    document = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text()
    items = {line.split("**")[1] for line in document.splitlines() if line.startswith("- **P")}
    tests = {name.split("_")[1].upper() for name in {**globals(), **vars(test_batching_conformance)}
             if name.startswith("test_p")}
    assert items == tests


def test_p1_ten_and_five_make_four_chunks_of_five():
    assert chunk_sizes(5, 10) == [5, 5, 5, 5]


def test_p2_ten_and_none_make_chunks_of_ten_and_one_and_none_single_messages():
    assert chunk_sizes(0, 10) == [10, 10]
    assert chunk_sizes(0, 1) == [1] * 20


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: Processors(min_demand=10, max_demand=10), "processors.min_demand"),
        (lambda: Processors(max_demand=0), "processors.max_demand"),
        (lambda: Blocked(Given(), demand=3), "pipeline.demand"),
        (lambda: Blocked(Given(), max_queue="many"), "pipeline.max_queue"),
    ],
)
def test_p3_a_wrong_option_is_refused_at_construction_with_its_path(make, path):
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.path == path
    assert caught.value.remedy


def test_p4_a_burst_spreads_over_all_processors_within_their_demand():
    seen, highest = Counter(), []

    def handle(message):
        time.sleep(0.002)
        seen[threading.current_thread().name] += 1
        highest.append(max(one.outstanding for one in pipeline.stats().processors))

    with Function(handle, Given(), processors=Processors(concurrency=8, max_demand=20)) as pipeline:
        pipeline.push_messages(Message(i) for i in range(80))
    assert len(seen) == 8
    assert max(highest) <= 20


def test_p5_a_key_is_handled_by_one_processor_in_order_and_one_without_fails_alone():
    order, threads, lock = defaultdict(list), defaultdict(set), threading.Lock()

    def handle(message):
        key, number = message.data
        with lock:
            order[key].append(number)
            threads[key].add(threading.current_thread().name)

    def partition_by(message):
        if message.data[1] == 70:
            raise LookupError("no key")
        return message.data[0]

    processors = Processors(concurrency=4, max_demand=5)
    with Function(handle, Given(), processors=processors, partition_by=partition_by) as pipeline:
        pipeline.push_messages(Message(("abcdefg"[number % 7], number)) for number in range(700))
        result = pipeline.stop()
    assert (result.successful, result.failed) == (699, 1)
    assert order == {key: [n for n in range(at, 700, 7) if n != 70] for at, key in enumerate("abcdefg")}
    assert all(len(names) == 1 for names in threads.values())


def test_p6_a_raising_handler_fails_one_message_which_handle_failed_sees_first():
    book, seen = Book(), []

    class Some(Function):
        def handle_failed(self, messages):
            seen.extend((m.data, m.data in book.failed) for m in messages)

    def handle(message):
        if message.data == 3:
            raise SystemExit

    with capture(telemetry.MESSAGE_EXCEPTION) as events, Some(handle, Given()) as pipeline:
        pipeline.push_messages(book.messages(range(6)))
    assert sorted(book.ok) == [0, 1, 2, 4, 5]
    assert book.failed == [3]
    assert seen == [(3, False)]
    assert len(events.of(telemetry.MESSAGE_EXCEPTION)) == 1


def test_p7_a_result_that_is_no_message_is_as_an_exception():
    book = Book()
    with capture(telemetry.MESSAGE_EXCEPTION) as events, \
            Function(lambda message: "text" if message.data == 1 else None, Given()) as pipeline:
        pipeline.push_messages(book.messages(range(3)))
    assert book.failed == [1]
    assert sorted(book.ok) == [0, 2]
    assert len(events.of(telemetry.MESSAGE_EXCEPTION)) == 1


@pytest.mark.parametrize("prepare", [lambda messages: messages[1:], lambda messages: 1 / 0])
def test_p8_a_wrong_prepare_messages_fails_the_chunk_unhandled(prepare):
    book = Book()

    class Preparing(Blocked):
        def prepare_messages(self, messages):
            return messages if messages[0].data == "first" else prepare(messages)

    with Preparing(Given()) as pipeline:
        pipeline.push_messages(Message("first"))
        assert pipeline.begun.wait(5)
        pipeline.push_messages(book.messages(range(5)))
        pipeline.gate.set()
    assert book.calls == [("ref", [], [0, 1, 2, 3, 4])]
    assert pipeline.chunks == []


def test_p10_each_group_is_acknowledged_once_in_order_whatever_another_does():
    class Raising:
        def ack(self, ref, successful, failed):
            raise OSError("ack")

    book = Book()
    with Blocked(Given()) as pipeline:
        pipeline.push_messages(Message("first"))
        assert pipeline.begun.wait(5)
        pipeline.push_messages([Message(0, acknowledger=(Raising(), 0, None)), *book.messages([1, 2], "a"),
                                *book.messages([3], "b"), *book.messages([4], "a")])
        pipeline.gate.set()
    assert book.calls == [("a", [1, 2, 4], []), ("b", [3], [])]


def test_p11_ack_immediately_is_the_only_acknowledgement():
    book = Book()
    with Function(lambda message: message.ack_immediately(), Given()) as pipeline:
        pipeline.push_messages(book.messages(range(100)))
    assert book.ok == list(range(100))
    assert book.failed == []


def test_p16_a_stop_delivers_what_was_taken_and_closes_with_1000():
    seen = []

    def handle(message):
        seen.append(json.loads(message.data)["seq"])
        time.sleep(0.0005)

    with Feed.trades() as feed:
        pipeline = Function(handle, WebSocketProducer(feed.url), max_queue=256).start()
        until(lambda: len(seen) > 300)
        held = pipeline.stats().held_messages
        result = pipeline.stop()
        log = feed.wait(lambda log: not log.connections[0].open)
    assert result.drained
    assert (result.successful, result.failed, result.left) == (len(seen), 0, 0)
    assert held > 0
    assert seen == list(range(len(seen)))
    assert log.connections[0].close_code == 1000


def test_p17_a_stuck_handler_leaves_only_its_own_message():
    book, gate, begun = Book(), threading.Event(), threading.Event()

    def handle(message):
        if message.data == "stuck":
            begun.set()
            gate.wait(10)

    pipeline = Function(handle, Given(), processors=Processors(concurrency=2, max_demand=1)).start()
    try:
        pipeline.push_messages(book.messages(["stuck"]))
        assert begun.wait(5)
        pipeline.push_messages(book.messages(range(20)))
        started = time.monotonic()
        result = pipeline.stop(timeout=0.3)
        assert time.monotonic() - started < 1.8
    finally:
        gate.set()
    assert (result.left, result.successful, result.drained) == (1, 20, False)
    until(lambda: not any(t.name.startswith("wsengine:Function:") for t in threading.enumerate()))
    assert book.failed == ["stuck"]
    assert sorted(book.ok) == list(range(20))


def test_p18_a_hundred_deaths_cost_a_hundred_messages(monkeypatch):
    real, book = telemetry.execute, Book()

    def execute(event, measurements=None, metadata=None):
        if event == telemetry.PROCESSOR_START and metadata["messages"][0].data == "die":
            raise MemoryError("outside any callback")
        real(event, measurements, metadata)

    monkeypatch.setattr(telemetry, "execute", execute)
    monkeypatch.setattr(monitor, "PERIOD", 0.003)
    with capture(telemetry.PROCESSOR_START), \
            Function(lambda message: None, Given(), processors=Processors(concurrency=2, max_demand=1)) as pipeline:
        pipeline.push_messages(book.messages(["die", "live"] * 100))
    assert book.failed == ["die"] * 100
    assert book.ok == ["live"] * 100


def test_p28_a_slow_consumer_holds_the_server_back_and_loses_nothing():
    gate, seen, held = threading.Event(), [], []

    def handle(message):
        gate.wait(10)
        seen.append(message.seq)

    with Feed.binary(100) as feed, \
            Function(handle, WebSocketProducer(feed.url), max_queue=512, max_queue_bytes=2**20) as pipeline:
        until(lambda: pipeline.stats().held_messages >= 512)
        time.sleep(0.2)
        held.append(pipeline.stats())
        gate.set()
        until(lambda: len(seen) > 5000)
        held.append(pipeline.stats())
    assert all(one.held_messages <= 512 for one in held)
    assert all(one.held_bytes <= 2**20 + 2**18 for one in held)
    assert seen == list(range(len(seen)))


def test_p30_a_raising_telemetry_handler_is_detached_and_harms_nothing():
    book = Book()

    def failing(event, measurements, metadata, config):
        raise KeyError("telemetry")

    telemetry.attach_many("failing", [telemetry.MESSAGE_START, telemetry.MESSAGE_STOP], failing)
    events = (telemetry.MESSAGE_START, telemetry.MESSAGE_STOP, telemetry.HANDLER_FAILURE)
    with capture(*events) as seen, Function(lambda message: None, Given()) as pipeline:
        with pytest.raises(telemetry.HandlerExists):
            telemetry.attach("failing", telemetry.MESSAGE_START, failing)
        pipeline.push_messages(book.messages(range(3)))
        seen.wait(telemetry.MESSAGE_STOP, 3)
    assert book.ok == [0, 1, 2]
    [failure] = seen.of(telemetry.HANDLER_FAILURE)
    assert failure.metadata["handler_id"] == "failing"
    assert failure.metadata["detached"]
    assert len(seen.of(telemetry.MESSAGE_START)) == 3
    assert all(one.measurements["duration"] > 0 for one in seen.of(telemetry.MESSAGE_STOP))
    assert "failing" not in {one.handler_id for one in telemetry.list_handlers()}


def test_p31_figures_count_a_failure_once_and_come_to_rest_when_nothing_comes():
    gate, book = threading.Event(), Book()

    def handle(message):
        gate.wait(60)
        raise OSError("no")

    def workload():
        return pipeline.stats().processors[0].workload

    with Function(handle, Given()) as pipeline:
        pipeline.push_messages(book.messages(range(5)))
        until(lambda: workload() > 0.5)
        gate.set()
        book.wait(5)
        assert pipeline.stats().rate < 5, "the five have taken more than a second"
        until(lambda: pipeline.stats().rate == 0 and workload() < 0.2)
        stats = pipeline.stats()
    assert (stats.successful, stats.failed, stats.processors[0].failed) == (0, 5, 5)
