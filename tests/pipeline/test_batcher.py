"""How messages become batches: keys, the three triggers, sizes by a function, order, and how a batcher holds back."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from tests.waiting import until
from wsengine import Batcher, Message, Processors

LONG = 60.0  # seconds: a time-out that does not come


class Batches:
    """A `handle_batch` that keeps what it was given; thread-safe."""

    def __init__(self):
        self.seen = []
        self.lock = threading.Lock()

    def __call__(self, messages, info):
        with self.lock:
            self.seen.append((info, [message.data for message in messages]))

    @property
    def datas(self):
        return [datas for _, datas in list(self.seen)]

    @property
    def triggers(self):
        return [info.trigger for info, _ in list(self.seen)]

    def wait(self, count):
        until(lambda: len(self.seen) >= count)
        return self


@pytest.fixture
def batches():
    return Batches()


@pytest.fixture
def batching(launch, batches):
    """A pipeline with one batcher "default" of these options, which takes messages one at a time, in order."""

    def make(handle_message=None, *, handle_batch=None, processors=None, batchers=None, max_queue_bytes=2**26, **options):
        return launch(handle_message, handle_batch=handle_batch or batches, max_queue_bytes=max_queue_bytes,
                      processors=processors or Processors(max_demand=64),
                      batchers=batchers or {"default": Batcher(**{"batch_timeout": LONG, **options})})

    return make


def keyed(book, datas):
    """A message for each (key, number)."""
    made = book.messages(datas)
    for message in made:
        message.batch_key = message.data[0]
    return made


# ---- what triggers a batch


def test_p12_a_batch_is_emitted_at_its_size(batching, batches, book):
    batching(batch_size=4).push_messages(book.messages(range(11)))
    batches.wait(2)
    assert batches.datas == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert batches.triggers == ["size", "size"]
    assert batches.seen[0][0].size == 4
    book.wait(8)
    assert book.ok == list(range(8))


def test_p12_the_time_runs_from_the_first_message_and_is_not_extended(batching, batches, book):
    pipeline = batching(batch_size=1000, batch_timeout=0.4)
    begun = time.monotonic()
    while time.monotonic() - begun < 0.3:
        pipeline.push_messages(book.message(0))
        time.sleep(0.02)
    batches.wait(1)
    assert 0.35 < time.monotonic() - begun < 5
    assert batches.triggers[0] == "timeout"
    assert len(batches.datas[0]) > 3


def test_each_batch_has_a_time_of_its_own(batching, batches, book):
    pipeline = batching(batch_size=1000, batch_timeout=0.3)
    pipeline.push_messages(keyed(book, ["a1"]))
    time.sleep(0.15)
    pipeline.push_messages(keyed(book, ["b1"]))
    until(lambda: batches.datas == [["a1"]])
    assert pipeline.stats().batchers[0].open_batches == 1
    batches.wait(2)
    assert batches.datas == [["a1"], ["b1"]]


def test_without_a_time_only_size_and_flush_emit(batching, batches, book):
    pipeline = batching(batch_size=5, batch_timeout=None)
    pipeline.push_messages(book.messages(range(3)))
    time.sleep(0.1)
    assert batches.seen == []
    assert pipeline.stop().drained
    assert (batches.datas, batches.triggers) == ([[0, 1, 2]], ["flush"])


def test_p12_a_flush_emits_behind_the_run_of_its_key(batching, batches, book):
    pipeline = batching(batch_size=100)
    pipeline.push_messages(book.message("before"))
    given = keyed(book, ["a1", "a2", "a3", "b1"])
    given[1].batch_mode = "flush"
    pipeline.push_messages(given)
    batches.wait(1)
    assert (batches.datas, batches.triggers) == ([["a1", "a2", "a3"]], ["flush"])
    assert pipeline.stats().batchers[0].open_batches == 2


def test_a_flush_on_a_batch_that_was_filled_by_it_counts_as_size(batching, batches, book):
    given = book.messages(range(4))
    given[3].batch_mode = "flush"
    batching(batch_size=4).push_messages(given)
    batches.wait(1)
    assert batches.triggers == ["size"]


def test_p12_a_stop_emits_what_is_open(batching, batches, book):
    pipeline = batching(batch_size=100)
    pipeline.push_messages(keyed(book, ["a1", "b1", "a2", "c1"]))
    result = pipeline.stop()
    assert (result.drained, result.successful, result.left) == (True, 4, 0)
    assert sorted(batches.datas) == [["a1", "a2"], ["b1"], ["c1"]]
    assert set(batches.triggers) == {"flush"}
    book.assert_each_once(["a1", "b1", "a2", "c1"])


# ---- keys


def test_messages_are_batched_by_key_in_order(batching, batches, book):
    datas = [f"{key}{i}" for i in range(6) for key in "abc"]
    batching(batch_size=3).push_messages(keyed(book, datas))
    batches.wait(6)
    assert Counter(info.batch_key for info, _ in batches.seen) == {"a": 2, "b": 2, "c": 2}
    for key in "abc":
        assert [one for datas in batches.datas for one in datas if one[0] == key] == [f"{key}{i}" for i in range(6)]


@pytest.mark.parametrize("keys", [(None, "default"), (0, 0.5, (1, "x")), ("1", 1, b"1")], ids=repr)
def test_keys_of_any_hashable_kind_are_told_apart_and_told(launch, batches, book, keys):
    def handle_message(message):
        message.batch_key = message.data

    pipeline = launch(handle_message, handle_batch=batches, batchers={"default": Batcher(batch_timeout=LONG)})
    pipeline.push_messages(book.messages(keys * 2))
    pipeline.stop()
    assert {info.batch_key: datas for info, datas in batches.seen} == {key: [key, key] for key in keys}


def test_equal_keys_are_one_key_whatever_object_they_are(batching, batches, book):
    given = book.messages(range(4))
    for message in given:
        message.batch_key = "".join(["ke", "y"])
    batching(batch_size=4).push_messages(given)
    batches.wait(1)
    assert batches.datas == [[0, 1, 2, 3]]


@pytest.mark.parametrize("function", [None, lambda message, count: ("cont", count + 1)], ids=["number", "function"])
def test_keys_are_the_users_alone(launch, batches, book, function):
    """B-18: whatever a key is, it meets nothing of the engine's own, nor an equal key of another batcher."""
    keys = [None, "default", "one", "two", ("one", None), "flush", "timeout", "size", 0, -1, True, "", b"", (), Batcher, ...]
    size = {"batch_size": 100} if function is None else {"batch_size": (0, function), "max_demand": 100}

    def handle_message(message):
        message.batcher, message.batch_key = message.data[0], keys[message.data[1]]

    pipeline = launch(handle_message, handle_batch=batches, processors=Processors(max_demand=7),
                      batchers={name: Batcher(batch_timeout=LONG, **size) for name in ("default", "one", "two")})
    datas = [(name, at, turn) for turn in range(3) for at in range(len(keys)) for name in ("default", "one", "two")]
    pipeline.push_messages(book.messages(datas))
    assert pipeline.stop().drained
    book.assert_each_once(datas)
    assert book.failed == []
    made = [((info.batcher, info.batch_key), taken) for info, taken in batches.seen]
    assert len(made) == 3 * len(keys)
    for (name, key), taken in made:
        at = taken[0][1]
        assert keys[at] is key
        assert taken == [(name, at, turn) for turn in range(3)]


