"""What a processor makes of the callbacks: results, failures of every kind, and who sees a failed message when."""

from __future__ import annotations

import ctypes
import logging
import threading

import pytest

from wsengine import Failed, Message, Pipeline, Processors, Producer


class Odd(BaseException):
    """An exception of a program's own that is no Exception."""


def failing_on(data, error):
    def handle_message(message):
        if message.data == data:
            raise error

    return handle_message


def acknowledged_by(other):
    """A `handle_failed` that puts others in place, which an acknowledger of their own hears of."""
    return lambda messages: [other.message(f"instead of {message.data}") for message in messages]


ALL_AT_ONCE = Processors(max_demand=50)


# ---- handle_message


def test_the_returned_message_none_and_a_new_one_all_count(launch, book, new_book):
    other = new_book()

    def handle_message(message):
        if message.data == 0:
            return message
        return None if message.data == 1 else other.message("made by the handler")

    launch(handle_message).push_messages(book.messages([0, 1, 2]))
    other.wait(1)
    book.wait(2)
    assert book.ok == [0, 1]
    assert other.ok == ["made by the handler"]


def test_what_the_handler_does_to_the_message_is_seen_by_the_acknowledger(launch, book):
    def handle_message(message):
        message.data = message.data * 2

    launch(handle_message).push_messages(book.messages([1, 2]))
    assert book.wait(2).ok == [2, 4]


@pytest.mark.parametrize(
    "error", [ValueError("bad"), SystemExit(3), KeyboardInterrupt(), Odd("strange"), StopIteration(), GeneratorExit()])
def test_whatever_the_handler_raises_fails_that_message_only(launch, book, error, caplog):
    pipeline = launch(failing_on(3, error), processors=ALL_AT_ONCE)
    pipeline.push_messages(book.messages(range(6)))
    book.wait(6)
    assert sorted(book.ok) == [0, 1, 2, 4, 5]
    assert book.failed == [3]
    assert book.reasons[3].exception is error
    assert book.reasons[3].reason is error
    assert "handle_message raised " + type(error).__name__ in caplog.text
    thread = pipeline.topology()["processors"]
    pipeline.push_messages(book.message("alive"))
    assert "alive" in book.wait(7).ok
    assert thread[0]["concurrency"] == 1


def test_an_asynchronous_exception_fails_the_message_that_it_hits(uncollected, launch, book):
    running, ident = threading.Event(), []

    def handle_message(message):
        if message.data == "spin":
            ident.append(threading.get_ident())
            running.set()
            while True:
                pass

    pipeline = launch(handle_message)
    pipeline.push_messages(book.message("spin"))
    assert running.wait(5)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident[0]), ctypes.py_object(SystemExit)) == 1
    book.wait(1)
    assert isinstance(book.reasons["spin"].exception, SystemExit)
    pipeline.push_messages(book.message("next"))
    assert book.wait(2).ok == ["next"]


@pytest.mark.parametrize("returned", [7, "ok", True, [], {}, object()])
def test_a_result_that_is_no_message_fails_that_message_with_the_remedy(launch, book, returned):
    pipeline = launch(lambda message: returned if message.data == 1 else None)
    pipeline.push_messages(book.messages([0, 1, 2]))
    book.wait(3)
    assert sorted(book.ok) == [0, 2]
    assert "return a Message" in str(book.reasons[1].exception)


def test_a_message_that_belongs_to_another_place_is_refused_as_a_result(launch, book):
    kept = []

    def handle_message(message):
        kept.append(message)
        return kept[0]

    launch(handle_message, processors=ALL_AT_ONCE).push_messages(book.messages(["a", "b"]))
    book.wait(2)
    assert book.ok == ["a"]
    assert "belongs to another place" in str(book.reasons["b"].exception)


def test_a_message_that_is_marked_failed_is_acknowledged_as_failed_without_a_log(launch, book, caplog):
    launch(lambda message: message.fail("no price")).push_messages(book.message(1))
    book.wait(1)
    assert book.failed == [1]
    assert book.reasons[1].reason == "no price"
    assert caplog.text == ""


def test_a_handler_may_be_a_static_method_a_class_or_any_callable(quiet, book):
    class Plain(Pipeline):
        @staticmethod
        def handle_message(message):
            message.data = ("static", message.data)

    with Plain(quiet()) as pipeline:
        pipeline.push_messages(book.message(1))
        assert book.wait(1).ok == [("static", 1)]


