"""What `handle_batch` returns and raises, who acknowledges a batch, its telemetry, deaths and deadlines of threads."""

from __future__ import annotations

import threading
import time

import pytest

from tests.waiting import until
from wsengine import Batcher, EngineError, Message, Processors, telemetry
from wsengine.testing import capture

LONG = 60.0
SPAN = (telemetry.BATCH_PROCESSOR_START, telemetry.BATCH_PROCESSOR_STOP, telemetry.BATCH_PROCESSOR_EXCEPTION)


@pytest.fixture
def batched(launch, book):
    """Have one batch of these messages handled by a function; what was acknowledged is in the book."""

    def run(handle_batch, datas, **options):
        datas = list(datas)
        pipeline = launch(handle_batch=handle_batch, processors=Processors(max_demand=64),
                          batchers={"default": Batcher(batch_size=len(datas), batch_timeout=LONG)}, **options)
        pipeline.push_messages(book.messages(datas))
        book.wait(len(datas))
        return pipeline

    return run


# ---- results


@pytest.mark.parametrize("result", [lambda messages: None, lambda messages: messages, list,
                                    lambda messages: messages[::-1]], ids=["None", "the list", "a copy", "reversed"])
def test_what_is_returned_unchanged_is_successful_and_acknowledged_in_order(batched, book, result):
    batched(lambda messages, info: result(messages), range(5))
    assert book.calls == [("ref", [0, 1, 2, 3, 4], [])]


def test_p9_some_that_failed_are_split_from_the_others_in_order(batched, book):
    def handle_batch(messages, info):
        for message in messages:
            if message.data % 3 == 0:
                message.fail(f"no {message.data}")

    pipeline = batched(handle_batch, range(7))
    assert book.calls == [("ref", [1, 2, 4, 5], [0, 3, 6])]
    assert book.reasons[3].reason == "no 3"
    assert (pipeline.stats().successful, pipeline.stats().failed) == (4, 3)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_p9_whatever_handle_batch_raises_fails_the_batch(batched, book, error, caplog):
    def handle_batch(messages, info):
        messages[0].fail("by itself")
        raise error

    pipeline = batched(handle_batch, range(3))
    assert book.calls == [("ref", [], [0, 1, 2])]
    assert book.reasons[0].reason == "by itself"
    assert book.reasons[1].exception is book.reasons[2].exception is error
    assert f"handle_batch raised {type(error).__name__}" in caplog.text
    pipeline.push_messages(book.messages([7, 8, 9]))
    book.wait(6)


def test_p9_messages_that_are_not_returned_fail(batched, book):
    """Unlike the ancestor (B-12), which never acknowledges them."""
    batched(lambda messages, info: [messages[3], messages[1]], range(4))
    assert book.calls == [("ref", [1, 3], [0, 2])]
    assert book.reasons[0].reason == "handle_batch did not return it"


def test_p9_a_message_returned_twice_is_acknowledged_once(batched, book):
    batched(lambda messages, info: [messages[0], messages[0]], range(2))
    assert book.calls == [("ref", [0], [1])]


@pytest.mark.parametrize("result", [5, "text", (), {}, [1, 2], [None, None]], ids=repr)
def test_p9_a_wrong_result_fails_the_batch(batched, book, result, caplog):
    batched(lambda messages, info: result, range(2))
    assert book.calls == [("ref", [], [0, 1])]
    assert isinstance(book.reasons[0].exception, TypeError)
    assert "handle_batch returned" in caplog.text


def test_as_many_new_messages_take_the_places_of_those_given(launch, book, new_book):
    other = new_book()
    pipeline = launch(handle_batch=lambda messages, info: [messages[0], other.message("made"), messages[2]],
                      processors=Processors(max_demand=10), batchers={"default": Batcher(batch_size=3)})
    pipeline.push_messages(book.messages(range(3)))
    other.wait(1)
    book.wait(2)
    assert (book.calls, other.calls) == ([("ref", [0, 2], [])], [("ref", ["made"], [])])
    result = pipeline.stop()
    assert (result.successful, result.failed) == (3, 0)
    assert pipeline.stats().held_messages == 0


