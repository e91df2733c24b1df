"""Pings and pongs while a handler holds the GIL in one C call, with a quiet server. Figures are in extra_info, in ms.

The time between two pings is compared with the keepalive period; a pong's delay is what the server saw. It takes
`--seconds`, and 10 for the budget.
"""

from itertools import pairwise

from benchmarks.runs import drive
from wsengine.testing import Feed

PERIOD = 0.25


def run(seconds):
    with Feed.trades(count=1, ping_interval=PERIOD) as feed:
        held = drive("held_client", feed.url, "--seconds", seconds, "--keepalive", PERIOD, timeout=60 + seconds)
        [connection] = feed.stop().connections
    begin, end = held["held_from_ns"], held["held_to_ns"]
    pings = [ping.at_ns for ping in connection.pings if begin <= ping.at_ns <= end]
    pongs = [pong.delay for pong in connection.pongs if begin <= pong.at_ns <= end]
    return pings, pongs


def test_pings_and_pongs_while_the_gil_is_held(benchmark, seconds):
    pings, pongs = benchmark.pedantic(run, args=(max(seconds, 4 * PERIOD),), rounds=1, iterations=1)
    late = [abs((then - before) / 1e9 - PERIOD) * 1000 for before, then in pairwise(pings)]
    benchmark.extra_info.update({"pings": len(pings), "pongs": len(pongs), "most_off_its_time_ms": max(late),
                                 "slowest_pong_ms": max(pongs) * 1000})
    assert len(pings) >= 3
    assert None not in pongs
