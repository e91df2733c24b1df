"""connect() as a measured client that sends: one thread, as fast as `send` returns."""

from __future__ import annotations

import wsengine
from wsengine.testing.peers.aside import measure_aside
from wsengine.testing.peers.window import Tally, arguments

KINDS = {"text": lambda size: "x" * size, "bytes": bytes}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--kind", choices=KINDS, default="bytes")
    options = parser.parse_args()
    message, tally = KINDS[options.kind](options.size), Tally(options.size)
    measure_aside(tally, options, {"client": "wsengine", "api": "connect()", "kind": options.kind})
    with wsengine.connect(options.url, proxy=None) as connection:
        send = connection.send
        while True:
            send(message)
            tally.messages += 1


if __name__ == "__main__":
    main()
