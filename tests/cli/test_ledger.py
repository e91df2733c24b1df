"""The ledger: that it is exact whatever the order, for numbers that are missing, come twice or were never sent."""

from __future__ import annotations

import random
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsengine.cli.latencies import Latencies
from wsengine.cli.ledger import Ledger, Reckoning


def plainly(chunks, sent):
    """The same reckoning, counted number by number."""
    entries = Counter(number for chunk in chunks for number in chunk)
    missing = [number for number in range(sent) if number not in entries]
    runs = []
    for number in missing:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return Reckoning(sum(entries.values()), sum(entries.values()) - len(entries), tuple(runs),
                     sum(1 for number in entries if number >= sent))


@given(st.lists(st.lists(st.integers(0, 40), max_size=8), max_size=12), st.integers(0, 45))
def test_it_agrees_with_counting_number_by_number(chunks, sent):
    ledger = Ledger()
    for chunk in chunks:
        ledger.enter(chunk)
    assert ledger.reckon(sent) == plainly(chunks, sent)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=12), st.integers(0, 90))
def test_it_agrees_for_runs_that_overlap(runs, sent):
    chunks = [list(range(first, first + length)) for first, length in runs]
    ledger = Ledger()
    for chunk in chunks:
        ledger.enter(chunk)
    assert ledger.reckon(sent) == plainly(chunks, sent)


def test_runs_that_meet_are_merged_so_that_it_stays_small():
    ledger = Ledger()
    chunks = [range(first, first + 100) for first in range(0, 100_000, 100)]
    random.Random(7).shuffle(chunks)
    for chunk in chunks:
        ledger.enter(list(chunk))
    assert ledger.reckon(100_000) == Reckoning(100_000, 0, (), 0)
    assert ledger._ahead == []


def test_threads_may_enter_at_the_same_time():
    ledger = Ledger()

    def enter(start):
        for first in range(start, 40_000, 400):
            ledger.enter(list(range(first, first + 100)))

    threads = [threading.Thread(target=enter, args=(start,)) for start in (0, 100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.reckon(40_000) == Reckoning(40_000, 0, (), 0)
    assert ledger.handled == 40_000


def test_missing_numbers_are_counted_over_all_runs():
    ledger = Ledger()
    ledger.enter([0, 1, 5])
    assert ledger.reckon(10).missing == ((2, 4), (6, 9))
    assert ledger.reckon(10).missing_count == 7


def test_percentiles_are_within_a_few_percent():
    latencies = Latencies()
    for microseconds in range(1, 1001):
        latencies.note(microseconds * 1000)
    assert latencies.percentile(0.5) == pytest.approx(500e-6, rel=0.05)
    assert latencies.percentile(0.99) == pytest.approx(990e-6, rel=0.05)
    assert latencies.percentile(1.0) == pytest.approx(1000e-6, rel=0.05)


def test_there_is_no_percentile_of_nothing_and_extremes_do_no_harm():
    latencies = Latencies()
    assert latencies.percentile(0.5) is None
    latencies.note(-5)
    latencies.note(10**15)
    assert latencies.percentile(0.5) == pytest.approx(1e-9, rel=0.05)
    assert latencies.percentile(1.0) > 60
