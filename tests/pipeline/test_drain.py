"""Stopping: what is drained, what the deadline leaves, and that every message is acknowledged once whatever happens."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter

import pytest

from tests.waiting import until
from wsengine import EngineStopped, Message, Processors, WebSocketProducer
from wsengine.testing import DummyProducer


def stuck_on(data, gate):
    """A handler that waits for the gate at this one, with an event that says when."""
    begun = threading.Event()

    def handle_message(message):
        if message.data == data:
            begun.set()
            gate.wait(20)

    return handle_message, begun


def test_a_stop_handles_everything_that_was_taken(launch, book):
    pipeline = launch(lambda message: time.sleep(0.001), processors=Processors(concurrency=2, max_demand=5))
    pipeline.push_messages(book.messages(range(200)))
    result = pipeline.stop()
    book.assert_each_once(range(200))
    assert (result.drained, result.successful, result.failed, result.left) == (True, 200, 0, 0)
    assert result.threads_alive == ()
    assert result.error is None
    assert 0 < result.seconds < 5


def test_a_stuck_handler_holds_a_stop_to_the_deadline_and_not_beyond(launch, book, gate, eventually):
    handle_message, begun = stuck_on("stuck", gate)
    pipeline = launch(handle_message, processors=Processors(concurrency=3, max_demand=2))
    pipeline.push_messages(book.message("stuck"))
    assert begun.wait(5)
    pipeline.push_messages(book.messages(range(50)))
    started = time.monotonic()
    result = pipeline.stop(timeout=0.4)
    assert 0.3 < time.monotonic() - started < 2.0
    assert not result.drained
    assert (result.successful, result.failed, result.left) == (50, 1, 1)
    assert len(result.threads_alive) == 1
    assert "processor" in result.threads_alive[0]
    assert sorted(book.ok) == list(range(50))
    assert book.failed == ["stuck"]
    assert "stopped before the message was handled" in book.reasons["stuck"].reason
    gate.set()
    eventually(lambda: not pipeline._wsengine_topology.threads_alive())
    book.assert_each_once([*range(50), "stuck"])  # the late return acknowledged nothing again


def test_what_a_stuck_chunk_had_handled_is_acknowledged_as_successful_and_counted(launch, book, gate):
    begun = threading.Event()

    def handle_message(message):
        if message.data in ("first", "stuck"):
            begun.set()
            (gate if message.data == "stuck" else first).wait(10)

    first = threading.Event()
    pipeline = launch(handle_message, processors=Processors(max_demand=10))
    pipeline.push_messages(book.message("first"))
    assert begun.wait(5)
    begun.clear()
    pipeline.push_messages(book.messages([1, 2, "stuck", 3]))
    first.set()
    assert begun.wait(5)
    result = pipeline.stop(timeout=0.2)
    assert book.ok == ["first", 1, 2]
    assert book.failed == ["stuck", 3]
    assert (result.left, result.failed, result.successful) == (2, 2, 3)


def test_handle_failed_is_never_given_a_message_that_was_acknowledged_already(launch, book, gate, eventually):
    handle_message, begun = stuck_on("stuck", gate)
    late = []

    def handle_failed(messages):
        late.extend(m.data for m in messages if m.data in book.failed)

    pipeline = launch(handle_message, handle_failed=handle_failed)
    pipeline.push_messages(book.message("stuck"))
    assert begun.wait(5)
    pipeline.stop(timeout=0.1)
    assert book.failed == ["stuck"]
    gate.set()
    eventually(lambda: not pipeline._wsengine_topology.threads_alive())
    assert late == []


def test_the_unclaimed_remainder_is_failed_at_the_deadline(launch, book, gate):
    handle_message, begun = stuck_on("stuck", gate)
    pipeline = launch(handle_message, processors=Processors(max_demand=1))
    pipeline.push_messages(book.messages(["stuck", *range(30)]))
    assert begun.wait(5)
    result = pipeline.stop(timeout=0.1)
    book.assert_each_once(["stuck", *range(30)])
    assert sorted(map(str, book.failed)) == sorted(map(str, ["stuck", *range(30)]))
    assert (result.left, result.failed, result.successful) == (31, 31, 0)


def test_no_processor_takes_new_work_beyond_the_deadline(launch, book):
    class SlowBook(type(book)):
        def ack(self, ref, successful, failed):
            super().ack(ref, successful, failed)
            if failed:
                time.sleep(0.3)  # meanwhile the slow handler returns, and its processor would claim again

    slow = SlowBook()
    pipeline = launch(lambda message: time.sleep(0.1), processors=Processors(max_demand=10))
    pipeline.push_messages(slow.messages(range(60)))
    result = pipeline.stop(timeout=0.15)
    slow.assert_each_once(range(60))
    assert result.successful + result.failed == 60
    assert result.left == result.failed


def test_shutdown_timeout_is_the_deadline_of_a_stop_that_names_none(launch, book, gate):
    took = []
    for shutdown_timeout in (0.05, 0.7):
        handle_message, begun = stuck_on("stuck", gate)
        pipeline = launch(handle_message, shutdown_timeout=shutdown_timeout)
        pipeline.push_messages(book.message("stuck"))
        assert begun.wait(5)
        result = pipeline.stop()
        assert result.left == 1
        took.append(result.seconds)
    assert took[0] < 0.7 <= took[1] < 2


def test_a_second_stop_gives_the_same_result(launch, book):
    pipeline = launch()
    pipeline.push_messages(book.messages(range(3)))
    first = pipeline.stop()
    assert pipeline.stop() is first
    assert pipeline.join() is first


def test_stops_of_several_threads_all_get_the_result(launch, book):
    pipeline = launch(lambda message: time.sleep(0.002))
    pipeline.push_messages(book.messages(range(50)))
    results = []
    threads = [threading.Thread(target=lambda: results.append(pipeline.stop())) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 5
    assert len({id(one) for one in results}) == 1
    assert results[0].successful == 50


def test_a_stop_inside_a_handler_only_requests_it(launch, book):
    answers = []

    def handle_message(message):
        if message.data == 3:
            answers.append(pipeline.stop())

    pipeline = launch(handle_message, processors=Processors(max_demand=2))
    pipeline.push_messages(book.messages(range(10)))
    result = pipeline.join(5)
    assert answers == [None]
    assert result.drained
    book.assert_each_once(range(10))


def test_a_stop_inside_a_headers_callable_only_requests_it(build):
    took = []

    def headers():
        begun = time.monotonic()
        took.append((pipeline.stop(), time.monotonic() - begun))
        return []

    pipeline = build(producers=WebSocketProducer("ws://127.0.0.1:9", headers=headers))
    result = pipeline.start().join(8)
    assert result is not None
    [(answer, seconds)] = took
    assert answer is None
    assert seconds < 1, "it waited for its own end"


def test_what_was_acknowledged_early_or_given_to_a_slow_acknowledger_counts_at_the_deadline(launch, gate):
    class Slow:
        def ack(self, ref, successful, failed):
            gate.wait(10)

    def handle_message(message):
        message.ack_immediately()
        if message.data == 5:
            gate.wait(10)

    early = launch(handle_message)
    early.push_messages([Message(number) for number in range(1, 11)])
    time.sleep(0.2)
    result = early.stop(0.1)
    assert (result.successful, result.failed, result.left, result.drained) == (5, 5, 5, False)
    assert (early.stats().successful, early.stats().failed) == (5, 5)
    slow = launch()
    slow.push_messages([Message(number, acknowledger=(Slow(), 0, None)) for number in range(10)])
    time.sleep(0.2)
    result = slow.stop(0.1)
    assert result.successful + result.failed == 10
    assert result.threads_alive


def test_what_a_stop_fails_at_its_deadline_is_not_shown_to_handle_failed(launch, gate):
    seen = []
    pipeline = launch(lambda message: gate.wait(10) and None, processors=Processors(max_demand=1),
                      handle_failed=lambda messages: seen.append(len(messages)))
    pipeline.push_messages([Message(number) for number in range(5)])
    time.sleep(0.1)
    result = pipeline.stop(0)
    assert (result.left, result.failed) == (5, 5)
    assert seen == []


def test_a_start_right_after_a_stop_is_not_taken_for_stopped(build):
    """Whoever sees the state "stopped" may start; the end of the stop before must not reach the new life."""
    pipeline = build()
    for _ in range(30):
        pipeline.start()
        pipeline.request_stop()
        while pipeline.state != "stopped":
            time.sleep(0)
        pipeline.start()
        assert pipeline.join(0.01) is None
        pipeline.stop()


def test_a_stop_inside_an_acknowledger_only_requests_it(launch):
    class Stopping:
        def ack(self, ref, successful, failed):
            answers.append(pipeline.stop())

    answers = []
    pipeline = launch()
    pipeline.push_messages(Message(1, acknowledger=(Stopping(), 0, None)))
    assert pipeline.join(5).successful == 1
    assert answers == [None]


def test_leaving_with_drains_and_leaving_it_by_an_exception_does_not(build, book, gate, new_book):
    with build(lambda message: time.sleep(0.002)) as pipeline:
        pipeline.push_messages(book.messages(range(50)))
    assert len(book.ok) == 50

    other = new_book()
    handle_message, begun = stuck_on(0, gate)
    pipeline = build(handle_message, processors=Processors(max_demand=1))
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        fail_inside(pipeline, other.messages(range(50)), begun)
    assert time.monotonic() - started < 3
    assert pipeline.state == "stopped"
    assert len(other.failed) == 50


def fail_inside(pipeline, messages, begun):
    with pipeline:
        pipeline.push_messages(messages)
        assert begun.wait(5)
        raise ZeroDivisionError


def test_start_stop_start_begins_anew(build, book):
    pipeline = build()
    for round_ in range(5):
        pipeline.start()
        pipeline.push_messages(book.messages(range(10)))
        result = pipeline.stop()
        assert (result.successful, result.drained) == (10, True)
        assert len(book.ok) == 10 * (round_ + 1)
        with pytest.raises(EngineStopped):
            pipeline.push_messages(book.message("between"))


def test_stop_and_join_before_the_start_say_so(build):
    pipeline = build()
    for call in (pipeline.stop, pipeline.join, pipeline.stats, pipeline.topology):
        with pytest.raises(EngineStopped, match="has not been started"):
            call()


def test_join_waits_only_as_long_as_it_is_told(launch):
    pipeline = launch()
    started = time.monotonic()
    assert pipeline.join(0.2) is None
    assert 0.19 <= time.monotonic() - started < 1
    assert pipeline.state == "running"


# ---- producers that fail as they are stopped


class Faulty(DummyProducer):
    """Raises where it is told to, in one call of those that a stop makes."""

    def __init__(self, where):
        super().__init__()
        self.where, self.calls = where, Counter()

    def perhaps(self, where):
        self.calls[where] += 1
        if where == self.where:
            raise LookupError(where)

    def drain(self):
        self.perhaps("drain")
        super().drain()
        self.perhaps("behind drain")

    def stop(self, deadline):
        self._over.set()
        super().stop(deadline)
        self.perhaps("stop")

    def release(self):
        super().release()
        self.perhaps("release")

    def alive(self):
        self.perhaps("alive")
        return super().alive()

    @property
    def quiet(self):
        self.perhaps("quiet")
        return True

    @property
    def discarded(self):
        self.perhaps("discarded")
        return 3


@pytest.mark.parametrize("where", ["drain", "behind drain", "quiet", "stop", "release", "alive", "discarded"])
def test_a_producer_that_fails_in_a_stop_holds_up_nothing_of_it(launch, book, caplog, where):
    """P16: what was taken is handled, the other producers are stopped, and the result says what was raised."""
    faulty, before, behind = Faulty(where), Faulty(None), Faulty(None)
    pipeline = launch(lambda message: time.sleep(0.002), producers=[before, faulty, behind],
                      processors=Processors(concurrency=2))
    faulty.emit(book.messages(range(10)))
    pipeline.push_messages(book.messages(range(10, 20)))
    result = pipeline.stop()
    book.assert_each_once(range(20))
    assert (result.drained, result.successful, result.failed, result.left, result.threads_alive) == (True, 20, 0, 0, ())
    assert (repr(result.error), result.discarded) == (f"LookupError('{where}')", 6 if where == "discarded" else 9)
    assert (pipeline.state, pipeline.join()) == ("stopped", result)
    for other in (before, behind):
        assert all(other.calls[what] for what in ("drain", "quiet", "stop", "release", "discarded"))
    with pytest.raises(EngineStopped):
        faulty.emit(book.message("late"))
    assert [one.message for one in caplog.records if f"Faulty.{where.rpartition(' ')[2]} raised LookupError" in one.message]


@pytest.mark.parametrize("where", ["drain", "quiet", "stop"])
def test_a_producer_that_fails_in_a_stop_at_its_deadline_loses_nothing(launch, book, gate, where):
    handle_message, begun = stuck_on("stuck", gate)
    faulty = Faulty(where)
    pipeline = launch(handle_message, producers=faulty, processors=Processors(max_demand=1))
    faulty.emit(book.messages(["stuck", *range(30)]))
    assert begun.wait(5)
    result = pipeline.stop(0.1)
    book.assert_each_once(["stuck", *range(30)])
    assert (result.drained, result.failed, result.left) == (False, 31, 31)
    assert isinstance(result.error, LookupError)


def test_a_producer_that_never_closes_its_inbox_loses_nothing_by_a_stop(launch, book):
    """Whatever it brings on is handled or refused, and nothing is accepted that nobody would acknowledge."""
    class Careless(DummyProducer):
        def drain(self):
            pass

        def stop(self, deadline):
            self._over.set()
            super().stop(deadline)

    accepted, careless = [], Careless()

    def emit():
        for number in itertools.count():
            try:
                careless.emit(book.message(number))
            except EngineStopped:
                return
            accepted.append(number)

    pipeline = launch(producers=careless)
    thread = threading.Thread(target=emit, daemon=True)
    thread.start()
    book.wait(50)
    pipeline.stop(0.3)
    thread.join(10)
    assert not thread.is_alive()
    book.assert_each_once(accepted)


def test_the_reason_of_a_stop_comes_before_what_a_producer_raises_in_it(build):
    class Source(Faulty):
        def run(self, inbox):
            raise OSError("the source is gone")

    assert repr(build(producers=Source("stop")).run().error) == "OSError('the source is gone')"


def test_run_outside_the_main_thread_has_a_result_whatever_a_producer_raises(build):
    results = []
    pipeline = build(producers=Faulty("drain"))
    thread = threading.Thread(target=lambda: results.append(pipeline.run()))
    thread.start()
    until(lambda: pipeline.state == "running")
    pipeline.request_stop()
    thread.join(10)
    assert [repr(one.error) for one in results] == ["LookupError('drain')"]


def test_a_process_ends_whose_producer_fails_in_drain(child):
    script = child("""
        class Bad(Quiet):
            def drain(self):
                super().drain()
                raise LookupError("drain")

        class P(Pipeline):
            def handle_message(self, message):
                pass

        with P(Bad()) as pipeline:
            pipeline.push_messages(Message(1))
        say(pipeline.stop().successful, repr(pipeline.stop().error))
        """)
    assert script.line() == "1 LookupError('drain')"
    assert script.end(5)[0] == 0
