"""Producers written by users, their inbox and `push_messages`: room, demand, order, and the end."""

from __future__ import annotations

import os
import resource
import threading
import time

import pytest

from tests.threads import Threads
from tests.waiting import until
from wsengine import ConfigurationError, EngineStopped, Message, Processors, Producer
from wsengine.pipeline import source
from wsengine.testing import DummyProducer


class Counting(Producer):
    """Brings `count` messages, `each` at a time."""

    def __init__(self, book, count, each=1):
        self.book, self.count, self.each = book, count, each
        self.stopped_by = None

    def run(self, inbox):
        for start in range(0, self.count, self.each):
            try:
                inbox.push(self.book.messages(range(start, min(start + self.each, self.count))))
            except EngineStopped as error:
                self.stopped_by = error
                raise


# ---- the end of a producer


def test_a_producer_that_returns_ends_the_pipeline_after_all_is_handled(build, book):
    result = build(producers=Counting(book, 500, each=7)).run()
    book.assert_each_once(range(500))
    assert (result.drained, result.successful, result.failed, result.left, result.error) == (True, 500, 0, 0, None)
    assert result.threads_alive == ()


def test_the_pipeline_goes_on_until_the_last_producer_has_returned(launch, book, gate):
    class Waiting(Producer):
        def run(self, inbox):
            gate.wait(10)
            inbox.push(book.message("last"))

    pipeline = launch(producers=[Counting(book, 5), Waiting()])
    book.wait(5)
    assert pipeline.join(0.2) is None
    assert pipeline.state == "running"
    gate.set()
    assert pipeline.join(5).successful == 6
    assert pipeline.state == "stopped"


@pytest.mark.parametrize("error", [RuntimeError("source is gone"), SystemExit(2)])
def test_a_producer_that_raises_ends_the_pipeline_with_that_error(build, book, error, quiet):
    class Raising(Producer):
        def run(self, inbox):
            inbox.push(book.messages(range(10)))
            raise error

    result = build(producers=[quiet(), Raising()]).run()
    assert result.error is error
    assert result.drained
    assert sorted(book.ok) == list(range(10))


def test_a_stop_ends_a_producer_that_pushes_without_end(launch, book):
    producer = Counting(book, 10**9)
    pipeline = launch(producers=producer)
    book.wait(100)
    result = pipeline.stop()
    assert isinstance(producer.stopped_by, EngineStopped)
    assert result.error is None
    assert result.drained
    book.assert_each_once(range(result.successful))


def test_a_producer_that_stops_its_pipeline_does_not_wait_for_itself(build, book, eventually):
    class Stopping(Producer):
        def run(self, inbox):
            inbox.push(book.message(1))
            begun = time.monotonic()
            self.pipeline.stop()
            self.took = time.monotonic() - begun

    producer = Stopping()
    producer.pipeline = pipeline = build(producers=producer, shutdown_timeout=3.0)
    result = pipeline.start().join(8)
    eventually(lambda: hasattr(producer, "took"))
    assert producer.took < 1
    assert result.drained


# ---- room


def test_the_bytes_of_pushed_messages_count_towards_the_bound(launch, book, gate):
    pipeline = launch(lambda message: gate.wait(20) and None, max_queue_bytes=4096, processors=Processors(max_demand=1))
    assert pipeline.push_messages(book.messages([bytes(1500)] * 10), timeout=0.3) == 3
    assert pipeline.stats().held_bytes == 4500
    gate.set()
    assert pipeline.push_messages(book.messages(["text", 7, bytearray(100)]), timeout=5) == 3
    book.wait(6)
    assert pipeline.stop().drained
    assert pipeline.stats().held_bytes == 0


def test_a_message_that_is_in_a_pipeline_or_was_is_not_taken_again(launch, book, eventually):
    refused = []

    def handle_message(message):
        try:
            pipeline.push_messages(message)
        except ConfigurationError as error:
            refused.append(str(error))

    pipeline = launch(handle_message)
    message = book.message("once")
    pipeline.push_messages(message)
    book.wait(1)
    eventually(lambda: pipeline.stats().held_messages == 0)
    for again in ([message], [twice := book.message("twice"), twice]):
        with pytest.raises(ConfigurationError, match="in a pipeline already, or has been handled"):
            pipeline.push_messages(again)
    assert len(refused) == 1
    assert "push a new one" in refused[0]
    pipeline.push_messages(twice)        # refused as a whole, so it is still nobody's
    book.wait(2)
    assert pipeline.stop().successful == 2
    assert pipeline.stats().held_messages == 0


