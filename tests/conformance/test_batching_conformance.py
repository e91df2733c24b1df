"""The items of docs/conformance.md on batches, flow and retries, each shown once from the outside."""

from __future__ import annotations

import threading
import time

from tests.pipeline.book import Book
from tests.waiting import until
from wsengine import Batcher, Message, Pipeline, Processors, RateLimiting, Retry, WebSocketProducer, telemetry
from wsengine.testing import DummyProducer, Feed, capture

LONG = 60.0


class Batched(Pipeline):
    """Calls a function for each batch, and keeps what the batches were."""

    def __init__(self, function=None, key=None, **options):
        self.function, self.key, self.seen = function, key, []
        super().__init__(DummyProducer(), **options)

    def handle_message(self, message):
        if self.key is not None:
            message.batch_key = self.key(message.data)

    def handle_batch(self, messages, batch_info):
        self.seen.append((batch_info.trigger, [message.data for message in messages]))
        return self.function(messages) if self.function is not None else messages


def one_batcher(**options):
    return {"default": Batcher(**{"batch_timeout": LONG, **options})}


def test_p9_partial_failures_missing_messages_and_exceptions_fail_what_they_should():
    book = Book()

    def handle(messages):
        if messages[0].data == 0:
            messages[1].fail("by hand")
            return messages[:3]
        raise OSError

    with capture(telemetry.BATCH_PROCESSOR_EXCEPTION) as seen, \
            Batched(handle, batchers=one_batcher(batch_size=4)) as pipeline:
        pipeline.push_messages(book.messages(range(8)))
        book.wait(8)
        [event] = seen.wait(telemetry.BATCH_PROCESSOR_EXCEPTION)
    assert book.calls == [("ref", [0, 2], [1, 3]), ("ref", [], [4, 5, 6, 7])]
    assert isinstance(event.metadata["reason"], OSError)


def test_p12_size_time_flush_and_stop_emit_a_batch():
    book = Book()
    with Batched(batchers=one_batcher(batch_size=3, batch_timeout=0.2)) as pipeline:
        pipeline.push_messages(book.messages(range(4)))
        until(lambda: len(pipeline.seen) == 2)
        flushing = book.messages([4, 5])
        flushing[1].batch_mode = "flush"
        pipeline.push_messages(flushing)
        until(lambda: len(pipeline.seen) == 3)
        pipeline.push_messages(book.messages([6]))
    assert pipeline.seen == [("size", [0, 1, 2]), ("timeout", [3]), ("flush", [4, 5]), ("flush", [6])]


def test_p13_a_function_on_sizes_keeps_its_accumulator_and_may_emit_before_a_message():
    given, book = [], Book()

    def by_weight(message, weight):
        given.append(weight)
        return ("emit_before", message.data) if weight + message.data > 10 else ("cont", weight + message.data)

    with Batched(batchers=one_batcher(batch_size=(0, by_weight), max_demand=10)) as pipeline:
        pipeline.push_messages(book.messages([5, 5, 1, 9, 3]))
    assert [batch for _, batch in pipeline.seen] == [[5, 5], [1, 9], [3]]
    assert given == [0, 5, 10, 1, 10]


def test_p14_test_message_flushes_and_test_batch_does_not():
    with Batched(batchers=one_batcher(batch_size=2), rate_limiting=RateLimiting(1, 3600.0)) as pipeline:
        assert [message.data for message in pipeline.test_message("a").wait()[0]] == ["a"]
        delivery = pipeline.test_batch(["b", "c", "d"])
        until(lambda: len(delivery.successful) == 2)
        assert not delivery.done
    assert pipeline.seen == [("flush", ["a"]), ("size", ["b", "c"]), ("flush", ["d"])]
    assert [message.data for message in delivery.wait()[0]] == ["b", "c", "d"]


def test_p15_what_is_above_the_rate_waits():
    book = Book()
    with Batched(batchers=one_batcher(batch_size=1), rate_limiting=RateLimiting(5, 3600.0),
                 processors=Processors(concurrency=4)) as pipeline:
        pipeline.push_messages(book.messages(range(12)))
        book.wait(5)
        time.sleep(0.1)
        assert (book.total, pipeline.stats().depth) == (5, 7)
        pipeline.update_rate_limiting(100, reset=True)
        book.wait(12)


