"""A pipeline with partitions under a flood of trades of eight symbols; the handler does nothing. Figures are in extra_info.
What partitions cost beside a pipeline without them is the business of compare.partitions."""

import pytest

from wsengine.testing import Feed


@pytest.mark.parametrize("by", ["field", "slice", "function"])
@pytest.mark.parametrize("concurrency", [1, 8], ids=lambda number: f"x{number}")
def test_messages_through_partitions(measured, concurrency, by):
    found = measured(Feed.trades(), "wsengine_client", "--handler", "pass", "--concurrency", concurrency,
                     "--partition-by", by)
    assert found["messages"] > 0