def test_a_message_that_is_pushed_and_returned_as_well_fails_instead_of_being_in_two_places(launch, book):
    def handle_message(message):
        if message.data == "first":
            new = book.message("second")
            pipeline.push_messages(new)
            return new
        return message

    pipeline = launch(handle_message)
    pipeline.push_messages(book.message("first"))
    book.wait(2)
    assert (book.ok, book.failed) == (["second"], ["first"])
    assert pipeline.stop().drained
    assert pipeline.stats().held_messages == pipeline.stats().held_bytes == 0


def full(launch, book, gate, **options):
    """A pipeline of 8 whose handler waits for permits; it is full: one in hand, seven in the inbox."""
    permits = threading.Semaphore(0)

    def handle_message(message):
        while not permits.acquire(timeout=0.01):
            if gate.is_set():
                return

    pipeline = launch(handle_message, max_queue=8, processors=Processors(max_demand=1), **options)
    assert pipeline.push_messages(book.messages(range(8)), timeout=5) == 8
    return pipeline, permits


def test_push_blocks_at_max_queue_and_goes_on_at_half(launch, book, gate, eventually):
    pipeline, permits = full(launch, book, gate)
    put = []
    pusher = threading.Thread(target=lambda: put.append(pipeline.push_messages(book.messages(range(8, 12)))))
    pusher.start()
    for done in range(1, 4):
        permits.release()
        book.wait(done)
        time.sleep(0.03)
        assert pipeline.stats().held_messages == 8 - done
        assert put == []
    permits.release()
    eventually(lambda: put == [4])
    pusher.join()
    assert pipeline.stats().held_messages == 8
    gate.set()
    book.wait(12)
    assert book.ok == list(range(12))


def test_push_puts_in_what_fits_before_the_time_out(launch, book, gate):
    pipeline, _ = full(launch, book, gate)
    begun = time.monotonic()
    assert pipeline.push_messages(book.messages(["more"]), timeout=0.1) == 0
    assert 0.09 <= time.monotonic() - begun < 2
    assert pipeline.push_messages(book.message("now"), timeout=0) == 0
    gate.set()
    book.wait(8)
    assert pipeline.push_messages(book.message("later"), timeout=5) == 1


def test_push_keeps_its_time_out_while_another_one_waits_for_room(launch, book, gate, eventually):
    pipeline, _ = full(launch, book, gate)
    waiting = threading.Thread(target=pipeline.push_messages, args=(book.message("patient"),))
    waiting.start()
    time.sleep(0.05)
    took = []

    def push():
        begun = time.monotonic()
        pipeline.push_messages(book.message("hurried"), timeout=0.1)
        took.append(time.monotonic() - begun)

    second = threading.Thread(target=push)
    second.start()
    second.join(1.5)
    gate.set()
    waiting.join(5)
    second.join(5)
    assert took[0] < 1


def test_push_waits_for_room_in_a_process_with_more_than_a_thousand_open_files(launch, book, gate):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
        source = os.open(os.devnull, os.O_RDONLY)
        files = [source, *(os.dup(source) for _ in range(1100))]
        pipeline, _ = full(launch, book, gate)
        assert pipeline.push_messages(book.message("more"), timeout=0.05) == 0
        gate.set()
        assert pipeline.stop().drained
    finally:
        for one in files:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_stop_wakes_whoever_waits_for_room(launch, book, gate):
    pipeline, _ = full(launch, book, gate)
    errors = []

    def push():
        try:
            pipeline.push_messages(book.messages(range(100, 200)))
        except EngineStopped as error:
            errors.append(error)

    pusher = threading.Thread(target=push)
    pusher.start()
    time.sleep(0.05)
    pipeline.request_stop()
    pusher.join(5)
    assert len(errors) == 1
    gate.set()
    assert pipeline.join(5).drained
    book.assert_each_once(range(8))


def test_what_is_no_message_is_refused_and_nothing_is_put_in(launch, book):
    pipeline = launch()
    with pytest.raises(ConfigurationError, match="give Message objects") as caught:
        pipeline.push_messages([book.message(1), b"raw", book.message(2)])
    assert caught.value.value == b"raw"
    assert pipeline.stop().successful == 0


