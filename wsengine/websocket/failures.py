"""Which failures are worth another attempt: one table for attempts that failed and for connections that were lost.

By when the next attempt comes is `retry`'s. A failure that would only repeat itself ends the connection at once, since
neither server nor user is helped by a client that asks for ever (reference W-8, W-9).

::

    failure                                                        another attempt
    a certificate that is not accepted, ours or the server's       no; looked at before OSError, which it is, too
    TLS: no version or cipher in common, not TLS at all, keys      no
      that OpenSSL finds too weak, a server that denies access
    other TLS failures                                             yes
    OSError, TimeoutError: look-up, network, deadline              yes
    HTTP 408, 425, 429, 5xx instead of the 101                     yes, not before its Retry-After
    any other status; a redirect that cannot be followed           no
    a 101 that does not accept our request, or chooses             no
      a subprotocol or an extension that was not offered
    an answer that is not HTTP, or none                            yes: a server that is just starting, or stopping
    a proxy's refusal                                              as for a status; no for a wrong password or a ruleset
    the url or headers callable failed, on_upgrade, frame_handler  yes; but for a url callable's answer that is no URL
    an option is wrong, at the attempt                             no
    closed with 1003 or 1010                                       no: it cannot take what we send, or lacks an extension
    closed with another code, or without a Close; ProtocolError,   yes
      PayloadTooBig and anything else
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from wsengine.errors import (
    ConfigurationError,
    ConnectionClosed,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    NegotiationError,
    ProxyError,
)
from wsengine.options import close_coroutine
from wsengine.wording import is_interrupt

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    #: (exception) -> None for another attempt, or the exception to end with.
    ProcessException: TypeAlias = Callable[[BaseException], BaseException | None]

__all__ = ["judge", "process_exception", "worth_a_retry"]

#: HTTP statuses below 500 that are worth another attempt (RFC 9110 §15.5.9, RFC 8470 §5.2, RFC 6585 §4).
RETRIED_STATUSES = (408, 425, 429)
#: Close codes after which the same would happen again (RFC 6455 §7.4.1).
FATAL_CLOSE_CODES = (1003, 1010)
#: Parts of OpenSSL's reasons that say that the next handshake would fail in the same way.
FATAL_TLS = (
    "CERTIFICATE", "UNKNOWN_CA", "PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE", "HANDSHAKE_FAILURE",
    "NO_SHARED_CIPHER", "NO_CIPHERS_AVAILABLE", "WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST",
    "UNRECOGNIZED_NAME", "NO_APPLICATION_PROTOCOL", "KEY_TOO_SMALL", "MD_TOO_WEAK", "UNSAFE_LEGACY_RENEGOTIATION_DISABLED",
    "ACCESS_DENIED",
)

REMEDY = "return None for another attempt, or the exception to end with"


def worth_a_retry(error: BaseException | None) -> bool:
    """Whether another attempt may end in another way."""
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or ""  # only those that OpenSSL has made have the attribute
        return not (isinstance(error, ssl.SSLCertVerificationError) or any(one in reason for one in FATAL_TLS))
    if isinstance(error, ConnectionClosed):
        return error.code not in FATAL_CLOSE_CODES
    if isinstance(error, ProxyError):
        return not error.fatal
    if isinstance(error, InvalidStatus):  # an InvalidRedirect as well: 3xx
        return status_is_worth_a_retry(error.response.status_code)
    return not isinstance(error, (InvalidUpgrade, NegotiationError, ConfigurationError, InvalidURI))


def status_is_worth_a_retry(status: int) -> bool:
    """Whether a server that answers with this status may answer in another way later."""
    return status >= 500 or status in RETRIED_STATUSES


def process_exception(error: BaseException) -> BaseException | None:
    """The default of the option `process_exception`: None where another attempt is worth it, else the error itself.

    An own one may fall back on it: `return None if is_mine(error) else wsengine.process_exception(error)`.
    """
    return None if worth_a_retry(error) else error


def judge(decide: ProcessException, error: BaseException) -> BaseException | None:
    """Ask a `process_exception`; what it does wrong is a ConfigurationError to end with, which has its fault as cause.

    Only KeyboardInterrupt and SystemExit in the main thread pass through.
    """
    try:
        answer: object = decide(error)
    except BaseException as fault:
        if is_interrupt(fault):
            raise
        wrong = ConfigurationError("process_exception", decide, f"the callable raised {type(fault).__name__}; {REMEDY}")
        wrong.__cause__ = fault
        return wrong
    if answer is None or isinstance(answer, BaseException):
        return answer
    close_coroutine(answer)
    wrong = ConfigurationError("process_exception", answer, f"the callable returned this; {REMEDY}")
    wrong.__cause__ = error
    return wrong
