"""P36, P37: retries of messages before they fail, and soft time limits of callbacks (reference B-14, B-7)."""

from __future__ import annotations

import threading
import time

import pytest

from tests.waiting import until
from wsengine import Batcher, ConfigurationError, Processors, Retry, telemetry
from wsengine.testing import capture


@pytest.mark.parametrize(("options", "path"), [
    ({"max_retries": 0}, "max_retries"), ({"max_retries": True}, "max_retries"), ({"initial": -1}, "initial"),
    ({"initial": None}, "initial"), ({"factor": 0.5}, "factor"), ({"maximum": 4000}, "maximum"), ({"on": "all"}, "on"),
    ({"on": ()}, "on"), ({"on": (ValueError, 5)}, "on"), ({"on": int}, "on"), ({"retries": 3}, "retries"),
])
def test_a_wrong_option_is_refused_with_its_path(options, path):
    with pytest.raises(ConfigurationError) as refused:
        Retry(**options)
    assert refused.value.path == f"retry.{path}"


@pytest.mark.parametrize("options", [{"retry": 3}, {"retry": Exception}, {"time_limit": 0}, {"time_limit": "1"}], ids=repr)
def test_processors_and_batchers_check_them(options):
    [name] = options
    for make, path in ((Processors, "processors"), (Batcher, "batcher")):
        with pytest.raises(ConfigurationError, match=rf"{path}\.{name}"):
            make(**options)


def test_delays_grow_to_their_maximum_and_end():
    retry = Retry(max_retries=5, initial=0.1, factor=3, maximum=1.0, on=(OSError, KeyError))
    assert [retry.delay(n, OSError()) for n in range(6)] == [0.1, pytest.approx(0.3), pytest.approx(0.9), 1.0, 1.0, None]
    assert retry.delay(0, KeyError()) == 0.1
    assert retry.delay(0, ValueError()) is None
    assert retry.delay(0, None) is None
    assert Retry(max_retries=1000, factor=100).delay(999, OSError()) == 10.0


QUICK = Retry(max_retries=2, initial=0.01, on=OSError)


class Flaky:
    """Fails the messages in `times` so often, and notes all calls."""

    def __init__(self, times, error=OSError, how="raise"):
        self.left, self.error, self.how = dict(times), error, how
        self.calls = []

    def __call__(self, message):
        self.calls.append(message.data)
        if self.left.get(message.data, 0):
            self.left[message.data] -= 1
            if self.how == "raise":
                raise self.error("for now")
            message.fail(self.error("for now"))


@pytest.mark.parametrize("how", ["raise", "fail"])
@pytest.mark.parametrize("watched", [False, True])
def test_a_message_is_handled_again_in_its_place_until_it_succeeds(launch, book, how, watched):
    """P36 (B-14)."""
    flaky = Flaky({1: 2, 3: 1}, how=how)
    events = (telemetry.MESSAGE_STOP, telemetry.MESSAGE_EXCEPTION) if watched else (telemetry.TOPOLOGY_INIT,)
    with capture(*events) as seen:
        pipeline = launch(flaky, processors=Processors(max_demand=10, retry=QUICK))
        pipeline.push_messages(book.messages(range(5)))
        book.wait(5)
        pipeline.stop()
    assert book.ok == [0, 1, 2, 3, 4]
    assert flaky.calls == [0, 1, 1, 1, 2, 3, 3, 4]
    if watched:
        assert len(seen.of(telemetry.MESSAGE_STOP)) == 5
        assert seen.of(telemetry.MESSAGE_EXCEPTION) == []


