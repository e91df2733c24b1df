"""The command line of the comparison: its options, and the rounds in which wsengine and the peers take turns."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from benchmarks.arguments import positive
from benchmarks.compare.evenness import Cores
from benchmarks.compare.report import US, lines, summary
from benchmarks.compare.turns import installed
from benchmarks.runs import DriverFailed, drive_feed
from wsengine.errors import ConfigurationError
from wsengine.testing import Feed
from wsengine.testing.peers.catalogue import PEERS

if TYPE_CHECKING:
    from collections.abc import Sequence

#: wsengine with one processor, all else as it is: what --concurrency is compared with.
OURS_WITH_ONE = "wsengine-x1"
#: Seconds to wait for a round, in the mean, in which the cores run alike all the while.
PATIENCE = 30


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; leaves the process with status 2 for wrong ones."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("command", choices=("flood", "latency"),
                        help="flood: messages a second, flat out; latency: from the server's stamp to the handler")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="measured in each round")
    parser.add_argument("--warmup", type=float, default=0.5, help="seconds before them")
    parser.add_argument("--size", type=int, default=128, help="bytes of each payload, at least 96")
    parser.add_argument("--rate", type=float, default=10_000.0, help="messages a second, of latency only")
    parser.add_argument("--peers", default=",".join(PEERS), help="of " + ", ".join([OURS_WITH_ONE, *PEERS]))
    parser.add_argument("--handler", choices=("message", "message-data", "messages", "messages-data"), default="message",
                        help="of wsengine: one message or a chunk at a time, and for a flood: only counts, or takes each "
                             "payload, too")
    parser.add_argument("--concurrency", type=positive, default=1, help="processors of wsengine")
    parser.add_argument("--max-demand", type=positive, default=100, help="of wsengine's processors")
    parser.add_argument("--spin", type=float, default=0.0, help="microseconds, of wsengine's processors")
    parser.add_argument("--even", action="store_true", help="count only rounds in which all cores ran at one speed before, "
                        "between and after the clients, and repeat the others; short --seconds suit it")
    parser.add_argument("--json", action="store_true", help="everything, each round by itself, as JSON")
    options = parser.parse_args(arguments)
    options.peers = list(dict.fromkeys(filter(None, options.peers.split(","))))
    for name in options.peers:
        if name not in (OURS_WITH_ONE, *PEERS):
            parser.error(f"--peers: there is no {name!r}; give some of {', '.join([OURS_WITH_ONE, *PEERS])}")
    if options.command == "latency" and options.handler.endswith("-data"):
        plain = options.handler.removesuffix("-data")
        parser.error(f"--handler {options.handler} is for flood; latency looks at each payload anyway: give {plain}")
    for name in ("seconds", "rate"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name} {getattr(options, name):g}: give a number above 0")
    return options


def available(names: Sequence[str]) -> list[str]:
    """Those whose modules are installed; one line on stderr for each of the others."""
    return installed({name: None if name == OURS_WITH_ONE else name for name in names})


def run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One client, once, against a feed of its own."""
    feed = Feed.trades(size=options.size, rate=options.rate if options.command == "latency" else None)
    arguments: list[object] = ["--mode", options.command, "--warmup", options.warmup, "--size", options.size]
    if name not in (US, OURS_WITH_ONE):
        return drive_feed(feed, PEERS[name].driver, *arguments, seconds=options.seconds)
    return drive_feed(feed, "wsengine_client", *arguments, "--handler", options.handler, "--concurrency",
                      options.concurrency if name == US else 1, "--max-demand", options.max_demand, "--spin", options.spin,
                      seconds=options.seconds)


def round_of(names: Sequence[str], options: argparse.Namespace, cores: Cores | None) -> dict[str, dict[str, Any]] | None:
    """Each client once, in this order; None if the cores did not run alike all the while."""
    found = {}
    if cores is not None and not cores.look():
        return None
    for name in names:
        found[name] = run(name, options)
        if cores is not None and not cores.look():
            return None
    return found


def all_rounds(names: Sequence[str], options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """So many rounds of them all, or fewer if the cores hardly ever run alike; DriverFailed if a client fails, or for
    want of any round."""
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    done, until = 0, time.monotonic() + PATIENCE * options.rounds
    with Cores() if options.even else nullcontext() as cores:
        while done < options.rounds and (cores is None or time.monotonic() < until):
            # Every other round goes the other way, so that nobody always runs behind the same one.
            found = round_of(names if done % 2 == 0 else names[::-1], options, cores)
            if found is None:
                time.sleep(0.1)
                continue
            done += 1
            print(f"round {done} of {options.rounds}", file=sys.stderr)
            for name in names:
                rounds[name].append(found[name])
    if done == 0:
        raise DriverFailed("the cores never ran alike during a whole round; try when the machine is quiet")
    if done < options.rounds:
        print(f"given up after {done} rounds: the cores hardly ever run alike", file=sys.stderr)
    return rounds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all rounds and print; 1 if a client failed, with the reason on stderr."""
    options = parse(arguments)
    try:
        rounds = all_rounds([US, *available(options.peers)], options)
    except (DriverFailed, ConfigurationError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    hidden = {"command", "json", "peers"} | ({"rate"} if options.command == "flood" else set())
    shown = {key: value for key, value in vars(options).items() if key not in hidden}
    found = summary(options.command, shown, rounds)
    print(json.dumps(found, indent=1) if options.json else "\n".join(lines(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