def test_a_result_with_messages_of_others_fails_the_batch(batched, book):
    batched(lambda messages, info: [*messages, Message("one more")], range(2))
    assert book.calls == [("ref", [], [0, 1])]


# ---- handle_failed and acknowledgement


def test_handle_failed_sees_the_failed_of_a_batch_before_they_are_acknowledged(batched, book):
    seen = []

    def handle_batch(messages, info):
        messages[1].fail("bad")

    def handle_failed(messages):
        seen.extend((message.data, message.status.reason, list(book.calls)) for message in messages)
        for message in messages:
            message.data = "dead letter"

    batched(handle_batch, range(3), handle_failed=handle_failed)
    assert seen == [(1, "bad", [])]
    assert book.calls == [("ref", [0, 2], ["dead letter"])]


def test_each_group_of_a_batch_is_acknowledged_once(launch, book, new_book):
    other = new_book()
    pipeline = launch(handle_batch=lambda messages, info: messages[0].fail("first") and None,
                      batchers={"default": Batcher(batch_size=6, batch_timeout=LONG)})
    pipeline.push_messages([book.message(0, "a"), other.message(1, "a"), book.message(2, "b"), book.message(3, "a"),
                            Message(4), other.message(5, "a")])
    other.wait(2)
    book.wait(3)
    assert sorted(book.calls) == [("a", [3], [0]), ("b", [2], [])]
    assert other.calls == [("a", [1, 5], [])]


def test_p10_an_acknowledger_that_raises_costs_its_own_group_only(launch, book, caplog):
    """B-1, for a batch."""
    class Broken:
        def ack(self, ack_ref, successful, failed):
            raise OSError("no connection")

    pipeline = launch(handle_batch=lambda messages, info: None, batchers={"default": Batcher(batch_size=3)})
    pipeline.push_messages([book.message(0), Message(1, acknowledger=(Broken(), 1, None)), book.message(2)])
    book.wait(2)
    assert pipeline.stop().drained
    assert book.calls == [("ref", [0, 2], [])]
    assert "raised for ack_ref 1" in caplog.text


def test_p11_a_message_acknowledged_at_once_is_not_again(launch, book):
    """Wherever that is: in the processor, or in handle_batch; it goes its way all the same."""
    seen = []

    def handle_message(message):
        if message.data == "early":
            message.ack_immediately()

    def handle_batch(messages, info):
        seen.append([message.data for message in messages])
        messages[1].ack_immediately()
        messages[1].ack_immediately()
        messages[2].fail("then")
        messages[2].ack_immediately()

    pipeline = launch(handle_message, handle_batch=handle_batch, processors=Processors(max_demand=10),
                      batchers={"default": Batcher(batch_size=4, batch_timeout=LONG)})
    pipeline.push_messages(book.messages(["early", "middle", "failed", "late"]))
    book.wait(4)
    assert seen == [["early", "middle", "failed", "late"]]
    assert book.calls == [("ref", ["early"], []), ("ref", ["middle"], []), ("ref", [], ["failed"]), ("ref", ["late"], [])]
    result = pipeline.stop()
    assert (result.successful, result.failed) == (3, 1)
    assert pipeline.stats().held_messages == 0


def test_a_message_that_waits_for_its_batch_cannot_be_acknowledged(launch, book):
    kept = []
    pipeline = launch(lambda message: kept.append(message), handle_batch=lambda messages, info: None,
                      batchers={"default": Batcher(batch_size=2, batch_timeout=LONG)})
    pipeline.push_messages(book.message(0))
    until(lambda: pipeline.stats().batchers[0].held == 1)
    with pytest.raises(EngineError, match="waits for its batch"):
        kept[0].ack_immediately()
    pipeline.push_messages(book.message(1))
    book.wait(2)
    kept[0].ack_immediately()
    assert book.calls == [("ref", [0, 1], [])]


