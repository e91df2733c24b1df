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
from typing import TYPE_CHECKING, Any, NamedTuple

import wsengine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    #: Given what sends, and a message.
    Answer = Callable[[Callable[[str | bytes], None], str | bytes], None]

#: Bytes. The largest message of the suite has 16 MiB (9.1.6, 9.2.6).
MAX_SIZE = 32 << 20
#: The suite's reports are by agent.
AGENT = "client"

TEXT = 1


class Ended(NamedTuple):
    """How a connection ended: by which error, None for a normal closure, and over which TLS path."""

    error: Exception | None
    tls_path: str | None


def talk_by_connection(client: ModuleType, errors: ModuleType, url: str, options: dict[str, Any], answer: Answer) -> Ended:
    """One connection of a synchronous client: answer each message until it ends."""
    with client.connect(url, **options) as connection:
        error: Exception | None = None
        try:
            for message in connection:
                answer(connection.send, message)
        except errors.ConnectionClosed as closed:
            error = closed
    return Ended(error, getattr(connection, "tls_path", None))


def talk_by_pipeline(client: ModuleType, errors: ModuleType, url: str, options: dict[str, Any], answer: Answer) -> Ended:
    """The same by a pipeline, whose handler answers, and which does not connect again."""

    class Answering(client.Pipeline):  # type: ignore[name-defined, misc]
        def handle_message(self, message: Any) -> None:
            answer(message.connection.send, message.text if message.opcode == TEXT else message.data)

    producer = client.WebSocketProducer(url, retry=client.Backoff(max_retries=0), **options)
    error = Answering(producer).run().error
    if not isinstance(error, errors.RetriesExhausted):
        raise TypeError(f"the pipeline ended with {error!r}")
    last = error.last
    return Ended(None if isinstance(last, errors.ConnectionClosedOK) else last, producer.connections[0].tls_path)


#: Of each client how it talks, its module, that of its errors, by which it tells of an end (others are the harness's), and
#: options of its own: what `connect` buffers must hold the largest message.
CLIENTS: dict[str, tuple[Callable[..., Ended], str, str, dict[str, Any]]] = {
    "wsengine": (talk_by_connection, "wsengine", "wsengine", {"max_queue_bytes": 2 * MAX_SIZE}),
    "pipeline": (talk_by_pipeline, "wsengine", "wsengine", {}),
    "websockets": (talk_by_connection, "websockets.sync.client", "websockets.exceptions", {}),
}
#: The client that is run unless another is asked for.
DEFAULT = "wsengine" if hasattr(wsengine, "connect") else "pipeline"


class Runner:
    """Runs cases one after the other, each on a connection of its own.

    Args:
        client: one of CLIENTS.
        url: of the server.
        authority: file with the certificate to trust, for `wss://`.
    """

    def __init__(self, client: str, url: str, authority: str | None) -> None:
        self._talk, module, errors, own = CLIENTS[client]
        self._module, self._errors = importlib.import_module(module), importlib.import_module(errors)
        self._url = url
        self._options: dict[str, Any] = {"max_size": MAX_SIZE, **own}
        if authority is not None:
            self._options["ssl"] = ssl.create_default_context(cafile=authority)

    def case_count(self) -> dict[str, Any]:
        """How many cases the server will run, and by which TLS path the answer came (None without TLS)."""
        counts: list[int] = []
        ended = self._run("/getCaseCount", lambda _send, message: counts.append(int(message)))
        if not counts:
            raise ended.error or RuntimeError("the server sent no count")
        return {"count": counts[0], "tls_path": ended.tls_path}

    def run_case(self, number: int, *, deflate: bool) -> dict[str, Any]:
        """Echo until the connection ends. `error` is how the client told of it, `unexpected` whether it may not say so."""
        started = time.perf_counter()
        try:
            error = self._run(f"/runCase?case={number}&agent={AGENT}", lambda send, message: send(message), deflate).error
        except Exception as one:
            error = one
        return {
            "ended": number, "seconds": time.perf_counter() - started,
            "error": error and f"{type(error).__name__}: {error}",
            "unexpected": error is not None and not isinstance(error, (self._errors.WebSocketException, OSError)),
        }

    def update_reports(self) -> None:
        """Have the server write its reports; returns when it has."""
        self._run(f"/updateReports?agent={AGENT}", lambda _send, _message: None)

    def _run(self, path: str, answer: Answer, deflate: bool = False) -> Ended:
        options = self._options | {"compression": "deflate" if deflate else None}
        return self._talk(self._module, self._errors, self._url + path, options, answer)


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
