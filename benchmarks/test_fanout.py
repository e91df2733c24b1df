"""Moving messages of one ring into partitions by a compiled key, as the thread before the processors does: find the key,
copy the message, charge its share. A round puts 4,096 trades of eight symbols into the source, moves them, and takes them
out of the targets; what putting and taking cost is in the figure, and is told by test_ring.
"""

import pytest

from benchmarks.messages import trades
from wsengine.engine.fanout import Fanout
from wsengine.engine.keys import ByteSlice, JSONField
from wsengine.engine.ring import Account, Parker, Ring

MESSAGES, SIZE = 4096, 128
#: What `Fanout.move` says of a batch that it has moved.
MOVED = 1
KEYS = {"field": JSONField("sym"), "slice": ByteSlice(-16)}


def rings(partitions):
    """The source, and a target for each partition."""
    whole = Account(4 * MESSAGES, 64 << 20)
    source = Ring(4 * MESSAGES, whole, Parker())
    return source, [Ring(4 * MESSAGES, Account(4 * MESSAGES, 64 << 20, whole=whole), Parker()) for _ in range(partitions)]


def taken(target):
    """How many messages were there to be taken out; a claim is of some hundred at the most."""
    count = 0
    while claimed := len(target.claim(MESSAGES)):
        count += claimed
    return count


@pytest.mark.parametrize("partitions", [1, 8], ids=lambda number: f"x{number}")
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_messages_moved_into_partitions(benchmark, key, partitions):
    source, targets = rings(partitions)
    fanout, payloads = Fanout(source, key, targets), trades(MESSAGES, SIZE)

    def move():
        assert source.push(payloads) == MESSAGES
        while (outcome := fanout.move()) == MOVED:
            pass
        assert outcome == 0, "there is room for all"
        return sum(map(taken, targets))

    assert benchmark(move) == MESSAGES
    if benchmark.stats:
        benchmark.extra_info["messages_per_second"] = MESSAGES / benchmark.stats.stats.median
