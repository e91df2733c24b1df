"""P17: an acknowledger that does not return holds up no other at the deadline of a stop, and each group is told once."""

from __future__ import annotations

import threading

import pytest

from tests.pipeline.book import Book
from tests.waiting import until
from wsengine import Batcher, Processors


class Stuck(Book):
    """Does not return from its first call before `gate` is set. `calls` has what it has been told, once it has returned."""

    def __init__(self, gate):
        super().__init__()
        self.gate, self.begun = gate, threading.Event()

    def ack(self, ack_ref, successful, failed):
        self.begun.set()
        self.gate.wait(60)
        super().ack(ack_ref, successful, failed)


@pytest.fixture
def stuck(gate):
    return Stuck(gate)


def held_up(launch, stuck, messages, **options):
    """A pipeline whose acknowledger is stuck with the first of these messages, which are one chunk."""
    pipeline = launch(**options, processors=Processors(max_demand=20))
    pipeline.pause()
    pipeline.push_messages(messages)
    pipeline.resume()
    assert stuck.begun.wait(10)
    return pipeline


BATCHED = {"handle_batch": lambda messages, info: None, "batchers": {"default": Batcher(batch_size=7, batch_timeout=0.05)}}


@pytest.mark.parametrize("options", [{}, BATCHED], ids=["a chunk", "a batch"])
def test_the_groups_behind_a_stuck_acknowledger_are_told_at_the_deadline(launch, book, new_book, gate, stuck, options):
    third = new_book()
    pipeline = held_up(launch, stuck, [stuck.message("stuck"), *book.messages(range(4)), *third.messages("ab")], **options)
    assert (book.total, third.total) == (0, 0)
    result = pipeline.stop(0.2)
    book.wait(4)
    third.wait(2)
    assert (sorted(book.ok), third.ok) == ([0, 1, 2, 3], ["a", "b"])
    assert (len(book.calls), len(third.calls)) == (1, 1)
    assert (result.successful, result.left, result.drained, len(result.threads_alive)) == (7, 0, False, 1)
    gate.set()
    stuck.wait(1)
    until(lambda: pipeline.stats().held_messages == 0)
    assert (stuck.ok, book.total, third.total) == (["stuck"], 4, 2)


def test_other_groups_of_the_stuck_acknowledger_wait_for_it(launch, book, gate, stuck):
    """It is called by one thread at a time, and those behind it are not held up."""
    pipeline = held_up(launch, stuck, [stuck.message(1, "r"), stuck.message(2, "s"), book.message(3)])
    result = pipeline.stop(0.2)
    book.wait(1)
    assert (book.ok, stuck.total) == ([3], 0)
    assert result.seconds < 10
    gate.set()
    stuck.wait(2)
    assert stuck.calls == [("r", [1], []), ("s", [2], [])]
    assert book.total == 1


def test_a_stop_is_not_held_up_by_another_acknowledger_that_is_stuck(launch, book, gate, stuck):
    other = Stuck(gate)
    pipeline = held_up(launch, stuck, [stuck.message(1), other.message(2), book.message(3)])
    result = pipeline.stop(0.2)
    assert result.seconds < 10
    assert (result.successful, len(result.threads_alive)) == (3, 1)
    assert other.begun.wait(10)
    gate.set()
    book.wait(1)
    other.wait(1)
    stuck.wait(1)
    until(lambda: pipeline.stats().held_messages == 0)
    assert (stuck.total, other.total, book.total) == (1, 1, 1)


def test_without_a_thread_to_be_had_they_are_told_all_the_same(launch, book, stuck, monkeypatch):
    pipeline = held_up(launch, stuck, [stuck.message(1), book.message(2)])

    def none_left(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        pipeline.stop(0.2)
    assert book.ok == [2]


def test_failed_messages_behind_a_stuck_acknowledger_are_told_before_others_join_a_batch(launch, book, gate, stuck):
    pipeline = held_up(launch, stuck, [stuck.message("stuck"), *book.messages(range(3))], **BATCHED,
                       handle_message=lambda message: message.fail("no price"))
    result = pipeline.stop(0.2)
    book.wait(3)
    assert book.failed == [0, 1, 2]
    assert (result.failed, result.left) == (4, 0)
    gate.set()
    until(lambda: pipeline.stats().held_messages == 0)
    assert (stuck.failed, book.total) == (["stuck"], 3)


def test_each_of_many_groups_is_told_once_whoever_does_it(launch, new_book):
    """The deadline comes while a processor goes through its groups."""
    class First(Book):
        def __init__(self):
            super().__init__()
            self.told = threading.Event()

        def ack(self, ack_ref, successful, failed):
            super().ack(ack_ref, successful, failed)
            self.told.set()

    def once():
        first, books = First(), [new_book() for _ in range(250)]
        pipeline = launch(processors=Processors(max_demand=256))
        pipeline.pause()
        pipeline.push_messages([first.message("first"), *(book.message(n) for n, book in enumerate(books))])
        pipeline.resume()
        assert first.told.wait(10)
        pipeline.stop(0)
        for book in books:
            book.wait(1)
        until(lambda: pipeline.stats().held_messages == 0)
        assert [book.total for book in (first, *books)] == [1] * 251

    for _ in range(20):
        once()
