"""TLS of the test servers: which certificate and bounds a server is given, and the socket they encrypt by.

Here belongs what the two ends of the settings share: the object a test makes, and the context the server's process builds
from it. What a server does on the connection stands with the server.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsengine.errors import ConfigurationError

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

__all__ = ["ServerSocket", "ServerTLS", "server_context", "tls_settings"]

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
#: Bytes that the feed encrypts at a time: as much may wait, encrypted, for the kernel.
ENCRYPTED_AT_ONCE = 64 * 1024


@dataclass(frozen=True)
class ServerTLS:
    """TLS for an embedded server.

    Args:
        certificate: file with the server's certificate and its chain, in PEM.
        key: file with its private key; None where the certificate's file holds it.
        client_ca: file with the CAs whose clients are let in; None asks for no client certificate.
        minimum, maximum: "1.2" or "1.3", the versions the server takes; None for the library's bound.
        alpn: protocols that the server takes; the client's first that is among them is chosen.

    Raises:
        ConfigurationError: a file does not exist, or a version is not one.
    """

    certificate: str | os.PathLike[str]
    key: str | os.PathLike[str] | None = None
    client_ca: str | os.PathLike[str] | None = None
    minimum: str | None = None
    maximum: str | None = None
    alpn: Sequence[str] = ("http/1.1",)

    def __post_init__(self) -> None:
        for name in ("certificate", "key", "client_ca"):
            path = getattr(self, name)
            if path is not None and not os.path.isfile(path):
                raise ConfigurationError(f"tls.{name}", path, "give the path of a PEM file that exists")
        for name in ("minimum", "maximum"):
            if getattr(self, name) not in (None, *VERSIONS):
                raise ConfigurationError(f"tls.{name}", getattr(self, name), "give '1.2' or '1.3', or None")


def tls_settings(tls: ServerTLS | None) -> dict[str, Any] | None:
    """The settings as they travel to the server's process."""
    if tls is None:
        return None
    if not isinstance(tls, ServerTLS):
        raise ConfigurationError("tls", tls, "give a ServerTLS(certificate, key), or None")
    return {
        "certificate": os.path.abspath(tls.certificate), "key": None if tls.key is None else os.path.abspath(tls.key),
        "client_ca": None if tls.client_ca is None else os.path.abspath(tls.client_ca), "minimum": tls.minimum,
        "maximum": tls.maximum, "alpn": list(tls.alpn),
    }


def server_context(settings: dict[str, Any]) -> ssl.SSLContext:
    """Build the context in the server's process.

    Raises:
        ConfigurationError: a file cannot be loaded.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings["certificate"], settings["key"])
        if settings["client_ca"] is not None:
            context.load_verify_locations(settings["client_ca"])
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError("tls", settings["certificate"], f"its files cannot be loaded: {error}") from None
    if settings["minimum"] is not None:
        context.minimum_version = VERSIONS[settings["minimum"]]
    if settings["maximum"] is not None:
        context.maximum_version = VERSIONS[settings["maximum"]]
    if settings["alpn"]:
        context.set_alpn_protocols(settings["alpn"])
    return context


class ServerSocket:
    """The server's side of TLS on a socket, blocking or not, with the methods of a socket that the servers call.

    On a non-blocking one, what `send` returns as taken is encrypted, and at most `ENCRYPTED_AT_ONCE` bytes of it wait here
    for the kernel; an SSLSocket would want the same bytes again instead, while the feed may have a ping to send first. Nor
    can an SSLSocket say close_notify without a look at what has arrived, which fails where that is data. One thread uses it.

    Attributes:
        tls: the SSLObject.
        unsent: whether encrypted bytes wait for the kernel; `flush` goes on with them.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._rest = b""
        self._established = False

    def fileno(self) -> int:
        return self._sock.fileno()

    def settimeout(self, seconds: float | None) -> None:
        self._sock.settimeout(seconds)

    def setsockopt(self, *arguments: Any) -> None:
        self._sock.setsockopt(*arguments)

    def pending(self) -> int:
        """Bytes that `recv` returns without the kernel."""
        return self.tls.pending() or self._incoming.pending

    @property
    def unsent(self) -> bool:
        return bool(self._rest or self._outgoing.pending)

    def flush(self) -> bool:
        """Give the kernel what it takes; return whether nothing is left."""
        while self.unsent:
            self._rest = self._rest or self._outgoing.read()
            try:
                self._rest = self._rest[self._sock.send(self._rest):]
            except BlockingIOError:
                return False
        return True

    def do_handshake(self) -> None:
        """Make the handshake, on a blocking socket. Raises OSError if it fails; the alert that says why is sent then."""
        self._step(0)

    def recv(self, size: int) -> bytes:
        """What has arrived, b"" at the end. Raises BlockingIOError if nothing has, OSError if TLS fails."""
        try:
            return self._step(size)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def _step(self, size: int) -> bytes:
        """The handshake, if it is not done, and a read of what follows, if anything is to be read."""
        while True:
            try:
                if not self._established:
                    self.tls.do_handshake()
                    self._established = True
                    self.flush()
                return self.tls.read(size) if size else b""
            except ssl.SSLWantReadError:
                self.flush()
                data = self._sock.recv(max(size, 16_384))
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self.flush()  # the alert that says why
                raise

    def send(self, data: bytes | memoryview) -> int:
        """Encrypt and send; how many bytes were taken. Raises BlockingIOError while older ones wait for the kernel."""
        if not self.flush():
            raise BlockingIOError
        taken = self.tls.write(data[:ENCRYPTED_AT_ONCE]) if len(data) else 0
        self.flush()
        return taken

    def sendall(self, data: bytes) -> None:
        """Send all of it, on a blocking socket."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.send(rest):]

    def shutdown(self, how: int) -> None:
        """Say close_notify, then FIN."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self.flush()
        self._sock.shutdown(how)

    def close(self) -> None:
        self._sock.close()