@pytest.mark.parametrize("how", ["raise", "fail"])
def test_after_the_last_retry_it_fails_once(launch, book, caplog, how):
    flaky, failed = Flaky({1: 100}, how=how), []
    pipeline = launch(flaky, handle_failed=lambda messages: failed.extend(m.data for m in messages),
                      processors=Processors(max_demand=10, retry=QUICK))
    pipeline.push_messages(book.messages(range(3)))
    book.wait(3)
    assert (book.ok, book.failed, failed) == ([0, 2], [1], [1])
    assert flaky.calls == [0, 1, 1, 1, 2]
    assert isinstance(book.reasons[1].exception, OSError)
    assert caplog.text.count("handle_message raised") == (1 if how == "raise" else 0)
    assert pipeline.stop().failed == 1


def test_other_exceptions_and_reasons_are_final(launch, book):
    calls = []

    def handle_message(message):
        calls.append(message.data)
        if message.data == 1:
            raise ValueError("for good")
        if message.data == 2:
            message.fail("a reason that is no exception")

    launch(handle_message, processors=Processors(max_demand=10, retry=QUICK)).push_messages(book.messages(range(4)))
    book.wait(4)
    assert calls == [0, 1, 2, 3]
    assert book.failed == [1, 2]


def test_a_retry_is_told(launch, book):
    with capture(telemetry.MESSAGE_RETRY) as seen:
        pipeline = launch(Flaky({0: 2}), processors=Processors(retry=QUICK))
        pipeline.push_messages(book.message(0))
        book.wait(1)
        first, second = seen.of(telemetry.MESSAGE_RETRY)
    assert first.measurements == {"count": 1, "delay": 10_000_000, "messages": 1}
    assert second.measurements == {"count": 2, "delay": 20_000_000, "messages": 1}
    assert [message.data for message in first.metadata["messages"]] == [0]
    assert isinstance(first.metadata["reason"], OSError)
    assert first.metadata["name"] == f"wsengine:{pipeline.name}:processor_0"


def test_a_chunk_handler_is_called_again_with_those_that_failed(launch, book):
    calls = []

    def handle_messages(messages):
        calls.append([message.data for message in messages])
        if len(calls) == 1:
            messages[0].fail("for good")
            messages[1].fail(OSError("later"))
            raise OSError("all others, too")
        if len(calls) == 2:
            messages[0].fail(OSError("once more"))

    pipeline = launch(handle_messages=handle_messages, processors=Processors(max_demand=10, retry=QUICK))
    pipeline.pause()
    pipeline.push_messages(book.messages(range(4)))
    pipeline.resume()
    book.wait(4)
    assert calls == [[0, 1, 2, 3], [1, 2, 3], [1]]
    assert (book.ok, book.failed) == ([1, 2, 3], [0])


def test_a_batch_is_handled_again_without_those_that_succeeded(launch, book, caplog):
    """P36 (B-14), for a batch."""
    calls = []

    def handle_batch(messages, info):
        calls.append(([message.data for message in messages], info.size, info.trigger))
        if len(calls) < 3:
            for message in messages:
                if message.data % 2:
                    message.fail(OSError("locked"))
        return messages

    with capture(telemetry.BATCH_RETRY) as seen:
        launch(handle_batch=handle_batch, batchers={"default": Batcher(batch_size=5, retry=QUICK)}).push_messages(
            book.messages(range(5)))
        book.wait(5)
    assert calls == [([0, 1, 2, 3, 4], 5, "size"), ([1, 3], 2, "size"), ([1, 3], 2, "size")]
    assert book.calls == [("ref", [0, 1, 2, 3, 4], [])]
    assert [event.measurements["messages"] for event in seen.of(telemetry.BATCH_RETRY)] == [2, 2]
    assert caplog.text == ""


def test_a_batch_that_goes_on_raising_fails_in_the_end(launch, book, caplog):
    calls = []

    def handle_batch(messages, info):
        calls.append(info.size)
        raise OSError("no database")

    pipeline = launch(handle_batch=handle_batch, batchers={"default": Batcher(batch_size=2, retry=QUICK)})
    pipeline.push_messages(book.messages(range(2)))
    book.wait(2)
    assert calls == [2, 2, 2]
    assert book.failed == [0, 1]
    assert caplog.text.count("handle_batch raised OSError") == 1
    assert pipeline.stop().drained


