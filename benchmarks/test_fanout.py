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
KEYS = {"field": JSONField("sym"), "slice": ByteSlice(-16)}


def rings(partitions):
    """The source, and a target for each partition."""
    whole = Account(4 * MESSAGES, 64 << 20)
    source = Ring(4 * MESSAGES, whole, Parker())
    return source, [Ring(4 * MESSAGES, Account(4 * MESSAGES, 64 << 20, whole=whole), Parker()) for _ in range(partitions)]


@pytest.mark.parametrize("partitions", [1, 8], ids=lambda number: f"x{number}")
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_messages_moved_into_partitions(benchmark, key, partitions):
    source, targets = rings(partitions)
    fanout, payloads = Fanout(source, key, targets), trades(MESSAGES, SIZE)

    def move():
        assert source.push(payloads) == MESSAGES
        while fanout.move():
            pass
        return sum(len(target.claim(MESSAGES)) for target in targets)

    assert benchmark(move) == MESSAGES
    if benchmark.stats:
        benchmark.extra_info["messages_per_second"] = MESSAGES / benchmark.stats.stats.median
