"""connect() as a measured client: a plain loop that counts, over the connection or over recv() for bytes."""

from __future__ import annotations

import wsengine
from wsengine.testing.peers.aside import measure_aside
from wsengine.testing.peers.window import Tally, arguments


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--loop", choices=("iterate", "recv-bytes"), default="iterate")
    options = parser.parse_args()
    tally = Tally(options.size)
    measure_aside(tally, options, {"client": "wsengine", "api": "connect()", "loop": options.loop, "utf8_checked": True})
    with wsengine.connect(options.url, proxy=None) as connection:
        if options.loop == "iterate":
            for _ in connection:
                tally.messages += 1
        recv = connection.recv
        while True:
            recv(decode=False)
            tally.messages += 1


if __name__ == "__main__":
    main()
