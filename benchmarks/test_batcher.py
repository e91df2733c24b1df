"""A pipeline whose every message goes through a batcher, under a flood; all callbacks do nothing. Figures are in extra_info.
What a batcher costs beside a pipeline without one is the business of compare.batcher."""

import pytest

from wsengine.testing import Feed

HANDLERS = {"handle_message": "pass", "handle_messages": "pass-chunks"}


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
@pytest.mark.parametrize("size", [10, 100, 1000], ids=lambda size: f"batches of {size}")
@pytest.mark.parametrize("concurrency", [1, 8], ids=lambda number: f"x{number}")
def test_messages_through_a_batcher(measured, concurrency, size, handler):
    found = measured(Feed.trades(), "wsengine_client", "--handler", handler, "--concurrency", concurrency,
                     "--batcher", concurrency, "--batch-size", size)
    assert found["messages"] > 0


def test_messages_through_a_batcher_whose_sizes_a_function_decides(measured):
    found = measured(Feed.trades(), "wsengine_client", "--handler", "pass", "--batcher", 1, "--batch-bytes", 16_384)
    assert found["messages"] > 0
