"""Capturing telemetry: what is recorded, waiting for it, and that nothing stays attached."""

from __future__ import annotations

import threading
import time

import pytest

from wsengine import telemetry
from wsengine.testing.capture import capture

EVENT = ("test", "capture", "one")
OTHER = ("test", "capture", "two")


def test_captured_events_are_recorded_in_order_and_others_are_not() -> None:
    with capture(EVENT, OTHER) as seen:
        telemetry.execute(OTHER, {"count": 1}, {"url": "x"})
        telemetry.execute(("test", "capture"))
        telemetry.execute(EVENT)
    assert seen.events == [(OTHER, {"count": 1}, {"url": "x"}), (EVENT, {}, {})]
    assert seen.of(EVENT) == [(EVENT, {}, {})]
    assert seen.of(OTHER)[0].measurements == {"count": 1}


def test_nothing_is_recorded_after_the_end_and_nothing_stays_attached() -> None:
    with capture(EVENT) as seen:
        telemetry.execute(EVENT)
    telemetry.execute(EVENT)
    assert len(seen.events) == 1
    assert not telemetry.listening(EVENT)
    with pytest.raises(ZeroDivisionError), capture(EVENT):
        raise ZeroDivisionError
    assert telemetry.list_handlers(("test",)) == []


def test_captures_of_the_same_event_are_independent() -> None:
    with capture(EVENT) as outer:
        telemetry.execute(EVENT)
        with capture(EVENT) as inner:
            telemetry.execute(EVENT)
            outer.clear()
        telemetry.execute(EVENT)
    assert len(inner.events) == 1
    assert len(outer.events) == 1


def test_recorded_mappings_are_copies_of_that_moment() -> None:
    measurements = {"count": 1}
    with capture(EVENT) as seen:
        telemetry.execute(EVENT, measurements)
        measurements["count"] = 2
        telemetry.execute(EVENT, measurements)
    assert [one.measurements["count"] for one in seen.events] == [1, 2]


def test_list_of_events_does_not_change_afterwards() -> None:
    with capture(EVENT) as seen:
        telemetry.execute(EVENT)
        snapshot = seen.events
        telemetry.execute(EVENT)
        seen.clear()
        assert len(snapshot) == 1
        assert seen.events == []


def test_wait_returns_as_soon_as_other_threads_have_executed_enough() -> None:
    def later() -> None:
        for number in range(3):
            time.sleep(0.02)
            telemetry.execute(EVENT, {"number": number})

    thread = threading.Thread(target=later)
    with capture(EVENT, OTHER) as seen:
        thread.start()
        started = time.monotonic()
        got = seen.wait(EVENT, count=3, timeout=10)
        assert time.monotonic() - started < 5
        thread.join()
    assert [one.measurements["number"] for one in got] == [0, 1, 2]


def test_wait_counts_what_was_recorded_before_unless_cleared() -> None:
    with capture(EVENT) as seen:
        telemetry.execute(EVENT)
        telemetry.execute(EVENT)
        assert len(seen.wait(EVENT, timeout=0)) == 2
        seen.clear()
        with pytest.raises(TimeoutError, match="recorded: nothing"):
            seen.wait(EVENT, timeout=0)


def test_wait_that_times_out_tells_what_was_recorded_instead() -> None:
    with capture(EVENT, OTHER) as seen:
        telemetry.execute(EVENT)
        telemetry.execute(OTHER)
        telemetry.execute(OTHER)
        started = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            seen.wait(EVENT, count=2, timeout=0.1)
        assert time.monotonic() - started >= 0.1
    assert str(caught.value) == f"waited 0.1 s for 2 of {EVENT!r}; recorded: 1 of {EVENT!r}, 2 of {OTHER!r}"


def test_asking_for_an_event_that_is_not_captured_is_an_error() -> None:
    with capture(EVENT) as seen:
        with pytest.raises(ValueError, match=r"\('test', 'capture', 'two'\) is not captured here; captured are"):
            seen.wait(OTHER)
        with pytest.raises(ValueError, match="is not captured here"):
            seen.of(OTHER)
        with pytest.raises(ValueError, match="count=0: give at least 1"):
            seen.wait(EVENT, count=0)


def test_capture_without_events_or_with_what_is_no_event_is_refused() -> None:
    with pytest.raises(ValueError, match="no events are given"), capture():
        pass
    with pytest.raises(TypeError, match="is not an event"), capture("test"):  # type: ignore[arg-type]
        pass


def test_many_threads_are_recorded_without_loss() -> None:
    def execute_often(number: int) -> None:
        for _ in range(300):
            telemetry.execute(EVENT, {"n": number})

    threads = [threading.Thread(target=execute_often, args=(number,)) for number in range(4)]
    with capture(EVENT) as seen:
        for thread in threads:
            thread.start()
        assert len(seen.wait(EVENT, count=1200, timeout=20)) == 1200
        for thread in threads:
            thread.join()
    assert sorted(one.measurements["n"] for one in seen.events) == [n for n in range(4) for _ in range(300)]
