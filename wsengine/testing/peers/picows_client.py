"""picows on uvloop as a measured client: a listener in plain Python that takes each payload as bytes."""

from __future__ import annotations

import time
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from wsengine.testing.peers.aside import measure_aside
from wsengine.testing.peers.window import Tally, arguments
from wsengine.testing.stamp import read_stamp

if TYPE_CHECKING:
    import argparse

#: Bytes of a frame: the check is there in any case.
LARGEST = 1 << 28


def listener(mode: str, tally: Tally) -> Any:
    """The listener for a flood, which counts, or for latencies."""
    import picows

    class Count(picows.WSListener):
        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            # Looking at the type of a frame is left out: the feed sends data only, and the peer is to be at its fastest.
            _ = frame.get_payload_as_bytes()
            tally.messages += 1

    class Stamp(picows.WSListener):
        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            tally.messages += 1
            tally.latencies.append(time.monotonic_ns() - read_stamp(frame.get_payload_as_bytes()))

    return Stamp() if mode == "latency" else Count()


async def run(options: argparse.Namespace, tally: Tally) -> None:
    import picows

    transport, _ = await picows.ws_connect(
        lambda: listener(options.mode, tally), options.url, max_frame_size=LARGEST,
        read_buffer_init_size=options.read_buffer)
    await transport.wait_disconnected()


def main() -> None:
    import uvloop

    parser = arguments(__doc__)
    parser.add_argument("--read-buffer", type=int, default=1 << 14,
                        help="bytes; its own default was the fastest of 16 KiB, 256 KiB and 1 MiB")
    options = parser.parse_args()
    tally = Tally(options.size)
    measure_aside(tally, options, {
        "client": "picows", "version": version("picows"), "loop": f"uvloop {version('uvloop')}",
        "aiofastnet": version("aiofastnet") if find_spec("aiofastnet") else None,  # which it takes where it is there
        "max_frame_size": LARGEST, "read_buffer_init_size": options.read_buffer, "payload": "bytes", "utf8_checked": False,
    })
    uvloop.run(run(options, tally))


if __name__ == "__main__":
    main()
