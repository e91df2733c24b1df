"""The proof of the demo: a log that disagrees with the ledger is told, in each of the ways in which it can."""

from __future__ import annotations

import io
import re

import pytest

from wsengine.cli import demonstration
from wsengine.cli.ledger import Ledger
from wsengine.cli.summary import Figures, faults, summarize
from wsengine.cli.table import PlainView, Snapshot, milliseconds, size_text
from wsengine.cli.view import open_view
from wsengine.pipeline.stats import ProcessorStats
from wsengine.testing import Feed, FeedConnectionLog, FeedLog

FIGURES = Figures(seconds=2.0, cpu_seconds=0.5, size=128, failed=0, reconnects=1, round_trip=0.0002, p50=0.001, p99=0.02)


def log_of(*counts, start=0):
    """A log whose connections have sent so many messages each, one after the other."""
    connections = []
    for index, count in enumerate(counts):
        connections.append(FeedConnectionLog(
            index=index, lane=0, opened_ns=0, ended_ns=1, ended="cut", messages=count,
            first_sequence=start if count else None, last_sequence=start + count - 1 if count else None, bytes_written=0,
            client_messages=0, pings=(), pongs=(), close_code=None, close_reason="", blocked_seconds=0.0,
            idle_seconds=0.0, seconds=1.0))
        start += count
    return FeedLog(tuple(connections))


def ledger_of(*chunks):
    ledger = Ledger()
    for chunk in chunks:
        ledger.enter(list(chunk))
    return ledger


def test_a_sum_that_comes_out_is_proven_and_its_figures_are_told():
    log = log_of(600_000, 400_000)
    text = "\n".join(summarize(log, ledger_of(range(1_000_000)).reckon(log.messages), FIGURES))
    assert "1,000,000 messages on 2 connections" in text
    assert "500,000 msg/s, 64.0 MB/s" in text
    assert "0.50 s for a million messages" in text
    assert "half within 1.00 ms, 99 % within 20.00 ms" in text
    assert "Proven: each message sent was handled exactly once" in text
    assert "NOT proven" not in text


@pytest.mark.parametrize(("log", "chunks", "failed", "expected"), [
    (log_of(10), [range(9)], 0, ["10 were sent, but 9 handled", "1 are missing: number 9"]),
    (log_of(10), [range(3), range(5, 10)], 0, ["10 were sent, but 8 handled", "2 are missing: numbers 3 to 4"]),
    (log_of(10), [range(10), range(2)], 0, ["10 were sent, but 12 handled", "2 came again"]),
    (log_of(10), [range(9), [8]], 0, ["1 are missing: number 9", "1 came again"]),
    (log_of(10), [range(11)], 0, ["10 were sent, but 11 handled", "1 were handled that the server does not know of"]),
    (log_of(10), [range(10)], 3, ["3 failed"]),
    (log_of(10, start=5), [range(10)], 0, ["somebody else was connected"]),
    (log_of(20), [range(0, 20, 2)], 0, ["10 are missing: number 1, number 3, number 5, number 7, number 9, "
                                        "and 5 more runs"]),
])
def test_each_way_to_disagree_is_named(log, chunks, failed, expected):
    found = faults(log, ledger_of(*chunks).reckon(log.messages), failed)
    for text in expected:
        assert any(text in fault for fault in found), found
    lines = summarize(log, ledger_of(*chunks).reckon(log.messages),
                      Figures(**{**{name: getattr(FIGURES, name) for name in FIGURES.__slots__}, "failed": failed}))
    assert "NOT proven" in "\n".join(lines)
    assert "Proven:" not in "\n".join(lines)


class ForgetfulFeed(Feed):
    """A real feed, whose last log leaves out the last message: what is handled is then one more than was sent."""

    def stop(self):
        log = super().stop()
        *others, last = log.connections
        shorter = {name: getattr(last, name) for name in last.__dataclass_fields__}
        shorter |= {"messages": last.messages - 1, "last_sequence": last.last_sequence - 1}
        return FeedLog((*others, FeedConnectionLog(**shorter)))


@pytest.mark.usefixtures("no_leaks")
def test_the_demo_ends_with_1_when_the_log_of_the_server_disagrees(monkeypatch):
    monkeypatch.setattr(demonstration, "Feed", ForgetfulFeed)
    stream = io.StringIO()
    status = demonstration.run(demonstration.Options(seconds=0.4, rate=20_000, cut=False), stream, plain=True)
    assert status == 1
    assert "NOT proven" in stream.getvalue()
    assert "1 were handled that the server does not know of" in stream.getvalue()


@pytest.mark.usefixtures("no_leaks")
def test_the_demo_ends_with_1_when_a_message_fails(monkeypatch):
    original = demonstration.TradeCheck.handle_messages

    def handle(self, messages):
        if self.ledger.handled == 0:
            messages[0].fail("made up")
        original(self, messages)

    monkeypatch.setattr(demonstration.TradeCheck, "handle_messages", handle)
    stream = io.StringIO()
    assert demonstration.run(demonstration.Options(seconds=0.4, rate=20_000, cut=False), stream, plain=True) == 1
    assert re.search(r"- \d+ failed$", stream.getvalue(), re.MULTILINE)


def snapshot(count, **changes):
    processors = tuple(ProcessorStats(index, index, 1000 * index, 0, 0.0, 0.0) for index in range(count))
    return Snapshot(**{
        "elapsed": 3.0, "seconds": 10.0, "rate": 200_000.4, "handled": 600_000, "failed": 0, "depth": 24,
        "held_messages": 30, "held_bytes": 262_144, "max_queue": 65_536, "max_queue_bytes": 2**26, "max_demand": 100,
        "processors": processors, "state": "ready", "round_trip": 0.00021, "reconnects": 1, **changes})


def test_a_plain_line_tells_all_figures():
    stream = io.StringIO()
    with PlainView(stream) as view:
        view.show(snapshot(3))
    for text in ("3.0 s", "200,000 msg/s", "handled 600,000", "outstanding 0 1 2 ", "ring 24", "held 256.0 KiB",
                 "round trip 0.21 ms", "reconnects 1", "ready"):
        assert text in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


def test_many_processors_are_summed_up():
    stream = io.StringIO()
    PlainView(stream).show(snapshot(20))
    assert "13 14 15 and 70 in 4 more" in stream.getvalue()


def test_the_live_table_shows_all_figures():
    from rich.console import Console

    from wsengine.cli.live import render

    console = Console(file=io.StringIO(), width=100)
    console.print(render(snapshot(20, failed=7, state="paused")))
    shown = console.file.getvalue()
    for text in ("200,000 msg/s", "600,000", "7 failed", "24 waiting", "30 messages", "256.0 KiB", "paused",
                 "round trip 0.21 ms, reconnects 1", "15,000", "4 more", "70,000"):
        assert text in shown


def test_a_stream_that_is_no_terminal_gets_plain_lines():
    assert isinstance(open_view(io.StringIO(), plain=False), PlainView)


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.00021, "0.21 ms"), (0.9, "900.00 ms"), (2.5, "2.5 s")])
def test_times_are_written_for_people(value, text):
    assert milliseconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (1023, "1,023 B"), (1536, "1.5 KiB"), (2**26, "64.0 MiB"),
                                             (5 * 2**40, "5,120.0 GiB")])
def test_sizes_are_written_for_people(value, text):
    assert size_text(value) == text