def test_many_keys_are_emitted_by_time_without_being_lost(batching, batches, book):
    datas = [f"{i % 500}:{i}" for i in range(2000)]
    given = book.messages(datas)
    for message in given:
        message.batch_key = message.data.split(":")[0]
    batching(batch_size=100, batch_timeout=0.05).push_messages(given)
    book.wait(2000)
    book.assert_each_once(datas)
    assert all(len({data.split(":")[0] for data in datas}) == 1 for datas in batches.datas)


def test_a_key_that_cannot_be_compared_any_more_fails_its_messages_and_no_others(batching, batches, book):
    class Odd:
        hashes = 0

        def __hash__(self):
            Odd.hashes += 1
            if Odd.hashes > 1:
                raise LookupError("no hash any more")
            return 1

    given = book.messages(["fine", "odd", "fine too"])
    given[1].batch_key = Odd()
    pipeline = batching(batch_size=10)
    pipeline.push_messages(given)
    book.wait(1)
    assert (book.failed, book.ok) == (["odd"], [])
    assert isinstance(book.reasons["odd"].exception, LookupError)
    result = pipeline.stop()
    assert (result.successful, result.failed) == (2, 1)
    assert batches.datas == [["fine", "fine too"]]


@pytest.mark.parametrize("function", [None, lambda message, count: ("cont", count)], ids=["number", "function"])
def test_keys_that_raise_when_they_are_compared_fail_their_messages_and_lose_none(batching, book, function):
    """Also behind a longer list that was sorted before."""
    class Rude:
        def __hash__(self):
            return 7

        def __eq__(self, other):
            raise LookupError("not to be compared")

    size = {"batch_size": 1000} if function is None else {"batch_size": (0, function), "max_demand": 10}
    pipeline = batching(**size)
    pipeline.pause()
    given = book.messages(range(110))
    for message in given[100:]:
        message.batch_key = Rude()
    pipeline.push_messages(given)
    pipeline.resume()
    pipeline.stop()
    book.assert_each_once(range(110))
    assert book.failed == list(range(101, 110)), "the first has a batch of its own, which none of the others can find"


