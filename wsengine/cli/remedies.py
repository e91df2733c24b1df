"""What `doctor` advises: for each way in which a step fails, what the user can do about it.

Only words for failures that the library has raised. How a failure is met stands in doctor.py.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import TYPE_CHECKING

from wsengine.cli.server import translated
from wsengine.errors import (
    ConfigurationError,
    InvalidMessage,
    InvalidRedirect,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
    ProxyError,
)

if TYPE_CHECKING:
    from wsengine.cli.certificate import Certificate

__all__ = ["certificate_remedy", "network_remedy", "upgrade_remedy"]

_TRUST = ("give the CA that issued it by --ca FILE (in Python ssl=ssl.create_default_context(cafile=...)), or to all "
          "programs by SSL_CERT_FILE; where the system has none, certifi or truststore bring them")
#: errno of a connect -> what to do.
_NETWORK = {
    errno.ECONNREFUSED: "nothing listens on this port there, or a firewall refuses; is the port right, does the server run?",
    errno.ECONNRESET: "the other side ended the connection; is this port for something else, or does a firewall cut it?",
    errno.ENETUNREACH: "this machine has no way to that network",
    errno.EHOSTUNREACH: "this machine has no way to that host; is it on, is a VPN needed?",
    errno.EADDRNOTAVAIL: "this machine has no address of that family to connect from",
}
_TIMEOUT = "a firewall may swallow what is sent; where only a proxy leads out, name it by --proxy or https_proxy"
#: Status of a refusal -> what to do.
_STATUSES = {
    200: "an ordinary page is served there; is the path of the URL right?",
    400: "the server does not take the request; is a header, a parameter of the URL or a subprotocol missing?",
    401: "give what it asks for: --header 'Authorization: ...', or user:password@ in a wss:// URL",
    403: "it refuses who asks: are key, --header and --origin right, and is this address allowed? Its body may tell",
    404: "nothing is there; is the path of the URL right?",
    405: "this path takes no GET and so no WebSocket; is the path of the URL right?",
    407: "the proxy wants user name and password: --proxy scheme://user:password@host:port",
    426: "the server wants another protocol; its headers tell which",
    429: "too many connections or requests; wait, see Retry-After",
}


def network_remedy(error: BaseException) -> str:
    """For failures of DNS, TCP, a proxy and TLS."""
    if isinstance(error, socket.gaierror):
        return "is the host spelt right? Does this machine reach its DNS server, is a VPN needed?"
    if isinstance(error, ConfigurationError):
        return translated(error.remedy)
    if isinstance(error, ProxyError):
        if error.response is not None:
            return _STATUSES.get(error.response.status_code if error.response.status_code == 407 else 0,
                                 "ask whoever runs the proxy whether it lets CONNECT through to this host and port")
        return "is it a proxy of this scheme? Are its user name and password right?"
    if isinstance(error, ssl.SSLError):
        return ""  # its text has one
    if isinstance(error, TimeoutError):
        return _TIMEOUT
    return _NETWORK.get(getattr(error, "errno", None) or 0, "")


def certificate_remedy(error: ssl.SSLCertVerificationError, certificate: Certificate | None) -> str:
    """For a certificate that is not accepted; `certificate` is what the server showed, None if that is not known."""
    code = getattr(error, "verify_code", 0)
    if code == 10:
        return "the server must renew it (if the clock of this machine is right)"
    if code == 9:
        return "it is not valid yet; is the clock of this machine right?"
    if code in (62, 64):
        names = ", ".join(certificate.names) if certificate is not None else ""
        return "connect by a name that stands in it" + (f": {names}" if names else "; it has none")
    return _TRUST


def upgrade_remedy(error: BaseException) -> str:
    """For failures of the upgrade."""
    if isinstance(error, InvalidRedirect):
        return "use the URL to which the server should lead"
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        return _STATUSES.get(status, "the server, or a gateway before it, fails; try later, ask whoever runs it"
                             if status >= 500 else "is the path of the URL right?")
    if isinstance(error, InvalidUpgrade):
        return "this is no WebSocket server, or something between (a cache, a proxy) has changed the answer"
    if isinstance(error, NegotiationError):
        return "the server does not keep to RFC 6455; ask whoever runs it"
    if isinstance(error, InvalidMessage):
        return "is a WebSocket server on this port? Its log may tell"
    if isinstance(error, ConfigurationError):
        return translated(error.remedy)
    if isinstance(error, TimeoutError):
        return "the server takes the connection and says nothing: it may be overloaded, or this port is for something else"
    return network_remedy(error)
