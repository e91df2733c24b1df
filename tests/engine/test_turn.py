"""Turns: one thread at a time, and no exception of a signal's handler leaves one taken."""

import os
import signal
import threading
import time

import pytest

from wsengine.engine.turn import BUSY, Turn


def test_a_body_runs_with_its_arguments_and_gives_its_result():
    turn = Turn()
    assert turn.take(0, divmod, 7, 2) == (3, 1)
    assert (turn.taken, turn.mine) == (False, False)


def test_within_the_turn_it_is_ours_and_taken():
    turn = Turn()
    assert turn.take(0, lambda: (turn.mine, turn.taken, turn.take(0.001, len, "x") is BUSY)) == (True, True, True)


def test_an_exception_passes_through_and_ends_the_turn():
    turn = Turn()
    with pytest.raises(ZeroDivisionError):
        turn.take(0, divmod, 1, 0)
    assert not turn.taken


def test_another_thread_waits_for_its_turn_as_long_as_it_is_told():
    turn, begun, gate, results = Turn(), threading.Event(), threading.Event(), []

    def hold():
        begun.set()
        assert gate.wait(10)

    holder = threading.Thread(target=turn.take, args=(0, hold))
    holder.start()
    assert begun.wait(10)
    assert not turn.mine
    assert turn.take(0, len, "x") is BUSY
    assert turn.take(0.01, len, "x") is BUSY
    waiting = threading.Thread(target=lambda: results.append(turn.take(-1, len, "xyz")))
    waiting.start()
    gate.set()
    for one in (holder, waiting):
        one.join(10)
    assert results == [3]


class Signalled(Exception):
    pass


def test_a_signals_handler_that_raises_anywhere_leaves_no_turn_taken():
    """A lock that is taken by a call, and given back by a `finally` behind it, is lost within some ten signals here. The
    handler raises once each time that it is armed: only the turn is put to the test, never the test's own waiting."""
    turn, over, armed, raised = Turn(), threading.Event(), [False], 0

    def handle(*_):
        if armed[0]:
            armed[0] = False
            raise Signalled

    def disturb():
        while not over.wait(0.001):
            os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    thread = threading.Thread(target=disturb)
    thread.start()
    deadline = time.monotonic() + 60
    try:
        while raised < 300:
            assert time.monotonic() < deadline
            try:
                armed[0] = True
                while True:
                    assert turn.take(0, len, "x") == 1, "the turn is lost"
            except Signalled:
                raised += 1
    finally:
        armed[0] = False
        over.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
