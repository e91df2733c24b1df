"""Servers that nobody here wrote, each in a process of its own, and the client that is run against them.

Every server serves these paths, plain and over TLS (nginx: TLS only, in front of the `websockets` server):

    /echo                       each message back as it came
    /fragments?size=N           each message back in frames of N bytes (`websockets`: N characters of a text)
    /close?code=C&reason=R      closes at once
    /ping?payload=P             pings at once, and sends the text "pong P" when the pong with P has arrived
    /log?id=I                   sends how the connection that had `id=I` in its url ended, once it has: {"code", "reason"}
    /head?bytes=N               answers the upgrade with a header of N bytes

What the client must do on them stands in the tests. An ordinary run is a part of the matrix, WSENGINE_LONG=1 all of it.
WSENGINE_INTEROP_CLIENT=websockets runs the same tests with that client: what fails with both is the server's doing.
WSENGINE_INTEROP_CLIENT=pipeline runs them with this package's other face.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import shutil
import ssl
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import trustme

import wsengine
from tests.interop import clients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

SERVERS = Path(__file__).resolve().parent / "servers"
ROOT = Path(__file__).resolve().parents[2]
LONG = os.environ.get("WSENGINE_LONG") == "1"

#: Folder that compliance/install_ws.sh has installed `ws` into, where it is not compliance/.node.
NODE_VARIABLE = "WSENGINE_NODE"
#: Which client of clients.py is run: by default `wsengine.connect`, or the pipeline in a version that has no `connect`.
CLIENT_VARIABLE = "WSENGINE_INTEROP_CLIENT"
#: Forces the engine's path B; without it the engine takes A where it can.
TLS_PATH_VARIABLE = "WSENGINE_TLS_PATH"
NAMES = ("websockets", "aiohttp", "tornado", "ws", "nginx")
#: Those whose API can send fragments; nginx hands on what `websockets` sends.
FRAGMENTING = ("websockets", "ws", "nginx")

#: Seconds that anything may take; the machine may be busy.
PATIENCE = 60.0
#: Bytes of a message at most, on the client's side.
MAX_SIZE = 32 << 20


class Peer:
    """One server's process. `ports`: "plain" and "tls", as far as it has them."""

    def __init__(self, command: list[str], environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         env={**os.environ, **(environment or {})})
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise RuntimeError(f"{command} did not start: status {self._process.returncode}; see stderr")
        self.ports: dict[str, int] = json.loads(line)

    def stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Peers:
    """Starts each server when it is first asked for."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._running: dict[str, Peer] = {}
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        self.authority = folder / "authority.pem"
        authority.cert_pem.write_to_path(self.authority)
        self._files = [str(folder / "server.pem"), str(folder / "server.key")]
        certificate.cert_chain_pems[0].write_to_path(self._files[0])
        certificate.private_key_pem.write_to_path(self._files[1])

    def get(self, name: str) -> Peer:
        """The running server; skips the test where it is not installed."""
        if name not in self._running:
            self._running[name] = peer = self._start(name)
            self._stack.callback(peer.stop)
        return self._running[name]

    def _start(self, name: str) -> Peer:
        if name == "ws":
            return self._start_ws()
        if name == "nginx":
            return self._start_nginx()
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install 'wsengine[interop]'")
        return Peer([sys.executable, str(SERVERS / f"{name}_server.py"), *self._files])

    def _start_ws(self) -> Peer:
        modules = Path(os.environ.get(NODE_VARIABLE, ROOT / "compliance" / ".node")) / "node_modules"
        if not (node := shutil.which("node")) or not (modules / "ws").is_dir():
            pytest.skip("ws (npm) is not installed: compliance/install_ws.sh")
        return Peer([node, str(SERVERS / "ws_server.js"), *self._files], {"NODE_PATH": str(modules)})

    def _start_nginx(self) -> Peer:
        if not shutil.which("nginx"):
            pytest.skip("nginx is not on the PATH: apt-get install nginx-light")
        behind = self.get("websockets").ports["plain"]
        folder = self._folder / "nginx"
        folder.mkdir()
        return Peer([sys.executable, str(SERVERS / "nginx_server.py"), *self._files, str(behind), str(folder)])


@dataclass(frozen=True)
class Link:
    """How a test reaches one server: plain or by TLS, with or without permessage-deflate.

    Attributes:
        server: its name.
        deflate: whether permessage-deflate is offered, which all servers take.
        errors: the module with the client's errors.
        headers_option: the client's option for headers of the request.
        patience: seconds that anything may take.
    """

    server: str
    deflate: bool
    errors: ModuleType
    base: str
    tls: str
    call: Callable[..., Any]
    headers_option: str
    options: dict[str, Any] = field(default_factory=dict)
    patience: float = PATIENCE

    @contextlib.contextmanager
    def connection(self, path: str = "/echo", *, also: dict[str, Any] | None = None, **query: object) -> Iterator[Any]:
        """A connection to a path of the server; `also`: options of this connection."""
        with pytest.MonkeyPatch.context() as patch:
            if self.tls == "tls-B":
                patch.setenv(TLS_PATH_VARIABLE, "B")
            with self.call(f"{self.base}{path}?{urlencode(query)}", **{**self.options, **(also or {})}) as one:
                assert self.tls != "tls-B" or getattr(one, "tls_path", "B") == "B"  # `websockets` has no paths
                yield one

    def receive(self, connection: Any) -> Any:
        """The next message, waited for with a machine in mind that is busy elsewhere."""
        return connection.recv(timeout=self.patience)

    def header(self, connection: Any, name: str) -> str:
        """A header of the answer to the upgrade; "" without it."""
        response = connection.response
        read = response.header if hasattr(response, "header") else response.headers.get  # ours and that of `websockets`
        return read(name) or ""

    def ending_seen(self, connection: str) -> dict[str, Any]:
        """How the server saw the connection with this id end."""
        with self.connection("/log", id=connection) as one:
            seen: dict[str, Any] = json.loads(self.receive(one))
            return seen


def links(servers: tuple[str, ...]) -> list[Any]:
    """The matrix of server × (plain, TLS by path A, by path B) × (deflate off, on).

    An ordinary run has each server once without TLS and deflate and once with both; nginx, which is here for its TLS, with
    TLS in both. WSENGINE_LONG=1 has all.
    """
    found = []
    for name, tls, deflate in itertools.product(servers, ("plain", "tls", "tls-B"), (False, True)):
        if name == "nginx":
            left_out = tls == "plain" or (tls == "tls-B" and not LONG)
        else:
            left_out = not LONG and (tls, deflate) not in (("plain", False), ("tls", True))
        if not left_out:
            found.append(pytest.param((name, tls, deflate), id=f"{name}-{tls}-{'deflate' if deflate else 'raw'}"))
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test of `link` runs over the matrix, every test of `fragmenting_link` over the servers that can fragment."""
    for name, servers in (("link", NAMES), ("fragmenting_link", FRAGMENTING)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, links(servers), indirect=True, scope="session")