# ---- sizes by a function


def weight(limit):
    """A size function that never lets a batch exceed `limit` in bytes."""

    def function(message, used):
        if used + len(message.data) > limit:
            return "emit_before", len(message.data)
        return "cont", used + len(message.data)

    return 0, function


def test_p13_a_ceiling_in_bytes_is_never_exceeded(batching, batches, book):
    """B-3: unlike the ancestor's, where the message that goes beyond it is in the batch."""
    datas = ["x" * n + str(i) for i, n in enumerate([3, 4, 2, 7, 1, 1, 1, 8, 9, 2])]
    pipeline = batching(batch_size=weight(10), max_demand=100)
    pipeline.push_messages(book.messages(datas))
    pipeline.stop()
    assert [one for datas in batches.datas for one in datas] == datas
    sizes = [sum(map(len, datas)) for datas in batches.datas]
    assert max(sizes) <= 10
    assert all(one + len(following[0]) > 10 for one, following in zip(sizes, batches.datas[1:], strict=False))
    book.assert_each_once(datas)


def test_p13_the_function_sees_what_handle_message_made_of_a_message(batching, batches, book):
    def handle_message(message):
        message.data *= 2

    batching(handle_message, batch_size=weight(4), max_demand=100).push_messages(book.messages(["a", "b", "c"]))
    batches.wait(1)
    assert batches.datas == [["aa", "bb"]]


def test_p13_the_accumulator_that_comes_with_emit_is_the_next_batchs(batching, batches, book):
    """B-3: unlike the ancestor's, which discards it."""
    given = []

    def function(message, accumulator):
        given.append(accumulator)
        return ("emit", "next") if message.data % 3 == 2 else ("cont", (accumulator, message.data))

    batching(batch_size=("first", function), max_demand=100).push_messages(book.messages(range(6)))
    batches.wait(2)
    assert batches.datas == [[0, 1, 2], [3, 4, 5]]
    assert given == ["first", ("first", 0), (("first", 0), 1), "next", ("next", 3), (("next", 3), 4)]


def test_each_key_has_an_accumulator_of_its_own(batching, batches, book):
    batching(batch_size=(0, lambda _, n: ("emit", 0) if n == 1 else ("cont", n + 1)), max_demand=100).push_messages(
        keyed(book, ["a1", "b1", "b2", "a2"]))
    batches.wait(2)
    assert sorted(batches.datas) == [["a1", "a2"], ["b1", "b2"]]


def test_a_kept_accumulator_is_forgotten_after_the_time_without_a_message(batching, batches, book):
    given = []

    def function(message, accumulator):
        given.append(accumulator)
        return "emit", "kept"

    pipeline = batching(batch_size=("initial", function), max_demand=100, batch_timeout=0.1)
    pipeline.push_messages(book.messages([1, 2]))
    batches.wait(2)
    assert pipeline.stats().batchers[0].open_batches == 0, "what holds no message is none"
    time.sleep(0.5)
    pipeline.push_messages(book.message(3))
    batches.wait(3)
    assert given == ["initial", "kept", "initial"]
    assert batches.datas == [[1], [2], [3]]


