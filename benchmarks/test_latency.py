"""From the server's stamp to the handler, at three rates, without and with spinning. Percentiles are in extra_info."""

import pytest

from wsengine.testing import Feed


@pytest.mark.parametrize("spin", [0, 50], ids=lambda number: f"spin{number}")
@pytest.mark.parametrize("rate", [1_000, 10_000, 100_000])
def test_latency(measured, rate, spin):
    found = measured(Feed.trades(size=128, rate=rate), "wsengine_client", "--mode", "latency", "--spin", spin)
    assert 0 < found["p50_us"] <= found["p99_us"] <= found["p999_us"]
    assert found["messages_per_second"] > rate / 2
