"""Resident memory while handlers are blocked and the server goes on sending. Growth is in extra_info, in bytes."""

import pytest

from wsengine.testing import Feed

MEBIBYTE = 1 << 20


@pytest.mark.parametrize("concurrency", [1, 8], ids=lambda number: f"x{number}")
@pytest.mark.parametrize("size", [128, MEBIBYTE], ids=["128B", "1MiB"])
def test_growth_with_blocked_handlers(measured, benchmark, size, concurrency):
    found = measured(Feed.binary(size), "blocked_client", "--concurrency", concurrency)
    benchmark.extra_info["above_bound"] = found["growth_bytes"] - found["max_queue_bytes"]
    assert found["held_messages"] > 0
