"""Batch keys that are the user's own: their code runs outside the batcher's locks, and harms no message but its own."""

from __future__ import annotations

import threading
from collections import Counter, namedtuple
from decimal import Decimal
from enum import StrEnum

import pytest

from tests.waiting import DEADLINE, until
from wsengine import Batcher, Processors

LONG = 60.0  # seconds: a time-out that does not come

SIZES = pytest.mark.parametrize(
    "size", [{"batch_size": 1000}, {"batch_size": (0, lambda message, count: ("cont", count + 1)), "max_demand": 1000}],
    ids=["number", "function"])


class Key:
    """Equal to those of the same value; all have one hash."""

    def __init__(self, value):
        self.value = value

    def __hash__(self):
        return 7

    def __eq__(self, other):
        return isinstance(other, Key) and self.value == other.value


@pytest.fixture
def keep():
    """A `handle_batch` that keeps what it was given, as `seen`."""
    lock = threading.Lock()

    def handle_batch(messages, info):
        with lock:
            handle_batch.seen.append((info.batch_key, [message.data for message in messages]))

    handle_batch.seen = []
    return handle_batch


def keyed(book, keys):
    """A message for each key, whose data is its number."""
    made = book.messages(range(len(keys)))
    for message, key in zip(made, keys, strict=True):
        message.batch_key = key
    return made


# ---- a hash that changes


@SIZES
@pytest.mark.parametrize("concurrency", [1, 3])
def test_p12_a_key_whose_hash_changes_after_it_joined_is_emitted_and_holds_up_none(launch, book, keep, size, concurrency):
    """B-11: no thread of the batcher's dies of it."""
    class Changing(Key):
        def __hash__(self):
            return self.value

    key = Changing(1)
    pipeline = launch(handle_batch=keep, batchers={
        "default": Batcher(concurrency=concurrency, batch_timeout=0.2, **size)})
    pipeline.push_messages(keyed(book, [key]))
    until(lambda: pipeline.stats().batchers[0].open_batches == 1)
    key.value = 2
    pipeline.push_messages(keyed(book, ["good"] * 20))
    book.wait(21)
    assert book.failed == []
    assert pipeline.stop().drained
    assert sorted(len(datas) for _, datas in keep.seen) == [1, 20]


# ---- the user's code under no lock


@SIZES
@pytest.mark.parametrize("concurrency", [1, 2])
def test_b18_comparing_a_key_may_ask_the_pipeline_for_its_figures(launch, book, keep, size, concurrency):
    class Curious(Key):
        __hash__ = Key.__hash__

        def __eq__(self, other):
            pipeline.stats()
            return self.value == other.value

    pipeline = launch(handle_batch=keep, batchers={
        "default": Batcher(concurrency=concurrency, batch_timeout=LONG, **size)})
    pipeline.push_messages(keyed(book, [Curious(number % 2) for number in range(6)]))
    assert pipeline.stop().drained
    assert sorted(datas for _, datas in keep.seen) == [[0, 2, 4], [1, 3, 5]]
    book.assert_each_once(range(6))


@SIZES
def test_p17_what_waits_for_a_key_to_be_compared_is_left_at_the_deadline(launch, book, keep, gate, size):
    begun = threading.Event()

    class Stuck(Key):
        __hash__ = Key.__hash__

        def __eq__(self, other):
            begun.set()
            gate.wait(60)
            return False

    pipeline = launch(handle_batch=keep, batchers={"default": Batcher(batch_timeout=LONG, **size)})
    pipeline.push_messages(keyed(book, [Key(0)]))
    until(lambda: pipeline.stats().batchers[0].open_batches == 1)
    pipeline.push_messages(keyed(book, [Stuck(1), "other"]))
    assert begun.wait(DEADLINE)
    result = pipeline.stop(timeout=0.3)
    assert (result.drained, result.failed) == (False, 3)
    assert pipeline.stats().held_messages == 0
    assert sorted(book.failed) == [0, 0, 1], "all were acknowledged by the deadline"
    gate.set()
    until(lambda: not pipeline.stats().batchers[0].held)
    assert len(book.failed) == 3, "and not again"


# ---- which keys are one


class Side(StrEnum):
    BUY = "buy"


Point = namedtuple("Point", "x y")
EQUAL = {
    "str and enum": ["buy", Side.BUY], "enum and str": [Side.BUY, "buy"],
    "tuple and named": [(1, 2), Point(1, 2)], "named and tuple": [Point(1, 2), (1, 2)],
    "int and decimal": [1, Decimal(1)], "decimal, int, float": [Decimal(1), 1, 1.0],
    "within tuples": [("a", Side.BUY), ("a", "buy")], "of a class": [Key(1), Key(1)],
    "sets": [frozenset("ab"), frozenset("ba")],
}


