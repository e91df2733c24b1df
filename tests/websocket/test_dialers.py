"""The pool of dialers: each attempt is done exactly once, at most eight at a time, in threads that end by themselves."""

from __future__ import annotations

import threading
import time

import pytest

from wsengine import Backoff, WebSocketProducer
from wsengine.testing import Collector, ScriptedServer, steps
from wsengine.websocket import dialers as dialers_module
from wsengine.websocket.dialers import MOST, Dialers

pytestmark = pytest.mark.usefixtures("no_leaks")


class Results:
    """Collects what the pool reports."""

    def __init__(self):
        self.all = []
        self._arrival = threading.Condition()

    def __call__(self, index, epoch, result):
        with self._arrival:
            self.all.append((index, epoch, result, threading.current_thread().name))
            self._arrival.notify_all()

    def wait(self, count):
        with self._arrival:
            assert self._arrival.wait_for(lambda: len(self.all) >= count, 5), self.all
            return list(self.all)


def test_an_attempt_is_done_in_a_named_thread_and_reported_with_its_generation():
    results = Results()
    dialers = Dialers("wsengine:p:producer_0", lambda index, epoch: ("socket", index, epoch), results)
    dialers.dial(3, 7)
    [(index, epoch, result, thread)] = results.wait(1)
    assert (index, epoch, result) == (3, 7, ("socket", 3, 7))
    assert thread == "wsengine:p:producer_0:dialer_0"
    assert dialers.join(1) == []


@pytest.mark.parametrize("error", [OSError("refused"), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_what_an_attempt_raises_is_reported_and_the_pool_goes_on(error):
    def attempt(index, epoch):
        if index == 0:
            raise error
        return "socket"

    results = Results()
    dialers = Dialers("d", attempt, results)
    dialers.dial(0, 1)
    assert results.wait(1)[0][2] is error
    dialers.dial(1, 1)
    assert results.wait(2)[1][2] == "socket"
    dialers.join(1)


def test_no_more_than_eight_attempts_run_at_a_time_and_all_of_them_are_done_once():
    running, most, lock, gate = 0, 0, threading.Lock(), threading.Event()

    def attempt(index, epoch):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait(5)
        with lock:
            running -= 1
        return index

    results = Results()
    dialers = Dialers("d", attempt, results)
    for index in range(50):
        dialers.dial(index, 1)
    deadline = time.monotonic() + 5
    while most < MOST and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert most == MOST == 8
    assert results.all == []
    gate.set()
    assert sorted(index for index, *_ in results.wait(50)) == list(range(50))
    assert dialers.join(1) == []
    assert len(results.all) == 50


def no_threads(monkeypatch, count=10**6):
    """Let the system have no thread for the next `count` dialers: a real shortage would hit the whole test run."""
    left, real = [count], dialers_module.spawn

    def spawn(name, body):
        left[0] -= 1
        if left[0] >= 0:
            raise RuntimeError("can't start new thread")
        return real(name, body)

    monkeypatch.setattr(dialers_module, "spawn", spawn)


def test_without_a_thread_an_attempt_fails_as_an_oserror_and_the_next_one_is_done(monkeypatch):
    no_threads(monkeypatch, 20)
    results = Results()
    dialers = Dialers("d", lambda index, epoch: "socket", results)
    for index in range(20):  # more than MOST: none of them stays counted as a thread
        dialers.dial(index, 1)
    failed = results.wait(20)
    assert [(index, epoch) for index, epoch, *_ in failed] == [(index, 1) for index in range(20)]
    assert {type(result) for _, _, result, _ in failed} == {BlockingIOError}
    assert "no thread for the attempt: can't start new thread" in str(failed[0][2])
    dialers.dial(20, 1)
    assert results.wait(21)[20][:3] == (20, 1, "socket")
    assert dialers.join(1) == []
    assert len(results.all) == 21


def test_without_another_thread_an_attempt_waits_for_those_that_there_are(monkeypatch):
    gate, results = threading.Event(), Results()
    dialers = Dialers("d", lambda index, epoch: gate.wait(5), results)
    dialers.dial(0, 1)
    no_threads(monkeypatch)
    dialers.dial(1, 1)
    assert results.all == []
    gate.set()
    assert [index for index, *_ in results.wait(2)] == [0, 1]
    assert dialers.join(1) == []


def test_a_pipeline_outlives_a_shortage_of_threads(monkeypatch):
    no_threads(monkeypatch, 3)
    with ScriptedServer([[steps.accept(), steps.text("a"), steps.serve()]]) as server:
        one = WebSocketProducer(server.url, retry=Backoff(0.02, factor=1, jitter="none"))
        with Collector(one) as pipeline:
            assert [message.data for message in pipeline.wait(1)] == [b"a"]
            assert one.connections[0].epoch == 4


def test_threads_end_when_there_is_nothing_to_dial_and_come_back_when_there_is():
    results = Results()
    dialers = Dialers("d", lambda index, epoch: None, results)
    for round_ in range(1, 4):
        dialers.dial(0, round_)
        results.wait(round_)
        assert dialers.join(1) == []
        assert not [one for one in threading.enumerate() if one.name.startswith("d:dialer")]


def test_a_dial_queued_from_within_a_report_is_done():
    done = threading.Event()

    def report(index, epoch, result):
        if epoch < 100:
            dialers.dial(index, epoch + 1)
        else:
            done.set()

    dialers = Dialers("d", lambda index, epoch: None, report)
    dialers.dial(0, 1)
    assert done.wait(5)
    dialers.join(1)


def test_join_names_the_threads_that_are_still_there():
    gate, results = threading.Event(), Results()
    dialers = Dialers("d", lambda index, epoch: gate.wait(5), results)
    dialers.dial(0, 1)
    assert dialers.join(0.05) == ["d:dialer_0"]
    gate.set()
    results.wait(1)
    assert dialers.join(1) == []
