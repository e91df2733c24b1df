"""Clients by their names, ours and others', that take turns: which of them are installed, and the rounds.

A client that fails takes no more turns; the others go on. What a run is, and what its figures are called, is said by the
programs that use this: memory and many.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.arguments import above_zero, positive
from wsengine.bench.table import machine
from wsengine.testing.peers.catalogue import PEERS, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["Client", "about", "chosen", "installed", "parser", "settings", "take_turns"]

#: The runs of each client.
Rounds = dict[str, list[dict[str, Any]]]


class Client(NamedTuple):
    """A driver of this folder with its first arguments, and the peer of the catalogue whose modules it needs."""

    driver: str
    arguments: tuple[object, ...] = ()
    peer: str | None = None


def parser(program: str, description: str, clients: Mapping[str, Client]) -> argparse.ArgumentParser:
    """A parser with what these programs have in common."""
    made = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    made.add_argument("--rounds", type=positive, default=3)
    made.add_argument("--seconds", type=above_zero, default=3.0, help="measured of each client in each round")
    made.add_argument("--clients", default=",".join(clients), help="of " + ", ".join(clients))
    return made


def chosen(made: argparse.ArgumentParser, names: str, clients: Mapping[str, Client]) -> dict[str, Client]:
    """Those of --clients that are installed; leaves the process with status 2 for a name that there is not."""
    wanted = list(dict.fromkeys(filter(None, names.split(","))))
    for name in wanted:
        if name not in clients:
            made.error(f"--clients: there is no {name!r}; give some of {', '.join(clients)}")
    return {name: clients[name] for name in installed({name: clients[name].peer for name in wanted})}


def installed(peers: Mapping[str, str | None]) -> list[str]:
    """The names whose peer, if they have one, is installed; one line on stderr for each of the others."""
    found = []
    for name, peer in peers.items():
        absent = [] if peer is None else missing(PEERS[peer])
        if absent:
            print(f"{name} is left out: not installed: {', '.join(absent)} (pip install 'wsengine[bench]')",
                  file=sys.stderr)
        else:
            found.append(name)
    return found


def take_turns(names: Iterable[str], rounds: int, run: Callable[[str], dict[str, Any]]) -> tuple[Rounds, dict[str, str]]:
    """So many rounds of all of them; and of those that failed, in which round and why."""
    found: Rounds = {name: [] for name in names}
    failed: dict[str, str] = {}
    for number in range(1, rounds + 1):
        # Every other round goes the other way, so that nobody always runs behind the same one.
        for name in list(found)[:: 1 if number % 2 else -1]:
            if name not in failed:
                try:
                    found[name].append(run(name))
                except (RuntimeError, TimeoutError) as error:  # of the driver, or of the feed's process
                    failed[name] = f"round {number}: {error}"
        print(f"round {number} of {rounds}", file=sys.stderr)
    return found, failed


def about() -> str:
    """What the figures depend on, in a line."""
    found = machine()
    return (f"{found['cores']} cores, {found['system']} {found['architecture']}, Python {found['python']}, load "
            f"{found['load']}")


def settings(rounds: Rounds) -> Iterator[str]:
    """How each client was used, a line each."""
    for name, runs in rounds.items():
        if runs:
            yield f"{name}: " + ", ".join(f"{key}={value}" for key, value in runs[0]["settings"].items() if key != "client")
