"""Pings and pongs while a handler holds the GIL in one C call. Figures are in extra_info, in ms.

Each ping is compared with its time, counted in keepalive periods from the first one seen; a pong's delay is what the
server saw. Under a flood the buffer is full after a moment, and the server's pings stand behind data that cannot be
read: there the pongs are counted, and promised nothing. A run takes `--seconds`; the budget is for 10.
"""

import pytest

from benchmarks.runs import drive
from wsengine.testing import Feed

PERIOD = 0.25


QUIET, FLOOD = 1, None


def run(seconds, count):
    with Feed.trades(count=count, ping_interval=PERIOD) as feed:
        held = drive("held_client", feed.url, "--seconds", seconds, "--keepalive", PERIOD, timeout=60 + seconds)
        [connection] = feed.stop().connections
    begin, end = held["held_from_ns"], held["held_to_ns"]
    pings = [ping.at_ns for ping in connection.pings if begin <= ping.at_ns <= end]
    pongs = [pong.delay for pong in connection.pongs if begin <= pong.at_ns <= end]
    return pings, pongs


@pytest.mark.parametrize("count", [QUIET, FLOOD], ids=["quiet", "flood"])
def test_pings_and_pongs_while_the_gil_is_held(benchmark, seconds, count):
    pings, pongs = benchmark.pedantic(run, args=(max(seconds, 4 * PERIOD), count), rounds=1, iterations=1)
    off = [abs((at - pings[0]) / 1e9 - number * PERIOD) * 1000 for number, at in enumerate(pings)]
    benchmark.extra_info.update({"pings": len(pings), "pongs": len(pongs), "most_off_its_time_ms": max(off),
                                 "slowest_pong_ms": max(pongs) * 1000 if pongs else None})
    assert len(pings) >= 3
    if count == QUIET:
        assert len(pongs) >= 3
    assert None not in pongs