def test_an_acknowledger_that_acknowledges_again_changes_nothing(launch, book):
    class Eager:
        def ack(self, ack_ref, successful, failed):
            for message in successful:
                message.ack_immediately()
            book.ack(ack_ref, successful, failed)

    eager = Eager()
    pipeline = launch(handle_batch=lambda messages, info: None, batchers={"default": Batcher(batch_size=2)})
    pipeline.push_messages([Message(i, acknowledger=(eager, "ref", None)) for i in range(2)])
    book.wait(2)
    pipeline.stop()
    assert book.calls == [("ref", [0, 1], [])]


# ---- telemetry


def test_a_batch_has_a_start_and_a_stop(batched, book):
    def handle_batch(messages, info):
        messages[0].fail("first")

    with capture(*SPAN) as seen:
        pipeline = batched(handle_batch, range(3))
        [start] = seen.wait(telemetry.BATCH_PROCESSOR_START)
        [stop] = seen.wait(telemetry.BATCH_PROCESSOR_STOP)
    assert seen.of(telemetry.BATCH_PROCESSOR_EXCEPTION) == []
    name = f"wsengine:{pipeline.name}:batch_processor_default_0"
    assert (start.metadata["topology_name"], start.metadata["name"], start.metadata["index"]) == (pipeline.name, name, 0)
    assert [message.data for message in start.metadata["messages"]] == [0, 1, 2]
    assert (start.metadata["batch_info"].size, start.metadata["batch_info"].trigger) == (3, "size")
    assert abs(start.measurements["system_time"] - time.time_ns()) < 60e9
    assert stop.metadata["telemetry_span_context"] is start.metadata["telemetry_span_context"]
    assert [message.data for message in stop.metadata["successful_messages"]] == [1, 2]
    assert [message.data for message in stop.metadata["failed_messages"]] == [0]
    assert stop.measurements["duration"] > 0
    assert "messages" not in stop.metadata


def test_a_batch_that_raises_has_an_exception_in_the_place_of_its_stop(batched, book):
    """Unlike the ancestor (B-13), where its stop tells of failed messages and of no exception."""
    error = ValueError("no")

    def handle_batch(messages, info):
        raise error

    with capture(*SPAN) as seen:
        batched(handle_batch, range(3))
        [event] = seen.wait(telemetry.BATCH_PROCESSOR_EXCEPTION)
    assert seen.of(telemetry.BATCH_PROCESSOR_STOP) == []
    assert (event.metadata["kind"], event.metadata["reason"]) == ("error", error)
    assert len(event.metadata["failed_messages"]) == 3
    assert event.measurements["duration"] > 0


def test_batchers_tell_of_messages_timeouts_and_drains(launch, book):
    """Unlike the ancestor, which tells of messages only."""
    with capture(telemetry.BATCHER_START, telemetry.BATCHER_STOP) as seen:
        pipeline = launch(handle_batch=lambda messages, info: None, processors=Processors(max_demand=10),
                          batchers={"db": Batcher(batch_size=10, batch_timeout=0.1)}, handle_message=to_db)
        pipeline.pause()                          # the three are claimed together
        pipeline.push_messages(book.messages(range(3)))
        pipeline.resume()
        book.wait(3)
        [first, timeout] = seen.wait(telemetry.BATCHER_START, 2)
        pipeline.push_messages(book.messages([3]))
        seen.wait(telemetry.BATCHER_START, 3)
        pipeline.stop()
        starts = seen.of(telemetry.BATCHER_START)
        stops = seen.of(telemetry.BATCHER_STOP)
    assert first.metadata["batcher_key"] == "db"
    assert first.metadata["name"] == f"wsengine:{pipeline.name}:batcher_db"
    assert first.metadata["topology_name"] == pipeline.name
    assert [message.data for message in first.metadata["messages"]] == [0, 1, 2]
    assert timeout.metadata["messages"] == []
    assert len(starts) == len(stops) == 4
    assert [one.metadata["telemetry_span_context"] for one in starts] == [
        one.metadata["telemetry_span_context"] for one in stops]


def to_db(message):
    message.batcher = "db"