def test_without_a_time_accumulators_are_kept_for_so_many_keys_and_no_more(batching, book):
    """The one that has waited longest goes; a key that comes again has waited anew."""
    given = []

    def function(message, accumulator):
        given.append(accumulator)
        return "emit", "kept"

    pipeline = batching(batch_size=("initial", function), max_demand=20000, batch_timeout=None)
    keys = [*range(10_000), 0, 10_000, 10_001, 1, 0, 10_001]
    made = book.messages(range(len(keys)))
    for message, key in zip(made, keys, strict=True):
        message.batch_key = key
    pipeline.push_messages(made)
    book.wait(len(keys), timeout=20)
    assert set(given[:10_000]) == {"initial"}
    assert given[10_000:] == ["kept", "initial", "initial", "initial", "kept", "kept"]


@pytest.mark.parametrize("answer", [None, "emit", ("emit",), ("go", 0), ("emit", 0, 0), 5], ids=repr)
def test_p13_a_wrong_result_of_the_function_fails_that_message_only(batching, batches, book, answer, caplog):
    def function(message, count):
        return answer if message.data == "bad" else ("cont", count + 1)

    pipeline = batching(batch_size=(0, function), max_demand=100)
    pipeline.push_messages(book.messages(["a", "bad", "b"]))
    book.wait(1)
    assert book.failed == ["bad"]
    assert "return ('cont', accumulator)" in str(book.reasons["bad"].exception)
    assert "batch_size raised TypeError" in caplog.text
    assert pipeline.stop().failed == 1
    assert batches.datas == [["a", "b"]]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(2), KeyboardInterrupt()], ids=repr)
def test_whatever_the_function_raises_fails_that_message_only_and_handle_failed_sees_it(launch, batches, book, error):
    failed = []

    def function(message, count):
        if message.data == 1:
            raise error
        return "cont", count

    pipeline = launch(handle_batch=batches, handle_failed=lambda messages: failed.extend(m.data for m in messages),
                      batchers={"default": Batcher(batch_size=(0, function), max_demand=5, batch_timeout=LONG)})
    pipeline.push_messages(book.messages(range(3)))
    book.wait(1)
    assert failed == [1]
    assert book.reasons[1].exception is error
    assert pipeline.stop().drained
    assert batches.datas == [[0, 2]]


def test_a_function_that_flushes_by_mode(batching, batches, book):
    given = book.messages(range(4))
    given[1].batch_mode = "flush"
    batching(batch_size=(0, lambda _, n: ("cont", n)), max_demand=10).push_messages(given)
    batches.wait(1)
    assert (batches.datas, batches.triggers) == ([[0, 1, 2, 3]], ["flush"])


def test_p17_a_function_that_does_not_return_holds_up_nobody_but_its_batcher(launch, batches, book, gate):
    begun = threading.Event()

    def function(message, count):
        if message.data == "stuck":
            begun.set()
            gate.wait(60)
        return "emit", count

    def handle_message(message):
        message.batcher = "slow" if message.data == "stuck" else "quick"

    pipeline = launch(handle_message, handle_batch=batches, batchers={
        "slow": Batcher(batch_size=(0, function), max_demand=5), "quick": Batcher(batch_size=2, batch_timeout=LONG)})
    pipeline.push_messages(book.message("stuck"))
    assert begun.wait(5)
    pipeline.push_messages(book.messages(range(7)))
    batches.wait(3)
    result = pipeline.stop(timeout=0.5)
    assert (result.drained, result.left, result.successful) == (False, 1, 7)
    assert sorted(one for datas in batches.datas for one in datas) == list(range(7))
    assert any("batcher_slow" in name for name in result.threads_alive)
    assert result.seconds < 3
    book.assert_each_once([*range(7), "stuck"])
    assert book.failed == ["stuck"]


