"""json.loads as the handler, on a recorded feed, against a plain loop over the same payloads in memory.

`overhead_processor` is what the processor's thread spends above the loop, a message, as a share of the loop;
`overhead_engine` counts the reader and all other threads as well, so the kernel's part of receiving, too.
"""

import pytest

from benchmarks.runs import drive, drive_feed
from wsengine.testing import Feed


@pytest.mark.parametrize("handler", ["json", "json-chunks"])
def test_engine_beside_a_plain_loop(benchmark, recordings, seconds, handler):
    path = recordings / "coinbase.jsonl.gz"

    def both():
        loop = drive("json_loop", path, "--seconds", seconds)
        engine = drive_feed(Feed.recording(path, speed=None, loop=True), "wsengine_client", "--handler", handler,
                            seconds=seconds)
        return loop, engine

    loop, engine = benchmark.pedantic(both, rounds=1, iterations=1)
    plain = loop["cpu_seconds_per_million"]
    benchmark.extra_info.update({
        "plain_loop_us": plain, "engine_us": engine["cpu_seconds_per_million"],
        "engine_us_by_role": engine["cpu_seconds_per_million_by_role"],
        "overhead_processor": engine["cpu_seconds_per_million_by_role"]["processor"] / plain - 1,
        "overhead_engine": engine["cpu_seconds_per_million"] / plain - 1,
        "messages_per_second": engine["messages_per_second"], "machine_idle_share": engine["machine_idle_share"],
        "mean_bytes": [one["bytes"] / one["messages"] for one in (loop, engine)],
    })
    assert engine["messages"] > 0
