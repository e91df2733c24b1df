"""aiohttp on uvloop as a measured client: receive() in a loop, payloads as bytes."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING

from wsengine.testing.peers.aside import measure_aside
from wsengine.testing.peers.window import Tally, arguments
from wsengine.testing.stamp import read_stamp

if TYPE_CHECKING:
    import argparse


async def run(options: argparse.Namespace, tally: Tally) -> None:
    import aiohttp

    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(options.url, max_msg_size=0, compress=0, decode_text=False) as connection,
    ):
        receive = connection.receive
        if options.mode == "latency":
            while True:
                payload = (await receive()).data
                tally.messages += 1
                tally.latencies.append(time.monotonic_ns() - read_stamp(payload))
        while True:
            _ = (await receive()).data
            tally.messages += 1


def main() -> None:
    import uvloop

    options = arguments(__doc__).parse_args()
    tally = Tally(options.size)
    measure_aside(tally, options, {
        "client": "aiohttp", "version": version("aiohttp"), "loop": f"uvloop {version('uvloop')}",
        "api": "receive(), decode_text=False", "compress": 0, "utf8_checked": False,
    })
    uvloop.run(run(options, tally))


if __name__ == "__main__":
    main()