@pytest.mark.parametrize("why", ["size", "partition", "key"])
def test_p17_what_can_join_no_batch_is_left_at_the_deadline_where_handle_failed_does_not_return(launch, book, gate, why):
    """Whichever thread called it, that of a processor or of the batcher."""
    begun = threading.Event()

    def refuse(*_):
        raise LookupError("no")

    def handle_failed(messages):
        begun.set()
        gate.wait(60)

    options = {"size": {"batch_size": (0, refuse), "max_demand": 10}, "partition": {"partition_by": refuse}, "key": {}}[why]
    pipeline = launch(handle_batch=lambda messages, info: None, handle_failed=handle_failed,
                      processors=Processors(concurrency=2), batchers={"default": Batcher(**options)})
    given = book.messages(range(5))
    if why == "key":
        for message in given:
            message.batch_key = Once(LookupError("no hash any more"))
    pipeline.push_messages(given)
    assert begun.wait(5)
    result = pipeline.stop(timeout=0.3)
    assert (result.drained, result.left, result.failed) == (False, 5, 5)
    assert sorted(book.failed) == list(range(5))
    assert pipeline.stats().held_messages == 0
    gate.set()
    until(lambda: not any(one.name.startswith(f"wsengine:{pipeline.name}:") for one in threading.enumerate()))
    book.assert_each_once(range(5))
    assert pipeline.stats().failed == 5, "counted once"


class Once:
    """A key that has a hash once, and then raises."""

    def __init__(self, error):
        self.errors = iter([None, *[error] * 100])

    def __hash__(self):
        error = next(self.errors)
        if error is not None:
            raise error
        return 1


# ---- where messages go


def test_each_message_goes_to_the_batcher_that_it_names(launch, book):
    seen = {"odd": [], "even": []}

    def handle_message(message):
        message.batcher = "odd" if message.data % 2 else "even"

    def handle_batch(messages, info):
        seen[info.batcher] += [message.data for message in messages]

    pipeline = launch(handle_message, handle_batch=handle_batch,
                      batchers={"odd": Batcher(batch_size=3), "even": Batcher(batch_size=5)})
    pipeline.push_messages(book.messages(range(100)))
    pipeline.stop()
    assert seen == {"odd": list(range(1, 100, 2)), "even": list(range(0, 100, 2))}


def test_p7_a_batcher_that_there_is_not_fails_the_message_and_no_other(batching, batches, book, caplog):
    def handle_message(message):
        if message.data == 1:
            message.batcher = "nowhere"

    pipeline = batching(handle_message, batch_size=2)
    pipeline.push_messages(book.messages(range(3)))
    book.wait(3)
    assert (book.failed, batches.datas) == ([1], [[0, 2]])
    assert "'nowhere'" in str(book.reasons[1].exception)
    assert "'default'" in str(book.reasons[1].exception), "the remedy names those that there are"
    assert "handle_message raised ConfigurationError" in caplog.text
    assert pipeline.stats().processors[0].failed == 1


def test_p7_a_failed_message_needs_no_batcher(batching, batches, book):
    def handle_message(message):
        message.batcher = "nowhere"
        message.fail("as wanted")

    batching(handle_message).push_messages(book.message("x"))
    book.wait(1)
    assert book.reasons["x"].reason == "as wanted"


def test_what_fails_in_the_processor_is_acknowledged_there_and_not_batched(batching, batches, book):
    def handle_message(message):
        if message.data % 2:
            raise ValueError("odd")

    batching(handle_message, batch_size=5).push_messages(book.messages(range(10)))
    book.wait(10)
    assert (book.ok, book.failed) == ([0, 2, 4, 6, 8], [1, 3, 5, 7, 9])
    assert batches.datas == [[0, 2, 4, 6, 8]]


def test_messages_of_a_chunk_handler_are_batched_as_well(launch, batches, book):
    def handle_messages(messages):
        for message in messages:
            message.batch_key = message.data % 2

    pipeline = launch(handle_messages=handle_messages, handle_batch=batches,
                      batchers={"default": Batcher(batch_size=5, batch_timeout=LONG)})
    pipeline.push_messages(book.messages(range(10)))
    batches.wait(2)
    assert sorted(batches.datas) == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


# ---- order and concurrency