def test_self_is_the_context_that_all_threads_share(quiet, book):
    class Counting(Pipeline):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.lock = threading.Lock()
            self.count = 0

        def handle_message(self, message):
            with self.lock:
                self.count += 1

    with Counting(quiet(), processors=Processors(concurrency=3)) as pipeline:
        pipeline.push_messages(book.messages(range(50)))
        book.wait(50)
    assert pipeline.count == 50


def test_a_kept_message_is_not_changed_by_later_ones(launch, eventually):
    kept = []
    pipeline = launch(kept.append, processors=Processors(max_demand=3))
    pipeline.push_messages(Message(i) for i in range(50))
    eventually(lambda: len(kept) == 50)
    pipeline.stop()
    assert [message.data for message in kept] == list(range(50))


def test_a_flood_of_failures_is_logged_once_a_second_after_a_burst(launch, book, caplog):
    launch(failing_on("x", ValueError("flood")), max_queue=1024).push_messages(book.messages(["x"] * 500))
    book.wait(500)
    lines = [one for one in caplog.records if one.name == "wsengine.pipeline" and one.levelno == logging.ERROR]
    assert 20 <= len(lines) <= 25
    assert all(one.exc_info for one in lines)


# ---- prepare_messages


def test_prepare_messages_sees_the_chunk_before_the_handler(launch, gate, book):
    order = []

    def prepare(messages):
        order.append(("prepare", [m.data for m in messages]))
        return messages

    pipeline = launch(lambda message: order.append(("handle", message.data)) or (gate.wait(5) and None),
                      prepare_messages=prepare, processors=Processors(max_demand=2))
    pipeline.push_messages(book.messages([0, 1, 2]))
    gate.set()
    book.wait(3)
    assert order[0][0] == "prepare"
    assert order[1] == ("handle", 0)
    assert [data for kind, data in order if kind == "handle"] == [0, 1, 2]
    assert [data for kind, chunk in order if kind == "prepare" for data in chunk] == [0, 1, 2]


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        (lambda messages: messages[:-1], "prepare_messages returned list of"),
        (lambda messages: [*messages, Message("more")], "prepare_messages returned list of"),
        (lambda messages: tuple(messages), "tuple"),
        (lambda messages: [m.data for m in messages], "as many Messages"),
        (lambda messages: 1 / 0, "division"),
    ],
)
def test_a_wrong_or_raising_prepare_messages_fails_the_whole_chunk_unhandled(launch, book, prepare, text, caplog):
    handled = []
    pipeline = launch(handled.append, prepare_messages=prepare)
    pipeline.push_messages(book.messages([0, 1, 2]))
    book.wait(3)
    assert sorted(book.failed) == [0, 1, 2]
    assert handled == []
    assert text in str(book.reasons[0].exception)
    assert "prepare_messages raised" in caplog.text


def test_prepare_messages_may_return_none_or_put_other_messages_in_place(launch, book, new_book):
    other = new_book()
    launch(prepare_messages=lambda messages: None).push_messages(book.message("as it was"))
    launch(prepare_messages=lambda messages: [other.message(m.data + "!") for m in messages]).push_messages(
        book.message("changed"))
    assert book.wait(1).ok == ["as it was"]
    assert other.wait(1).ok == ["changed!"]


def test_a_message_that_prepare_messages_failed_still_reaches_the_handler(launch, book):
    handled = []
    launch(lambda message: handled.append(message.data), prepare_messages=lambda messages: messages[0].fail("early") and None
           ).push_messages(book.message("a"))
    book.wait(1)
    assert handled == ["a"]
    assert book.failed == ["a"]


# ---- handle_messages


def test_handle_messages_fails_some_and_the_others_succeed(launch, book):
    def handle_messages(messages):
        for message in messages:
            if message.data % 2:
                message.fail("odd")
        return messages

    launch(handle_messages=handle_messages).push_messages(book.messages(range(6)))
    book.wait(6)
    assert sorted(book.ok) == [0, 2, 4]
    assert sorted(book.failed) == [1, 3, 5]


def blocked_chunk(launch, gate, book, handle, datas):
    """Have `handle` called with one chunk of all of `datas`."""
    begun = threading.Event()

    def handle_messages(messages):
        if messages[0].data == "first":
            begun.set()
            gate.wait(10)
            return None
        return handle(messages)

    pipeline = launch(handle_messages=handle_messages, processors=ALL_AT_ONCE)
    pipeline.push_messages(Message("first"))
    assert begun.wait(5)
    pipeline.push_messages(book.messages(datas))
    gate.set()
    book.wait(len(datas))