@pytest.mark.parametrize("hook", ["handle_message", "handle_messages", "handle_batch"])
@pytest.mark.parametrize("watched", [False, True])
def test_what_has_been_acknowledged_is_not_handled_again(launch, book, hook, watched):
    """P11, P36: its acknowledger has been told already."""
    calls = []

    def one(message):
        calls.append(message.data)
        if message.data == "failed":
            message.fail(OSError("before"))
        if message.data in ("failed", "acknowledged"):
            message.ack_immediately()
        if message.data in ("acknowledged", "later") and calls.count(message.data) == 1:
            message.fail(OSError("afterwards"))

    hooks = {hook: one if hook == "handle_message" else lambda messages, *_: [one(m) for m in messages] and None}
    options = {"batchers": {"default": Batcher(batch_size=4, retry=QUICK)}} if hook == "handle_batch" else {
        "processors": Processors(max_demand=10, retry=QUICK)}
    with capture(telemetry.MESSAGE_STOP if watched else telemetry.TOPOLOGY_INIT):
        pipeline = launch(**hooks, **options)
        pipeline.pause()
        pipeline.push_messages(book.messages(["failed", "acknowledged", "later", "fine"]))
        pipeline.resume()
        book.wait(4)
        result = pipeline.stop()
    assert sorted(calls) == ["acknowledged", "failed", "fine", "later", "later"]
    assert (sorted(book.ok), book.failed) == (["acknowledged", "fine", "later"], ["failed"])
    assert (result.successful, result.failed) == (3, 1)


def test_what_another_thread_acknowledges_while_a_retry_is_waited_for_is_not_handled_again(launch, book):
    calls = []

    def handle_message(message):
        calls.append(message)
        message.fail(OSError("for now"))

    with capture(telemetry.MESSAGE_RETRY) as seen:
        pipeline = launch(handle_message, processors=Processors(retry=Retry(initial=1.0)))
        pipeline.push_messages(book.message(0))
        seen.wait(telemetry.MESSAGE_RETRY)
        calls[0].ack_immediately()
        result = pipeline.stop()
    assert len(calls) == 1
    assert (book.failed, result.failed, result.drained) == ([0], 1, True)


def test_what_is_retried_must_come_back_as_it_is(launch, book, new_book):
    other = new_book()

    calls = []

    def handle_messages(messages):
        calls.append(len(messages))
        if len(calls) == 1:
            raise OSError("at first")
        return [other.message("new") for _ in messages]

    pipeline = launch(handle_messages=handle_messages, processors=Processors(retry=QUICK))
    pipeline.push_messages(book.message(0))
    book.wait(1)
    assert "was to handle again" in str(book.reasons[0].exception)
    assert (calls, other.total) == ([1, 1], 0)


def test_the_deadline_of_a_stop_ends_the_waiting(launch, book):
    pipeline = launch(Flaky({0: 5}), processors=Processors(retry=Retry(initial=60, maximum=60)))
    with capture(telemetry.MESSAGE_RETRY) as seen:
        pipeline.push_messages(book.messages(range(3)))
        seen.wait(telemetry.MESSAGE_RETRY)
        began = time.monotonic()
        result = pipeline.stop(0.3)
    assert time.monotonic() - began < 3
    assert result.threads_alive == ()
    assert (result.successful + result.failed, result.drained) == (3, False)
    book.assert_each_once(range(3))


# ---- time limits


