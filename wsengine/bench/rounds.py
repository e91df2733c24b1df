"""The rounds of a benchmark: all cases and peers take turns, every other round the other way, so that nobody always runs
behind the same one. What a run is, is said by `runs`; what is made of the figures, by `statistics` and `table`."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wsengine.bench.feeds import Source, certificates, feed_of
from wsengine.bench.runs import drive, drive_feed
from wsengine.testing.feed import Feed
from wsengine.testing.peers.catalogue import PEERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from wsengine.bench.case import Case

__all__ = ["Contest", "Entry"]

CLIENT = "wsengine.bench.client"
#: Seconds that a run takes beside what it measures: two processes that start, and a connection.
BESIDE = 1.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One of those that take turns: a case of ours, or a peer with the size of its payloads."""

    name: str
    case: Case
    peer: str | None = None


class Contest:
    """So many rounds of some entries.

    Args:
        entries: in the order of the table; names are told apart by whoever makes them.
        source: of the messages. rounds, seconds, warmup: how often and how long each is measured.
    """

    def __init__(self, entries: Sequence[Entry], source: Source, *, rounds: int, seconds: float, warmup: float) -> None:
        self.entries = list(entries)
        self.source = source
        self.rounds = rounds
        self.seconds = seconds
        self.warmup = warmup

    @property
    def expected_seconds(self) -> float:
        """About how long all of it takes."""
        return self.rounds * len(self.entries) * (self.seconds + self.warmup + BESIDE)

    def run(self, told: Callable[[Entry, int], None]) -> dict[str, list[dict[str, Any]]]:
        """The figures of each round by the name of the entry. `told` is called before each run, with how many are done.

        Raises:
            DriverFailed: a run failed. ConfigurationError: the feed's port is taken, say. OSError.
        """
        found: dict[str, list[dict[str, Any]]] = {entry.name: [] for entry in self.entries}
        done = 0
        with certificates(any(entry.case.tls != "none" for entry in self.entries)) as files:
            for number in range(self.rounds):
                for entry in self.entries[:: 1 if number % 2 == 0 else -1]:
                    told(entry, done)
                    found[entry.name].append(self._run(entry, files))
                    done += 1
        return found

    def _run(self, entry: Entry, files: tuple[Path, Path] | None) -> dict[str, Any]:
        arguments: list[object] = ["--warmup", self.warmup, "--size", entry.case.size]
        source = self.source
        if entry.peer is not None:
            mode = "flood" if source.rate is None else "latency"
            feed = Feed.trades(size=entry.case.size, rate=source.rate, seed=source.seed, port=source.port)
            return drive_feed(feed, PEERS[entry.peer].driver, *arguments, "--mode", mode, seconds=self.seconds)
        arguments += ["--case", json.dumps(entry.case.settings()), "--mode", "flood" if source.rate is None else "latency"]
        if source.stamps(entry.case):
            arguments.append("--stamped")
        if source.url is not None:
            return drive(CLIENT, source.url, *arguments, "--foreign", "--seconds", self.seconds,
                         timeout=60 + self.seconds + self.warmup) | {"server_idle_share": None}
        if files is not None and entry.case.tls != "none":
            source = replace(source, certificate=files[0])
            arguments += ["--ca", files[1]]
        return drive_feed(feed_of(entry.case, source), CLIENT, *arguments, seconds=self.seconds)
