"""P34: `pause` and `resume`: nothing more is claimed, while connections live on (reference B-15)."""

from __future__ import annotations

import threading
import time

import pytest

from tests.waiting import until
from wsengine import Batcher, EngineStopped, Processors, WebSocketProducer
from wsengine.testing import Feed


def settled(read):
    """A figure, once it has stayed the same for a while."""
    while True:
        before = read()
        time.sleep(0.15)
        if read() == before:
            return before


@pytest.mark.parametrize("concurrency", [1, 4])
def test_nothing_is_claimed_until_it_is_resumed(launch, book, concurrency):
    """B-15."""
    pipeline = launch(processors=Processors(concurrency=concurrency))
    pipeline.push_messages(book.messages(range(10)))
    book.wait(10)
    pipeline.pause()
    pipeline.pause()
    assert pipeline.paused
    pipeline.push_messages(book.messages(range(10, 100)))
    time.sleep(0.2)
    assert book.total == 10
    assert pipeline.stats().depth == 90
    pipeline.resume()
    assert not pipeline.paused
    book.wait(100)
    book.assert_each_once(range(100))


def test_what_was_claimed_is_handled_and_batched(launch, book, gate):
    begun = threading.Event()

    def handle_message(message):
        begun.set()
        gate.wait(30)

    pipeline = launch(handle_message, handle_batch=lambda messages, info: None, processors=Processors(max_demand=5),
                      batchers={"default": Batcher(batch_size=50, batch_timeout=0.2)})
    pipeline.push_messages(book.messages(range(20)))
    assert begun.wait(5)
    pipeline.pause()
    gate.set()
    book.wait(1)
    assert settled(lambda: book.total) <= 5
    pipeline.resume()
    book.wait(20)


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_paused_pipeline_reads_until_it_is_full_and_keeps_its_connection(launch, concurrency):
    """B-15."""
    seen = []
    with Feed.trades(ping_interval=0.1) as feed:
        pipeline = launch(lambda message: seen.append(message.seq), producers=WebSocketProducer(
            f"ws://127.0.0.1:{feed.port}/", keepalive=0.1), max_queue=1024, processors=Processors(concurrency=concurrency))
        until(lambda: len(seen) > 1000)
        pipeline.pause()
        handled = settled(lambda: len(seen))
        until(lambda: pipeline.stats().held_messages > 512)  # it begins to read again at half of the bound
        sent = settled(lambda: feed.log().connections[0].messages)
        assert sent > handled
        assert pipeline.stats().held_messages <= 1024 + 64
        pipeline.resume()
        until(lambda: len(seen) > handled + 20000)
        assert len(feed.log().connections) == 1, "it is the same connection"
        pipeline.stop(0)
    assert sorted(seen)[:20000] == list(range(20000))


def test_a_quiet_connection_is_kept_alive_and_read_while_paused(launch):
    """Also with one processor, which else polls the socket itself."""
    seen = []
    with Feed.trades(rate=100, ping_interval=0.05) as feed:
        pipeline = launch(lambda message: seen.append(message.seq),
                          producers=WebSocketProducer(f"ws://127.0.0.1:{feed.port}/", keepalive=0.05, ws_timeout=0.4))
        until(lambda: len(seen) > 20)
        pipeline.pause()
        handled = settled(lambda: len(seen))
        pongs = len(feed.log().connections[0].pongs)
        time.sleep(0.6)
        assert len(seen) == handled
        assert len(feed.log().connections[0].pongs) > pongs + 3
        pipeline.resume()
        until(lambda: len(seen) > handled + 60)
        assert len(feed.log().connections) == 1
    assert seen == list(range(len(seen)))


def test_a_stop_resumes_and_drains(launch, book):
    pipeline = launch()
    pipeline.pause()
    pipeline.push_messages(book.messages(range(50)))
    result = pipeline.stop()
    assert (result.drained, result.successful) == (True, 50)
    assert not pipeline.paused
    pipeline.start()
    pipeline.push_messages(book.messages([50]))
    book.wait(51)


def test_a_handler_may_pause_its_own_pipeline(launch, book):
    pipeline = launch(lambda message: pipeline.pause() if message.data == 3 else None, processors=Processors(max_demand=1))
    pipeline.push_messages(book.messages(range(10)))
    book.wait(4)
    assert settled(lambda: book.total) == 4
    pipeline.resume()
    book.wait(10)


def test_only_a_running_pipeline_can_be_paused(build):
    pipeline = build()
    for call in (pipeline.pause, pipeline.resume):
        with pytest.raises(EngineStopped, match="is new"):
            call()
    assert not pipeline.paused
    pipeline.start()
    pipeline.stop()
    with pytest.raises(EngineStopped, match="is stopped"):
        pipeline.pause()
