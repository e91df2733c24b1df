"""Behaviour of `Ring`, `Parker` and `Account` as Python sees them, with real threads against each other.

Memory orders are proven elsewhere, on models; what a reader does with these structures is tested with the reader.
"""

import gc
import os
import random
import subprocess
import sys
import threading
import time

import pytest

from tests.threads import Threads
from tests.waiting import until
from wsengine.engine.ring import Account, Parker, Ring
from wsengine.errors import ConfigurationError


def made(capacity=16, *, slab_bytes=4096, max_messages=2**20, max_bytes=2**30):
    """A ring with an account and a parker of its own."""
    return Ring(capacity, Account(max_messages, max_bytes), Parker(), slab_bytes=slab_bytes)


def numbers(first, count):
    return [b"%d" % number for number in range(first, first + count)]


# ---------------------------------------------------------------------------------------------------------------- Ring

def test_a_new_ring_is_empty():
    ring = made(8)
    assert (ring.capacity, ring.depth, ring.slabs) == (8, 0, 0)
    assert ring.claim(10) == []
    assert ring.account.messages == ring.account.bytes == 0


def test_payloads_come_out_whole_and_in_order():
    ring = made(64)
    payloads = [b"", b"\0", b"text", bytes(4096), bytes(4097), random.Random(1).randbytes(100_000)]
    assert ring.push(payloads) == len(payloads)
    assert ring.depth == len(payloads)
    assert ring.claim(100) == payloads
    assert ring.depth == 0


def test_any_contiguous_buffer_can_be_pushed():
    ring = made()
    assert ring.push([bytearray(b"array"), memoryview(b"view"), b"bytes"]) == 3
    assert ring.claim(3) == [b"array", b"view", b"bytes"]
    assert ring.push(iter([b"from an iterator"])) == 1
    assert ring.push([]) == 0


def test_claim_takes_no_more_than_asked_and_no_more_than_256():
    ring = made(1024)
    ring.push(numbers(0, 600))
    assert ring.claim(0) == []
    assert ring.claim(1) == [b"0"]
    assert ring.claim(9) == numbers(1, 9)
    assert ring.claim(500) == numbers(10, 256)
    assert ring.claim(500) == numbers(266, 256)
    assert ring.claim(500) == numbers(522, 78)
    assert ring.claim(500) == []


@pytest.mark.parametrize("capacity", [2, 4, 256, 1024])
def test_a_full_ring_takes_nothing_more_and_loses_nothing(capacity):
    ring = made(capacity)
    assert ring.push(numbers(0, capacity + 3)) == capacity
    assert ring.push([b"more"]) == 0
    assert ring.account.messages == ring.depth == ring.slabs == capacity
    taken = []
    while chunk := ring.claim(256):
        taken += chunk
    assert taken == numbers(0, capacity)
    assert ring.account.messages == ring.account.bytes == ring.slabs == 0


def test_what_did_not_fit_is_the_end_of_what_was_given_even_if_room_appears_meanwhile():
    ring = made(256)
    claimed = []

    def payloads():
        yield from numbers(0, 512)
        claimed.extend(ring.claim(256))
        yield from numbers(512, 256)

    pushed = ring.push(payloads())
    while chunk := ring.claim(256):
        claimed += chunk
    assert claimed == numbers(0, pushed)


@pytest.mark.parametrize("capacity", [2, 8, 64])
def test_many_laps_around_the_ring_keep_the_order(capacity, seed):
    chance = random.Random(seed)
    ring = made(capacity)
    pushed = taken = 0
    while taken < 300 * capacity:
        pushed += ring.push(numbers(pushed, chance.randint(0, capacity + 1)))
        chunk = ring.claim(chance.randint(0, capacity + 1))
        assert chunk == numbers(taken, len(chunk))
        taken += len(chunk)
        assert ring.depth == pushed - taken == ring.account.messages
    assert pushed - taken <= capacity


def test_a_payload_that_is_no_buffer_is_refused_and_leaves_nothing_behind():
    ring = made()
    with pytest.raises(TypeError):
        ring.push([b"good", "a string"])
    while ring.claim(16):
        pass
    gc.collect()
    assert (ring.slabs, ring.account.messages, ring.account.bytes) == (0, 0, 0)


