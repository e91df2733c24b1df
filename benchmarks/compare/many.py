"""Many idle connections of one process: `python -m benchmarks.compare.many [--connections N]`.

Each connection is greeted with one message and has somebody who would take more: wsengine's one pipeline for them all, or
for each of them a task, a listener or a thread, whichever the client is made for. All ping in the same period. Told are the
time until all are there, resident memory for each, threads of the process, and CPU while nothing happens but pings; with a
short --keepalive those, too, are in the figure.
"""

from __future__ import annotations

import random
import resource
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.arguments import above_zero, positive
from benchmarks.compare.sides import shown
from benchmarks.compare.turns import Client, about, chosen, parser, settings, take_turns
from benchmarks.runs import drive_feed
from wsengine.bench.statistics import column
from wsengine.errors import ConfigurationError
from wsengine.testing import Feed

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

CLIENTS = {
    "wsengine": Client("many_client"),
    "wsengine-connect": Client("many_peer", ("connect",)),
    "websockets-asyncio": Client("many_peer", ("websockets-asyncio",), "websockets"),
    "picows": Client("many_peer", ("picows",), "picows"),
    "aiohttp": Client("many_peer", ("aiohttp",), "aiohttp"),
    "websockets": Client("many_peer", ("websockets",), "websockets"),
    "websocket-client": Client("many_peer", ("websocket-client",), "websocket-client"),
}
#: Those that know permessage-deflate.
DEFLATING = ("wsengine", "wsengine-connect", "websockets-asyncio", "aiohttp", "websockets")
#: Open files of a connection, of those that open most: websockets has a selector and a pair of sockets beside it.
FILES_EACH = 4
#: Those of a process without any connection, generously.
FILES = 100
#: What server and clients raise their limits to, where they may.
MOST_FILES = 16_384


def most_connections() -> int:
    """For how many the limit of open files is enough."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    return max(0, (files - FILES) // FILES_EACH)


def run(client: Client, options: argparse.Namespace) -> dict[str, Any]:
    """One client, once."""
    greeting = random.Random(options.greeting).randbytes(options.greeting)
    feed = Feed.payloads([(2, greeting)], resume=False, compression="context_takeover" if options.compression else None)
    return drive_feed(feed, client.driver, *client.arguments, "--connections", options.connections, "--keepalive",
                      options.keepalive, *(["--compression"] if options.compression else []), seconds=options.seconds,
                      beside=180.0)


def line(runs: Sequence[dict[str, Any]]) -> str:
    """What is told of a client."""
    return (f"{shown([one / 1024 for one in column(runs, 'bytes_each')], '{:,.1f}')} KiB each, connected in "
            f"{shown(column(runs, 'connect_seconds'))} s, idle at "
            f"{shown([100 * one for one in column(runs, 'idle_cpu_share')])} % of a core, "
            f"{shown(column(runs, 'threads'), '{:,.0f}')} threads")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each client; 1 if one failed."""
    made = parser("benchmarks.compare.many", __doc__ or "", CLIENTS)
    made.add_argument("--connections", type=positive, default=1000)
    made.add_argument("--keepalive", type=above_zero, default=20.0, help="seconds between the pings of a connection")
    made.add_argument("--greeting", type=positive, default=5, metavar="BYTES",
                      help="of the message that greets each connection: 40,000 fill the window of a compressed one (5)")
    made.add_argument("--compression", action="store_true", help="with permessage-deflate; only of clients that know it")
    options = made.parse_args(arguments)
    if options.connections > most_connections():
        made.error(f"--connections {options.connections}: the limit of open files (ulimit -Hn, and of ours {MOST_FILES:,}) "
                   f"is enough for {most_connections():,}")
    clients = chosen(made, options.clients, CLIENTS)
    if options.compression:
        print(*(f"{name} is left out: it has no permessage-deflate" for name in clients if name not in DEFLATING), sep="\n",
              file=sys.stderr)
        clients = {name: client for name, client in clients.items() if name in DEFLATING}
    print(f"{about()}; {options.rounds} rounds; {options.connections:,} connections, greeted with {options.greeting:,} "
          f"bytes, idle for {options.seconds:g} s, a ping each in {options.keepalive:g} s, "
          f"{'deflate' if options.compression else 'no compression'}\n"
          "Median (least … greatest) of the rounds.\n")
    try:
        rounds, failed = take_turns(clients, options.rounds, lambda name: run(clients[name], options))
    except (ConfigurationError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    for name, runs in rounds.items():
        print(f"  {name:<20} " + (f"FAILED in {failed[name]}" if name in failed else line(runs)))
    print("\n" + "\n".join(settings(rounds)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
