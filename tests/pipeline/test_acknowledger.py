"""Acknowledgement: groups, order, isolation, and each message exactly once."""

from __future__ import annotations

import queue
import threading

import pytest

from wsengine import Batcher, CallerAcknowledger, ConfigurationError, Message, NoopAcknowledger, Processors, telemetry
from wsengine.pipeline.chunk import acknowledge
from wsengine.testing import capture


class Unhashable:
    """A ref that cannot be a key."""

    __hash__ = None


def test_groups_are_of_one_acknowledger_and_one_ref_with_lists_in_order(book, new_book):
    other = new_book()
    messages = [book.message(1, "r"), other.message(2, "r"), book.message(3, "s"), book.message(4, "r"),
                book.message(5, "r").fail("x"), Message(6)]
    acknowledge(messages)
    assert book.calls == [("r", [1, 4], [5]), ("s", [3], [])]
    assert other.calls == [("r", [2], [])]


def test_equal_refs_are_one_group_and_unhashable_ones_go_by_identity(book):
    shared = Unhashable()
    acknowledge([book.message(1, (1, "a")), book.message(2, (1, "a")), book.message(3, shared), book.message(4, shared),
                 book.message(5, Unhashable()), book.message(6, [1]), book.message(7, [1])])
    assert [good for _, good, _ in book.calls] == [[1, 2], [3, 4], [5], [6], [7]]


class Contrary:
    """A ref that has a hash, and raises when it is compared: an array, say, or a row of a table."""

    def __init__(self, error=None):
        self.error = ValueError("the truth value is ambiguous") if error is None else error

    def __hash__(self):
        return 1

    def __eq__(self, other):
        raise self.error