def test_slabs_are_charged_at_their_capacity_until_their_payload_is_claimed():
    ring = made(slab_bytes=4096)
    head = 32                      # of the record of their arrival, which lies before them
    ring.push([b"x" * (4096 - head), b"x" * 10_000])
    assert ring.slabs == 2
    assert ring.account.bytes == 4096 + 10_000 + head
    assert ring.account.messages == 2
    ring.claim(1)
    assert (ring.slabs, ring.account.bytes, ring.account.messages) == (1, 10_000 + head, 1)
    ring.claim(1)
    assert (ring.slabs, ring.account.bytes, ring.account.messages) == (0, 0, 0)


def test_a_ring_gives_its_account_and_parker_back_as_it_got_them():
    account, parker = Account(10, 10), Parker()
    ring = Ring(16, account, parker)
    assert ring.account is account
    assert ring.parker is parker
    for name in ("account", "parker", "capacity", "depth", "slabs"):
        with pytest.raises(AttributeError):
            setattr(ring, name, None)


@pytest.mark.parametrize("capacity", [0, 1, 3, 100, 2**24 + 1, 2**25])
def test_a_capacity_that_is_no_power_of_two_in_range_is_refused(capacity):
    with pytest.raises(ConfigurationError) as raised:
        Ring(capacity, Account(1, 1), Parker())
    assert str(raised.value) == f"capacity={capacity}: give a power of two from 2 to 16777216"


@pytest.mark.parametrize("slab_bytes", [0, 1, 4095, 2**30 + 1])
def test_slabs_out_of_range_are_refused(slab_bytes):
    with pytest.raises(ConfigurationError) as raised:
        Ring(2, Account(1, 1), Parker(), slab_bytes=slab_bytes)
    assert str(raised.value) == f"slab_bytes={slab_bytes}: give a number of bytes from 4096 to 1073741824"


def test_a_ring_needs_an_account_and_a_parker():
    for arguments in ((4, None, Parker()), (4, Account(1, 1), None), (4, Parker(), Account(1, 1))):
        with pytest.raises(TypeError):
            Ring(*arguments)


def test_a_refused_ring_is_dropped_without_harm():
    for _ in range(100):
        with pytest.raises(ConfigurationError):
            made(3)
        with pytest.raises(ConfigurationError):
            made(4, slab_bytes=1)
    gc.collect()


def test_a_dropped_ring_gives_its_slabs_back_to_the_account():
    account = Account(100, 2**20)
    ring = Ring(16, account, Parker(), slab_bytes=4096)
    ring.push([b"x"] * 5)
    assert account.bytes >= 5
    del ring
    assert account.bytes == 0


@pytest.mark.parametrize("how", ["", "import gc; cycle = [ring]; cycle.append(cycle); del ring, account, parker",
                                 "sys.modules['kept_for_ever'] = ring", "import os; sys.exit(0)"])
def test_the_interpreter_ends_well_with_a_ring_that_is_not_empty(how):
    code = ("import sys\nfrom wsengine.engine.ring import Account, Parker, Ring\n"
            "account, parker = Account(100, 2**20), Parker()\nring = Ring(64, account, parker)\n"
            f"ring.push([b'left'] * 50)\nring.claim(3)\n{how}\n")
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, timeout=60,
                          env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")


def environment():
    """Of a child process that finds the package where this one does, and whose freed memory is overwritten."""
    return {**os.environ, "PYTHONPATH": ":".join(path for path in sys.path if path), "MALLOC_PERTURB_": "165"}


def test_each_payload_is_claimed_exactly_once_by_threads_against_each_other(seed):
    chance = random.Random(seed)
    count, consumers = 30_000, 4
    ring = made(64, max_messages=2**20)
    chunks = [[] for _ in range(consumers)]
    over = threading.Event()

    def push():
        done = 0
        while done < count:
            done += ring.push(numbers(done, min(chance.randint(1, 40), count - done)))
        over.set()

    def claim(which, sizes):
        while True:
            last = over.is_set()
            chunk = ring.claim(sizes.randint(1, 20))
            chunks[which] += chunk
            if not chunk:
                if last:
                    return
                ring.parker.wait(lambda: ring.depth, 0.01)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with Threads() as threads:
            threads.start(push)
            for which in range(consumers):
                threads.start(claim, which, random.Random(seed + which + 1))
    finally:
        sys.setswitchinterval(switch)
    for chunk in chunks:
        assert [int(one) for one in chunk] == sorted(int(one) for one in chunk)
    assert sorted(int(one) for chunk in chunks for one in chunk) == list(range(count))
    assert (ring.slabs, ring.account.messages, ring.account.bytes) == (0, 0, 0)