@pytest.fixture(scope="session")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    """The servers of this run, ended with it."""
    with contextlib.ExitStack() as stack:
        yield Peers(tmp_path_factory.mktemp("interop"), stack)


def open_link(parameter: tuple[str, str, bool], peers: Peers) -> Link:
    """The link of one parameter; its server is started before."""
    name, tls, deflate = parameter
    peer = peers.get(name)
    client = clients.client(os.environ.get(CLIENT_VARIABLE, "wsengine" if hasattr(wsengine, "connect") else "pipeline"))
    options: dict[str, Any] = {"max_size": MAX_SIZE, "compression": "deflate" if deflate else None, client.keepalive: None,
                               **client.options}
    scheme, port = ("ws", peer.ports["plain"]) if tls == "plain" else ("wss", peer.ports["tls"])
    if tls != "plain":
        options["ssl"] = ssl.create_default_context(cafile=str(peers.authority))
    return Link(name, deflate, client.errors, f"{scheme}://127.0.0.1:{port}", tls, client.connect, client.headers, options)


# The links are as old as the session, so that `no_leaks` counts neither the servers nor what starting them takes.
@pytest.fixture(scope="session")
def link(request: pytest.FixtureRequest, peers: Peers) -> Link:
    """The link of this test's parameter."""
    return open_link(request.param, peers)


@pytest.fixture(scope="session")
def fragmenting_link(request: pytest.FixtureRequest, peers: Peers) -> Link:
    """The same, of a server that can send fragments."""
    return open_link(request.param, peers)


@pytest.fixture
def new_id() -> str:
    """An id for a connection whose end the server is asked for."""
    return uuid.uuid4().hex