def test_p16_a_stop_emits_open_batches_before_it_closes():
    """What was taken is in batches, handled and acknowledged by the time the server gets its Close."""
    book, seen = Book(), []

    class Keyed(Pipeline):
        def handle_message(self, message):
            message.batch_key = message.seq % 3

        def handle_batch(self, messages, batch_info):
            assert feed.log().connections[0].open
            seen.append((batch_info.trigger, [message.seq for message in messages]))

    def transformer(data, metadata):
        return Message(metadata["seq"], acknowledger=(book, "ref", None))

    with Feed.trades(count=100) as feed:
        pipeline = Keyed(WebSocketProducer(feed.url, transformer=transformer), batchers=one_batcher(batch_size=1000)).start()
        until(lambda: pipeline.stats().batchers[0].held == 100)
        assert (seen, pipeline.stats().batchers[0].open_batches) == ([], 3)
        result = pipeline.stop()
        log = feed.wait(lambda log: not log.connections[0].open)
    assert (result.drained, result.successful, result.failed, result.left) == (True, 100, 0, 0)
    assert sorted(seen) == [("flush", list(range(key, 100, 3))) for key in range(3)]
    book.assert_each_once(range(100))
    assert log.connections[0].close_code == 1000


def test_p33_batches_of_a_key_are_handled_one_at_a_time_and_in_order():
    book, busy, most, lock = Book(), [0, 0], [0, 0], threading.Lock()

    def handle(messages):
        key = messages[0].data % 2
        with lock:
            busy[key] += 1
            most[key] = max(most[key], busy[key])
        time.sleep(0.001)
        with lock:
            busy[key] -= 1

    with Batched(handle, key=lambda number: number % 2, batchers=one_batcher(batch_size=5, concurrency=4)) as pipeline:
        pipeline.push_messages(book.messages(range(400)))
        book.wait(400)
    assert most == [1, 1]
    for key in (0, 1):
        assert [one for one in book.ok if one % 2 == key] == list(range(key, 400, 2))


def test_p34_a_pause_ends_claiming_until_it_is_resumed():
    book = Book()
    with Batched(batchers=one_batcher(batch_size=1)) as pipeline:
        pipeline.pause()
        pipeline.push_messages(book.messages(range(5)))
        time.sleep(0.1)
        assert book.total == 0
        pipeline.resume()
        book.wait(5)
        pipeline.pause()
        pipeline.push_messages(book.messages([5]))
    assert book.ok == [0, 1, 2, 3, 4, 5]


def test_p35_processors_come_and_go_without_a_loss():
    book = Book()
    with Batched(batchers=one_batcher(batch_size=1)) as pipeline:
        for number, concurrency in enumerate([4, 1, 8, 2] * 5):
            pipeline.resize(concurrency)
            pipeline.push_messages(book.messages(range(number * 50, number * 50 + 50)))
    book.assert_each_once(range(1000))


def test_p36_a_retried_message_is_acknowledged_once_as_what_it_came_to():
    book, calls = Book(), []

    def handle(messages):
        calls.append([message.data for message in messages])
        for message in messages:
            if message.data == "never" or (message.data == "later" and len(calls) == 1):
                message.fail(OSError("not now"))

    with Batched(handle, batchers=one_batcher(batch_size=3, retry=Retry(max_retries=2, initial=0.01))) as pipeline:
        pipeline.push_messages(book.messages(["never", "at once", "later"]))
        book.wait(3)
    assert calls == [["never", "at once", "later"], ["never", "later"], ["never"]]
    assert book.calls == [("ref", ["at once", "later"], ["never"])]


def test_p37_a_callback_that_exceeds_its_limit_is_told_once_and_goes_on():
    book = Book()
    with capture(telemetry.BATCH_PROCESSOR_OVERDUE) as seen, \
            Batched(lambda messages: time.sleep(0.5), batchers=one_batcher(batch_size=1, time_limit=0.1)) as pipeline:
        pipeline.push_messages(book.messages([0]))
        book.wait(1)
    assert book.ok == [0]
    assert len(seen.of(telemetry.BATCH_PROCESSOR_OVERDUE)) == 1
