"""TLS of a connection: its context, on which of two paths it goes, and what its failures ask the user to do.

    path A   an `ssl.SSLSocket`, whose SSL object the engine drives without the GIL
    path B   wherever that cannot be: the same SSLSocket, or a `TlsLayer` over any other layer; bytes need the GIL

CPython's ssl verifies, handshakes and encrypts on both. Waiting belongs to `channel`, the engine's side to the engine.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from dataclasses import dataclass
from typing import Literal, TypeAlias

from wsengine.engine import tls as engine_tls
from wsengine.errors import ConfigurationError

__all__ = ["CLIENT_CERTIFICATE", "Layer", "OpenTls", "TlsLayer", "check_context", "default_context", "described", "is_end",
           "open_tls"]

#: Bytes per record at most (RFC 8446 §5.1).
RECORD = 16 * 1024
#: Bytes per recv from the layer below.
CHUNK = 64 * 1024
#: Bytes of encrypted answers that may wait while reading goes on.
HELD = 4 * RECORD


class TlsLayer:
    """TLS over another layer, by an `ssl.SSLObject`; with the non-blocking methods of an SSLSocket. One thread at a time.

    As with an SSLSocket, a `send` that raises must be repeated with the same bytes: they may be encrypted already.

    Args:
        below: a non-blocking socket, an SSLSocket, or a TlsLayer. Owned from here on.
        context: used as it is.
        server_hostname: for SNI and the certificate.

    Raises (all methods): ssl.SSLWantReadError, ssl.SSLWantWriteError: when the descriptor is ready for it, again.
    """

    def __init__(self, below: Layer, context: ssl.SSLContext, server_hostname: str) -> None:
        self.below = below
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._rest = b""  # encrypted, on its way into the layer below
        self._taken = 0  # bytes of a `send` that are encrypted and not all below yet

    def fileno(self) -> int:
        """The descriptor of the socket at the bottom."""
        return self.below.fileno()

    def version(self) -> str | None:
        return self._tls.version()

    def selected_alpn_protocol(self) -> str | None:
        return self._tls.selected_alpn_protocol()

    def cipher(self) -> tuple[str, str, int] | None:
        return self._tls.cipher()

    def getpeercert(self, binary_form: Literal[True]) -> bytes | None:
        """The server's certificate in DER."""
        return self._tls.getpeercert(binary_form=binary_form)

    def pending(self) -> int:
        """Bytes that `recv` can return without the descriptor being readable; those of the layers below count roughly."""
        below = self.below.pending() if isinstance(self.below, (ssl.SSLSocket, TlsLayer)) else 0
        return self._tls.pending() + self._incoming.pending + below

    def do_handshake(self) -> None:
        """Go on with the handshake; returns when it is done and all of it is sent."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLError:
                self._flush_if_possible()  # the alert that tells the peer why
                raise
        self._flush()

    def recv(self, size: int) -> bytes:
        """What has arrived; b"" at the end, with or without close_notify."""
        if self._outgoing.pending > HELD:
            self._flush()  # a peer that asks for answers and takes none is not read on
        while True:
            try:
                data = self._tls.read(size)
                self._flush_if_possible()  # answers of TLS itself, such as to a KeyUpdate
                return data
            except ssl.SSLWantReadError:
                self._flush_if_possible()
                self._fill()
            except ssl.SSLError as error:
                if not is_end(error):
                    raise
                return b""

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """Send the beginning of it; how many bytes the layer below has taken, encrypted. `flags`: 0, as for SSLSocket."""
        self._flush()
        while not self._taken:
            try:
                self._taken = self._tls.write(data[:RECORD])
            except ssl.SSLWantReadError:  # a renegotiation (TLS 1.2)
                self._flush()
                self._fill()
        self._flush()
        taken, self._taken = self._taken, 0
        return taken

    def unwrap(self) -> None:
        """Send close_notify, if the layers below take it at once; waits for nothing."""
        with contextlib.suppress(OSError):  # SSLWantReadError: the peer's own is not here, and need not be
            self._tls.unwrap()
        self._flush_if_possible()

    def close(self) -> None:
        """Close the socket at the bottom."""
        self.below.close()

    def _fill(self) -> None:
        """Read from the layer below. Raises SSLWantReadError if there is nothing."""
        try:
            data = self.below.recv(CHUNK)
        except BlockingIOError:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the socket has nothing to read") from None
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        """Hand everything encrypted to the layer below. Raises SSLWantWriteError if it does not take all."""
        while self._rest or self._outgoing.pending:
            self._rest = self._rest or self._outgoing.read(RECORD)
            try:
                sent = self.below.send(self._rest)
            except BlockingIOError:
                raise ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "the socket takes no more") from None
            self._rest = self._rest[sent:]

    def _flush_if_possible(self) -> None:
        with contextlib.suppress(OSError):
            self._flush()


#: Where bytes go in and come out; an SSLSocket is a socket, too.
Layer: TypeAlias = socket.socket | TlsLayer


@dataclass(frozen=True)
class OpenTls:
    """TLS that is put on a layer: `sock` owns the descriptor, bytes go through `layer`. `path` and `reason` as planned."""

    sock: socket.socket
    layer: ssl.SSLSocket | TlsLayer
    path: str
    reason: str | None

    def verdict(self) -> tuple[str, str | None]:
        """Path and reason as they are after the handshake: the engine looks at what has become of the socket."""
        if self.path == "B" or not isinstance(self.layer, ssl.SSLSocket):
            return self.path, self.reason
        reason = engine_tls.check(self.layer)
        return ("A", None) if reason is None else ("B", reason)


def open_tls(below: Layer, context: ssl.SSLContext, host: str) -> OpenTls:
    """Put TLS on a layer; the handshake is to follow. Raises OSError if the socket is dead already; it is closed then."""
    name = host.partition("%")[0].rstrip(".")  # neither a zone nor the root's dot belongs into SNI (RFC 6066 §3)
    reason = _why_b(below, context)
    if reason is None and isinstance(below, socket.socket):
        try:
            sock = context.wrap_socket(below, do_handshake_on_connect=False, server_hostname=name)
        except OSError as error:
            _close_half_made(error)
            raise
        return OpenTls(sock, sock, "A", None)
    bottom = below
    while isinstance(bottom, TlsLayer):
        bottom = bottom.below
    return OpenTls(bottom, TlsLayer(below, context, name), "B", reason)


def _close_half_made(error: BaseException) -> None:
    """Close the socket that `wrap_socket` had taken over when the peer's reset made it fail: some versions of `ssl` leave it
    open for as long as somebody holds the error, and nobody but its traceback knows it."""
    trace = error.__traceback__
    while trace is not None:
        made = trace.tb_frame.f_locals.get("self")
        if isinstance(made, ssl.SSLSocket):
            made.close()
        trace = trace.tb_next


def _why_b(below: Layer, context: ssl.SSLContext) -> str | None:
    if isinstance(below, (ssl.SSLSocket, TlsLayer)):
        return "TLS runs inside the TLS of the proxy"
    if type(context).wrap_socket is not ssl.SSLContext.wrap_socket:
        return f"{type(context).__module__}.{type(context).__qualname__} makes connections in its own way"
    return engine_tls.why_not(context)


def default_context() -> ssl.SSLContext:
    """Verifies certificates and host names by the system's CAs, and asks for HTTP/1.1 by ALPN (RFC 7301)."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def check_context(path: str, value: object) -> ssl.SSLContext | None:
    """Check the option `ssl`: a client's SSLContext, or None. Raises ConfigurationError."""
    if value is None:
        return None
    if not isinstance(value, ssl.SSLContext):
        raise ConfigurationError(path, value, "give an ssl.SSLContext, as from ssl.create_default_context(), or None")
    if value.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise ConfigurationError(path, value, "this is a server's context; make it by ssl.create_default_context() or "
                                              "ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)")
    return value


