"""A plain loop over `connect()` under a flood: text as str, and payloads as bytes. Figures are in extra_info."""

import pytest

from wsengine.testing import Feed

SIZES = {"128B": 128, "4KiB": 4096, "64KiB": 65_536}
TEXT = 1


@pytest.mark.parametrize("loop", ["iterate", "recv-bytes"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_messages_taken_in_a_loop(measured, loop, size):
    feed = Feed.payloads([(TEXT, b"x" * size)], loop=True)
    found = measured(feed, "connect_client", "--size", size, "--loop", loop)
    assert found["messages"] > 0
