"""The steps of `doctor` on TLS: the handshake, the certificate, and by which path the engine reads it.

A certificate that is not accepted is looked at on a connection of its own, over which nothing is sent; no step goes on
without verification.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from wsengine.cli.case import FAILURES, line
from wsengine.cli.certificate import read_certificate
from wsengine.cli.remedies import certificate_remedy, network_remedy
from wsengine.cli.report import FAILED, NOTE, OK, SKIPPED, Finding
from wsengine.cli.table import milliseconds
from wsengine.engine.tls import FORCED
from wsengine.websocket.tls import TlsLayer, default_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsengine.cli.case import Case
    from wsengine.cli.certificate import Certificate

__all__ = ["Encryption"]

#: Days before its end at which a certificate is worth a note.
SOON = 14
SILENT = "nothing came back: is it a plain port, for ws://? Or does a firewall swallow TLS?"


class Encryption:
    """TLS with the server. Each step yields what it finds."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._certificate: Finding | None = None  # these two are found by the step "TLS"
        self._path: Finding | None = None
        self.steps = (("TLS", self._see_tls), ("certificate", self._see_certificate), ("path", self._see_path))

    @property
    def knows_certificate(self) -> bool:
        """Whether that step has something to say, also where no other can be done."""
        return self._certificate is not None

    def _see_tls(self) -> Iterator[Finding]:
        """One handshake as the dial makes it; what the certificate and the path are is kept for their steps."""
        if not self._case.uri.secure:
            yield Finding("TLS", SKIPPED, "ws:// has no TLS: whoever is on the way can read and change everything")
            return
        try:
            finding, der, path, reason = self._shake_hands(self._case.way.context())
        except ssl.SSLCertVerificationError as error:
            yield self._look_unverified(error)
            return
        except FAILURES as error:
            remedy = SILENT if isinstance(error, TimeoutError) else network_remedy(error)
            yield self._case.fail("TLS", error, remedy, "there is no TLS")
            return
        yield finding
        certificate = _read(der)
        self._certificate = Finding("certificate", OK, "accepted")
        if certificate is not None:
            days = certificate.days_left(datetime.now(UTC))
            soon = days < SOON
            self._certificate = Finding(
                "certificate", NOTE if soon else OK, f"accepted; {_described(certificate)}",
                "the server must renew it soon" if soon else "", _facts(certificate))
        self._path = _path(path, reason)

    def _shake_hands(self, context: ssl.SSLContext) -> tuple[Finding, bytes | None, str | None, str | None]:
        attempt = self._case.attempt()
        channel = self._case.channel(attempt)
        try:
            before = attempt.timings["tls"]
            channel.begin_tls(context, self._case.way.hostname(self._case.uri))
            layer = channel.layer
            assert isinstance(layer, (ssl.SSLSocket, TlsLayer))
            cipher, version = layer.cipher(), layer.version()
            alpn, taken = layer.selected_alpn_protocol(), attempt.timings["tls"] - before
            facts = {"version": version, "cipher": cipher and cipher[0], "alpn": alpn, "seconds": taken}
            text = f"{version}, {cipher[0] if cipher else 'no cipher'}, ALPN {alpn or 'not answered'}, {milliseconds(taken)}"
            return (Finding("TLS", OK, text, facts=facts), layer.getpeercert(binary_form=True), channel.tls_path,
                    channel.tls_reason)
        finally:
            channel.close()

    def _look_unverified(self, error: ssl.SSLCertVerificationError) -> Finding:
        """What the server speaks and shows, on a connection that only looks."""
        self._case.halted = "the certificate is not accepted, and nothing is sent without verification"
        context = default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            finding, der, _, _ = self._shake_hands(context)
        except FAILURES as second:
            finding, der = Finding("TLS", FAILED, line(second), network_remedy(second)), None
        certificate = _read(der)
        host = self._case.way.hostname(self._case.uri)
        text = f"not accepted for {host}: {getattr(error, 'verify_message', error.reason)}"
        if certificate is not None:
            text += f"; {_described(certificate)}"
        self._certificate = Finding("certificate", FAILED, text, certificate_remedy(error, certificate),
                                    {} if certificate is None else _facts(certificate))
        return finding

    def _see_certificate(self) -> Iterator[Finding]:
        yield self._certificate or Finding("certificate", SKIPPED, "ws:// has none")

    def _see_path(self) -> Iterator[Finding]:
        yield self._path or Finding("path", OK, "without TLS, the socket is read without the GIL", facts={"path": None})


def _read(der: bytes | None) -> Certificate | None:
    try:
        return None if der is None else read_certificate(der)
    except ValueError:
        return None


def _described(certificate: Certificate) -> str:
    days = certificate.days_left(datetime.now(UTC))
    issuer = "itself" if certificate.self_issued else certificate.issuer
    until = f"valid until {certificate.ends:%Y-%m-%d}, {days:.0f} days left" if days >= 0 else (
        f"it ended on {certificate.ends:%Y-%m-%d}, {-days:.0f} days ago")
    return f"for {', '.join(certificate.names) or certificate.subject}; issued to {certificate.subject} by {issuer}; {until}"


def _facts(certificate: Certificate) -> dict[str, Any]:
    return {"subject": certificate.subject, "issuer": certificate.issuer, "names": list(certificate.names),
            "begins": certificate.begins.isoformat(), "ends": certificate.ends.isoformat(),
            "days_left": round(certificate.days_left(datetime.now(UTC)), 1)}


def _path(path: str | None, reason: str | None) -> Finding:
    facts = {"path": path, "reason": reason}
    if path == "A":
        return Finding("path", OK, "A: the engine drives TLS without the GIL", facts=facts)
    remedy = "unset it" if FORCED in (reason or "") else (
        "a handler that holds the GIL delays reading and pings; the README tells where the promise ends")
    return Finding("path", NOTE, f"B: {reason}; bytes of this connection need the GIL", remedy, facts)
