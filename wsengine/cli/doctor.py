"""`wsengine doctor`: goes to a server step by step, and finds of each what works and what fails.

The steps stand in approach.py, encryption.py and session.py, and use the parts of the dial one by one, at last the dial
itself. How findings are shown stands in report.py, what is advised in remedies.py.

    URL ─▶ proxy ─▶ DNS ─▶ TCP ─▶ tunnel ─▶ TLS ─▶ certificate ─▶ path ─▶ upgrade ─▶ deflate ─▶ clock ─▶ round trip
        ─▶ server pings ─▶ closing

A step that needs what has failed before it is skipped, and says so.

    0    nothing has failed
    1    a step has failed
    2    a wrong option
    130  ended by Ctrl-C; 141 when nobody reads the output any more
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsengine.cli.approach import Approach
from wsengine.cli.arguments import duration
from wsengine.cli.case import Case
from wsengine.cli.encryption import Encryption
from wsengine.cli.report import SKIPPED, Finding, show, show_json
from wsengine.cli.server import Server, add_server, in_words_of_the_command
from wsengine.cli.session import Session
from wsengine.websocket.headers import resolve_headers

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import TextIO

__all__ = ["add_options", "in_words_of_the_command", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_server(parser)
    option = parser.add_argument
    option("--timeout", type=duration, default=10.0, metavar="S", help="for each step (%(default)g)")
    option("--listen", type=duration, default=2.0, metavar="S", help="wait so long for pings of the server (%(default)g)")
    option("--json", action="store_true", help="print one JSON object instead")


def run(given: argparse.Namespace, stream: TextIO) -> int:
    """Run the command; returns 0 if nothing has failed, else 1.

    Raises:
        ConfigurationError: an option is wrong.
        BrokenPipeError: nobody reads the output any more. OSError: it cannot be written.
    """
    server = Server.of(given)
    resolve_headers(list(server.headers))
    case = Case(server, given.timeout, given.listen)
    if given.json:
        findings = list(examine(case))
        return int(not show_json(case.url, findings, stream))
    return int(not show(examine(case), stream))


def examine(case: Case) -> Iterator[Finding]:
    """Go through all steps; each finding comes when it is there."""
    approach, encryption, session = Approach(case), Encryption(case), Session(case)
    try:
        for name, step in (*approach.steps, *encryption.steps, *session.steps):
            known = (name == "certificate" and encryption.knows_certificate) or (name == "clock" and session.has_answer)
            if case.halted and not known:
                yield Finding(name, SKIPPED, case.halted)
            else:
                yield from step()
    finally:
        session.end()
