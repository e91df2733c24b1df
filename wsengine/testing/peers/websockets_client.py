"""websockets, its synchronous client, as a measured client: recv() in a loop, payloads as bytes."""

from __future__ import annotations

import time
from importlib.metadata import version

from wsengine.testing.peers.aside import measure_aside
from wsengine.testing.peers.window import Tally, arguments
from wsengine.testing.stamp import read_stamp


def main() -> None:
    from websockets.sync.client import connect

    parser = arguments(__doc__)
    parser.add_argument("--max-queue", type=int, default=16, help="its own default was faster than 1024")
    options = parser.parse_args()
    tally = Tally(options.size)
    measure_aside(tally, options, {
        "client": "websockets", "version": version("websockets"), "api": "sync recv(decode=False)",
        "compression": None, "max_size": None, "max_queue": options.max_queue, "utf8_checked": False,
    })
    with connect(options.url, compression=None, proxy=None, max_size=None, max_queue=options.max_queue) as connection:
        recv = connection.recv
        if options.mode == "latency":
            while True:
                payload = recv(decode=False)
                tally.messages += 1
                tally.latencies.append(time.monotonic_ns() - read_stamp(payload))
        while True:
            _ = recv(decode=False)
            tally.messages += 1


if __name__ == "__main__":
    main()
