"""The process of the client under test: runs cases against a fuzzing server, echoing every message as it came.

    python -m compliance.client wsengine ws://127.0.0.1:40123 --authority ca.pem --deflate-from 301 --first 1

It prints one line of JSON when a case begins and one when it has ended, so that its starter (run) can tell which case it
hangs in, or dies in. What the cases came to is the server's to say.
"""

from __future__ import annotations

import argparse
import importlib
import json
import ssl
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Where each client is: the module of its `connect`, and that of its `WebSocketException`, which a closed connection raises.
#: The second is there to tell failures of the harness from those of the client.
CLIENTS = {"wsengine": ("wsengine", "wsengine"), "websockets": ("websockets.sync.client", "websockets.exceptions")}

#: Bytes. The largest message of the suite has 16 MiB (9.1.6, 9.2.6).
MAX_SIZE = 32 << 20
#: The suite's reports are by agent.
AGENT = "client"


class Runner:
    """Runs cases one after the other, each on a connection of its own.

    Args:
        client: one of CLIENTS.
        url: of the server.
        authority: file with the certificate to trust, for `wss://`.
    """

    def __init__(self, client: str, url: str, authority: str | None) -> None:
        connect, errors = (importlib.import_module(module) for module in CLIENTS[client])
        self._connect: Callable[..., Any] = connect.connect
        self._expected: type[Exception] = errors.WebSocketException
        self._url = url
        self._options: dict[str, Any] = {"max_size": MAX_SIZE}
        if authority is not None:
            self._options["ssl"] = ssl.create_default_context(cafile=authority)

    def case_count(self) -> dict[str, Any]:
        """How many cases the server will run, and by which TLS path the answer came (None without TLS)."""
        with self._open("/getCaseCount", deflate=False) as connection:
            return {"count": int(connection.recv()), "tls_path": getattr(connection, "tls_path", None)}

    def run_case(self, number: int, *, deflate: bool) -> dict[str, Any]:
        """Echo until the connection ends. `error` is how the client told of it, `unexpected` whether it may say so."""
        started = time.perf_counter()
        error: Exception | None = None
        try:
            with self._open(f"/runCase?case={number}&agent={AGENT}", deflate) as connection:
                for message in connection:
                    connection.send(message)
        except Exception as one:
            error = one
        return {
            "ended": number, "seconds": time.perf_counter() - started,
            "error": error and f"{type(error).__name__}: {error}",
            "unexpected": error is not None and not isinstance(error, (self._expected, OSError)),
        }

    def update_reports(self) -> None:
        """Have the server write its reports; returns when it has."""
        with self._open(f"/updateReports?agent={AGENT}", deflate=False) as connection:
            for _message in connection:
                pass

    def _open(self, path: str, deflate: bool) -> Any:
        return self._connect(self._url + path, compression="deflate" if deflate else None, **self._options)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; leaves the process with status 2 for wrong ones."""
    parser = argparse.ArgumentParser(prog="python -m compliance.client", description=__doc__)
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("url")
    parser.add_argument("--authority", help="file with the certificate to trust")
    parser.add_argument("--first", type=int, default=1, help="case to begin with, by its place on the server's list")
    parser.add_argument("--deflate-from", type=int, default=sys.maxsize, help="first case that offers permessage-deflate")
    parser.add_argument("--only-report", action="store_true", help="run nothing, have the reports written")
    return parser.parse_args(arguments)


def tell(line: dict[str, Any]) -> None:
    """One line to the starter, at once."""
    print(json.dumps(line), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cases from `--first` to the last; then, or instead, have the reports written."""
    options = parse(arguments)
    runner = Runner(options.client, options.url, options.authority)
    if not options.only_report:
        head = runner.case_count()
        tell(head)
        for number in range(options.first, head["count"] + 1):
            tell({"begun": number})
            tell(runner.run_case(number, deflate=number >= options.deflate_from))
    runner.update_reports()
    tell({"reported": True})


if __name__ == "__main__":
    main()