def test_p33_batches_of_one_key_are_handled_one_after_the_other_and_in_order_by_several_threads(launch, book):
    """Unlike the ancestor (B-4), for which this holds only with partitions."""
    busy, most, order, lock, threads = Counter(), Counter(), {}, threading.Lock(), set()

    def handle_message(message):
        message.batch_key = message.data[0]

    def handle_batch(messages, info):
        with lock:
            threads.add(threading.current_thread().name)
            busy[info.batch_key] += 1
            busy[None] += 1
            most[info.batch_key] = max(most[info.batch_key], busy[info.batch_key])
            most[None] = max(most[None], busy[None])
            order.setdefault(info.batch_key, []).extend(message.data for message in messages)
        time.sleep(0.002)
        with lock:
            busy[info.batch_key] -= 1
            busy[None] -= 1

    datas = [(key, i) for i in range(150) for key in "abc"]
    pipeline = launch(handle_message, handle_batch=handle_batch, processors=Processors(max_demand=50),
                      batchers={"default": Batcher(concurrency=4, batch_size=5)})
    pipeline.push_messages(book.messages(datas))
    book.wait(450)
    assert [most[key] for key in "abc"] == [1, 1, 1]
    assert most[None] > 1, "different keys are handled at the same time"
    assert len(threads) > 1
    assert order == {key: [(key, i) for i in range(150)] for key in "abc"}


def test_a_blocked_key_holds_up_no_other(launch, book, gate):
    done = []

    def handle_message(message):
        message.batch_key = message.data[0]

    def handle_batch(messages, info):
        if info.batch_key == "blocked":
            gate.wait(60)
        done.append(messages[0].data)

    pipeline = launch(handle_message, handle_batch=handle_batch, batchers={"default": Batcher(concurrency=2, batch_size=1)})
    free = [("free", i) for i in range(20)]
    pipeline.push_messages(book.messages([("blocked", 0), ("blocked", 1), *free, ("blocked", 2)]))
    until(lambda: len(done) == 20)
    assert done == free
    gate.set()
    until(lambda: len(done) == 23)
    assert done[20:] == [("blocked", 0), ("blocked", 1), ("blocked", 2)]


def test_batches_of_different_keys_are_handled_at_the_same_time(launch, book):
    """Different batches are begun by whoever has time."""
    barrier = threading.Barrier(3, timeout=20)

    def handle_message(message):
        message.batch_key = message.data

    def handle_batch(messages, info):
        barrier.wait()

    pipeline = launch(handle_message, handle_batch=handle_batch, batchers={"default": Batcher(concurrency=3, batch_size=1)})
    pipeline.push_messages(book.messages(range(3)))
    book.wait(3, 20)
    assert sorted(book.ok) == [0, 1, 2]


# ---- demand


def test_a_batcher_that_is_behind_holds_the_processors_back(batching, book, gate):
    handled = []
    pipeline = batching(lambda message: handled.append(message.data), processors=Processors(max_demand=4), batch_size=5,
                        max_demand=20, handle_batch=lambda messages, info: gate.wait(60) and None)
    pushed = pipeline.push_messages(book.messages(range(500)), timeout=5)
    assert pushed == 500
    until(lambda: pipeline.stats().batchers[0].waiting > 10)
    time.sleep(0.2)
    assert 15 < len(handled) < 25 + 4, "one batch in hand, the bound, and at most the chunk that reached it"
    assert pipeline.stats().depth == 500 - len(handled)
    gate.set()
    book.wait(500)
    assert book.ok == list(range(500))


def test_the_bound_is_for_each_processor(launch, book, gate):
    pipeline = launch(handle_batch=lambda messages, info: gate.wait(60) and None,
                      processors=Processors(concurrency=3, max_demand=4),
                      batchers={"default": Batcher(batch_size=5, max_demand=20)})
    pipeline.push_messages(book.messages(range(500)))
    until(lambda: pipeline.stats().batchers[0].waiting > 30)
    time.sleep(0.2)
    assert 30 < pipeline.stats().batchers[0].waiting < 60 + 3 * 4 + 5
    gate.set()
    book.wait(500)
    book.assert_each_once(range(500))


