"""The dispatcher: each frame once and in order, charges that pass on, bounds, failures, and its end.

Frames come from a slab ring that the test fills, so it decides over every one; connections are numbers here, and what the
dispatcher wants of them is written down. Generations of real connections are tests of websocket/test_sessions.py.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import sys
import threading
import time
from collections import Counter

import pytest

from wsengine import Emit, Fail, FrameHandlerError, Message, Processors, Skip, telemetry
from wsengine.engine.ring import Ring
from wsengine.pipeline.frame_handler import FrameHandler
from wsengine.pipeline.source import Producer
from wsengine.testing import capture


class Framed(Producer):
    """A producer whose ring the test fills with `put`; what its handler wants of connections is kept."""

    def __init__(self, handler, state=None, *, transformer=None):
        self.hooks = handler, state, transformer
        self.replies, self.failures, self.drops = [], [], []
        self.reply_with = lambda frames: 0

    def attach(self, host):
        self.dispatcher = host.open_dispatcher()
        self.account = host.account
        self.ring = Ring(2**16, host.account, self.dispatcher.parker, slab_bytes=4096)
        handler, state, transformer = self.hooks
        self.dispatcher.add_ring(self.ring, self, FrameHandler(handler, state, self), transformer)
        self.over = threading.Event()
        self._host = host

    def put(self, payloads):
        """As a reader does: in order, and not above the bound."""
        for payload in payloads:
            deadline = time.monotonic() + 20
            while not self.account.admits():
                assert time.monotonic() < deadline, "no room came"
                time.sleep(0.0005)
            assert self.ring.push([payload]) == 1

    # what belongs to a producer
    def run(self, inbox):
        raise AssertionError("the test fills the ring itself; nobody runs this")

    def start(self):
        return

    def drain(self):
        return

    def release(self):
        return

    def stop(self, deadline):
        return

    def alive(self):
        return []

    def stats(self):
        return {}

    # origin and sessions
    def metadata(self, message):
        return {"seq": message.seq}

    def connection(self, index):
        return self

    def reply(self, index, epoch, frames):
        self.replies += frames
        return self.reply_with(frames)

    def fail(self, index, epoch, error):
        self.failures.append(error)

    def dropped(self, index, epoch, count):
        self.drops.append(count)


@pytest.fixture
def collected():
    return []


def numbers(count, start=0):
    return [b"%d" % number for number in range(start, start + count)]


# ------------------------------------------------------------------------------------------------------------- emission


@pytest.mark.parametrize("concurrency", [1, 8])
def test_what_is_emitted_for_each_frame_is_handled_exactly_once(concurrency, launch, eventually, collected):
    """Emissions of 0, 1 and several; with one processor in order, with several each once."""

    def handler(payload, state):
        n = int(payload)
        return Emit([(n, i) for i in range(n % 4)], state + 1)

    producer = Framed(handler, 0)
    pipeline = launch(lambda m: collected.append(m.data), producers=producer,
                      processors=Processors(concurrency=concurrency, max_demand=16))
    producer.put(numbers(2000))
    expected = [(n, i) for n in range(2000) for i in range(n % 4)]
    eventually(lambda: len(collected) >= len(expected), 20)
    result = pipeline.stop()
    assert (collected if concurrency == 1 else sorted(collected)) == expected
    assert (result.successful, result.failed, result.left) == (len(expected), 0, 0)
    assert producer.dispatcher.figures(producer.ring) == {
        "taken": 2000, "emitted": len(expected), "dropped": 0, "replies_dropped": 0}
    assert producer.account.messages == 0


def test_the_handler_sees_bytes_in_order_with_the_state_that_it_returned(launch, eventually):
    seen = []

    def handler(payload, state):
        seen.append((payload, state))
        return Skip(len(seen))

    producer = Framed(handler, 0)
    launch(producers=producer)
    producer.put(numbers(1000))
    eventually(lambda: len(seen) == 1000)
    assert seen == [(b"%d" % n, n) for n in range(1000)]
    eventually(lambda: producer.account.messages == 0)


def test_handlers_run_on_one_thread_that_is_none_of_the_processors(launch, eventually):
    threads = Counter()

    def handler(payload, state):
        threads[threading.current_thread().name] += 1
        return Emit([payload], state)

    producers = [Framed(handler), Framed(handler)]
    handled = []
    pipeline = launch(lambda m: handled.append(threading.current_thread().name), producers=producers,
                      processors=Processors(concurrency=4))
    for producer in producers:
        producer.put(numbers(100))
    eventually(lambda: len(handled) == 200)
    assert threads == {f"wsengine:{pipeline.name}:dispatcher": 200}
    assert not any("dispatcher" in name for name in handled)


def test_a_pipeline_without_a_frame_handler_has_no_dispatcher(launch):
    pipeline = launch()
    assert not any("dispatcher" in one.name for one in threading.enumerate() if pipeline.name in one.name)


def test_a_payload_may_be_anything_and_a_message_of_the_handlers_own_is_taken_as_it_is(launch, book, eventually, collected):
    mine = []

    def handler(payload, state):
        mine.append(book.message(payload.decode()))
        return Emit([{"parsed": payload}, mine[-1]], state)

    producer = Framed(handler)
    launch(lambda m: collected.append(m), producers=producer)
    producer.put([b"a"])
    eventually(lambda: len(collected) == 2)
    assert collected[0].data == {"parsed": b"a"}
    assert collected[0].metadata == {"seq": 0}
    assert collected[1] is mine[0]
    book.wait(1).assert_each_once(["a"])


def test_the_transformer_runs_on_the_dispatcher_and_fails_one_message(launch, eventually, collected, caplog):
    """B-19, where a frame handler stands before it."""
    failed, where = [], set()

    def transformer(data, metadata):
        where.add(threading.current_thread().name)
        if data == b"2":
            raise ValueError("not this one")
        return None if data == b"3" else Message(data + b"!")

    producer = Framed(lambda payload, state: Emit([payload], state), transformer=transformer)
    pipeline = launch(lambda m: collected.append(m.data), producers=producer,
                      handle_failed=lambda ms: failed.extend((m.data, type(m.status.exception)) for m in ms))
    producer.put(numbers(6))
    eventually(lambda: len(collected) + len(failed) == 6)
    assert collected == [b"0!", b"1!", b"4!", b"5!"]
    assert failed == [(b"2", ValueError), (b"3", TypeError)]
    assert where == {f"wsengine:{pipeline.name}:dispatcher"}
    assert producer.failures == []
    result = pipeline.stop()
    assert (result.successful, result.failed) == (4, 2)


def test_a_message_that_was_emitted_twice_fails_the_connection(launch, eventually):
    one = Message(b"one")
    producer = Framed(lambda payload, state: Emit([one, one], state))
    launch(producers=producer)
    producer.put([b"x"])
    eventually(lambda: producer.failures)
    assert isinstance(producer.failures[0].__cause__, TypeError)
    eventually(lambda: producer.account.messages == 0)


# --------------------------------------------------------------------------------------------------------------- bounds


def test_a_slow_handler_fills_the_ring_up_to_the_bound_and_no_further(launch, eventually, gate, collected):
    def handler(payload, state):
        gate.wait(30)
        return Emit([payload], state)

    producer = Framed(handler)
    pipeline = launch(lambda m: collected.append(m.data), producers=producer, max_queue=64)
    feeding = threading.Thread(target=producer.put, args=(numbers(500),))
    feeding.start()
    eventually(lambda: producer.account.messages == 64)
    assert not producer.account.admits()
    assert pipeline.stats().held_messages == 64
    gate.set()
    feeding.join(20)
    eventually(lambda: len(collected) == 500)
    assert collected == numbers(500)


@pytest.mark.parametrize("width", [2, 10, 100], ids="each emits {}".format)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_emissions_larger_than_what_is_free_go_on_one_frame_over_the_bound_at_the_most(width, concurrency, launch,
                                                                                     eventually):
    """The account is full of frames before the first is dispatched: only handling what is emitted makes room."""
    bound, most, count = 32, [0], itertools.count()
    begin = threading.Event()

    def handler(payload, state):
        begin.wait(30)
        return Emit([payload] * width, state)

    def handle(message):
        most[0] = max(most[0], producer.account.messages)
        next(count)

    producer = Framed(handler)
    pipeline = launch(handle, producers=producer, max_queue=bound,
                      processors=Processors(concurrency=concurrency, max_demand=4))
    producer.put(numbers(bound))
    begin.set()
    eventually(lambda: pipeline.stats().successful == bound * width, 30)
    between = not getattr(sys, "_is_gil_enabled", lambda: True)()  # what it emits is charged before it is let go itself
    assert most[0] <= bound + width - 1 + between


def test_bytes_are_bounded_too(launch, eventually):
    most, begin = [0], threading.Event()

    def handler(payload, state):
        begin.wait(30)
        return Emit([bytes(10_000)], state)

    def handle(message):
        most[0] = max(most[0], producer.account.bytes)

    producer = Framed(handler)
    pipeline = launch(handle, producers=producer, max_queue_bytes=100_000)
    producer.put(numbers(8))
    begin.set()
    eventually(lambda: pipeline.stats().successful == 8, 20)
    feeding = threading.Thread(target=producer.put, args=(numbers(300),))
    feeding.start()
    feeding.join(30)
    eventually(lambda: pipeline.stats().successful == 308, 20)
    assert most[0] <= 100_000 + 10_000 + 4096 + 64
    eventually(lambda: producer.account.messages == 0)


def test_slow_processors_hold_up_the_dispatcher_and_the_ring(launch, eventually, gate):
    emitted = []

    def handler(payload, state):
        emitted.append(payload)
        return Emit([payload, payload], state)

    producer = Framed(handler)
    pipeline = launch(handle_messages=lambda ms: gate.wait(30) and None, producers=producer, max_queue=64,
                      processors=Processors(max_demand=4))
    feeding = threading.Thread(target=producer.put, args=(numbers(300),))
    feeding.start()
    eventually(lambda: not producer.account.admits())
    held = len(emitted)
    assert held <= 65
    gate.set()
    feeding.join(20)
    eventually(lambda: pipeline.stats().successful == 600, 20)


# ------------------------------------------------------------------------------------------------------------- failures

FAULTS = {
    "an exception": (lambda: 1 / 0, ZeroDivisionError),
    "SystemExit": (lambda: exec("raise SystemExit('no')"), SystemExit),
    "KeyboardInterrupt": (lambda: exec("raise KeyboardInterrupt"), KeyboardInterrupt),
    "GeneratorExit": (lambda: exec("raise GeneratorExit"), GeneratorExit),
    "a wrong result": (lambda: None, TypeError),
    "a wrong tuple": (lambda: ("emit", []), TypeError),
    "payloads that are no list": (lambda: Emit(b"x", None), TypeError),
    "replies that are no list": (lambda: Skip(None, "x"), TypeError),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_a_handler_does_wrong_fails_its_connection_once_and_drops_the_rest(fault, launch, eventually, collected,
                                                                                 caplog):
    wrong, kind = FAULTS[fault]
    producer = Framed(lambda payload, state: wrong() if payload == b"3" else Emit([payload], state))
    pipeline = launch(lambda m: collected.append(m.data), producers=producer)
    producer.put(numbers(23))
    eventually(lambda: sum(producer.drops) == 19)
    eventually(lambda: producer.account.messages == 0)
    assert collected == numbers(3)
    [failure] = producer.failures
    assert isinstance(failure, FrameHandlerError)
    assert isinstance(failure.__cause__, kind)
    assert "frame_handler raised" in caplog.text
    result = pipeline.stop()
    assert (result.drained, result.successful, result.failed) == (True, 3, 0)


async def awaited(payload, state):
    """What nobody awaits: a warning about it would be an error here."""


@pytest.mark.parametrize(("result", "text"), [
    (lambda: None, "it returned NoneType; return Emit(payloads, state), Skip(state) or Fail(reason)"),
    (lambda: Emit(b"x", None), "it emitted bytes; give a list of payloads"),
    (lambda: Skip(None, [5]), "it returned a reply of type int; give str for a text frame, bytes for a binary one"),
    (lambda: awaited(b"", None), "it returned a coroutine; make it a plain function, without async, that returns "
                                 "Emit(payloads, state), Skip(state) or Fail(reason)"),
    (lambda: [][0], "it raised IndexError"),
], ids=["None", "payloads", "replies", "a coroutine", "an exception"])
def test_a_wrong_result_is_named_with_its_remedy_in_the_error_itself(result, text, launch, eventually):
    producer = Framed(lambda payload, state: result())
    launch(producers=producer)
    producer.put(numbers(1))
    eventually(lambda: producer.failures)
    gc.collect()
    assert str(producer.failures[0]) == f"frame_handler failed the connection: {text}"


@pytest.mark.parametrize("result", [Fail("session is over", 1), ("error", "session is over", 1)], ids=["Fail", "tuple"])
def test_a_handler_that_says_so_fails_its_connection_with_the_reason(result, launch, eventually, caplog):
    producer = Framed(lambda payload, state: result)
    launch(producers=producer)
    producer.put(numbers(20))
    eventually(lambda: sum(producer.drops) == 19)
    [failure] = producer.failures
    assert failure.reason == "session is over"
    assert str(failure) == "frame_handler failed the connection: session is over"
    assert "raised" not in caplog.text


def test_a_state_that_cannot_be_made_fails_the_connection(launch, eventually):
    producer = Framed(lambda payload, state: Skip(state), lambda: 1 / 0)
    launch(producers=producer)
    producer.put(numbers(5))
    eventually(lambda: sum(producer.drops) == 5)
    assert isinstance(producer.failures[0].__cause__, ZeroDivisionError)


def test_replies_are_handed_on_in_order_and_those_that_come_too_late_are_counted(launch, eventually):
    producer = Framed(lambda payload, state: ("skip", state, [payload, payload.decode()]))
    producer.reply_with = lambda frames: 2 if frames[0] == b"1" else 0
    launch(producers=producer)
    producer.put(numbers(3))
    eventually(lambda: len(producer.replies) == 6)
    assert producer.replies == [b"0", "0", b"1", "1", b"2", "2"]
    eventually(lambda: producer.dispatcher.figures(producer.ring)["replies_dropped"] == 2)
    assert producer.failures == []


def test_a_reply_that_cannot_be_sent_fails_the_connection_and_what_was_emitted_stands(launch, eventually, collected):
    def too_late(frames):
        raise TimeoutError("the peer does not read")

    producer = Framed(lambda payload, state: Emit([payload], state, ["pong"]))
    producer.reply_with = too_late
    launch(lambda m: collected.append(m.data), producers=producer)
    producer.put(numbers(3))
    eventually(lambda: sum(producer.drops) == 2 and collected == [b"0"])
    assert isinstance(producer.failures[0].__cause__, TimeoutError)


# -------------------------------------------------------------------------------------------------------------- the end


def test_a_stop_dispatches_and_handles_everything_that_was_taken(launch, collected):
    def handler(payload, state):
        time.sleep(0.001)
        return Emit([payload], state)

    producer = Framed(handler)
    pipeline = launch(lambda m: collected.append(m.data), producers=producer, processors=Processors(concurrency=2))
    producer.put(numbers(200))
    result = pipeline.stop()
    assert (result.drained, result.successful, result.left) == (True, 200, 0)
    assert sorted(collected, key=int) == numbers(200)
    assert result.threads_alive == ()


def test_a_stop_at_its_deadline_fails_what_waits_before_the_dispatcher_in_it_and_behind_it(launch, eventually, gate):
    entered = threading.Event()

    def handler(payload, state):
        if payload == b"10":
            entered.set()
            gate.wait(30)
        return Emit([payload], state)

    block = threading.Event()
    producer = Framed(handler)
    pipeline = launch(handle_messages=lambda ms: block.wait(30) and None, producers=producer,
                      processors=Processors(max_demand=4))
    producer.put(numbers(100))
    assert entered.wait(10)
    result = pipeline.stop(0.2)
    assert not result.drained
    assert (result.successful, result.failed, result.left) == (0, 100, 100)
    assert set(result.threads_alive) == {f"wsengine:{pipeline.name}:{part}" for part in ("dispatcher", "processor_0")}
    assert producer.account.messages == 0
    gate.set()
    block.set()
    eventually(lambda: not any(pipeline.name in one.name for one in threading.enumerate()))
    assert producer.account.messages == 0
    assert producer.dispatcher.figures(producer.ring)["emitted"] == 10, "the late return of the handler changes nothing"


def test_a_stop_while_the_dispatcher_waits_for_room_returns_at_its_deadline(launch, eventually, gate):
    all_there = threading.Event()                # else what the first emits may leave no room for the last
    producer = Framed(lambda payload, state: all_there.wait(30) and Emit([payload] * 50, state))
    pipeline = launch(handle_messages=lambda ms: gate.wait(30) and None, producers=producer, max_queue=16,
                      processors=Processors(max_demand=4))
    producer.put(numbers(8))
    all_there.set()
    eventually(lambda: producer.account.messages > 16)
    result = pipeline.stop(0.1)
    assert result.left == result.failed == 50 + 7
    assert f"wsengine:{pipeline.name}:dispatcher" not in result.threads_alive
    assert producer.account.messages == 0


def test_a_stop_from_within_a_frame_handler_only_requests_it(launch, eventually):
    answers = []

    def handler(payload, state):
        answers.append(pipeline.stop())
        return Skip(state)

    producer = Framed(handler)
    pipeline = launch(producers=producer)
    producer.put([b"x"])
    result = pipeline.join(10)
    assert answers == [None]
    assert result.drained


def test_a_dispatcher_whose_thread_dies_is_replaced_and_goes_on_with_the_rest(launch, eventually, collected, caplog):
    """Here by a fault in what it calls for a failed connection, whose session is not trusted after that."""
    class Death(BaseException):
        pass

    producer = Framed(lambda payload, state: Emit([payload], state, ["r"] if payload == b"5" else []))
    failures = iter([Death])

    def fail(index, epoch, error):
        producer.failures.append(error)
        for death in failures:
            raise death

    producer.fail = fail
    producer.reply_with = lambda frames: 1 / 0
    with capture(telemetry.WORKER_REPLACED) as seen:
        pipeline = launch(lambda m: collected.append(m.data), producers=producer)
        producer.put(numbers(10))
        [replaced] = seen.wait(telemetry.WORKER_REPLACED)
        eventually(lambda: sum(producer.drops) == 4)
    assert isinstance(replaced.metadata["reason"], Death)
    assert replaced.metadata["name"] == f"wsengine:{pipeline.name}:dispatcher"
    assert collected == numbers(6)
    assert "died" in str(producer.failures[-1])
    assert "dispatcher died and was replaced" in caplog.text
    result = pipeline.stop()
    assert (result.drained, result.successful, result.threads_alive) == (True, 6, ())


def test_an_exception_thrown_into_the_thread_from_outside_fails_the_connection_and_loses_no_count(
        uncollected, launch, eventually, collected):
    threads = []

    def handler(payload, state):
        if payload == b"100":
            threads.append(threading.current_thread())
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                pass
        return Emit([payload], state)

    producer = Framed(handler)
    pipeline = launch(lambda m: collected.append(m.data), producers=producer)
    producer.put(numbers(3000))
    eventually(lambda: threads)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threads[0].ident), ctypes.py_object(InterruptedError))
    eventually(lambda: producer.account.messages == 0, 20)
    [failure] = producer.failures
    assert isinstance(failure.__cause__, InterruptedError)
    assert producer.dispatcher.figures(producer.ring) == {
        "taken": 3000, "emitted": 100, "dropped": 2899, "replies_dropped": 0}
    assert collected == numbers(100)
    assert pipeline.stop().drained


def test_a_pipeline_with_a_dispatcher_starts_again(build, eventually, collected):
    producer = Framed(lambda payload, state: Emit([payload], state))
    pipeline = build(lambda m: collected.append(m.data), producers=producer)
    for life in range(2):
        pipeline.start()
        producer.put(numbers(5))
        eventually(lambda life=life: len(collected) == 5 * (life + 1))
        assert pipeline.stop().successful == 5


def test_what_is_emitted_is_handled_beside_what_is_pushed(launch, eventually, book):
    producer = Framed(lambda payload, state: Emit([book.message(payload)], state))
    pipeline = launch(producers=producer, processors=Processors(concurrency=2, max_demand=8))
    pushed = [f"p{n}" for n in range(300)]
    pushing = threading.Thread(target=lambda: pipeline.push_messages(book.messages(pushed)))
    pushing.start()
    producer.put(numbers(300))
    pushing.join(20)
    book.wait(600, 20).assert_each_once([*pushed, *numbers(300)])


def test_the_depth_counts_what_waits_before_the_dispatcher(launch, eventually, gate):
    def handler(payload, state):
        gate.wait(30)
        return Skip(state)

    producer = Framed(handler)
    pipeline = launch(producers=producer)
    producer.put([b"first"])
    eventually(lambda: producer.dispatcher.figures(producer.ring)["taken"] == 1)
    producer.put(numbers(9))
    assert pipeline.stats().depth == 9
