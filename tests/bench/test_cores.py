"""How many cores count, and what share of them was idle, by what Linux writes in /proc and /sys."""

from __future__ import annotations

import os

import pytest

from wsengine.testing.peers.cores import Group, Look, granted, idle_share, look, paths_of, ticks, usable_cores, used

#: user nice system idle iowait irq softirq steal guest guest_nice
STAT = """\
cpu  600 20 100 1000 30 4 6 240 500 10
cpu0 500 20 50 300 10 2 4 114 400 10
cpu1 100 0 50 700 20 2 2 126 100 0
cpu10 1 1 1 1 1 1 1 1 0 0
intr 12345 1 2 3
ctxt 99
"""


@pytest.mark.parametrize(("cores", "idle", "total"), [({0}, 310, 1000), ({1}, 720, 1000), ({0, 1}, 1030, 2000), ({7}, 0, 0)])
def test_guests_are_counted_once_and_stolen_time_is_not_idle(cores, idle, total):
    assert ticks(STAT, cores) == (idle, total)


def test_a_kernel_without_the_later_fields():
    assert ticks("cpu0 1 2 3 4\n", {0}) == (4, 10)


@pytest.mark.parametrize(("limit", "cores"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("20000 100000\n", 0.2)])
def test_a_quota_is_so_many_cores(limit, cores):
    assert granted(limit) == cores


def test_what_a_group_has_used():
    assert used("usage_usec 4200\nuser_usec 4000\nsystem_usec 200\nnr_periods 3\n") == 4200


@pytest.mark.parametrize(("membership", "paths"), [
    ("0::/\n", ["."]),
    ("0::/pod/one\n", ["pod/one", "pod", "."]),
    ("4:memory:/elsewhere\n1:cpu:/\n0::/own\n", ["own", "."]),
    ("0::/../other\n", ["."]),
    ("4:memory:/elsewhere\n", []),
])
def test_a_group_is_bounded_by_those_around_it(membership, paths):
    assert paths_of(membership) == paths


def test_the_scarcest_sets_the_idle_share():
    before = Look(0, 100, 1000, {"one": Group(1.5, 0), "two": Group(4.0, 0), "gone": Group(1.0, 0)})
    assert idle_share(before, Look(10**9, 700, 2000, {})) == 0.6
    assert idle_share(before, Look(10**9, 700, 2000, {"one": Group(1.5, 750_000)})) == 0.5
    assert idle_share(before, Look(10**9, 700, 2000, {"one": Group(1.5, 1_600_000), "two": Group(4.0, 0)})) == 0.0


def test_where_nothing_is_known_nothing_is_blamed():
    assert idle_share(Look(0, 0, 0, {}), Look(10**9, 0, 0, {})) == 1.0


def test_this_machine():
    assert 0 < usable_cores() <= len(os.sched_getaffinity(0))
    before = look()
    assert 0 <= idle_share(before, look()) <= 1
