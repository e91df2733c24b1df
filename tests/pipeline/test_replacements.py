"""Messages that callbacks return in the places of those that they were given: what the account holds, and all or none."""

from __future__ import annotations

import pytest

from tests.waiting import until
from wsengine import Batcher, Message, Processors, Retry

HOOKS = ("handle_message", "handle_messages", "prepare_messages", "handle_failed", "handle_batch")
CHUNKS = HOOKS[1:]
N = 10


def hooks_of(hook, result):
    """Hooks of which this one returns `result(messages)`."""
    one = {"handle_message": lambda message: result([message])[0],
           "handle_batch": lambda messages, info: result(messages)}
    hooks = {hook: one.get(hook, result)}
    if hook == "handle_failed":
        hooks["handle_message"] = lambda message: message.fail("no price")
    elif hook == "handle_batch":
        hooks["handle_message"] = lambda message: None
    return hooks


def options_of(hook, batched):
    if not batched:
        return {}
    return {"batchers": {"default": Batcher(batch_size=4, batch_timeout=0.02)},
            **({} if hook == "handle_batch" else {"handle_batch": lambda messages, info: None})}


@pytest.mark.parametrize(("hook", "batched"), [(hook, batched) for hook in HOOKS for batched in (False, True)
                                               if batched or hook != "handle_batch"])
@pytest.mark.parametrize("every", [1, 3])
def test_p11_what_takes_the_place_of_an_acknowledged_message_is_not_held(launch, book, new_book, hook, batched, every):
    """Else the account of the pipeline never comes back to nothing, and it takes no more."""
    others = new_book()

    def result(messages):
        for message in messages[::every]:
            message.ack_immediately()
        return [others.message(b"another" * 20) for _ in messages]

    pipeline = launch(**hooks_of(hook, result), **options_of(hook, batched), max_queue=N)
    for turn in range(3):
        assert pipeline.push_messages(book.messages([b"%d" % (turn * N + n) for n in range(N)]), timeout=10) == N
        until(lambda: pipeline.stats().held_messages == 0)
        assert pipeline.stats().held_bytes == 0
    result = pipeline.stop()
    assert (result.drained, result.successful + result.failed) == (True, 3 * N)
    assert (pipeline.stats().held_messages, pipeline.stats().held_bytes) == (0, 0)
    assert book.total + others.total == 3 * N, "each was acknowledged once, by itself or by what took its place"


@pytest.mark.parametrize("hook", CHUNKS)
@pytest.mark.parametrize("kind", ["twice", "foreign", "both_given_and_twice", "no message"])
def test_a_list_that_is_refused_replaces_nothing(launch, book, new_book, hook, kind, caplog):
    """P9: all that were given fail, and their acknowledgers are told."""
    others, lists = new_book(), []
    foreign = others.message("handled long ago")
    foreign.ack_immediately()
    new = others.message("new")

    def result(messages):
        lists.append(len(messages))
        return {"twice": [new] * len(messages), "foreign": [new, foreign, foreign][:len(messages)],
                "both_given_and_twice": [messages[0], new, new], "no message": [new, messages[1], None]}[kind]

    batchers = {"batchers": {"default": Batcher(batch_size=3)}} if hook == "handle_batch" else {}
    pipeline = launch(**hooks_of(hook, result), **batchers, processors=Processors(max_demand=10))
    pipeline.pause()
    pipeline.push_messages(book.messages(range(3)))
    pipeline.resume()
    book.wait(3)
    assert lists == [3]
    book.assert_each_once(range(3))
    assert sorted(book.failed) == [0, 1, 2]
    assert f"{hook} raised" in caplog.text
    assert others.total == 1
    assert pipeline.push_messages(new) == 1, "it is still nobody's"
    assert pipeline.stop().drained


@pytest.mark.parametrize("hook", CHUNKS)
def test_messages_that_are_given_back_stay_in_their_places_and_new_ones_take_the_others(launch, book, new_book, hook):
    others = new_book()

    def result(messages):
        return [messages[2], others.message("new"), messages[0]]

    batchers = {"batchers": {"default": Batcher(batch_size=3)}} if hook == "handle_batch" else {}
    pipeline = launch(**hooks_of(hook, result), **batchers, processors=Processors(max_demand=10))
    pipeline.pause()
    pipeline.push_messages(book.messages(range(3)))
    pipeline.resume()
    book.wait(2)
    others.wait(1)
    assert book.calls == [("ref", *(([], [0, 2]) if hook == "handle_failed" else ([0, 2], [])))]
    assert others.ok + others.failed == ["new"]
    assert pipeline.stop().drained


def test_one_new_message_cannot_take_the_places_of_two_processors_messages(launch, book, new_book):
    """Whichever is first has it; the other's message fails."""
    others = new_book()
    new = others.message("shared")
    pipeline = launch(lambda message: new, processors=Processors(concurrency=2, max_demand=1))
    pipeline.push_messages(book.messages(range(50)))
    result = pipeline.stop()
    assert (result.successful, result.failed) == (1, 49)
    assert (others.ok, len(book.failed)) == (["shared"], 49)


def test_what_took_a_place_in_a_retry_is_not_held_either(launch, book):
    calls = []

    def handle_message(message):
        calls.append(message)
        if len(calls) == 1:
            raise OSError("for now")
        message.ack_immediately()
        return Message("another")

    pipeline = launch(handle_message, processors=Processors(retry=Retry(initial=0.01)))
    pipeline.push_messages(book.message("x"))
    book.wait(1)
    until(lambda: pipeline.stats().held_messages == 0)
    assert pipeline.stats().held_bytes == 0
    assert book.ok == ["x"]