def test_a_push_wakes_a_consumer_that_waits():
    ring = made()
    with Threads() as threads:
        got = []

        def consume():
            while not got:
                got.extend(ring.claim(1))
                if not got:
                    ring.parker.wait(lambda: ring.depth, 20)

        threads.start(consume)
        until(lambda: ring.parker.waiters == 1)
        started = time.monotonic()
        ring.push([b"one"])
    assert got == [b"one"]
    assert time.monotonic() - started < 5


# -------------------------------------------------------------------------------------------------------------- Parker

def test_a_wait_ends_at_its_timeout():
    parker = Parker()
    started = time.monotonic()
    parker.wait(lambda: False, 0.05)
    assert 0.045 <= time.monotonic() - started < 5
    assert parker.waiters == 0


def test_a_wait_of_no_time_returns_at_once():
    started = time.monotonic()
    Parker().wait(lambda: False, 0)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("timeout", [-1e-6, -0.5, -1e300])
def test_a_wait_whose_time_is_over_returns_at_once(timeout):
    parker = Parker()
    with Threads() as threads:
        waiting = threads.start(parker.wait, lambda: False, timeout)
        waiting.join(1)
        returned = not waiting.is_alive()
        parker.notify_all()
    assert returned, "it sleeps until somebody notifies it"


def test_a_wait_longer_than_the_clock_lasts_until_it_is_notified():
    parker = Parker()
    with Threads() as threads:
        waiting = threads.start(parker.wait, lambda: False, float("inf"))
        until(lambda: parker.waiters == 1)
        waiting.join(0.1)
        assert waiting.is_alive()
        assert parker.notify()


def test_nobody_waits_if_there_is_something_to_do():
    parker = Parker()
    started = time.monotonic()
    parker.wait(lambda: ["work"], 20)
    assert time.monotonic() - started < 5
    assert parker.waiters == 0


def test_whoever_looks_for_work_counts_as_waiting_already():
    parker = Parker()
    seen = []
    parker.wait(lambda: seen.append(parker.waiters) or True, 1)
    assert seen == [1]


def test_a_notify_between_the_look_and_the_sleep_is_not_lost():
    parker = Parker()
    started = time.monotonic()
    parker.wait(lambda: not parker.notify(), 20)
    assert time.monotonic() - started < 5


def test_an_error_in_the_look_reaches_the_caller_and_leaves_nobody_waiting():
    parker = Parker()

    def broken():
        raise KeyError("look")

    with pytest.raises(KeyError, match="look"):
        parker.wait(broken, 1)
    assert parker.waiters == 0
    assert parker.notify() is False


def test_notify_with_nobody_waiting_says_so_and_is_not_remembered():
    parker = Parker()
    assert parker.notify() is False
    started = time.monotonic()
    parker.wait(lambda: False, 0.05)
    assert time.monotonic() - started >= 0.045


def test_one_wake_at_a_time_is_under_way_until_the_woken_one_arrives():
    parker, woken = Parker(), []
    with Threads() as threads:
        for which in range(2):
            threads.start(lambda which=which: (parker.wait(lambda: False, 60), woken.append(which)))
        until(lambda: parker.waiters == 2)
        time.sleep(0.1)   # they count as waiting before they sleep, and whoever does not sleep yet needs no wake
        assert parker.notify() is True
        until(lambda: woken)
        time.sleep(0.1)
        assert len(woken) == 1
        assert parker.waiters == 1
        assert parker.notify() is True
    assert sorted(woken) == [0, 1]


