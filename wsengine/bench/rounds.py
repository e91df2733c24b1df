"""The rounds of a benchmark: all cases and peers take turns, every other round the other way, so that nobody always runs
behind the same one. Who fails takes no more turns, and the others go on. What a run is, is said by `runs`; what is made of
the figures, by `statistics` and `table`."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from wsengine.bench.feeds import Source, certificates, feed_of
from wsengine.bench.runs import drive, drive_feed
from wsengine.testing.feed import Feed
from wsengine.testing.peers.catalogue import PEERS
from wsengine.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from wsengine.bench.case import Case

__all__ = ["Contest", "Entry", "Failure", "Outcome"]

CLIENT = "wsengine.bench.client"
#: Seconds that a run takes beside what it measures: two processes that start, and a connection.
BESIDE = 1.0
#: The same, with the wait for the first message, before it is ended.
BESIDE_AT_MOST = 60.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One of those that take turns: a case of ours, or a peer with the size of its payloads."""

    name: str
    case: Case
    peer: str | None = None


class Failure(NamedTuple):
    """The round, from 1, in which the process of an entry failed, or the feed that it was measured against, and why."""

    round: int
    reason: str


class Outcome(NamedTuple):
    """Figures and failures by the names of entries; all have figures, if only none, and those that failed have both."""

    rounds: dict[str, list[dict[str, Any]]]
    failures: dict[str, Failure]


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

    def run(
        self, told: Callable[[Entry, int], None], failed: Callable[[Entry, Failure, bool], None]
    ) -> Outcome:
        """Have them take turns until all rounds are done, or nobody is left.

        Args:
            told: called before each run, with how many are done or left out.
            failed: called with who has failed, and whether anybody is left.

        Raises:
            ConfigurationError: the feed's port is taken, say. OSError.
        """
        found = Outcome({entry.name: [] for entry in self.entries}, {})
        with certificates(any(entry.case.tls != "none" for entry in self.entries)) as files:
            for done, (number, entry) in enumerate(self._turns()):
                if entry.name in found.failures:
                    continue
                told(entry, done)
                try:
                    found.rounds[entry.name].append(self._run(entry, files))
                except (RuntimeError, TimeoutError) as error:  # of the driver, or of the feed's process
                    found.failures[entry.name] = failure = Failure(number, printable(str(error)))
                    failed(entry, failure, len(found.failures) < len(self.entries))
        return found

    def _turns(self) -> Iterator[tuple[int, Entry]]:
        for number in range(1, self.rounds + 1):
            yield from ((number, entry) for entry in self.entries[:: 1 if number % 2 else -1])

    def _run(self, entry: Entry, files: tuple[Path, Path] | None) -> dict[str, Any]:
        result = self._result(entry, files)
        if entry.peer is None:
            for name in self.source.ignores:  # what it sends has a size of its own, say, and not that of the case
                result["settings"].pop(name, None)
        return result

    def _result(self, entry: Entry, files: tuple[Path, Path] | None) -> dict[str, Any]:
        source = self.source
        arguments: list[object] = ["--warmup", self.warmup, "--size", entry.case.size,
                                   "--mode", "flood" if source.rate is None else "latency"]
        beside = BESIDE_AT_MOST + self.warmup
        if entry.peer is not None:
            feed = Feed.trades(size=entry.case.size, rate=source.rate, seed=source.seed, port=source.port)
            return drive_feed(feed, PEERS[entry.peer].driver, *arguments, seconds=self.seconds, beside=beside)
        arguments += ["--case", json.dumps(entry.case.settings())]
        if source.stamps(entry.case):
            arguments.append("--stamped")
        if source.url is not None:
            return drive(CLIENT, source.url, *arguments, "--foreign", "--seconds", self.seconds,
                         timeout=self.seconds + beside) | {"server_idle_share": None}
        if files is not None and entry.case.tls != "none":
            source = replace(source, certificate=files[0])
            arguments += ["--ca", files[1]]
        return drive_feed(feed_of(entry.case, source), CLIENT, *arguments, seconds=self.seconds, beside=beside)
