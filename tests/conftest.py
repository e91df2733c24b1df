"""What every test may ask for: the recorded feeds, the seed of this run, and a check that nothing is left behind.

What only some tests need stands with them.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import wsengine
from wsengine.testing import ServerTLS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import trustme

PACKAGE_ROOT = str(Path(wsengine.__file__).resolve().parents[1])
#: cryptography, on which trustme stands, has no wheel for every interpreter, as without the GIL.
NO_CERTIFICATES = "trustme is not installed, which makes the certificates: pip install 'wsengine[test]'"
RECORDINGS_VARIABLE = "WSENGINE_RECORDINGS"
RECORDINGS_DEFAULT = Path(__file__).resolve().parents[1].parent / "shared" / "data"

#: Seconds that threads and descriptors may take to go after a test; a closed socket's thread may be in its last lines.
GRACE = 3.0

# Whoever runs the tests in the background may have it ignored, and so would the processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--seed`, to repeat a run that found something."""
    parser.addoption("--seed", type=int, default=None, help="seed of the stress tests; without it, a new one each run")


def pytest_configure(config: pytest.Config) -> None:
    """Draw the seed once, so that the header and all tests have the same, and let no proxy of the machine stand between the
    tests and their servers, nor those of the processes that they start."""
    for name in [one for one in os.environ if one.lower().endswith("_proxy")]:
        del os.environ[name]
    if config.getoption("--seed") is None:
        config.option.seed = random.SystemRandom().randrange(2**32)


def pytest_collection_finish() -> None:
    """What is there for the whole run need not be looked through whenever garbage is collected."""
    gc.collect()
    gc.freeze()


def pytest_report_header(config: pytest.Config) -> str:
    """How to repeat this run."""
    return f"seed: {config.getoption('--seed')} (repeat with --seed={config.getoption('--seed')})"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run, printed so that the report of a failed test names it."""
    value: int = request.config.getoption("--seed")
    print(f"--seed={value}")
    return value


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of the recorded exchange feeds; without it the test is skipped, and the report says so."""
    folder = Path(os.environ.get(RECORDINGS_VARIABLE, RECORDINGS_DEFAULT))
    if not folder.is_dir():
        pytest.skip(f"no recorded feeds in {folder}; set {RECORDINGS_VARIABLE} to their folder")
    return folder


@pytest.fixture
def no_leaks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail the test if it leaves threads, child processes or open files behind.

    A stopped pipeline is a cycle of objects, which tracebacks in log records keep; what is left is collected before it
    counts.
    """
    process = psutil.Process()
    threads, children, files = set(threading.enumerate()), set(process.children()), process.num_fds()
    yield
    caplog.get_records("call").clear()
    deadline = time.monotonic() + GRACE
    while True:
        left_threads = sorted(one.name for one in threading.enumerate() if one not in threads)
        left_children = [one for one in process.children() if one not in children]
        left_files = process.num_fds() - files
        if not left_threads and not left_children and left_files <= 0:
            return
        if time.monotonic() >= deadline:
            pytest.fail(f"left behind: threads {left_threads}, processes {left_children}, {left_files:+d} open files")
        time.sleep(0.01)
        gc.collect()


#: What the scripts of child processes begin with.
PREAMBLE = r"""
import os, signal, sys, threading, time

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())  # one call: lines of two threads stay whole

"""


class Child:
    """A Python process that runs a script, whose lines are read as they come."""

    def __init__(self, script: str) -> None:
        environment = {**os.environ, "PYTHONPATH": PACKAGE_ROOT, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=environment)

    def line(self) -> str:
        """The next line of its output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def wait_for(self, line: str) -> None:
        """Read on to this line."""
        while (given := self.line()) != line:
            assert given or self.process.poll() is None, f"the script ended without {line!r}: {self._errors()}"

    def _errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def signal(self, number: int = signal.SIGINT) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self, timeout: float = 20.0) -> tuple[int, str, str]:
        """Wait for its end: (exit code, the rest of the output, errors)."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err


@pytest.fixture
def child() -> Iterator[Callable[[str], Child]]:
    """Start a script in a process of its own; it is killed at the end if it is still there."""
    children: list[Child] = []

    def start(script: str) -> Child:
        children.append(Child(script))
        return children[-1]

    yield start
    for one in children:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        for stream in (one.process.stdout, one.process.stderr):
            assert stream is not None
            stream.close()


class Certificates:
    """A CA made for this run, and what it issues, as files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        import trustme

        self.ca = trustme.CA()
        self.ca_file = self.path("ca")
        self.ca.cert_pem.write_to_path(self.ca_file)

    def path(self, name: str) -> str:
        return str(self.folder / f"{name}.pem")

    def issue(self, *names: str, ca: trustme.CA | None = None, **options: Any) -> str:
        """A file with key and chain of a certificate for these names; options as for `trustme.CA.issue_cert`."""
        path = self.path(f"{len(list(self.folder.iterdir()))}")
        (ca or self.ca).issue_cert(*names, **options).private_key_and_cert_chain_pem.write_to_path(path)
        return path

    def server(self, *names: str, **options: Any) -> ServerTLS:
        """TLS of a server, by default with a good certificate of 127.0.0.1, ::1 and localhost."""
        return ServerTLS(self.issue(*(names or ("127.0.0.1", "::1", "localhost"))), **options)

    def context(self) -> ssl.SSLContext:
        """A client's context that trusts the CA."""
        return ssl.create_default_context(cafile=self.ca_file)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A CA of this run, and certificates from it."""
    pytest.importorskip("trustme", reason=NO_CERTIFICATES)
    return Certificates(tmp_path_factory.mktemp("certificates"))
