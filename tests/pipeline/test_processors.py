"""The options of `Processors`, and the demand that they set: how much is claimed at a time, by how many threads."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter

import pytest

from wsengine import ConfigurationError, Message, Processors


def me():
    return threading.current_thread().name


@pytest.mark.parametrize(
    ("options", "path", "value", "remedy"),
    [
        ({"concurrency": 0}, "processors.concurrency", 0, "from 1 to 1024"),
        ({"concurrency": 1025}, "processors.concurrency", 1025, "from 1 to 1024"),
        ({"concurrency": True}, "processors.concurrency", True, "whole number"),
        ({"concurrency": "8"}, "processors.concurrency", "8", "whole number"),
        ({"max_demand": 0}, "processors.max_demand", 0, "from 1 to 65536"),
        ({"max_demand": 65537}, "processors.max_demand", 65537, "from 1 to 65536"),
        ({"max_demand": 1.5}, "processors.max_demand", 1.5, "whole number"),
        ({"min_demand": -1}, "processors.min_demand", -1, "at least 0"),
        ({"min_demand": None}, "processors.min_demand", None, "whole number"),
        ({"min_demand": 10, "max_demand": 10}, "processors.min_demand", 10, "below max_demand=10"),
        ({"min_demand": 11, "max_demand": 10}, "processors.min_demand", 11, "below max_demand=10"),
        ({"spin": -1}, "processors.spin", -1, "microseconds from 0 to 10000"),
        ({"spin": 10001}, "processors.spin", 10001, "from 0 to 10000"),
        ({"spin": float("nan")}, "processors.spin", None, "microseconds"),
    ],
)
def test_a_wrong_option_is_refused_with_path_value_and_remedy(options, path, value, remedy):
    """B-2, P3: unlike the ancestor, which begins, and then does nothing."""
    with pytest.raises(ConfigurationError) as caught:
        Processors(**options)
    assert caught.value.path == path
    assert value is None or caught.value.value == value
    assert remedy in caught.value.remedy


def test_an_unknown_option_of_processors_is_refused_by_name():
    with pytest.raises(ConfigurationError, match=r"processors\.max_demands=<int>: .*did you mean 'max_demand'"):
        Processors(max_demands=3)


def chunks_of(launch, gate, count, **options):
    """Sizes of the chunks in which `count` messages are claimed that wait together behind a blocked first one."""
    sizes, begun = [], threading.Event()

    def handle_messages(messages):
        if messages[0].data == "first":
            begun.set()
            gate.wait(10)
        else:
            sizes.append(len(messages))

    pipeline = launch(handle_messages=handle_messages, processors=Processors(**options))
    pipeline.push_messages(Message("first"))
    assert begun.wait(5)
    pipeline.push_messages([Message(i) for i in range(count)])
    gate.set()
    assert pipeline.stop().drained
    return sizes


@pytest.mark.parametrize(
    ("min_demand", "max_demand", "count", "expected"),
    [
        (5, 10, 20, [5, 5, 5, 5]),
        (0, 10, 20, [10, 10]),
        (0, 1, 4, [1, 1, 1, 1]),
        (9, 10, 3, [1, 1, 1]),
        (0, 10, 23, [10, 10, 3]),
        (0, 65536, 300, [256, 44]),
    ],
)
def test_a_chunk_is_what_min_and_max_demand_leave(launch, gate, min_demand, max_demand, count, expected):
    """P1, P2; B-22: how much is claimed at a time is the user's to say."""
    assert chunks_of(launch, gate, count, min_demand=min_demand, max_demand=max_demand) == expected


def test_no_processor_ever_holds_more_than_max_demand(launch, book):
    """P4."""
    highest = []

    def handle_message(message):
        highest.append(max(one.outstanding for one in pipeline.stats().processors))

    pipeline = launch(handle_message, processors=Processors(concurrency=3, min_demand=2, max_demand=7))
    pipeline.push_messages(book.messages(range(300)))
    book.wait(300)
    assert max(highest) <= 7
    assert max(highest) > 1


def test_a_burst_spreads_over_all_idle_processors(launch, book):
    """B-22, P4: unlike the ancestor, where it goes to one of them as a block."""
    seen = Counter()

    def handle_message(message):
        time.sleep(0.002)
        seen[me()] += 1

    pipeline = launch(handle_message, processors=Processors(concurrency=8, max_demand=100))
    pipeline.push_messages(book.messages(range(80)))
    book.wait(80)
    assert len(seen) == 8
    assert max(seen.values()) <= 40


def test_single_arrivals_rotate_over_idle_processors(launch, book, eventually):
    """P4."""
    seen = []
    pipeline = launch(lambda message: seen.append(me()), processors=Processors(concurrency=4))
    for i in range(40):
        eventually(lambda: pipeline.stats().held_messages == 0)
        time.sleep(0.002)  # so that the one before is waiting again, behind the others
        pipeline.push_messages(book.message(i))
        book.wait(i + 1)
    counts = Counter(seen)
    assert len(counts) == 4
    assert max(counts.values()) <= 20


def test_concurrency_is_the_number_of_handlers_that_run_at_once(launch, book):
    for concurrency in (1, 3):
        together = threading.Barrier(concurrency)
        pipeline = launch(lambda message, together=together: [None, together.wait(5)][0],
                          processors=Processors(concurrency=concurrency, max_demand=1))
        pipeline.push_messages(book.messages(range(concurrency)))
        result = pipeline.stop()
        assert (result.successful, result.failed) == (concurrency, 0)


def test_one_processor_handles_in_the_order_of_arrival(launch):
    seen = []
    pipeline = launch(lambda message: seen.append(message.data), processors=Processors(concurrency=1, max_demand=7))
    pipeline.push_messages(Message(i) for i in range(1000))
    pipeline.stop()
    assert seen == list(range(1000))


def test_spin_spends_processor_time_instead_of_sleeping(launch, book):
    spent = []
    for spin, total in zip((0, 10000), itertools.count(60, 60), strict=False):
        pipeline = launch(processors=Processors(spin=spin))
        before = time.process_time()
        for i in range(60):
            pipeline.push_messages(book.message((spin, i)))
            time.sleep(0.006)
        spent.append(time.process_time() - before)
        book.wait(total)
        pipeline.stop()
    assert spent[1] > 2 * spent[0] + 0.03       # of 0.36 s or more; a busy machine leaves it less of them
