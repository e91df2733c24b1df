"""Messages taken one at a time: what they become, when they leave the account, and what is let go with the outlet."""

import gc
import threading

import pytest

from wsengine.engine.outlet import Outlet
from wsengine.engine.ring import Account, Parker, Ring


@pytest.fixture
def ring():
    return Ring(256, Account(256, 2**24), Parker(), guest=True)


def test_nothing_to_take_is_none(ring):
    outlet = Outlet(ring)
    assert not outlet.waiting
    assert outlet.take() is None
    assert outlet.take(True) is None


def test_messages_come_in_order_over_several_claims(ring):
    outlet = Outlet(ring)
    sent = [b"%d" % number for number in range(200)]
    assert ring.push(sent) == 200
    got = []
    while outlet.waiting:
        got.append(outlet.take())
    assert got == sent
    assert outlet.take() is None


def test_binary_is_bytes_unless_text_is_asked_for(ring):
    outlet = Outlet(ring)
    ring.push(["grün".encode()] * 3)
    assert [outlet.take(), outlet.take(False), outlet.take(True)] == ["grün".encode(), "grün".encode(), "grün"]


def test_what_is_no_text_raises_and_is_taken(ring):
    outlet = Outlet(ring)
    ring.push([b"\xff", b"next"])
    with pytest.raises(UnicodeDecodeError):
        outlet.take(True)
    assert outlet.take(True) == "next"
    assert ring.account.messages == 0


def test_each_leaves_the_account_when_it_is_handed_out_and_not_when_it_is_claimed(ring):
    outlet = Outlet(ring)
    ring.push([b"x" * 100] * 100)
    for left in reversed(range(100)):
        outlet.take()
        assert ring.account.messages == left
    assert (ring.account.bytes, ring.slabs) == (0, 0)


@pytest.mark.parametrize("taken", [0, 1, 64, 65])
def test_what_was_claimed_and_not_taken_is_let_go_with_the_outlet(ring, taken):
    outlet = Outlet(ring)
    ring.push([b"x" * 100] * 100)
    for _ in range(taken):
        outlet.take()
    claimed = 0 if taken == 0 else 64 if taken <= 64 else 100
    assert ring.depth == 100 - claimed
    del outlet
    gc.collect()
    assert ring.account.messages == 100 - claimed
    ring.claim(256)
    assert (ring.account.messages, ring.account.bytes, ring.slabs) == (0, 0, 0)


def test_an_outlet_keeps_its_ring():
    ring = Ring(64, Account(64, 2**20), Parker(), guest=True)
    ring.push([b"one", b"two"])
    outlet = Outlet(ring)
    del ring
    gc.collect()
    assert [outlet.take(), outlet.take(), outlet.take()] == [b"one", b"two", None]


def test_what_another_thread_pushes_is_taken_exactly_once_and_in_order(ring):
    outlet, count, got = Outlet(ring), 20_000, []

    def push():
        number = 0
        while number < count:
            some = [b"%d" % one for one in range(number, min(number + 50, count))]
            if 256 - ring.account.messages >= len(some):   # the account is charged before, and its bound is the reader's
                number += ring.push(some)

    pusher = threading.Thread(target=push)
    pusher.start()
    while len(got) < count:
        ring.parker.wait(lambda: outlet.waiting, 0.1)
        while (one := outlet.take()) is not None:
            got.append(int(one))
    pusher.join(10)
    assert got == list(range(count))


@pytest.mark.parametrize("wrong", [None, 7])
def test_an_outlet_needs_a_ring(wrong):
    with pytest.raises(TypeError):
        Outlet(wrong)
