"""The drivers of other clients measure them, each in a process of its own. Visibly skipped where a client is missing."""

from __future__ import annotations

import pytest

from wsengine.bench.runs import DriverFailed, drive, drive_feed
from wsengine.testing import Feed
from wsengine.testing.peers.aiohttp_client import fastest
from wsengine.testing.peers.catalogue import PEERS, missing


@pytest.mark.parametrize("mode", ["flood", "latency"])
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_is_measured(name, mode):
    absent = missing(PEERS[name])
    if absent:
        pytest.skip(f"{name} is not installed: {', '.join(absent)}; pip install 'wsengine[bench]'")
    feed = Feed.trades(rate=None if mode == "flood" else 2000)
    found = drive_feed(feed, PEERS[name].driver, "--mode", mode, "--warmup", 0.1, seconds=0.3)
    assert found["messages"] > 100
    assert found["settings"]["client"] == name
    assert found["settings"]["version"]
    assert ("p50_us" in found) == (mode == "latency")
    assert 0 <= found["server_idle_share"] <= 1


def test_aiohttp_is_given_what_its_version_takes():
    def early(self, url, *, max_msg_size=4, compress=0): ...

    def late(self, url, *, max_msg_size=4, compress=0, decode_text=True): ...

    assert fastest(early) == {"max_msg_size": 0, "compress": 0}
    assert fastest(late) == {"max_msg_size": 0, "compress": 0, "decode_text": False}


def test_a_driver_that_fails_is_told_by_its_last_line():
    with pytest.raises(DriverFailed, match=r"^client: status 1: TypeError: .*argument 'colour'") as failure:
        drive("wsengine.bench.client", "ws://127.0.0.1:9", "--case", '{"colour": 1}')
    assert "Traceback" in failure.value.__notes__[0]


def test_a_driver_that_takes_too_long_is_ended():
    with Feed.trades(count=0) as feed, pytest.raises(DriverFailed, match="no result within 1 seconds"):
        drive("wsengine.bench.client", feed.url, "--case", "{}", timeout=1)
