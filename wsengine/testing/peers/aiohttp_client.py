"""aiohttp on uvloop as a measured client: receive() in a loop, payloads as bytes where this version of it has that."""

from __future__ import annotations

import inspect
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from wsengine.testing.peers.aside import measure_aside
from wsengine.testing.peers.window import Tally, arguments
from wsengine.testing.stamp import read_stamp

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

#: No limit, no compression, and text as the bytes that it came in, without a look at its UTF-8.
FASTEST = {"max_msg_size": 0, "compress": 0, "decode_text": False}


def fastest(connect: Callable[..., Any]) -> dict[str, Any]:
    """The options that make it fastest, as far as its `connect` takes them: `decode_text` is of late versions only."""
    taken = inspect.signature(connect).parameters
    return {name: value for name, value in FASTEST.items() if name in taken}


async def run(options: argparse.Namespace, tally: Tally, chosen: dict[str, Any]) -> None:
    import aiohttp

    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(options.url, **chosen) as connection,
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
    import aiohttp
    import uvloop

    options = arguments(__doc__).parse_args()
    tally = Tally(options.size)
    chosen = fastest(aiohttp.ClientSession.ws_connect)
    measure_aside(tally, options, {
        "client": "aiohttp", "version": version("aiohttp"), "loop": f"uvloop {version('uvloop')}", "api": "receive()",
        **chosen, "utf8_checked": "decode_text" not in chosen,
    })
    uvloop.run(run(options, tally, chosen))


if __name__ == "__main__":
    main()
