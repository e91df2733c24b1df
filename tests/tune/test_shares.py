"""Shares of a thread's time: what a line of the system says, and what many looks come to; then real threads, looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections import Counter

import pytest

from wsengine.tune.sampling import Sampler, can_look
from wsengine.tune.shares import FUTEX, Looks, Shares, busiest, classified, mean

RUNTIME = range(0x7F0000001000, 0x7F0000002000)


@pytest.mark.parametrize(("line", "state"), [
    ("running\n", "awake"), ("", "awake"), ("-1 0x7ffd 0x401000", "awake"),
    ("202 0x7f0000001500 0x189 0x0 0x7ff 0x0 0xffffffff 0x7ffd 0x401000", "gil"),
    ("202 0x5560000 0x189 0x0 0x0 0x0 0xffffffff 0x7ffd 0x401000", "blocked"),  # a lock
    ("202 0x5560000 0x80 0x7 0x7ff 0x0 0x0 0x7ffd 0x401000", "idle"),
    ("232 0x5 0x7ffd 0x40 0xffffffff 0x0 0x0 0x7ffd 0x401000", "idle"),
    ("230 0x1 0x0 0x7ffd 0x0 0x0 0x0 0x7ffd 0x401000", "blocked"),              # a sleep
    ("0 0x5 0x7ffd 0x40 0x0 0x0 0x0 0x7ffd 0x401000", "blocked"),               # a read
])
def test_a_line_tells_the_state(line, state):
    assert classified(line, "x86_64", RUNTIME) == state


def test_numbers_of_calls_are_those_of_the_machine():
    line = "98 0x7f0000001500 0x189 0x0 0x7ff 0x0 0xffffffff 0x7ffd 0x401000"
    assert classified(line, "aarch64", RUNTIME) == "gil"
    assert classified(line, "x86_64", RUNTIME) == "blocked"
    assert "riscv64" not in FUTEX  # there nothing is looked at


def test_what_the_system_counted_is_exact_and_the_rest_is_in_the_proportions_seen():
    looks = Looks(Counter(awake=50, gil=30, blocked=10, idle=10), ran=0.4, ready=0.1, seconds=1.0)
    shares = looks.shares()
    assert (shares.running, shares.core) == (0.4, 0.1)
    assert (shares.gil, shares.blocked, shares.idle) == pytest.approx((0.3, 0.1, 0.1))


def test_a_thread_that_was_never_seen_asleep_is_idle_for_the_rest():
    assert Looks(Counter(), ran=0.25, seconds=1.0).shares() == Shares(running=0.25, idle=0.75)
    assert Looks(Counter()).shares() == Shares()
    assert Looks(Counter(awake=9), ran=1.02, seconds=1.0).shares() == Shares(running=1.0)


@pytest.mark.parametrize(("busy", "idle", "blocked"), [
    (None, 0.6, 0.3),
    (1.0, 0.0, 0.9),  # a handler that polls as the reader does: it was busy all the time
    (0.7, 0.3, 0.6),
    (0.1, 0.8, 0.1),  # what looked like a lock was before the first message
])
def test_waiting_for_work_is_held_within_what_the_engine_counted(busy, idle, blocked):
    shares = Looks(Counter(idle=60, blocked=30, gil=0), ran=0.1, seconds=1.0).shares(busy)
    assert (shares.idle, shares.blocked) == pytest.approx((idle, blocked))


def test_the_mean_of_threads():
    assert mean([Shares(1.0), Shares(idle=1.0)]) == Shares(running=0.5, idle=0.5)
    assert mean([]) == busiest([]) == Shares()
    assert busiest([Shares(idle=0.9), Shares(running=0.9, idle=0.1)]) == Shares(running=0.9, idle=0.1)


THREADS = textwrap.dedent("""
    import json, sys, threading, time
    from wsengine.engine.ring import Parker
    from wsengine.tune.client import runtime_addresses

    parker, lock = Parker(), threading.Lock()
    lock.acquire()

    def compute():
        while True:
            sum(range(100))

    def sleep():
        while True:
            time.sleep(0.05)

    def park():
        while True:
            parker.wait(lambda: False, 5.0)

    bodies = {"computes": compute, "computes too": compute, "sleeps": sleep, "waits for a lock": lock.acquire, "parks": park}
    threads = {name: threading.Thread(target=body, daemon=True) for name, body in bodies.items()}
    for thread in threads.values():
        thread.start()
    time.sleep(0.2)
    print(json.dumps({"threads": {thread.native_id: name for name, thread in threads.items()},
                      "runtime": runtime_addresses()}), flush=True)
    sys.stdin.read()
""")


@pytest.mark.skipif(not can_look(os.getpid()), reason="this system does not show what threads wait for")
def test_real_threads_are_seen_doing_what_they_do():
    """Of two that compute, each has the GIL for a part of the time and waits for it in the other; the rest do neither."""
    command = [sys.executable, "-c", THREADS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        about = json.loads(child.stdout.readline())
        threads = {int(number): role for number, role in about["threads"].items()}
        with Sampler(child.pid, threads, range(*about["runtime"])) as sampler:
            time.sleep(1.5)
        child.stdin.close()
    shares = {name: looks.shares() for name, looks in sampler.named()}
    computing = [shares["computes"], shares["computes too"]]
    assert all(one.running > 0.1 for one in computing), shares
    assert sum(one.gil for one in computing) > 0.5, shares
    assert all(one.blocked < 0.1 and one.idle < 0.1 for one in computing), shares
    assert shares["sleeps"].blocked > 0.6, shares       # and waits for the GIL behind each sleep
    assert shares["waits for a lock"].blocked > 0.95, shares
    assert shares["parks"].idle > 0.95, shares
