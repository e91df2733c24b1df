"""`test_message` and `test_batch`: what becomes of messages that a caller puts in and waits for."""

from __future__ import annotations

import queue

import pytest

from tests.waiting import until
from wsengine import (
    Batcher,
    CallerAcknowledger,
    ConfigurationError,
    Emit,
    EngineStopped,
    Message,
    RateLimiting,
    WebSocketProducer,
)
from wsengine.testing import Feed


def shout(message):
    if message.data == "bad":
        raise ValueError("a bad one")
    message.data = message.data.upper()


def test_p14_a_message_comes_back_as_the_handler_left_it(launch):
    pipeline = launch(shout)
    [message], failed = pipeline.test_message("hello").wait()
    assert (message.data, message.status, failed) == ("HELLO", "ok", [])


def test_p14_a_failed_one_comes_back_with_its_reason(launch):
    successful, [message] = launch(shout).test_message("bad").wait()
    assert successful == []
    assert str(message.status.exception) == "a bad one"


def test_p14_a_message_is_flushed_at_once_a_batch_is_batched(launch):
    seen = []
    pipeline = launch(handle_batch=lambda messages, info: seen.append((info.size, info.trigger)),
                      batchers={"default": Batcher(batch_size=3, batch_timeout=60)})
    assert len(pipeline.test_message("x").wait()[0]) == 1
    assert seen == [(1, "flush")]
    delivery = pipeline.test_batch("abcd")
    with pytest.raises(TimeoutError, match=r"3 of 4 messages were acknowledged within 0\.2 s: 3 successful, 0 failed"):
        delivery.wait(0.2)
    assert not delivery.done
    assert seen == [(1, "flush"), (3, "size")]
    assert [message.data for message in pipeline.test_batch("ef", batch_mode="flush").wait()[0]] == ["e", "f"]
    assert [message.data for message in delivery.wait()[0]] == ["a", "b", "c", "d"]
    assert delivery.done


def test_p14_each_delivery_hears_of_its_own_messages_in_groups(launch):
    pipeline = launch(shout)
    first, second = pipeline.test_batch(["a", "bad", "b"]), pipeline.test_batch(["c"])
    successful, failed = first.wait()
    assert sorted(message.data for message in successful) == ["A", "B"]
    assert [message.data for message in failed] == ["bad"]
    assert [message.data for message in second.wait()[0]] == ["C"]
    assert first.ref is not second.ref
    assert sum(len(good) + len(bad) for good, bad in first.acks) == 3
    assert repr(second) == "<Delivery of 1: 1 successful, 0 failed>"


def test_p14_metadata_is_given_and_every_message_has_its_own(launch):
    given = {"from": "a test"}
    pipeline = launch(lambda message: message.metadata.update(seen=message.data))
    successful, _ = pipeline.test_batch([1, 2], metadata=given).wait()
    assert sorted(message.metadata["seen"] for message in successful) == [1, 2]
    assert all(message.metadata["from"] == "a test" for message in successful)
    assert given == {"from": "a test"}


def test_p14_the_acknowledger_may_be_the_callers_own(launch, book):
    asked = []

    def acknowledger(data, own):
        asked.append((data, own))
        return (book, "mine", None) if data == "book" else (own[0], own[1], {"kept": True})

    pipeline = launch()
    delivery = pipeline.test_message("caller", acknowledger=acknowledger)
    [message], _ = delivery.wait()
    assert message.acknowledger == (delivery.caller, delivery.ref, {"kept": True})
    pipeline.test_message("book", acknowledger=acknowledger)
    assert book.wait(1).calls == [("mine", ["book"], [])]
    assert [data for data, _ in asked] == ["caller", "book"]


def test_p14_they_bypass_the_rate_limit(launch, book):
    pipeline = launch(rate_limiting=RateLimiting(1, 3600.0))
    pipeline.push_messages(book.messages(range(5)))
    assert len(pipeline.test_batch(range(20)).wait()[0]) == 20
    assert book.total == 1


@pytest.mark.parametrize("framed", [False, True])
def test_p14_they_bypass_transformers_and_frame_handlers(launch, framed):
    def transformer(data, metadata):
        return Message(("transformed", bytes(data)))

    handler = {"frame_handler": lambda payload, state: Emit([b"framed"], state)} if framed else {}
    seen = []
    with Feed.payloads([(2, b"fed")]) as feed:
        pipeline = launch(lambda message: seen.append(message.data),
                          producers=WebSocketProducer(feed.url, transformer=transformer, **handler))
        until(lambda: seen == [("transformed", b"framed" if framed else b"fed")])
        assert [message.data for message in pipeline.test_message(b"mine").wait()[0]] == [b"mine"]
        assert [message.data for message in pipeline.test_batch([b"a", b"b"]).wait()[0]] == [b"a", b"b"]
    assert seen[1:] == [b"mine", b"a", b"b"]


def test_p14_they_wait_while_the_pipeline_is_paused(launch):
    pipeline = launch()
    pipeline.pause()
    delivery = pipeline.test_message("x")
    with pytest.raises(TimeoutError):
        delivery.wait(0.2)
    pipeline.resume()
    assert len(delivery.wait()[0]) == 1


def test_wrong_arguments_are_refused(launch, build):
    pipeline = launch()
    with pytest.raises(ConfigurationError, match="metadata"):
        pipeline.test_message("x", metadata=[("a", 1)])
    with pytest.raises(ConfigurationError, match="batch_mode"):
        pipeline.test_batch("x", batch_mode="now")
    with pytest.raises(ConfigurationError, match="acknowledger"):
        pipeline.test_message("x", acknowledger="me")
    with pytest.raises(ConfigurationError, match="acknowledger"):
        pipeline.test_message("x", acknowledger=lambda data, own: "me")
    with pytest.raises(ConfigurationError, match="timeout"):
        pipeline.test_message("x").wait("soon")
    with pytest.raises(EngineStopped):
        build().test_message("x")


def test_a_stop_acknowledges_them_too(launch, gate):
    pipeline = launch(lambda message: gate.wait(20))
    delivery = pipeline.test_batch(range(3))
    result = pipeline.stop(0)
    assert result.left == 3
    assert len(delivery.wait()[1]) == 3


def test_a_caller_acknowledger_reports_to_any_queue(launch):
    """Also of messages put in by hand."""
    reports = queue.SimpleQueue()
    pipeline = launch(lambda message: message.configure_ack(retry=False))
    pipeline.push_messages(Message("x", acknowledger=(CallerAcknowledger(reports), "ref", "data")))
    assert reports.get(timeout=5) == ("configure", "ref", {"retry": False})
    ref, [message], failed = reports.get(timeout=5)
    assert (ref, message.data, failed) == ("ref", "x", [])
    assert message.acknowledger[2] == "data"
