"""The reason, told from shares that leave no doubt."""

from __future__ import annotations

import pytest

from wsengine.tune.reason import reason_of
from wsengine.tune.setting import Point, Setting
from wsengine.tune.shares import Shares

QUIET = Shares(running=0.1, idle=0.9)
#: Of the thread that watches, where another holds the GIL all the time.
KEPT_WAITING = Shares(running=0.01, gil=0.2, blocked=0.79)


def point(processor, *, count=1, reader=QUIET, batch=None, busiest=None, main=KEPT_WAITING, **more):
    shares, threads = {"processor": processor, "reader": reader}, {"processor": count, "reader": 1, "MainThread": 1}
    shares["MainThread"] = main
    found = {"processor": busiest or processor, "reader": reader}
    if batch is not None:
        shares["batch_processor_db"], threads["batch_processor_db"] = batch, 1
        found["batch_processor_db"] = batch
    return Point(Setting(), rate=1000.0, shares=shares, busiest=found, threads=threads, **more)


@pytest.mark.parametrize(("bound", "found"), [
    ("GIL-bound", point(Shares(running=0.99))),
    ("GIL-bound", point(Shares(running=0.12, gil=0.88), count=8)),
    ("GIL-bound", point(Shares(running=0.5, core=0.5))),             # another program wants the core, too
    ("GIL-bound", point(Shares(running=0.03, gil=0.3, blocked=0.67), count=32)),
    ("GIL-bound", point(Shares(running=0.43, core=0.56), count=2)),  # the same with two
    ("GIL-bound", point(Shares(running=0.03, core=0.04, gil=0.09, blocked=0.84), count=32, main=Shares(blocked=0.98))),
    ("CPU-bound", point(Shares(running=0.5, core=0.45, gil=0.05), count=8)),  # numpy, say
    ("CPU-bound", point(Shares(running=0.88, core=0.1), main=Shares(blocked=0.99))),  # the same, one thread
    ("CPU-bound", point(Shares(running=0.3, core=0.45, idle=0.25), main=Shares(blocked=0.99))),  # others take the cores
    ("feed-bound", point(Shares(running=0.45, blocked=0.08, idle=0.47))),
    ("I/O-bound", point(Shares(running=0.1, blocked=0.5, idle=0.4), count=2)),
    ("partition-bound", point(Shares(running=0.2, idle=0.8), busiest=Shares(running=0.99), count=8, paused=0.9)),
    ("I/O-bound", point(Shares(running=0.01, blocked=0.99))),
    ("I/O-bound", point(Shares(running=0.01, gil=0.1, blocked=0.89), count=64)),
    ("I/O-bound", point(Shares(running=0.004, core=0.01, gil=0.02, blocked=0.966), count=64)),
    ("feed-bound", point(Shares(running=0.1, idle=0.9), server_idle=0.9)),
    ("feed-bound", point(Shares(running=0.3, idle=0.7), server_idle=0.0)),
    ("ring-bound", point(Shares(running=0.3, idle=0.7), reader=Shares(running=0.95), server_idle=0.5)),
    ("ring-bound", point(Shares(running=0.3, idle=0.7), paused=0.6)),
    ("batcher-bound", point(Shares(running=0.2, idle=0.8), batch=Shares(blocked=0.98, idle=0.02), paused=0.9)),
])
def test_the_reason_with_a_gil(bound, found):
    reason = reason_of(found, gil=True, cores=4)
    assert reason.bound == bound
    assert "%" in reason.evidence
    assert reason.remedy


def test_without_a_gil_cores_are_what_is_used_up():
    assert reason_of(point(Shares(running=0.95), count=4), gil=False, cores=4).bound == "CPU-bound"
    assert reason_of(point(Shares(running=0.1, blocked=0.9), count=8), gil=False, cores=4).bound == "I/O-bound"


def test_what_runs_without_the_gil_is_told_to_use_the_cores_that_there_are():
    one = point(Shares(running=0.9, core=0.1), main=Shares(blocked=0.99))
    assert "more processors" in reason_of(one, gil=True, cores=4).remedy
    four = point(Shares(running=0.9, core=0.1), main=Shares(blocked=0.99), count=4)
    assert "more cores" in reason_of(four, gil=True, cores=4).remedy


def test_all_threads_that_run_handlers_count():
    found = point(Shares(running=0.2, gil=0.1, blocked=0.7), count=1, batch=Shares(running=0.75, gil=0.25))
    assert reason_of(found, gil=True, cores=4).bound == "GIL-bound"


def test_the_busiest_batch_processor_decides_and_is_named():
    found = point(Shares(running=0.1, idle=0.9), batch=Shares(blocked=0.9, idle=0.1), paused=0.9)
    found.shares["batch_processor_db"] = Shares(blocked=0.25, idle=0.75)  # one of four: they have one key
    found.busiest["batch_processor_log"] = Shares(idle=0.99)
    reason = reason_of(found, gil=True, cores=4)
    assert reason.bound == "batcher-bound"
    assert "'db'" in reason.evidence


def test_where_threads_cannot_be_looked_at_it_says_so():
    reason = reason_of(Point(Setting(), rate=1.0), gil=True, cores=4)
    assert (reason.bound, reason.remedy) == ("unknown", "measure on Linux, on x86-64 or ARM64")