# ------------------------------------------------------------------------------------------------------------- failures

_TRUST = ("trust the CA that issued it: ssl=ssl.create_default_context(cafile=...), or the environment variable "
          "SSL_CERT_FILE; where the system's own CAs are not found, the packages certifi or truststore bring them (on "
          "macOS, 'Install Certificates.command' does)")
#: X509_V_ERR_… -> what to do.
_HINTS = {
    9: "the certificate is not valid yet; is the clock of this machine right?",
    10: "the certificate has expired; the server must renew it (if the clock of this machine is right)",
    18: f"the certificate is self-signed; {_TRUST}",
    19: f"the certificate chain ends in a CA that is not trusted here; {_TRUST}",
    20: f"the CA of the certificate is not known here, or the server does not send its chain; {_TRUST}",
    21: f"the CA of the certificate is not known here, or the server does not send its chain; {_TRUST}",
    62: "connect by a name that stands in the certificate, or give that name as server_hostname",
    64: "connect by a name that stands in the certificate, or give that name as server_hostname",
}
#: What a server that goes without a word may want.
CLIENT_CERTIFICATE = "it may ask for a client certificate: context.load_cert_chain(...) on the context given as ssl"
#: Errors of a peer that has gone.
_GONE = (errno.ECONNRESET, errno.EPIPE)
_WEAK = ("a key or a signature of the server is weaker than OpenSSL takes, and must be renewed; on your own risk, "
         "set_ciphers('DEFAULT@SECLEVEL=1') of the context takes it")