def test_notify_all_wakes_all():
    parker = Parker()
    started = time.monotonic()
    with Threads() as threads:
        for _ in range(5):
            threads.start(parker.wait, lambda: False, 20)
        until(lambda: parker.waiters == 5)
        parker.notify_all()
    assert time.monotonic() - started < 10
    assert parker.waiters == 0


def test_waiting_leaves_the_gil_to_others():
    parker, counted = Parker(), 0
    with Threads() as threads:
        waiting = threads.start(parker.wait, lambda: False, 0.1)
        while waiting.is_alive():
            counted += 1
    assert counted > 100


def test_no_wake_is_lost_between_threads_that_pass_a_token_around(seed):
    """Each of them sleeps without limit in practice, so a lost wake shows as a stop."""
    parkers = [Parker() for _ in range(3)]
    turn, rounds = [0], 2000

    def play(me):
        for step in range(me, rounds * 3, 3):
            deadline = time.monotonic() + 20
            while turn[0] != step:
                assert time.monotonic() < deadline, f"no wake for step {step}"
                parkers[me].wait(lambda step=step: turn[0] == step, 20)
            turn[0] = step + 1
            parkers[(me + 1) % 3].notify()

    started = time.monotonic()
    with Threads() as threads:
        for me in range(3):
            threads.start(play, me)
    assert turn[0] == rounds * 3
    assert time.monotonic() - started < 15


# ------------------------------------------------------------------------------------------------------------- Account

def test_an_account_counts_messages_and_bytes():
    account = Account(10, 1000)
    assert (account.messages, account.bytes, account.max_messages, account.max_bytes) == (0, 0, 10, 1000)
    account.charge(3, 700)
    assert (account.messages, account.bytes) == (3, 700)
    account.release(1, 200)
    assert (account.messages, account.bytes) == (2, 500)
    account.charge(0, 2**39 - 500)
    assert (account.messages, account.bytes) == (2, 2**39)
    account.release(2, 2**39)
    assert (account.messages, account.bytes) == (0, 0)


def test_an_account_admits_below_both_bounds():
    account = Account(3, 100)
    assert account.admits()
    account.charge(2, 99)
    assert account.admits()
    account.charge(1, 0)
    assert not account.admits()
    account.release(1, 0)
    account.charge(0, 1)
    assert not account.admits()
    account.release(0, 1)
    assert account.admits()


def test_one_message_is_always_admitted_by_an_account_that_holds_none():
    account = Account(3, 100)
    account.charge(0, 5000)
    assert account.admits()
    account.charge(1, 0)
    assert not account.admits()


def test_threads_that_charge_and_release_leave_the_account_level(seed):
    account = Account(2**20, 2**30)

    def work(chance):
        for _ in range(3000):
            messages, size = chance.randint(0, 9), chance.randint(0, 10_000)
            account.charge(messages, size)
            assert account.messages >= messages
            account.release(messages, size)

    with Threads() as threads:
        for which in range(4):
            threads.start(work, random.Random(seed + which))
    assert (account.messages, account.bytes) == (0, 0)


@pytest.mark.parametrize("value", [0, 2**23 + 1, 2**63])
def test_a_bound_in_messages_out_of_range_is_refused(value):
    with pytest.raises(ConfigurationError) as raised:
        Account(value, 1)
    assert str(raised.value) == f"max_queue={value}: give a whole number from 1 to 8388608"


@pytest.mark.parametrize("value", [0, 2**39 + 1, 2**63])
def test_a_bound_in_bytes_out_of_range_is_refused(value):
    with pytest.raises(ConfigurationError) as raised:
        Account(1, value)
    assert str(raised.value) == f"max_queue_bytes={value}: give a number of bytes from 1 to 549755813888"


@pytest.mark.parametrize("arguments", [("10", 1), (1, None), (-1, 1), (1, -1), (2**64, 1)])
def test_what_is_no_count_at_all_is_refused(arguments):
    with pytest.raises((TypeError, OverflowError, ConfigurationError)):
        Account(*arguments)


def test_the_largest_bounds_are_taken():
    account = Account(2**23, 2**39)
    assert (account.max_messages, account.max_bytes) == (2**23, 2**39)
    account.charge(2**23, 2**39)
    assert (account.messages, account.bytes) == (2**23, 2**39)