@pytest.mark.parametrize("error", [ValueError("ambiguous"), SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_refs_that_cannot_be_compared_go_by_identity(book, error):
    shared = Contrary(error)
    acknowledge([book.message(1, Contrary(error)), book.message(2, shared), book.message(3, Contrary(error)),
                 book.message(4, 1), book.message(5, shared), book.message(6, "r"), book.message(7, 1),
                 book.message(8, "r").fail("x")])
    assert [(good, bad) for _, good, bad in book.calls] == [([1], []), ([2, 5], []), ([3], []), ([4, 7], []), ([6], [8])]


@pytest.mark.parametrize("batched", [False, True])
def test_refs_that_cannot_be_compared_cost_no_acknowledgement(launch, book, batched, caplog):
    """P10: messages of the same chunk or batch are all acknowledged, and the processor lives on."""
    options = {} if not batched else {"handle_batch": lambda messages, info: None,
                                      "batchers": {"default": Batcher(batch_size=10, batch_timeout=0.05)}}
    pipeline = launch(processors=Processors(max_demand=20), **options)
    pipeline.pause()
    pipeline.push_messages([book.message(i, Contrary() if i % 2 else "r") for i in range(10)])
    pipeline.resume()
    book.wait(10)
    book.assert_each_once(range(10))
    result = pipeline.stop()
    assert (result.drained, result.successful) == (True, 10)
    assert "died" not in caplog.text


def test_equal_acknowledgers_that_are_not_the_same_are_two_groups():
    class Equal:
        def __init__(self):
            self.seen = []

        def __eq__(self, other):
            return True

        def __hash__(self):
            return 1

        def ack(self, ref, successful, failed):
            self.seen.append(len(successful))

    one, two = Equal(), Equal()
    acknowledge([Message(1, acknowledger=(one, "r", None)), Message(2, acknowledger=(two, "r", None))])
    assert (one.seen, two.seen) == ([1], [1])


@pytest.mark.parametrize("error", [ValueError("ack"), SystemExit(1), KeyboardInterrupt()])
def test_an_acknowledger_that_raises_touches_no_other_group(launch, book, gate, error, caplog):
    """B-1, P10: unlike the ancestor, which leaves the other groups of that call behind."""
    class Raising:
        def ack(self, ref, successful, failed):
            raise error

    pipeline = launch(lambda message: gate.wait(5) and None)
    raising = [Message(i, acknowledger=(Raising(), i, None)) for i in range(3)]
    pipeline.push_messages([raising[0], book.message(1), raising[1], book.message(2, "s"), raising[2]])
    gate.set()
    book.wait(2)
    assert sorted(book.ok) == [1, 2]
    result = pipeline.stop()
    assert result.drained
    assert result.successful == 5
    assert "count as acknowledged" in caplog.text
    assert "processor 0 died" not in caplog.text


def test_a_chunk_is_acknowledged_by_one_call_per_group(launch, book, gate):
    begun = threading.Event()

    def handle_message(message):
        begun.set()
        gate.wait(5)
        if message.data == 3:
            raise ValueError(3)

    pipeline = launch(handle_message, processors=Processors(max_demand=10))
    pipeline.push_messages(Message("first"))
    assert begun.wait(5)
    pipeline.push_messages(book.messages(range(10)))
    gate.set()
    book.wait(10)
    assert book.calls == [("ref", [0, 1, 2, 4, 5, 6, 7, 8, 9], [3])]


# ---- ack_immediately


def test_ack_immediately_in_the_handler_is_the_only_acknowledgement(launch, book):
    at_once = []

    def handle_message(message):
        message.ack_immediately()
        at_once.append(book.total)
        message.ack_immediately()

    pipeline = launch(handle_message)
    pipeline.push_messages(book.messages(range(5)))
    result = pipeline.stop()
    assert at_once == [1, 2, 3, 4, 5]
    book.assert_each_once(range(5))
    assert result.successful == 5
    assert result.drained


def test_ack_immediately_goes_by_the_status_of_that_moment(launch, book):
    def handle_message(message):
        if message.data == "bad":
            message.fail("x")
        message.ack_immediately()
        if message.data == "later":
            raise ValueError("too late to fail")

    pipeline = launch(handle_message)
    pipeline.push_messages(book.messages(["bad", "later"]))
    pipeline.stop()
    assert book.ok == ["later"]
    assert book.failed == ["bad"]


def test_a_message_returned_in_place_of_an_acknowledged_one_is_not_acknowledged_again(launch, book):
    def handle_message(message):
        message.ack_immediately()
        return book.message("another")

    pipeline = launch(handle_message)
    pipeline.push_messages(book.messages(range(3)))
    pipeline.stop()
    book.assert_each_once(range(3))


def test_ack_immediately_from_another_thread_and_the_end_of_the_chunk_make_one_acknowledgement(launch, book):
    messages = book.messages(range(2000))
    others = queue.SimpleQueue()

    def acknowledging():
        while (message := others.get()) is not None:
            message.ack_immediately()

    thread = threading.Thread(target=acknowledging)
    thread.start()
    pipeline = launch(others.put, processors=Processors(concurrency=2, max_demand=16))
    pipeline.push_messages(messages)
    result = pipeline.stop()
    others.put(None)
    thread.join()
    book.assert_each_once(range(2000))
    assert result.drained
    assert pipeline.stats().held_messages == 0


def test_ack_immediately_makes_room_before_the_chunk_is_done(launch, book, gate, eventually):
    def handle_message(message):
        message.ack_immediately()
        if message.data == 1:
            gate.wait(60)

    pipeline = launch(handle_message, processors=Processors(max_demand=2))
    pipeline.push_messages(book.messages(range(2)))
    eventually(lambda: book.total == 2)
    eventually(lambda: pipeline.stats().held_messages == 0)


@pytest.mark.parametrize("hook", ["handle_message", "handle_messages", "handle_batch"])
@pytest.mark.parametrize("watched", [False, True])
def test_what_fails_after_ack_immediately_counts_as_what_its_acknowledger_was_told(launch, book, hook, watched):
    """P11: the figures agree with the acknowledger, and `handle_failed` does not see what is settled."""
    seen = []

    def one(message):
        if message.data in ("failed", "failed and raised"):
            message.fail("before")
        if message.data != "late":
            message.ack_immediately()
        if message.data in ("marked", "late"):
            message.fail("afterwards")
        if message.data in ("raised", "failed and raised"):
            raise ValueError("afterwards")

    def several(messages, *_):
        errors = []
        for message in messages:
            try:
                one(message)
            except ValueError as error:
                message.fail(error)
                errors.append(error)
        raise errors[0]

    hooks = {hook: one if hook == "handle_message" else several}
    options = {"batchers": {"default": Batcher(batch_size=6)}} if hook == "handle_batch" else {}
    stop = telemetry.BATCH_PROCESSOR_EXCEPTION if hook == "handle_batch" else (
        telemetry.PROCESSOR_STOP if hook == "handle_message" else telemetry.PROCESSOR_EXCEPTION)
    with capture(stop if watched else telemetry.TOPOLOGY_INIT) as events:
        pipeline = launch(**hooks, **options, processors=Processors(max_demand=10),
                          handle_failed=lambda messages: seen.extend(m.data for m in messages))
        pipeline.pause()
        pipeline.push_messages(book.messages(["fine", "failed", "marked", "raised", "failed and raised", "late"]))
        pipeline.resume()
        book.wait(6)
        result = pipeline.stop()
    assert sorted(book.ok) == ["fine", "marked", "raised"]
    assert sorted(book.failed) == ["failed", "failed and raised", "late"]
    assert (result.successful, result.failed, result.drained) == (3, 3, True)
    assert seen == ["late"]
    if watched:
        [event] = events.of(stop)
        names = ("successful_messages" if hook == "handle_batch" else "successful_messages_to_ack", "failed_messages")
        assert [[m.data for m in event.metadata[name]] for name in names] == [
            ["fine", "marked", "raised"], ["failed", "failed and raised", "late"]]


def test_what_fails_after_ack_immediately_joins_no_batch_and_counts_as_successful(launch, book, new_book):
    """What failed before, and had another put in its place, joins a batch and counts as failed."""
    batches, seen, others = [], [], new_book()

    def handle_message(message):
        if message.data == 2:
            message.fail("before")
        message.ack_immediately()
        if message.data == 1:
            raise ValueError("afterwards")
        if message.data == 2:
            return others.message("another")
        return message

    pipeline = launch(handle_message, handle_batch=lambda messages, info: batches.extend(m.data for m in messages),
                      handle_failed=seen.extend,
                      batchers={"default": Batcher(batch_size=4, batch_timeout=0.02)})
    pipeline.push_messages(book.messages(range(4)))
    result = pipeline.stop()
    assert sorted(map(str, batches)) == ["0", "3", "another"]
    assert seen == [], "all are settled"
    assert (sorted(book.ok), book.failed, others.total) == ([0, 1, 3], [2], 0)
    assert (result.successful, result.failed, result.drained) == (3, 1, True)


@pytest.mark.parametrize("hook", ["handle_message", "handle_messages"])
def test_what_a_stop_takes_over_counts_as_what_its_acknowledger_was_told(launch, book, gate, hook):
    begun = threading.Event()

    def one(message):
        message.ack_immediately()
        message.fail("afterwards")
        begun.set()
        gate.wait(60)

    pipeline = launch(**{hook: one if hook == "handle_message" else lambda messages: one(messages[0])})
    pipeline.push_messages(book.message(1))
    assert begun.wait(5)
    result = pipeline.stop(0)
    assert (book.ok, result.successful, result.failed, result.left) == ([1], 1, 0, 0)


# ---- configure_ack and those that are built in


def test_configure_ack_in_the_handler_changes_what_the_acknowledger_gets(launch):
    seen = queue.SimpleQueue()

    class Keeping(CallerAcknowledger):
        def ack(self, ref, successful, failed):
            self.queue.put([m.acknowledger[2] for m in successful])

        def configure(self, ref, data, options):
            return {**data, **options}

    pipeline = launch(lambda message: message.configure_ack(retry=False))
    pipeline.push_messages(Message(1, acknowledger=(Keeping(seen), "r", {"tag": 7})))
    assert seen.get(timeout=5) == [{"tag": 7, "retry": False}]


def test_configure_ack_without_support_fails_the_message(launch, book, new_book):
    class Plain:
        def __init__(self):
            self.failed = queue.SimpleQueue()

        def ack(self, ref, successful, failed):
            self.failed.put([m.status.exception for m in failed])

    plain = Plain()
    launch(lambda message: message.configure_ack(x=1)).push_messages(Message(1, acknowledger=(plain, 0, None)))
    [error] = plain.failed.get(timeout=5)
    assert isinstance(error, ConfigurationError)


def test_the_caller_acknowledger_puts_everything_into_its_queue(launch):
    seen = queue.SimpleQueue()

    def handle_message(message):
        message.configure_ack(a=1)

    message = Message(1, acknowledger=(CallerAcknowledger(seen), "r", "data"))
    launch(handle_message).push_messages(message)
    assert seen.get(timeout=5) == ("configure", "r", {"a": 1})
    assert seen.get(timeout=5) == ("r", [message], [])
    assert message.acknowledger[2] == "data"


def test_the_noop_acknowledger_is_like_none(launch):
    pipeline = launch()
    pipeline.push_messages([Message(1, acknowledger=(NoopAcknowledger(), None, None)), Message(2)])
    result = pipeline.stop()
    assert (result.successful, result.drained) == (2, True)
