"""The command line: starts the fuzzing server and the client, each in a process of its own, and prints what came of it.

    python -m compliance.run --tls none A B

It ends with status 1 where a case does not hold, and names each such case with what server and client say of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compliance.client import CLIENTS, DEFAULT
from compliance.report import Case, table
from compliance.server import QUICK_EXCLUDES, FuzzingServer, ServerFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[1]
#: Sections whose cases offer permessage-deflate.
DEFLATE_SECTIONS = (12, 13)
#: Forces path B in the client process; without it the engine takes A where it can.
TLS_PATH_VARIABLE = "WSENGINE_TLS_PATH"


class ClientFailed(RuntimeError):
    """The client could not even be asked to run cases; the text says what it printed."""


class Client:
    """The client's process, started again behind each case in which it hangs or dies.

    Args:
        options: of the command line.
        tls: "none", "A" or "B".
        server: already started.
    """

    def __init__(self, options: argparse.Namespace, tls: str, server: FuzzingServer) -> None:
        self._patience = options.patience
        self._tls = tls
        self._ours = options.client != "websockets"
        self._cases = server.cases
        deflate = next((place for place, number in enumerate(server.cases, 1)
                        if int(number.partition(".")[0]) in DEFLATE_SECTIONS), sys.maxsize)
        self._command = [sys.executable, "-m", "compliance.client", options.client, server.url]
        self._command += ["--deflate-from", str(deflate)]
        if server.authority is not None:
            self._command += ["--authority", str(server.authority)]
        self._environment = dict(os.environ)
        if tls == "B":
            self._environment[TLS_PATH_VARIABLE] = "B"
        else:
            self._environment.pop(TLS_PATH_VARIABLE, None)
        #: What the client said of each case that it has ended, and why it did not end the others; by place.
        self.ended: dict[int, dict[str, Any]] = {}
        self.broken: dict[int, str] = {}

    def run(self) -> None:
        """Run all cases, and have the reports written."""
        first = 1
        while first <= len(self._cases):
            place, problem = self._run_from(["--first", str(first)])
            if not problem:
                return
            if not place or place in self.ended:  # not the fault of a case
                raise ClientFailed(problem)
            self.broken[place] = problem
            first = place + 1
        _place, problem = self._run_from(["--only-report"])
        if problem:
            raise ClientFailed(problem)

    def _run_from(self, arguments: Sequence[str]) -> tuple[int, str]:
        """One process. The place of the case it was in last (0: none), and what went wrong, empty if nothing did."""
        ours, theirs = socket.socketpair()
        with ours, theirs, tempfile.TemporaryFile() as errors:
            process = subprocess.Popen([*self._command, *arguments], stdin=subprocess.DEVNULL, stdout=theirs, stderr=errors,
                                       cwd=ROOT, env=self._environment)
            theirs.close()
            place, reported, problem = 0, False, ""
            try:
                for line in self._lines(ours):
                    place, reported = line.get("begun", place), line.get("reported", False)
                    self._take(line)
                status = process.wait(self._patience)
            except TimeoutError:
                problem = f"the client did not come back within {self._patience:g} s"
            else:
                if not reported or status:
                    errors.seek(0)
                    said = errors.read().decode(errors="replace").strip()
                    problem = f"the client ended with status {status}: {said[-2000:] or 'it said nothing'}"
            finally:
                process.kill()
                process.wait()
        return place, problem

    def _lines(self, connection: socket.socket) -> Iterator[dict[str, Any]]:
        connection.settimeout(self._patience)
        with connection.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)

    def _take(self, line: dict[str, Any]) -> None:
        if "ended" in line:
            self.ended[line["ended"]] = line
        elif "count" in line:
            if line["count"] != len(self._cases):
                raise ClientFailed(f"getCaseCount: {line['count']}, and the server has {len(self._cases)} cases")
            wanted = None if self._tls == "none" else self._tls
            if self._ours and line["tls_path"] != wanted:
                raise ClientFailed(f"--tls {self._tls}: the connection has tls_path {line['tls_path']!r}; path A needs an "
                                   f"interpreter whose ssl module shares its libssl")


def judge(client: Client, server: FuzzingServer) -> list[Case]:
    """Bring together what server and client say of each case."""
    results = server.results()
    cases = []
    for place, number in enumerate(server.cases, 1):
        result, line = results.get(number), client.ended.get(place, {})
        broken = place in client.broken or line.get("unexpected", False)
        case = Case(number, result["behavior"] if result else "MISSING", result["behaviorClose"] if result else "MISSING",
                    line.get("seconds", 0.0), broken=broken)
        if not case.holds:
            case.notes.append(server.explanation(result) if result else "The server has no record of it.")
            case.notes.append(f"Client: {client.broken.get(place) or line.get('error') or 'closed without an error'}")
        cases.append(case)
    return cases


def run(options: argparse.Namespace, tls: str, folder: Path) -> dict[str, Any]:
    """One run over one kind of connection: the cases with their verdicts, and the wall time in seconds."""
    started = time.perf_counter()
    exclude = QUICK_EXCLUDES if options.quick else ()
    with FuzzingServer(folder, options.cases, exclude, tls=tls != "none") as server:
        client = Client(options, tls, server)
        client.run()
        cases = judge(client, server)
    return {"tls": tls, "seconds": time.perf_counter() - started, "cases": cases}


def show(outcome: dict[str, Any]) -> None:
    """Print the table of one run, its wall time, and each case that does not hold."""
    cases = outcome["cases"]
    print("\n".join(table(cases)))
    print(f"\nTLS {outcome['tls']}: {len(cases)} cases in {outcome['seconds']:.1f} s", flush=True)
    for case in cases:
        if not case.holds:
            print(f"does not hold: {case.number}: {case.behavior}, closing {case.closing}, {case.seconds:.1f} s")
            for note in case.notes:
                print("    " + note.replace("\n", "\n    "))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; leaves the process with status 2 for wrong ones."""
    parser = argparse.ArgumentParser(prog="python -m compliance.run", description=__doc__)
    parser.add_argument("--tls", nargs="+", choices=("none", "A", "B"), default=["none"],
                        help="one run for each: without TLS, or over the engine's path A or B")
    parser.add_argument("--cases", nargs="+", default=["*"], metavar="PATTERN", help="such as '1.*' 6.4.1")
    parser.add_argument("--quick", action="store_true", help="without " + ", ".join(QUICK_EXCLUDES))
    parser.add_argument("--client", choices=CLIENTS, default=DEFAULT,
                        help="which client is tested: connect(), a pipeline, or that of `websockets`")
    parser.add_argument("--patience", type=float, default=120.0,
                        help="seconds for one case, after which the client is taken for hung and started anew")
    parser.add_argument("--reports", type=Path, help="folder for the suite's own reports (HTML), one subfolder a run")
    parser.add_argument("--json", type=Path, help="file for the verdicts, case by case")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 0 where every case of every run holds."""
    options = parse(arguments)
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch:
        for tls in options.tls:
            folder = (options.reports.resolve() if options.reports else Path(scratch)) / f"tls-{tls}"
            folder.mkdir(parents=True, exist_ok=True)
            print(f"{options.client}, Python {platform.python_version()}, TLS {tls}:", flush=True)
            try:
                outcome = run(options, tls, folder)
            except (ServerFailed, ClientFailed) as error:
                print(f"compliance.run: {error}", file=sys.stderr)
                return 2
            show(outcome)
            outcomes.append(outcome | {"cases": [asdict(one) | {"holds": one.holds} for one in outcome["cases"]]})
    if options.json:
        options.json.write_text(json.dumps(outcomes, indent=1))
    return 0 if all(one["holds"] for outcome in outcomes for one in outcome["cases"]) else 1


if __name__ == "__main__":
    sys.exit(main())