@pytest.mark.parametrize("error", [OSError("database is down"), SystemExit(1), Odd()])
def test_handle_messages_that_raises_fails_all_and_keeps_the_reasons_given_before(launch, gate, book, error):
    def handle(messages):
        messages[1].fail("seen to be bad")
        raise error

    blocked_chunk(launch, gate, book, handle, [0, 1, 2])
    assert book.calls == [("ref", [], [0, 1, 2])]
    assert [book.reasons[i].exception for i in (0, 2)] == [error, error]
    assert book.reasons[1].reason == "seen to be bad"


@pytest.mark.parametrize(
    "returned", [lambda m: m[:1], lambda m: 7, lambda m: tuple(m), lambda m: [None] * len(m), lambda m: [*m, m[0]]])
def test_handle_messages_that_returns_something_else_fails_all(launch, gate, book, returned):
    blocked_chunk(launch, gate, book, returned, [0, 1, 2])
    assert sorted(book.failed) == [0, 1, 2]
    assert "as many Messages, or None" in str(book.reasons[2].exception)


def test_the_list_given_to_handle_messages_is_the_handlers_own(launch, gate, book):
    blocked_chunk(launch, gate, book, lambda messages: messages.clear(), [0, 1, 2])
    assert book.ok == [0, 1, 2]


# ---- handle_failed


def test_handle_failed_sees_the_failed_ones_before_they_are_acknowledged(launch, book):
    seen = []

    def handle_failed(messages):
        seen.append(([m.data for m in messages], [m.status for m in messages], book.total))
        return messages

    launch(failing_on(1, ValueError("bad")), handle_failed=handle_failed).push_messages(book.messages([0, 1]))
    book.wait(2)
    [(datas, [status], before)] = seen
    assert datas == [1]
    assert isinstance(status, Failed)
    assert before in (0, 1)  # the other one may have been a chunk of its own
    assert book.failed == [1]


def test_handle_failed_is_not_called_when_nothing_failed(launch, book):
    seen = []
    launch(handle_failed=seen.append).push_messages(book.messages(range(20)))
    book.wait(20)
    assert seen == []


def test_handle_failed_may_change_data_and_acknowledgement(launch, book):
    def handle_failed(messages):
        for message in messages:
            message.data = "dead letter"
            message.configure_ack(on_failure="park")

    launch(lambda message: message.fail("x"), handle_failed=handle_failed).push_messages(book.message("a"))
    book.wait(1)
    assert book.calls == [("ref", [], ["dead letter"])]
    assert book.configured == [("ref", None, {"on_failure": "park"})]


def test_handle_failed_cannot_make_a_message_succeed(launch, book):
    errors = []

    def handle_failed(messages):
        try:
            messages[0].status = "ok"
        except AttributeError as error:
            errors.append(error)
        return [book.message(f"{message.data}, put in place") for message in messages]

    def handle_message(message):
        return None if message.data == "ok" else message.fail(f"no {message.data}")

    pipeline = launch(handle_message, handle_failed=handle_failed)
    pipeline.push_messages(book.messages(["a", "ok", "b"]))
    book.wait(3)
    assert errors
    assert book.ok == ["ok"]
    assert book.failed == ["a, put in place", "b, put in place"]
    assert book.reasons["b, put in place"].reason == "no b"
    assert pipeline.stop().failed == 2


@pytest.mark.parametrize("handle_failed", [lambda m: 1 / 0, lambda m: [], lambda m: 7, lambda m: [*m, *m],
                                           lambda m: [None for _ in m]])
def test_a_handle_failed_that_fails_itself_is_logged_and_changes_nothing(launch, book, handle_failed, caplog):
    pipeline = launch(lambda message: message.fail("x"), handle_failed=handle_failed)
    pipeline.push_messages(book.messages([1, 2]))
    book.wait(2)
    assert book.failed == [1, 2]
    assert book.reasons[1].reason == "x"
    assert "handle_failed raised" in caplog.text


# ---- fairness between sources


def test_a_busy_producer_does_not_starve_another(launch, book, eventually):
    class Endless(Producer):
        def __init__(self, data):
            self.data = data

        def run(self, inbox):
            while True:
                inbox.push(Message(self.data))

    seen = set()
    launch(lambda message: seen.add(message.data), producers=[Endless("a"), Endless("b")], max_queue=64,
           processors=Processors(max_demand=4))
    eventually(lambda: seen == {"a", "b"}, 3.0)


def test_an_acknowledger_that_only_handle_failed_gives_is_called(launch, new_book):
    other = new_book()

    def handle_message(message):
        raise ValueError("all of them")

    launch(handle_message, handle_failed=acknowledged_by(other)).push_messages([Message(1), Message(2)])
    other.wait(2)
    assert other.failed == ["instead of 1", "instead of 2"]