@SIZES
@pytest.mark.parametrize("keys", EQUAL.values(), ids=EQUAL)
@pytest.mark.parametrize("between", [[], ["other"], [Key(3)]], ids=["next to each other", "apart", "apart by another"])
def test_equal_keys_share_a_batch_whatever_their_types(launch, book, keep, size, keys, between):
    given = [one for key in keys for one in (key, *between)]
    pipeline = launch(handle_batch=keep, batchers={"default": Batcher(batch_timeout=LONG, **size)})
    pipeline.push_messages(keyed(book, given))
    assert pipeline.stop().drained
    assert sorted(datas for _, datas in keep.seen)[0] == [at for at, one in enumerate(given) if one in keys]
    assert len(keep.seen) == 1 + len(between)


def test_keys_that_are_brought_at_the_same_time_by_two_processors_are_one(launch, book, keep):
    """Both are compared with what is open at once, before either has a batch."""
    together = threading.Barrier(2)

    class Met(Key):
        __hash__ = Key.__hash__

        def __eq__(self, other):
            if other.value == 0:
                together.wait(60)
            return self.value == other.value

    pipeline = launch(handle_batch=keep, batchers={"default": Batcher(batch_timeout=LONG)},
                      processors=Processors(concurrency=2, max_demand=1))
    pipeline.push_messages(keyed(book, [Key(0)]))
    until(lambda: pipeline.stats().batchers[0].open_batches == 1)
    pipeline.push_messages(keyed(book, [Met(1), Met(1)]))
    until(lambda: pipeline.stats().batchers[0].held == 3 and pipeline.stats().batchers[0].open_batches == 2)
    assert pipeline.stop().drained
    assert sorted(len(datas) for _, datas in keep.seen) == [1, 2]


@SIZES
def test_b6_a_key_that_raises_fails_its_own_message_and_none_of_the_same_hash(launch, book, keep, size):
    class Rude(Key):
        __hash__ = Key.__hash__

        def __eq__(self, other):
            raise LookupError("not to be compared")

    pipeline = launch(handle_batch=keep, batchers={"default": Batcher(batch_timeout=LONG, **size)})
    pipeline.push_messages(keyed(book, [Rude(0), 7, Key(1), Rude(2), 7, Key(1)]))
    assert pipeline.stop().drained
    assert book.failed == [3], "the first found nothing that it was to be compared with"
    assert sorted(datas for _, datas in keep.seen) == [[0], [1, 4], [2, 5]]


def test_p33_batches_of_a_key_of_the_users_are_handled_one_at_a_time_and_in_order(launch, book):
    at_once, order, lock = Counter(), {}, threading.Lock()
    overlaps = []

    def handle_batch(messages, info):
        value = info.batch_key.value
        with lock:
            at_once[value] += 1
            overlaps.append(at_once[value])
            order.setdefault(value, []).extend(message.data for message in messages)
        threading.Event().wait(0.001)
        with lock:
            at_once[value] -= 1

    pipeline = launch(handle_batch=handle_batch, batchers={
        "default": Batcher(concurrency=4, batch_size=3, batch_timeout=0.01)})
    pipeline.push_messages(keyed(book, [Key(number % 5) for number in range(600)]))
    book.wait(600, timeout=DEADLINE)
    assert pipeline.stop().drained
    assert set(overlaps) == {1}
    assert order == {value: list(range(value, 600, 5)) for value in range(5)}


@pytest.mark.parametrize("size", [{}, {"batch_size": (0, lambda message, size: ("cont", size)), "max_demand": 5}])
def test_b6_whoever_is_told_of_a_message_that_can_join_no_batch_finds_it_counted(launch, new_book, keep, size):
    class Book(type(new_book())):
        def ack(self, ref, successful, failed):
            counted.append(pipeline.stats().failed)
            super().ack(ref, successful, failed)

    class Rude(Key):
        __hash__ = Key.__hash__

        def __eq__(self, other):
            raise LookupError("not to be compared")

    book, counted = Book(), []
    pipeline = launch(handle_batch=keep, batchers={"default": Batcher(batch_timeout=LONG, **size)})
    pipeline.push_messages(keyed(book, [Rude(0), Rude(1)]))
    book.wait(1)
    assert counted == [1], "the second was to be compared with the first"
    pipeline.stop()