def test_a_processor_tells_what_it_hands_on(launch, book):
    def handle_message(message):
        if message.data == 1:
            message.fail("one")

    with capture(telemetry.PROCESSOR_STOP) as seen:
        pipeline = launch(handle_message, handle_batch=lambda messages, info: [m.fail("later") for m in messages] and None,
                          processors=Processors(max_demand=10), batchers={"default": Batcher(batch_size=2)})
        pipeline.pause()
        pipeline.push_messages(book.messages(range(3)))
        pipeline.resume()
        [stop] = seen.wait(telemetry.PROCESSOR_STOP)
    assert stop.metadata["successful_messages_to_ack"] == []
    assert [message.data for message in stop.metadata["successful_messages_to_forward"]] == [0, 2]
    assert [message.data for message in stop.metadata["failed_messages"]] == [1]


def test_p7_an_unknown_batcher_is_an_exception_of_its_message(launch, book):
    def handle_message(message):
        message.batcher = "nowhere"

    with capture(telemetry.MESSAGE_EXCEPTION, telemetry.MESSAGE_STOP) as seen:
        launch(handle_message, handle_batch=lambda messages, info: None, batchers={"db": Batcher()}).push_messages(
            book.message("x"))
        [event] = seen.wait(telemetry.MESSAGE_EXCEPTION)
    assert "nowhere" in str(event.metadata["reason"])
    assert seen.of(telemetry.MESSAGE_STOP) == []
    assert book.wait(1).failed == ["x"]


# ---- stops, deadlines, deaths


def test_p17_a_batch_that_does_not_return_is_failed_at_the_deadline_and_all_else_is_handled(launch, book, gate):
    """Unlike the ancestor (B-9): one deadline, and what is open elsewhere is flushed."""
    begun, seen = threading.Event(), []

    def handle_message(message):
        message.batcher = message.data[0]

    def handle_batch(messages, info):
        if info.batcher == "stuck":
            begun.set()
            gate.wait(60)
        seen.extend(message.data for message in messages)

    pipeline = launch(handle_message, handle_batch=handle_batch,
                      batchers={"stuck": Batcher(batch_size=2, batch_timeout=LONG),
                                "free": Batcher(batch_size=100, batch_timeout=LONG)})
    pipeline.push_messages(book.messages([("stuck", i) for i in range(5)] + [("free", i) for i in range(7)]))
    assert begun.wait(5)
    started = time.monotonic()
    result = pipeline.stop(timeout=0.5)
    assert time.monotonic() - started < 2.5
    assert seen == [("free", i) for i in range(7)], "the open batch was flushed"
    assert (result.drained, result.left, result.successful, result.failed) == (False, 5, 7, 5)
    assert len(result.threads_alive) == 1
    assert "batch_processor_stuck_0" in result.threads_alive[0]
    assert {data for data in book.failed} == {("stuck", i) for i in range(5)}
    assert "stopped before" in book.reasons[("stuck", 4)].reason
    gate.set()
    until(lambda: not pipeline._wsengine_topology.threads_alive())
    book.assert_each_once([("stuck", i) for i in range(5)] + [("free", i) for i in range(7)])
    assert pipeline.stats().held_messages == 0


def test_a_stop_that_drains_nothing_fails_open_and_waiting_batches(launch, book, gate):
    begun = threading.Event()

    def handle_batch(messages, info):
        begun.set()
        gate.wait(60)

    pipeline = launch(handle_batch=handle_batch, batchers={"default": Batcher(batch_size=3, batch_timeout=LONG)})
    pipeline.push_messages(book.messages(range(11)))
    assert begun.wait(5)
    until(lambda: pipeline.stats().batchers[0].held == 11)
    result = pipeline.stop(0)
    assert (result.drained, result.left, result.failed, result.successful) == (False, 11, 11, 0)
    gate.set()
    book.assert_each_once(range(11))
    assert sorted(book.failed) == list(range(11))


def test_stop_may_be_called_within_handle_batch(launch, book):
    answers = []

    def handle_batch(messages, info):
        answers.append(pipeline.stop())

    pipeline = launch(handle_batch=handle_batch, batchers={"default": Batcher(batch_size=2)})
    pipeline.push_messages(book.messages(range(2)))
    result = pipeline.join(10)
    assert answers == [None]
    assert (result.drained, result.successful) == (True, 2)


class LoopFault(BaseException):
    """Something that raises outside all callbacks."""


