"""The rate limit: its options, its clockwork by the nanosecond, and what it does to a pipeline."""

from __future__ import annotations

import threading
import time

import pytest

from tests.waiting import until
from wsengine import ConfigurationError, Processors, RateLimiting, WebSocketProducer
from wsengine.pipeline.rate_limiter import RateLimiter
from wsengine.testing import DummyProducer, Feed

MS, S = 1_000_000, 1_000_000_000


@pytest.mark.parametrize(("options", "path"), [
    ({"allowed_messages": 0}, "allowed_messages"), ({"allowed_messages": 1.5}, "allowed_messages"),
    ({"allowed_messages": 2**31}, "allowed_messages"), ({"allowed_messages": 5, "interval": 0}, "interval"),
    ({"allowed_messages": 5, "interval": None}, "interval"), ({"allowed_messages": 5, "mode": "sliding"}, "mode"),
    ({"allowed_messages": 5, "per": 1}, "per"),
])
def test_a_wrong_option_is_refused_with_its_path(options, path):
    with pytest.raises(ConfigurationError) as refused:
        RateLimiting(**options)
    assert refused.value.path == f"rate_limiting.{path}"


def test_a_pipeline_takes_nothing_else(build):
    with pytest.raises(ConfigurationError, match=r"pipeline\.rate_limiting"):
        build(rate_limiting={"allowed_messages": 5, "interval": 1000})


# ---- the clockwork


def test_a_bucket_fills_evenly_and_saves_up_to_its_size():
    limiter = RateLimiter(10, 1.0, False, now=0)
    assert limiter.claim(100, 0) == 10, "it begins full"
    assert limiter.claim(1, 0) == 0
    assert limiter.pause(0) == 100 * MS
    assert limiter.claim(5, 99 * MS) == 0
    assert limiter.claim(5, 100 * MS) == 1
    assert limiter.claim(5, 350 * MS) == 2
    assert limiter.claim(5, 400 * MS) == 1, "what was over is not lost"
    assert limiter.claim(100, 3600 * S) == 10


def test_a_fast_bucket_is_waited_for_by_the_millisecond():
    limiter = RateLimiter(100_000, 1.0, False, now=0)
    limiter.claim(100_000, 0)
    assert limiter.pause(0) == 1 * MS
    assert limiter.claim(1000, 1 * MS) == 100


def test_a_window_gives_all_at_its_beginning_and_loses_what_is_left():
    limiter = RateLimiter(10, 1.0, True, now=0)
    assert limiter.claim(7, 0) == 7
    assert limiter.claim(7, 900 * MS) == 3
    assert limiter.pause(900 * MS) == 100 * MS
    assert limiter.claim(4, 1 * S) == 4
    assert limiter.claim(100, 2500 * MS) == 10, "four windows do not add up"
    assert limiter.pause(2500 * MS) == 500 * MS, "the windows stay where they were"


def test_p15_an_update_without_reset_holds_from_the_next_window_on_with_reset_at_once():
    limiter = RateLimiter(10, 1.0, True, now=0)
    assert limiter.claim(4, 0) == 4
    limiter.update(3, 0.5, False, now=100 * MS)
    assert limiter.claim(100, 200 * MS) == 6
    assert limiter.claim(100, 1 * S) == 3
    assert limiter.claim(100, 1500 * MS) == 3
    limiter.update(2, 1.0, True, now=1600 * MS)
    assert limiter.claim(100, 1600 * MS) == 2
    assert limiter.pause(1600 * MS) == 1 * S


def test_p15_an_update_of_a_bucket_changes_its_rate_and_with_reset_fills_it():
    limiter = RateLimiter(10, 1.0, False, now=0)
    limiter.claim(10, 0)
    limiter.update(100, 1.0, False, now=0)
    assert limiter.claim(100, 100 * MS) == 10
    limiter.update(5, 1.0, True, now=100 * MS)
    assert limiter.claim(100, 100 * MS) == 5
    limiter.update(2, 1.0, False, now=10 * S)
    assert limiter.claim(100, 10 * S) == 2, "what was saved above the new size is gone"


def test_a_clock_that_stands_still_gives_nothing():
    limiter = RateLimiter(10, 1.0, False, now=5 * S)
    limiter.claim(10, 5 * S)
    assert limiter.claim(1, 4 * S) == 0


# ---- in a pipeline


class Clock:
    """A handler that notes when it was called."""

    def __init__(self):
        self.times = []
        self.lock = threading.Lock()

    def __call__(self, message):
        with self.lock:
            self.times.append(time.monotonic())