#: Parts of OpenSSL's reasons -> what to do. The alerts are the peer's words (RFC 8446 §6.2).
_REASONS = {
    "CERTIFICATE_REQUIRED": "the server asks for a client certificate: context.load_cert_chain(...) on the context given "
                            "as ssl",
    "ALERT_UNKNOWN_CA": "the server does not know the CA of our client certificate",
    "ALERT_BAD_CERTIFICATE": "the server does not take our client certificate, or asks for one: "
                             "context.load_cert_chain(...) on the context given as ssl",
    "ALERT_CERTIFICATE": "the server does not take our client certificate",
    "HANDSHAKE_FAILURE": "there is no cipher in common, or the server asks for a client certificate: "
                         "context.load_cert_chain(...) on the context given as ssl",
    "PROTOCOL_VERSION": "the server takes none of our versions of TLS: see minimum_version, maximum_version of the context",
    "UNSUPPORTED_PROTOCOL": "the server has none of our versions of TLS: see minimum_version of the context",
    "NO_PROTOCOLS_AVAILABLE": "the context allows no version of TLS: see its minimum_version and maximum_version",
    "WRONG_VERSION_NUMBER": "the answer is not TLS; is it a plain port, for ws://?",
    "RECORD_LAYER_FAILURE": "the answer is not TLS; is it a plain port, for ws://?",
    "HTTP_REQUEST": "the answer is not TLS; is it a plain port, for ws://?",
    "KEY_TOO_SMALL": _WEAK,
    "MD_TOO_WEAK": _WEAK,
    "UNSAFE_LEGACY_RENEGOTIATION": "the server has no secure renegotiation (RFC 5746) and must be updated; at your risk, "
                                   "options |= ssl.OP_LEGACY_SERVER_CONNECT of the context allows it",
    "ACCESS_DENIED": "the server does not let us in, perhaps for want of the right client certificate",
    "UNRECOGNIZED_NAME": "the server does not know this host name: see server_hostname",
    "ALERT_NO_APPLICATION_PROTOCOL": "the server takes none of the protocols that the context offers by ALPN; "
                                     "http/1.1 must be among them",
}


def is_end(error: OSError) -> bool:
    """Whether the peer has ended the stream, in whatever words versions of OpenSSL and CPython say so."""
    return isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) or (
        isinstance(error, ssl.SSLError) and error.reason == "UNEXPECTED_EOF_WHILE_READING")


def described(error: OSError, phase: str, peer: str, host: str) -> OSError:
    """The same error with phase and peer in its text, and for TLS with what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = _HINTS.get(getattr(error, "verify_code", 0))
        said = f"the certificate of {peer} is not accepted for {host!r}: {getattr(error, 'verify_message', error.reason)}"
        return _like(error, said, hint)
    if is_end(error):
        return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, f"{peer} closed the connection during {phase}{_doubt(phase)}")
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        hint = next((text for part, text in _REASONS.items() if part in reason), None)
        return _like(error, f"TLS failed during {phase} to {peer}: {reason or error}", hint)
    doubt = _doubt(phase) if error.errno in _GONE else ""
    return OSError(error.errno, f"{error.strerror or error} during {phase} to {peer}{doubt}")


def _doubt(phase: str) -> str:
    """What may be wrong where the peer ends a TLS handshake without an alert; anything else may be as well."""
    if not phase.startswith("the TLS handshake"):
        return ""
    return f"; if it does so every time: is its port one for TLS, does it take our versions of TLS? Or {CLIENT_CERTIFICATE}"


def _like(error: ssl.SSLError, text: str, hint: str | None) -> ssl.SSLError:
    made = type(error)(error.errno or 1, f"{text}; {hint}" if hint else text)
    for name in ("library", "reason", "verify_code", "verify_message"):
        if hasattr(error, name):
            setattr(made, name, getattr(error, name))
    return made
