"""websocket-client as a measured client: recv_data() in a loop, payloads as bytes, without its UTF-8 check and locks."""

from __future__ import annotations

import time
from importlib.metadata import version

from wsengine.testing.peers.aside import measure_aside
from wsengine.testing.peers.window import Tally, arguments
from wsengine.testing.stamp import read_stamp


def main() -> None:
    import websocket

    options = arguments(__doc__).parse_args()
    tally = Tally(options.size)
    measure_aside(tally, options, {
        "client": "websocket-client", "version": version("websocket-client"), "api": "recv_data()",
        "enable_multithread": False, "skip_utf8_validation": True, "utf8_checked": False,
    })
    connection = websocket.create_connection(
        options.url, timeout=30, enable_multithread=False, skip_utf8_validation=True)
    recv = connection.recv_data
    if options.mode == "latency":
        while True:
            payload = recv()[1]
            tally.messages += 1
            tally.latencies.append(time.monotonic_ns() - read_stamp(payload))
    while True:
        _ = recv()[1]
        tally.messages += 1


if __name__ == "__main__":
    main()
