"""The partitions of one running pipeline: their shares of its bound, the partitioner, and what is told of them.

Here is how many there are and what each may hold. How messages come to them is the partitioner's matter, and what is done
with messages that of their processors, which are made and ended by the topology.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from wsengine import telemetry
from wsengine.engine.keys import KeyExtractor
from wsengine.engine.ring import Account, Parker, Ring
from wsengine.pipeline.partition_by import BUFFERS, SMALLEST
from wsengine.pipeline.partitioner import Partitioner
from wsengine.pipeline.seats import Post
from wsengine.pipeline.sources import Queue, Sources

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.pipeline.crew import Crew
    from wsengine.pipeline.partition_by import PartitionBy

__all__ = ["Partitions"]

#: Bytes of a receive buffer of a partition at the most, and those that its pool keeps for the next burst.
LARGEST, SPARE = 2**16, 2**21
#: Slots of a partition's ring beyond its share, for what the partitioner has in hand when a stop's deadline comes.
SLACK = 256
#: Seconds that a function of the user's may take behind the deadline of a stop.
BRIEF = 0.05
#: Seconds between two events of one kind for one partition.
APART = 1.0


class _Watch:
    """What has been told of one partition."""

    def __init__(self, index: int, share: Sources) -> None:
        self.index, self.share = index, share
        self.high = False
        self.high_at = self.drop_at = float("-inf")
        self.stalls = self.dropped = 0


class Partitions:
    """The partitions of a crew.

    Args:
        crew: of the pipeline, which is partitioned.
        by: finds the keys. overflow: what becomes of messages that have no room. cost: bytes that each message counts for.
        settled, change: as of `Partitioner`.
    """

    def __init__(self, crew: Crew, by: PartitionBy, overflow: str, cost: int, settled: Callable[[], bool],
                 change: Callable[[], None]) -> None:
        self._crew = crew
        self._by = by
        self._overflow = overflow
        self._cost = cost
        self.partitioner = Partitioner(crew, by, overflow, settled=settled, change=change)
        self.post = Post("partitioner", 0, self.partitioner)
        self._telling = threading.Lock()  # over what has been told, and whom it is told of
        self._watched: list[_Watch] = []

    def make_shares(self, count: int) -> list[Sources]:
        """Sources for so many processors, to be given to `use`."""
        return [self._share(count) for _ in range(count)]

    def _share(self, count: int) -> Sources:
        whole, rings = self._crew.account, self._crew.sources.rings
        share = Account(max(whole.max_messages // count, 1), max(whole.max_bytes // count, 1), self._cost, whole)
        sources = Sources(Parker(), share, 1)
        for _, origin, transformer in rings if isinstance(self._by, KeyExtractor) else ():
            slab = max(min(share.max_bytes // (BUFFERS * 2 * len(rings)), LARGEST), SMALLEST)
            ring = Ring(1 << (share.max_messages + SLACK - 1).bit_length(), share, sources.parker, slab_bytes=slab,
                        guest=True, spare_bytes=SPARE // count)
            sources.add_ring(ring, origin, transformer)
        sources.add_inbox(Queue(self._crew.tell_taken))
        sources.add_inbox(Queue(self._crew.tell_taken), True)
        return sources

    def use(self, shares: list[Sources]) -> None:
        """Have the partitioner give to these. Before its thread starts, or in it."""
        if self._watched:
            self._tell_rest()
        self._crew.set_shares(shares)
        self.partitioner.connect()
        with self._telling:
            self._watched = [_Watch(index, share) for index, share in enumerate(shares)]

    def observe(self, now: float) -> None:
        """Tell of partitions that have become full, that have room again, and that had to drop; each once in a while. The
        monitor."""
        if not telemetry.attached():
            return
        figures = self.figures
        with self._telling:
            if figures[0][0] is self._watched[0].share:  # else they have just been replaced
                for watch, (_, stalls, dropped) in zip(self._watched, figures, strict=True):
                    self._tell_level(watch, stalls, now)
                    self._tell_drops(watch, dropped, now)

    def release(self) -> None:
        """Tell what has not been told, and give the descriptor back; after a stop."""
        self._tell_rest()
        if self.post.thread is None or not self.post.thread.is_alive():
            self.partitioner.release()

    def _tell_rest(self) -> None:
        """Tell of drops that have not been told yet: nothing more will come of these partitions."""
        with self._telling:
            for watch, (_, _, dropped) in zip(self._watched, self.figures, strict=True):
                self._tell_drops(watch, dropped, float("inf"))

    def _tell_level(self, watch: _Watch, stalls: int, now: float) -> None:
        account = watch.share.account
        low = account.messages <= account.max_messages // 2 and account.bytes <= account.max_bytes // 2
        if stalls != watch.stalls and not watch.high and now - watch.high_at >= APART:
            watch.high, watch.high_at, watch.stalls = True, now, stalls
            self._execute(telemetry.PARTITION_HIGH, watch)
        elif watch.high and low and now > watch.high_at:
            watch.high, watch.stalls = False, stalls
            self._execute(telemetry.PARTITION_LOW, watch)

    def _execute(self, event: telemetry.Event, watch: _Watch) -> None:
        account = watch.share.account
        telemetry.execute(event, {"messages": account.messages, "bytes": account.bytes, "max_messages": account.max_messages,
                                  "max_bytes": account.max_bytes}, self._where(watch))

    def _tell_drops(self, watch: _Watch, dropped: int, now: float) -> None:
        if dropped != watch.dropped and now - watch.drop_at >= APART:
            count, watch.dropped, watch.drop_at = dropped - watch.dropped, dropped, now
            telemetry.execute(telemetry.PARTITION_DROP, {"count": count}, self._where(watch))

    def _where(self, watch: _Watch) -> dict[str, object]:
        return {"topology_name": self._crew.name, "partition": watch.index, "overflow": self._overflow}

    @property
    def figures(self) -> list[tuple[Sources, int, int]]:
        """Of each partition its sources, how often a message found it full, and for how many it had no room."""
        return self.partitioner.figures

    def wait_until_over(self, seconds: float) -> None:
        """After the crew was closed: give the partitioner time to move on what it has in hand. Where a function of a user's
        chooses partitions it may not return, and what is in hand is taken over."""
        thread = self.post.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(seconds if isinstance(self._by, KeyExtractor) else min(seconds, BRIEF))
        if thread is None or not thread.is_alive():  # it may have died with something in hand
            self.partitioner.move_hand()
