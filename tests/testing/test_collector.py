"""`Collector` keeps what it is given and says what is missing."""

from __future__ import annotations

import pytest

from wsengine import Message, WebSocketProducer
from wsengine.testing import Collector, DummyProducer, Feed

pytestmark = pytest.mark.usefixtures("no_leaks")


def test_it_keeps_all_of_a_feed_in_order_and_every_message_stays_itself() -> None:
    payloads = [(2, b"%d" % number) for number in range(3000)]
    with Feed.payloads(payloads) as feed, Collector(WebSocketProducer(feed.url)) as pipeline:
        messages = pipeline.wait(3000)
    assert [(one.opcode, one.data) for one in messages] == payloads
    assert len({id(one) for one in messages}) == 3000


def test_a_wait_in_vain_says_how_many_came() -> None:
    with Collector(DummyProducer()) as pipeline:
        pipeline.push_messages([Message(b"only")])
        assert [one.data for one in pipeline.wait(1)] == [b"only"]
        with pytest.raises(TimeoutError, match=r"1 of 2 messages came within 0\.05 seconds"):
            pipeline.wait(2, 0.05)