@pytest.mark.parametrize("mode", ["bucket", "window"])
def test_p15_no_more_than_allowed_are_claimed_by_all_processors_from_all_sources(launch, book, mode):
    """B-10: unlike the ancestor, what is pushed by hand counts as well."""
    first, second = DummyProducer(), DummyProducer()
    clock = Clock()
    begun = time.monotonic()
    pipeline = launch(clock, producers=[first, second], processors=Processors(concurrency=4, max_demand=10),
                      rate_limiting=RateLimiting(20, 0.2, mode=mode))
    first.emit(book.messages(range(50)))
    second.emit(book.messages(range(50, 100)))
    pipeline.push_messages(book.messages(range(100, 120)))
    book.wait(120, 20)
    elapsed = time.monotonic() - begun
    book.assert_each_once(range(120))
    assert elapsed > 0.9, "20 at once, and 100 more by 20 in 0.2 s"
    for at in clock.times:
        assert sum(at <= other < at + 0.19 for other in clock.times) <= 41, "two windows touch, a bucket refills"


def test_a_bucket_spreads_what_a_window_gives_at_once(launch, book):
    """B-10: the ancestor has the window only."""
    gaps = {}
    for mode in ("bucket", "window"):
        clock = Clock()
        pipeline = launch(clock, rate_limiting=RateLimiting(10, 0.4, mode=mode))
        pipeline.push_messages(book.messages((mode, i) for i in range(30)))
        until(lambda clock=clock: len(clock.times) == 30)
        later = [following - one for one, following in zip(clock.times[10:], clock.times[11:], strict=False)]
        gaps[mode] = max(later)
        pipeline.stop()
    assert gaps["window"] > 0.2 > gaps["bucket"]


def test_p15_it_holds_across_connections_and_holds_the_server_back(launch):
    """B-10: unlike the ancestor's, whose buffer has no bound."""
    clock = Clock()
    with Feed.trades() as feed:
        pipeline = launch(clock, producers=WebSocketProducer(f"ws://127.0.0.1:{feed.port}/", concurrency=3), max_queue=64,
                          rate_limiting=RateLimiting(100, 1.0))
        until(lambda: len(clock.times) >= 150)
        assert pipeline.stats().held_messages <= 64 + 3
        pipeline.stop(0)
    assert clock.times[140] - clock.times[0] > 0.3


def test_p15_the_rate_is_read_and_changed_while_it_runs(launch, book):
    pipeline = launch(rate_limiting=RateLimiting(1, 3600.0))
    assert pipeline.get_rate_limiting() == RateLimiting(1, 3600.0)
    pipeline.push_messages(book.messages(range(11)))
    book.wait(1)
    time.sleep(0.1)
    assert book.total == 1
    assert pipeline.update_rate_limiting(allowed_messages=10, reset=True) == RateLimiting(10, 3600.0)
    book.wait(11)
    assert pipeline.get_rate_limiting() == RateLimiting(10, 3600.0)
    pipeline.push_messages(book.messages([11]))
    time.sleep(0.1)
    assert book.total == 11
    pipeline.update_rate_limiting(interval=0.05)
    book.wait(12)


def test_p15_without_a_limit_there_is_none_to_read_or_change(launch, build):
    pipeline = launch()
    assert pipeline.get_rate_limiting() is None
    with pytest.raises(ConfigurationError, match="when the pipeline is made"):
        pipeline.update_rate_limiting(5)
    limited = build(rate_limiting=RateLimiting(5))
    with pytest.raises(ConfigurationError, match="allowed_messages"):
        limited.update_rate_limiting(0)
    with pytest.raises(ConfigurationError, match="reset"):
        limited.update_rate_limiting(5, reset=1)
    assert limited.get_rate_limiting() == RateLimiting(5)


def test_an_update_before_the_start_and_across_starts_holds(build, book):
    pipeline = build(rate_limiting=RateLimiting(1, 3600.0))
    pipeline.update_rate_limiting(3)
    for expected in (3, 6):
        pipeline.start()
        pipeline.push_messages(book.messages(range(4)))
        until(lambda expected=expected: len(book.ok) == expected)
        time.sleep(0.05)
        assert len(book.ok) == expected
        pipeline.stop(0)


def test_a_stop_keeps_to_the_rate_until_its_deadline(launch, book):
    pipeline = launch(rate_limiting=RateLimiting(10, 0.1))
    pipeline.push_messages(book.messages(range(40)))
    begun = time.monotonic()
    result = pipeline.stop()
    assert (result.drained, result.successful) == (True, 40)
    assert time.monotonic() - begun > 0.2
    slow = launch(rate_limiting=RateLimiting(1, 3600.0))
    slow.push_messages(book.messages(range(40, 50)))
    result = slow.stop(0.3)
    assert (result.drained, result.left) == (False, 9)
    book.assert_each_once(range(50))


def test_one_processor_with_a_limit_reads_a_quiet_connection_all_the_same(launch):
    """Which else would poll the socket itself while it has nothing to do."""
    seen = []
    with Feed.trades(rate=200) as feed:
        launch(lambda message: seen.append(message.seq), producers=WebSocketProducer(f"ws://127.0.0.1:{feed.port}/"),
               rate_limiting=RateLimiting(50, 1.0))
        until(lambda: len(seen) > 70)
    assert seen == list(range(len(seen)))
