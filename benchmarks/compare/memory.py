"""How far resident memory grows while whoever handles the messages is blocked and the server goes on sending:
`python -m benchmarks.compare.memory`.

Each client is used as its own documentation shows, with its own bounds; blocked_peer.py has them. picows has no queue and
is there twice: "picows" is blocked in its listener, and with it the loop that answers pings; "picows-queue" does what keeps
that loop free, a queue.SimpleQueue between the listener and a thread, which nothing bounds. Any client may be put before
such a queue, and grows like that then; it is ended when it has grown by --ceiling.

Growth is counted from before the connection is made, so it has the threads and buffers of the client, too. What the kernel
holds for the socket is no part of it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from benchmarks.arguments import positive, positives
from benchmarks.compare.sides import shown
from benchmarks.compare.turns import Client, about, chosen, parser, settings, take_turns
from benchmarks.runs import drive_feed
from wsengine.bench.statistics import column
from wsengine.errors import ConfigurationError
from wsengine.testing import Feed

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

MIB = 1 << 20
CLIENTS = {
    "wsengine": Client("blocked_client"),
    "wsengine-connect": Client("blocked_peer", ("connect",)),
    "websockets": Client("blocked_peer", ("websockets",), "websockets"),
    "websockets-asyncio": Client("blocked_peer", ("websockets-asyncio",), "websockets"),
    "aiohttp": Client("blocked_peer", ("aiohttp",), "aiohttp"),
    "picows": Client("blocked_peer", ("picows",), "picows"),
    "picows-queue": Client("blocked_peer", ("picows-queue",), "picows"),
    "websocket-client": Client("blocked_peer", ("websocket-client",), "websocket-client"),
}


def run(client: Client, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """One client, once."""
    if client.driver == "blocked_client":
        own: tuple[object, ...] = ("--max-queue-bytes", options.max_queue_bytes)
    else:
        own = ("--ceiling", options.ceiling * MIB)
    return drive_feed(Feed.binary(size), client.driver, *client.arguments, *own, seconds=options.seconds)


def line(runs: Sequence[dict[str, Any]]) -> str:
    """What is told of a client."""
    said = f"{shown([one / MIB for one in column(runs, 'growth_bytes')], '{:,.1f}')} MiB"
    held = [one["held_messages"] for one in runs if one.get("held_messages") is not None]
    if held:
        said += f", {shown(held, '{:,.0f}')} messages held"
    ended = [one["ended_after"] for one in runs if one.get("ended_after") is not None]
    if ended:
        said += f"; ended at the ceiling in {len(ended)} of {len(runs)} rounds, after {shown(ended)} s"
    return said


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a block for each size of the messages; 1 if a client failed."""
    made = parser("benchmarks.compare.memory", __doc__ or "", CLIENTS)
    made.add_argument("--sizes", type=positives, default=[128, MIB], help="bytes of the messages, a comma between them")
    made.add_argument("--max-queue-bytes", type=positive, default=64 * MIB, help="of wsengine's pipeline")
    made.add_argument("--ceiling", type=positive, default=512, help="MiB of growth at which a peer is ended")
    options = made.parse_args(arguments)
    clients = chosen(made, options.clients, CLIENTS)
    print(f"{about()}; {options.rounds} rounds, blocked for {options.seconds:g} s\n"
          "Growth of resident memory: median (least … greatest) of the rounds.")
    failures = 0
    for size in options.sizes:
        try:
            rounds, failed = take_turns(clients, options.rounds, lambda name, size=size: run(clients[name], size, options))
        except (ConfigurationError, OSError) as error:
            print(error, file=sys.stderr)
            return 1
        failures += len(failed)
        print(f"\nmessages of {size:,} B")
        for name, runs in rounds.items():
            print(f"  {name:<20} " + (f"FAILED in {failed[name]}" if name in failed else line(runs)), flush=True)
    print("\n" + "\n".join(settings(rounds)))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