@pytest.fixture
def deadly(monkeypatch):
    """Have the thread die that tells of a batch, or of messages for a batcher, with "die" among them."""
    real = telemetry.execute

    def execute(event, measurements=None, metadata=None):
        real(event, measurements, metadata)
        if event in (telemetry.BATCH_PROCESSOR_START, telemetry.BATCHER_START) and any(
                message.data == "die" for message in metadata["messages"]):
            raise LoopFault("telemetry has raised, which it never does")

    telemetry.attach("watch", telemetry.BATCH_PROCESSOR_START, lambda *args: None)
    monkeypatch.setattr(telemetry, "execute", execute)
    yield
    telemetry.detach("watch")


def threads_of(pipeline):
    return {one.name: one for one in threading.enumerate() if one.name.startswith(f"wsengine:{pipeline.name}:")}


def test_p18_a_batch_processor_that_dies_is_replaced_alone_and_its_batch_failed(deadly, launch, book):
    def handle_message(message):
        message.batch_key = "doomed" if message.data in ("die", "with it", "behind") else "other"

    pipeline = launch(handle_message, handle_batch=lambda messages, info: None, processors=Processors(max_demand=10),
                      batchers={"default": Batcher(concurrency=2, batch_size=2, batch_timeout=LONG)})
    threads = threads_of(pipeline)
    with capture(telemetry.WORKER_REPLACED) as seen:
        pipeline.push_messages(book.messages(["die", "with it", 1, 2, "behind", "behind"]))
        [event] = seen.wait(telemetry.WORKER_REPLACED)
    book.wait(6)
    assert sorted(map(str, book.failed)) == ["die", "with it"]
    assert "its batch processor died" in book.reasons["die"].reason
    assert (event.metadata["role"], event.measurements["failed_messages"]) == ("batch processor", 2)
    now = threads_of(pipeline)
    assert now.keys() == threads.keys()
    assert [name for name in threads if threads[name] is not now[name]] == [event.metadata["name"]]
    assert pipeline.stop().drained


def test_p18_a_pipeline_survives_a_hundred_deaths_of_batch_processors(deadly, launch, book, monkeypatch):
    from wsengine.pipeline import monitor
    monkeypatch.setattr(monitor, "PERIOD", 0.002)
    pipeline = launch(handle_batch=lambda messages, info: None, batchers={"default": Batcher(batch_size=1)})
    for number in range(100):
        pipeline.push_messages(book.messages(["die", number]))
    book.wait(200, 30)
    result = pipeline.stop()
    assert (result.drained, result.successful, result.failed) == (True, 100, 100)
    assert book.failed == ["die"] * 100


def test_a_batchers_thread_that_dies_is_replaced_and_goes_on_where_it_was(launch, book, monkeypatch):
    real, deaths = telemetry.execute, []

    def execute(event, measurements=None, metadata=None):
        if event == telemetry.HANDLE_FAILED_START and len(deaths) < 3:
            deaths.append(threading.current_thread().name)
            raise LoopFault("telemetry has raised, which it never does")
        real(event, measurements, metadata)

    def function(message, count):
        if message.data % 4 == 3:
            raise ValueError("every fourth")
        return "emit", count

    telemetry.attach("watch", telemetry.HANDLE_FAILED_START, lambda *args: None)
    monkeypatch.setattr(telemetry, "execute", execute)
    try:
        pipeline = launch(handle_batch=lambda messages, info: None, handle_failed=lambda messages: None,
                          processors=Processors(max_demand=10),
                          batchers={"default": Batcher(batch_size=(0, function), max_demand=10)})
        with capture(telemetry.WORKER_REPLACED) as seen:
            pipeline.push_messages(book.messages(range(20)))
            book.wait(20)
        result = pipeline.stop()
    finally:
        telemetry.detach("watch")
    assert book.failed == [3, 7, 11, 15, 19]
    assert book.ok == [i for i in range(20) if i % 4 != 3]
    assert (result.drained, result.successful, result.failed) == (True, 15, 5)
    assert {event.metadata["role"] for event in seen.of(telemetry.WORKER_REPLACED)} <= {"batcher"}