def test_push_takes_any_iterable_and_one_message(launch, book):
    pipeline = launch()
    assert pipeline.push_messages(book.message(0)) == 1
    assert pipeline.push_messages(book.message(i) for i in range(1, 4)) == 3
    assert pipeline.push_messages([]) == 0
    pipeline.stop()
    assert book.ok == [0, 1, 2, 3]


def test_push_raises_before_the_start_and_after_the_stop(build, book):
    pipeline = build()
    with pytest.raises(EngineStopped, match="is new"):
        pipeline.push_messages(book.message(1))
    pipeline.start()
    inbox = pipeline._wsengine_topology.inbox
    pipeline.stop()
    with pytest.raises(EngineStopped, match="is stopped"):
        pipeline.push_messages(book.message(1))
    with pytest.raises(EngineStopped, match="takes no more"):
        inbox.push(book.message(1))
    assert inbox.closed
    assert book.total == 0


def test_pushes_of_several_threads_arrive_whole_and_in_order(launch):
    seen = []
    pipeline = launch(lambda message: seen.append(message.data), max_queue=16)
    threads = [threading.Thread(target=lambda n=n: [pipeline.push_messages([Message((n, i)), Message((n, i + 1))])
                                                    for i in range(0, 200, 2)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pipeline.stop()
    assert len(seen) == 800
    for n in range(4):
        assert [i for m, i in seen if m == n] == list(range(200))
    assert all(seen[k + 1] == (seen[k][0], seen[k][1] + 1) for k in range(0, 800, 2))


def test_every_message_that_push_took_is_acknowledged_though_a_stop_comes_between(build, new_book):
    for _ in range(25):
        book, taken = new_book(), []
        pipeline = build(processors=Processors(concurrency=2)).start()

        def push(pipeline=pipeline, book=book, taken=taken):
            number = 0
            while True:
                try:
                    pipeline.push_messages(book.message((threading.get_ident(), number)))
                except EngineStopped:
                    return
                taken.append((threading.get_ident(), number))
                number += 1

        pushers = [threading.Thread(target=push) for _ in range(2)]
        for pusher in pushers:
            pusher.start()
        time.sleep(0.01)
        result = pipeline.stop()
        for pusher in pushers:
            pusher.join()
        assert result.drained
        book.assert_each_once(taken)


# ---- demand


def test_wait_demand_tells_what_the_processors_ask_for(launch, book, gate, eventually):
    asked = []

    class Polite(Producer):
        def run(self, inbox):
            for start in (0, 100):
                asked.append(inbox.wait_demand(5))
                inbox.push(book.messages(range(start, start + asked[-1])))
            gate.wait(10)

    begun = threading.Event()

    def handle_message(message):
        begun.set()
        time.sleep(0.05)

    launch(handle_message, producers=Polite(), processors=Processors(concurrency=2, max_demand=5))
    eventually(lambda: len(asked) == 2)
    assert asked[0] == 10
    assert 1 <= asked[1] <= 10


def test_wait_demand_waits_while_the_processors_have_enough(launch, book, gate):
    permits, asked = threading.Semaphore(0), []

    class Polite(Producer):
        def run(self, inbox):
            inbox.push(book.messages(range(2)))
            asked.append(inbox.wait_demand(0.1))
            permits.release()
            asked.append(inbox.wait_demand(5))

    def handle_message(message):
        while not permits.acquire(timeout=0.01):
            if gate.is_set():
                return

    pipeline = launch(handle_message, producers=Polite(), processors=Processors(max_demand=1))
    book.wait(1)
    assert asked[0] == 0
    gate.set()
    assert pipeline.join(5).drained
    assert asked[1] == 1


def test_wait_demand_is_ended_by_a_stop(launch, gate):
    answers = []

    class Polite(Producer):
        def run(self, inbox):
            inbox.push(Message(0))
            answers.append(inbox.wait_demand())

    pipeline = launch(lambda message: gate.wait(5) and None, producers=Polite(), processors=Processors(max_demand=1))
    time.sleep(0.1)
    pipeline.request_stop()
    time.sleep(0.1)
    gate.set()
    assert pipeline.join(5).drained
    assert answers == [0]


# ---- a producer whose thread does not end


def test_a_producer_that_reads_on_holds_up_no_stop_once_all_is_handled(build, book, gate):
    """The deadline is for messages: what `run` waits for without looking is named, and the stop goes on."""
    class Reading(Producer):
        def run(self, inbox):
            inbox.push(book.messages(range(10)))
            gate.wait(60)

    pipeline = build(producers=Reading(), shutdown_timeout=50.0).start()
    book.wait(10)
    result = pipeline.stop()
    assert (result.drained, result.successful) == (True, 10)
    assert result.threads_alive == (f"wsengine:{pipeline.name}:producer_0",)
    assert result.seconds < 15
    gate.set()


def test_a_producer_may_take_a_moment_to_end(build, book, gate):
    class Slow(Producer):
        def run(self, inbox):
            gate.wait(20)
            time.sleep(0.3)

        def drain(self):
            super().drain()
            gate.set()

    assert build(producers=Slow()).start().stop().threads_alive == ()


# ---- wrong arguments, and long time-outs


@pytest.mark.parametrize("wrong", [5, None, 1.5])
def test_what_is_no_message_and_not_several_is_refused_with_its_remedy(launch, book, wrong):
    class Source(Producer):
        def run(self, inbox):
            with pytest.raises(ConfigurationError) as caught:
                inbox.push(wrong)
            refused.append(caught.value)

    refused = []
    pipeline = launch(producers=[Source(), DummyProducer()])
    with pytest.raises(ConfigurationError) as caught:
        pipeline.push_messages(wrong)
    with pytest.raises(ConfigurationError) as batch:
        pipeline.test_batch(wrong)
    assert (batch.value.path, batch.value.value) == ("test_batch.data", wrong)
    assert "list" in batch.value.remedy
    pipeline.stop()
    for one in (caught.value, *refused):
        assert (one.path, one.value) == ("push.messages", wrong)
        assert "give a Message" in one.remedy
    assert len(refused) == 1


def test_what_the_messages_themselves_raise_as_they_are_made_passes_through(launch):
    def broken():
        yield Message(1)
        raise TypeError("in the generator")

    pipeline = launch()
    for call in (pipeline.push_messages, pipeline.test_batch):
        with pytest.raises(TypeError, match="in the generator"):
            call(broken())


@pytest.mark.parametrize("wrong", ["x", float("nan"), True, [1]])
def test_a_time_out_that_is_no_number_is_refused_wherever_it_is_given(launch, book, wrong):
    class Source(DummyProducer):
        def wait(self):
            self._inbox.wait_demand(wrong)

    producer, message = Source(), book.message(1)
    pipeline = launch(producers=producer)
    for call, path in ((lambda: producer.emit(message, wrong), "push.timeout"), (producer.wait, "wait_demand.timeout"),
                       (lambda: pipeline.push_messages(message, wrong), "push_messages.timeout"),
                       (lambda: pipeline.stop(wrong), "stop.timeout"),
                       (lambda: pipeline.request_stop(wrong), "stop.timeout"),
                       (lambda: pipeline.join(wrong), "join.timeout")):
        with pytest.raises(ConfigurationError) as caught:
            call()
        assert (caught.value.path, caught.value.value is wrong) == (path, True)
    assert pipeline.state == "running"
    assert producer.emit(message, -1) == 1
    pipeline.stop()
    with pytest.raises(ConfigurationError, match=r"stop\.timeout"):
        pipeline.stop(wrong)
    with pytest.raises(ConfigurationError, match=r"stop\.timeout"):
        pipeline.request_stop(wrong)
    book.assert_each_once([1])


def test_a_time_out_may_be_longer_than_the_system_waits_at_once(launch, book, gate):
    """poll() takes 24.8 days at the most."""
    pipeline = launch(lambda message: gate.wait(20) and None, max_queue=2, processors=Processors(max_demand=1))
    taken = []
    with Threads() as threads:
        threads.start(lambda: taken.append(pipeline.push_messages(book.messages(range(20)), timeout=30 * 86400)))
        until(lambda: pipeline.stats().held_messages == 2)
        assert not taken
        gate.set()
    assert taken == [20]
    pipeline.stop()
    book.assert_each_once(range(20))


def test_a_long_wait_for_room_looks_again(monkeypatch, launch, book, gate):
    """The same with the longest wait made short, so that it has to be repeated."""
    monkeypatch.setattr(source, "LONGEST", 0.001)
    pipeline = launch(lambda message: gate.wait(20) and None, max_queue=2, processors=Processors(max_demand=1))
    assert pipeline.push_messages(book.messages(range(20)), timeout=0.1) == 2
    gate.set()
    assert pipeline.push_messages(book.messages(range(20, 40)), timeout=20) == 20
