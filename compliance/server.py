"""The Autobahn fuzzing server, seen from the program that starts it: where it is installed, and how it is started.

What runs inside its process does not belong here (fuzzing_server), nor does what is made of its reports (report).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trustme

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

__all__ = ["ENVIRONMENT_VARIABLE", "INSTALL", "QUICK_EXCLUDES", "FuzzingServer", "ServerFailed", "installed_python"]

HERE = Path(__file__).resolve().parent
#: Names the virtual environment that install.sh has made, where it is not compliance/.venv27.
ENVIRONMENT_VARIABLE = "WSENGINE_AUTOBAHN"
INSTALL = "compliance/install.sh"
#: The sections that take long: limits and performance, and compression twice.
QUICK_EXCLUDES = ("9.*", "12.*", "13.*")
#: What the suite imports in Python 2.7 warns of its age on every start.
_SILENT = ("-W", "ignore")


class ServerFailed(RuntimeError):
    """The server is not installed, or ended by itself; the text says what to do, or what it said."""


def installed_python() -> Path | None:
    """The interpreter of the environment with the suite, None where it is not installed."""
    python = Path(os.environ.get(ENVIRONMENT_VARIABLE, HERE / ".venv27")) / "bin" / "python"
    return python if python.is_file() else None


class FuzzingServer:
    """The fuzzing server in a process of its own, on a free port of the loopback interface; a context manager.

    Args:
        folder: takes its reports, its log, and the certificate; must exist.
        cases, exclude: patterns such as "1.*".
        tls: serve `wss://`, with a certificate made for this run.

    Attributes:
        url: such as `ws://127.0.0.1:40123`.
        cases: the numbers that it will run, in their order.
        authority: the file with the certificate to trust, None without TLS.

    Raises:
        ServerFailed: it is not installed, or does not start.
    """

    def __init__(self, folder: Path, cases: Sequence[str], exclude: Sequence[str] = (), *, tls: bool = False) -> None:
        python = installed_python()
        if python is None:
            raise ServerFailed(f"the Autobahn fuzzing server is not installed: run {INSTALL}, or name its environment in "
                               f"{ENVIRONMENT_VARIABLE}")
        self._folder = folder
        self.authority: Path | None = None
        specification: dict[str, Any] = {"outdir": str(folder / "reports"), "cases": cases, "exclude-cases": exclude}
        if tls:
            specification |= self._make_certificate()
        self._log = (folder / "server.log").open("wb")
        self._process = subprocess.Popen(
            [python, *_SILENT, HERE / "fuzzing_server.py", json.dumps(specification)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, cwd=folder, env=_environment(),
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise ServerFailed(f"the fuzzing server did not start; its log ends with:\n{self.log_end()}")
        ready = json.loads(line)
        self.url = f"{'wss' if tls else 'ws'}://127.0.0.1:{ready['port']}"
        self.cases: list[str] = ready["cases"]

    def _make_certificate(self) -> dict[str, str]:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        self.authority = self._folder / "authority.pem"
        authority.cert_pem.write_to_path(self.authority)
        key, cert = self._folder / "server.key", self._folder / "server.pem"
        certificate.private_key_pem.write_to_path(key)
        certificate.cert_chain_pems[0].write_to_path(cert)
        return {"key": str(key), "cert": str(cert)}

    def results(self) -> dict[str, dict[str, Any]]:
        """What the server says of each case that a client has run, once `/updateReports` was asked for; by case number."""
        try:
            agents = json.loads((self._folder / "reports" / "index.json").read_bytes())
        except FileNotFoundError:
            raise ServerFailed(f"the fuzzing server wrote no report; its log ends with:\n{self.log_end()}") from None
        return {case: result for results in agents.values() for case, result in results.items()}

    def explanation(self, result: dict[str, Any]) -> str:
        """What the server's detailed report says of one case: its result, and how the connection ended."""
        detail = json.loads((self._folder / "reports" / result["reportfile"]).read_bytes())
        ended = detail["wasNotCleanReason"] or "cleanly"
        return f"{detail['result']} Closing: {detail['resultClose']} Ended: {ended}"

    def log_end(self) -> str:
        """The last lines that the server wrote."""
        return "\n".join((self._folder / "server.log").read_text(errors="replace").splitlines()[-15:])

    def stop(self) -> None:
        """End the process; may be called again."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def _environment() -> dict[str, str]:
    """Ours without what is meant for Python 3; our own `PYTHONPATH` would break the server's imports."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {
        "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8" if sys.platform == "linux" else "en_US.UTF-8"}
