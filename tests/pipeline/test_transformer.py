"""The transformer of a WebSocket feed, as its processors call it; and what arrives from a real socket."""

from __future__ import annotations

import json
import time

import pytest

from wsengine import ConfigurationError, Message, Processors, WebSocketProducer
from wsengine.testing import Feed


@pytest.fixture
def feed():
    with Feed.trades(count=50) as running:
        yield running


def seq(message):
    return json.loads(message.data)["seq"]


def test_the_transformer_makes_the_message_that_the_handler_gets(feed, launch, book):
    handled = []

    def transformer(data, metadata):
        return Message(json.loads(data)["seq"], metadata={"from": metadata["url"]}, acknowledger=(book, "t", None))

    launch(handled.append, producers=WebSocketProducer(feed.url, transformer=transformer))
    book.wait(50)
    assert book.ok == list(range(50))
    assert [m.seq for m in handled] == list(range(50))
    assert all(m.metadata == {"from": feed.url} or m.metadata["from"].startswith("ws://") for m in handled)
    assert all(m.opcode == 1 and m.epoch == 1 and m.received_ns > 0 for m in handled)


def test_a_transformer_that_fails_fails_that_message_only(feed, launch, eventually, caplog):
    """B-19: unlike the ancestor, whose producer dies of it."""
    failed, handled, prepared = [], [], []

    def transformer(data, metadata):
        number = json.loads(data)["seq"]
        if number == 3:
            raise SystemExit("not this one")
        return "no message" if number == 4 else Message(number)

    def handle_failed(messages):
        failed.extend((m.seq, m.status.exception, m.data) for m in messages)

    pipeline = launch(lambda message: handled.append(message.data), handle_failed=handle_failed,
                      prepare_messages=lambda messages: prepared.extend(m.data for m in messages),
                      producers=WebSocketProducer(feed.url, transformer=transformer))
    eventually(lambda: len(handled) + len(failed) == 50)
    assert handled == prepared == [n for n in range(50) if n not in (3, 4)]
    assert [number for number, _, _ in failed] == [3, 4]
    assert isinstance(failed[0][1], SystemExit)
    assert "return a Message" in str(failed[1][1])
    assert isinstance(failed[0][2], bytes)
    assert "transformer raised" in caplog.text
    assert pipeline.stop().failed == 2


def test_a_message_that_the_transformer_returns_twice_in_one_chunk_is_refused_the_second_time(feed, launch, eventually):
    one = Message("the same")
    failed, chunks = [], []

    def handle_messages(messages):
        chunks.append(len(messages))

    launch(handle_messages=handle_messages, handle_failed=lambda ms: failed.extend(m.status for m in ms),
           producers=WebSocketProducer(feed.url, transformer=lambda data, metadata: one))
    eventually(lambda: sum(chunks) + len(failed) == 50)
    assert set(chunks) == {1}, "one of each chunk, the first; the handler never sees what the transformer failed on"
    assert all("of its own for each payload" in str(one.exception) for one in failed)


def test_what_is_not_callable_is_refused_as_a_transformer():
    with pytest.raises(ConfigurationError, match=r"producer\.transformer"):
        WebSocketProducer("ws://127.0.0.1:1", transformer="json")


def test_messages_of_a_feed_carry_where_they_came_from(feed, launch, eventually):
    seen = []
    pipeline = launch(seen.append, producers=WebSocketProducer(feed.url), processors=Processors(max_demand=8))
    eventually(lambda: len(seen) == 50)
    assert [m.seq for m in seen] == [seq(m) for m in seen] == list(range(50))
    first = seen[0]
    assert first.metadata["seq"] == 0
    assert first.metadata["connection_index"] == 0
    assert first.connection.url == first.metadata["url"]
    assert pipeline.stop().successful == 50


def test_a_message_of_a_subclass_is_not_handed_out_for_another_payload(launch, eventually):
    class Marked(Message):
        pass

    wrong, count = [], []

    def handle_message(message):
        count.append(1)
        if type(message) is not Message:
            wrong.append(type(message))
        marked = Marked(message.data)
        marked.mark = "of an earlier message"
        return marked

    with Feed.trades(count=200, rate=2000) as feed:
        launch(handle_message, producers=WebSocketProducer(feed.url))
        eventually(lambda: len(count) == 200)
    assert wrong == []


def test_messages_pushed_beside_a_busy_feed_are_handled_too(launch, book, eventually):
    with Feed.trades() as feed:
        pipeline = launch(producers=WebSocketProducer(feed.url), max_queue=1024, processors=Processors(max_demand=8),
                          handle_messages=lambda messages: time.sleep(0.005))
        eventually(lambda: pipeline.stats().depth >= 256)
        assert pipeline.push_messages(book.message("mine"), timeout=3) == 1
        book.wait(1, timeout=3)
        pipeline.stop(0)