@pytest.mark.parametrize("kind", ["handle_message", "handle_messages", "handle_batch", "handle_failed"])
def test_a_callback_that_takes_too_long_is_told_once_with_where_it_is(launch, book, gate, kind, caplog):
    """P37 (B-7)."""
    def slow_callback(*_):
        gate.wait(30)

    def fail(message):
        message.fail("so that handle_failed is called")

    processors, batchers, event, hooks = Processors(time_limit=0.1), None, telemetry.PROCESSOR_OVERDUE, {kind: slow_callback}
    if kind == "handle_batch":
        processors, event = Processors(), telemetry.BATCH_PROCESSOR_OVERDUE
        batchers = {"default": Batcher(batch_size=1, time_limit=0.1)}
    if kind == "handle_failed":
        hooks["handle_message"] = fail
    with capture(event) as seen:
        pipeline = launch(**hooks, processors=processors, batchers=batchers)
        pipeline.push_messages(book.message(0))
        [overdue] = seen.wait(event)
        time.sleep(0.4)
        assert len(seen.of(event)) == 1
        gate.set()
        book.wait(1)
        pipeline.push_messages(book.message(1))
        book.wait(2)
        assert len(seen.of(event)) == 1, "a new callback, a new time"
    assert 0.1e9 <= overdue.measurements["duration"] < 5e9
    assert overdue.metadata["limit"] == 0.1
    assert "slow_callback" in overdue.metadata["stack"]
    assert overdue.metadata["topology_name"] == pipeline.name
    assert "has taken more than 0.1 s" in caplog.text
    assert pipeline.stop().drained


def test_many_short_callbacks_and_idle_time_are_not_told(launch, book):
    with capture(telemetry.PROCESSOR_OVERDUE) as seen:
        pipeline = launch(lambda message: time.sleep(0.02), processors=Processors(max_demand=50, time_limit=0.15))
        pipeline.push_messages(book.messages(range(30)))
        book.wait(30)
        time.sleep(0.3)
    assert seen.of(telemetry.PROCESSOR_OVERDUE) == []


def test_waiting_for_a_retry_is_not_told(launch, book):
    with capture(telemetry.PROCESSOR_OVERDUE) as seen:
        pipeline = launch(Flaky({0: 1}), processors=Processors(time_limit=0.1, retry=Retry(initial=0.5)))
        pipeline.push_messages(book.message(0))
        book.wait(1)
    assert seen.of(telemetry.PROCESSOR_OVERDUE) == []
    assert book.ok == [0]


def test_the_next_callback_of_the_same_chunk_has_a_limit_of_its_own(launch, book, gate):
    begun = threading.Event()

    def handle_message(message):
        if message.data == 2:
            begun.set()
            gate.wait(30)

    with capture(telemetry.PROCESSOR_OVERDUE) as seen:
        pipeline = launch(handle_message, processors=Processors(max_demand=10, time_limit=0.1))
        pipeline.push_messages(book.messages(range(4)))
        assert begun.wait(5)
        seen.wait(telemetry.PROCESSOR_OVERDUE)
        gate.set()
        book.wait(4)
    until(lambda: len(seen.of(telemetry.PROCESSOR_OVERDUE)) == 1)


@pytest.mark.parametrize("hook", ["handle_message", "handle_messages"])
def test_a_message_that_failed_before_its_handler_is_not_handled_by_a_retry(launch, book, hook):
    """One whose partition cannot be told stands in the same chunk as others, which are tried again; no handler sees it."""
    seen = []

    def partition_by(message):
        if message.data == "lost":
            raise OSError("no partition")
        return 0

    def one(message):
        seen.append(message.data)
        if seen.count(message.data) == 1:
            raise OSError("for now")

    def chunk(messages):
        seen.extend(message.data for message in messages)
        if seen.count("kept") == 1:
            raise OSError("for now")

    handler = {"handle_message": one} if hook == "handle_message" else {"handle_messages": chunk}
    pipeline = launch(**handler, partition_by=partition_by, processors=Processors(retry=QUICK))
    pipeline.pause()
    pipeline.push_messages(book.messages(["lost", "kept"]))
    pipeline.resume()
    book.wait(2)
    assert seen == ["kept", "kept"]
    assert (book.ok, book.failed) == (["kept"], ["lost"])
