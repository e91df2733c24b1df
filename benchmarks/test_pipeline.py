"""The whole pipeline under a flood: sizes, concurrency and both kinds of handler. Figures are in extra_info."""

import pytest

from wsengine.testing import Feed

SIZES = {"16B": 16, "128B": 128, "1KiB": 1024, "64KiB": 65_536, "1MiB": 1 << 20}
TEXT = 1


@pytest.mark.parametrize("handler", ["message", "messages"])
@pytest.mark.parametrize("concurrency", [1, 2, 4, 8], ids=lambda number: f"x{number}")
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_messages_and_bytes_a_second(measured, size, concurrency, handler):
    feed = Feed.payloads([(TEXT, b"x" * size)], loop=True)
    found = measured(feed, "wsengine_client", "--size", size, "--concurrency", concurrency, "--handler", handler)
    assert found["messages"] > 0


@pytest.mark.parametrize("concurrency", [1, 2], ids=lambda number: f"x{number}")
def test_a_handler_that_computes_for_50_microseconds(measured, concurrency):
    """Two processors are of use on a free-threaded build only; with a GIL, the two figures are about the same."""
    found = measured(Feed.trades(size=128), "wsengine_client", "--handler", "busy", "--concurrency", concurrency)
    assert found["messages"] > 0