def test_a_batcher_that_is_stuck_leaves_the_others_alone_until_the_pipeline_is_full(launch, book, gate):
    done = []

    def handle_message(message):
        message.batcher = "stuck" if message.data % 2 else "free"

    def handle_batch(messages, info):
        if info.batcher == "stuck":
            gate.wait(60)
        done.extend(message.data for message in messages)

    pipeline = launch(handle_message, handle_batch=handle_batch, max_queue=512, processors=Processors(max_demand=10),
                      batchers={name: Batcher(batch_size=4, max_demand=8, batch_timeout=0.05) for name in ("stuck", "free")})
    pipeline.push_messages(book.messages(range(400)))
    until(lambda: len(done) == 200)
    assert done == list(range(0, 400, 2))
    pushed = pipeline.push_messages(book.messages(range(400, 2400)), timeout=1)
    assert pushed < 2000, "the stuck one's messages count, so the pipeline is full at its bound"
    assert pipeline.stats().held_messages <= 512
    gate.set()
    book.wait(400 + pushed, 20)
    book.assert_each_once(range(400 + pushed))


def test_messages_in_batches_count_for_the_bound_until_they_are_acknowledged(batching, book, gate):
    pipeline = batching(batch_size=8, handle_batch=lambda messages, info: gate.wait(60) and None)
    given = [Message(bytes(1000), acknowledger=(book, "ref", None)) for _ in range(24)]
    pipeline.push_messages(given)
    until(lambda: pipeline.stats().batchers[0].held == 24)
    held = pipeline.stats()
    assert held.held_messages == 24
    assert held.held_bytes == 24 * 1000
    gate.set()
    book.wait(24)
    until(lambda: pipeline.stats().held_messages == 0)
    assert pipeline.stats().held_bytes == 0


def test_what_small_messages_take_as_objects_counts_for_the_bound(batching, book, gate):
    """They would else be as many as max_queue says, and take many times max_queue_bytes."""
    pipeline = batching(max_queue_bytes=100_000, handle_batch=lambda messages, info: gate.wait(60) and None, batch_size=5)
    done = pipeline.push_messages(book.messages(str(number) for number in range(1000)), timeout=0.5)
    assert 120 < done < 135, "768 bytes each"
    gate.set()
    pipeline.stop()
    assert (book.total, pipeline.stats().held_bytes) == (done, 0)


@pytest.mark.parametrize("function", [None, lambda message, count: ("cont", count)], ids=["number", "function"])
def test_a_pipeline_that_is_full_of_open_batches_emits_them(batching, batches, book, function):
    """Nothing else could make room: the batches wait for messages, and the messages for room."""
    def handle_message(message):
        message.batch_key = message.data

    size = {"batch_size": 10} if function is None else {"batch_size": (0, function), "max_demand": 10}
    pipeline = batching(handle_message, max_queue_bytes=50_000, batch_timeout=None, **size)
    assert pipeline.push_messages(book.messages(str(number) for number in range(3000)), timeout=20) == 3000
    pipeline.stop()
    assert len(batches.seen) == 3000
    assert set(batches.triggers) == {"flush"}
    book.assert_each_once(map(str, range(3000)))


def test_stats_tell_of_each_batcher(batching, book, gate):
    pipeline = batching(batch_size=3, handle_batch=lambda messages, info: gate.wait(60) and None)
    pipeline.push_messages(book.messages(range(10)))
    until(lambda: pipeline.stats().batchers[0].waiting == 6)
    [batcher] = pipeline.stats().batchers
    assert (batcher.key, batcher.held, batcher.open_batches, batcher.failed) == ("default", 10, 1, 0)
    assert [one.index for one in batcher.batch_processors] == [0]
    gate.set()
    pipeline.stop()
    [batcher] = pipeline.stats().batchers
    [one] = batcher.batch_processors
    assert (batcher.held, batcher.waiting, batcher.open_batches) == (0, 0, 0)
    assert (one.batches, one.successful, one.failed) == (4, 10, 0)
    assert one.busy_seconds > 0
    assert pipeline.topology()["batchers"] == [
        {"name": f"wsengine:{pipeline.name}:batcher_default", "batcher_key": "default", "concurrency": 1}]


def test_a_pipeline_with_batchers_starts_again(batching, batches, book):
    pipeline = batching(batch_size=2)
    for first in (0, 10):
        pipeline.push_messages(book.messages([first, first + 1, first + 2]))
        assert pipeline.stop().successful == 3
        pipeline.start()
    assert batches.datas == [[0, 1], [2], [10, 11], [12]]
