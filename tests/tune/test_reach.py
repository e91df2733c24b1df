"""What may be reached while something is tuned: the feed that is measured, and no endpoint of the user's."""

from __future__ import annotations

import pytest

from wsengine import EngineStopped, Pipeline, connect
from wsengine.testing import DummyProducer, Feed
from wsengine.tune.reach import Reach
from wsengine.websocket import client


class Quiet(Pipeline):
    def handle_message(self, message):
        pass


@pytest.fixture
def as_it_was(monkeypatch):
    """What `Reach` puts in place goes with the test."""
    monkeypatch.setattr(Pipeline, "start", Pipeline.start)
    monkeypatch.setattr(client, "dial", client.dial)


@pytest.mark.usefixtures("as_it_was")
def test_no_pipeline_starts_but_the_one_that_is_measured():
    mine, other = Quiet(DummyProducer(), name="mine"), Quiet(DummyProducer(), name="other")
    reach = Reach(connections=False)
    reach.begin()
    for one in (mine, other):
        with pytest.raises(EngineStopped, match="__main__"):
            one.start()
    reach.allow(mine)
    with mine:
        assert mine.state == "running"
        with pytest.raises(EngineStopped, match="no other pipeline may start"):
            other.start()


@pytest.mark.usefixtures("as_it_was")
@pytest.mark.parametrize("named", [False, True])
def test_a_connection_is_made_only_where_the_user_has_named_an_endpoint(named):
    Reach(connections=named).begin()
    with Feed.trades(count=1) as feed:
        if named:
            with connect(feed.url) as connection:
                assert connection.recv(timeout=10)
        else:
            with pytest.raises(EngineStopped, match="while its module is tuned"):
                connect(feed.url)
        assert len(feed.log().connections) == named
