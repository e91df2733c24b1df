"""The errors that wsengine raises, drawn once. Nothing here does anything but hold facts and format them.

::

    WebSocketException
    ├── ConnectionClosed                 the connection ended; `code`, `reason`
    │   ├── ConnectionClosedOK           with 1000, 1001, or a Close without a code
    │   └── ConnectionClosedError        in any other way
    ├── InvalidURI                       also a ValueError
    ├── URLCallableError                 the `url` callable raised
    ├── InvalidHandshake                 the opening handshake failed
    │   ├── InvalidMessage               the answer is not HTTP, or larger than we take
    │   ├── InvalidStatus                the answer is HTTP, but not 101; `response`
    │   │   └── InvalidRedirect          a redirect that cannot be followed; `problem`
    │   ├── ProxyError                   the proxy refused, or did not understand; `proxy`, `problem`, `response`
    │   ├── InvalidUpgrade               a 101 that does not accept our request
    │   └── NegotiationError             a subprotocol or extension that we did not offer
    ├── ProtocolError                    the peer broke RFC 6455; `code` is the close code we sent
    ├── PayloadTooBig                    a message above `max_size`
    ├── HeadersError                     the `headers` callable failed or returned no headers
    ├── BootstrapError                   the `on_upgrade` hook failed
    ├── FrameHandlerError                the `frame_handler` hook failed, or said that the session has; `reason`
    ├── ConfigurationError               an option is wrong; also a ValueError
    └── EngineError
        ├── EngineStopped                the pipeline is stopped or stopping
        ├── ForkedProcessError           the engine was made before a fork
        ├── QueueOverflow                the buffer is full and the policy is "error"
        └── RetriesExhausted             no attempt is left; `last` is the last failure

Names are those of the `websockets` library where the meaning is the same. A time-out is a `TimeoutError`, and faults of
the network stay `OSError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsengine.wording import kept, printable, shown, told

if TYPE_CHECKING:
    from wsengine.websocket.response import Response

__all__ = [
    "BootstrapError",
    "ConfigurationError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "EngineError",
    "EngineStopped",
    "ForkedProcessError",
    "FrameHandlerError",
    "HeadersError",
    "InvalidHandshake",
    "InvalidMessage",
    "InvalidRedirect",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "NegotiationError",
    "PayloadTooBig",
    "ProtocolError",
    "ProxyError",
    "QueueOverflow",
    "RetriesExhausted",
    "URLCallableError",
    "WebSocketException",
]


class WebSocketException(Exception):
    """Base class of every error of this package."""


class ConnectionClosed(WebSocketException):
    """The connection is closed.

    Attributes:
        code: the close code received (RFC 6455 §7.4); 1005 if the Close frame had none, 1006 without a Close frame.
        reason: the reason received as it is, "" if there was none; texts show what is not printable in it escaped.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"connection closed with {self.code}" + (f" ({printable(self.reason)})" if self.reason else "")


class ConnectionClosedOK(ConnectionClosed):
    """The connection is closed with 1000 (normal closure), 1001 (going away), or a Close without a code (1005)."""


class ConnectionClosedError(ConnectionClosed):
    """The connection is closed with an error code, or without a Close frame."""


class InvalidURI(WebSocketException, ValueError):
    """A URI is not a usable WebSocket URI. Attributes: `uri` (without its credentials), `problem`."""

    def __init__(self, uri: str, problem: str) -> None:
        super().__init__(uri, problem)
        self.uri = uri
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.uri!r} is not a usable WebSocket URI: {self.problem}"


class URLCallableError(WebSocketException):
    """The `url` callable raised, which is the cause. What it returns wrongly is an InvalidURI."""


class InvalidHandshake(WebSocketException):
    """The opening handshake failed (RFC 6455 §4)."""


class InvalidMessage(InvalidHandshake):
    """The answer to the upgrade request is not an HTTP/1.1 response head that we take."""


class InvalidStatus(InvalidHandshake):
    """The server answered the upgrade request with a status other than 101. Attribute: `response`."""

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        reason = f" {printable(self.response.reason_phrase)}" if self.response.reason_phrase else ""
        return f"server answered the upgrade with HTTP {self.response.status_code}{reason}"


class InvalidRedirect(InvalidStatus):
    """The server redirects, and the redirect cannot be followed. Attributes: `response`, `problem`."""

    def __init__(self, response: Response, problem: str) -> None:
        super().__init__(response)
        self.args = (response, problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"{super().__str__()}, a redirect that cannot be followed: {printable(self.problem)}"


class ProxyError(InvalidHandshake):
    """The proxy did not make the connection.

    Attributes:
        proxy: its URL without user name and password.
        problem: what it said.
        response: of an HTTP proxy, with status and the beginning of the body; None where there was none.
        fatal: whether it would say the same again, as for a wrong password.
    """

    def __init__(self, proxy: str, problem: str, response: Response | None = None, fatal: bool = False) -> None:
        super().__init__(proxy, problem, response, fatal)
        self.proxy = proxy
        self.problem = problem
        self.response = response
        self.fatal = fatal

    def __str__(self) -> str:
        return f"the proxy {self.proxy} did not make the connection: {printable(self.problem)}"


class InvalidUpgrade(InvalidHandshake):
    """The 101 response does not accept our request: a wrong Sec-WebSocket-Accept, Upgrade or Connection header."""


class NegotiationError(InvalidHandshake):
    """The server chose a subprotocol or an extension that was not offered."""


class ProtocolError(WebSocketException):
    """The peer broke RFC 6455. Attributes: `code`, the close code sent to it; `problem`."""

    def __init__(self, code: int, problem: str) -> None:
        super().__init__(code, problem)
        self.code = code
        self.problem = problem

    def __str__(self) -> str:
        return f"{printable(self.problem)} (closed with {self.code})"


class PayloadTooBig(WebSocketException):
    """A message is larger than `max_size`. Attributes, in bytes: `size` as far as it was announced, `max_size`."""

    def __init__(self, size: int, max_size: int) -> None:
        super().__init__(size, max_size)
        self.size = size
        self.max_size = max_size

    def __str__(self) -> str:
        return (f"a message of at least {self.size} bytes is over max_size={self.max_size} (closed with 1009); "
                "raise max_size to take it")


class HeadersError(WebSocketException):
    """The `headers` callable raised, or returned something that is not a set of headers."""


class BootstrapError(WebSocketException):
    """The `on_upgrade` hook failed the attempt: it raised (the cause), or returned what it must not. No frame is shown."""


class FrameHandlerError(WebSocketException):
    """The `frame_handler` hook failed the connection. Attribute: `reason` that it gave; shown only if it is a str."""

    def __init__(self, reason: object) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        reason = printable(self.reason) if isinstance(self.reason, str) else (
            f"for a reason of type {type(self.reason).__name__}")
        return f"frame_handler failed the connection: {reason}"

    def __repr__(self) -> str:
        told = repr(self.reason) if isinstance(self.reason, str) else f"<{type(self.reason).__name__}>"
        return f"{type(self).__name__}({told})"


class ConfigurationError(WebSocketException, ValueError):
    """An option is wrong.

    Attributes:
        path: such as "processors.max_demand".
        value: that was given, or "<its type>" where it is no number, string, or collection of them: it may hold a secret.
        remedy: what to give instead.
    """

    def __init__(self, path: str, value: object, remedy: str) -> None:
        value = kept(value)
        super().__init__(path, value, remedy)
        self.path = path
        self.value = value
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.path}={shown(self.value)}: {self.remedy}"


class EngineError(WebSocketException):
    """Base class of the errors of the engine itself."""


class EngineStopped(EngineError):
    """The pipeline is stopped or stopping, and takes nothing more."""


class ForkedProcessError(EngineError):
    """The engine was made before a fork: its threads live in the parent only."""

    def __str__(self) -> str:
        return "this engine was made before a fork; create it after, in the child (post_fork, worker_process_init)"


class QueueOverflow(EngineError):
    """The buffer is full and `overflow` is "error"."""


class RetriesExhausted(EngineError):
    """There will be no other attempt: the retry policy gave up, or the last failure is not worth one.

    Attributes:
        attempts: that failed in a row.
        last: the last failure, or None.
        fatal: whether the last failure alone ended it: by the table of failures, or by `process_exception`.
    """

    def __init__(self, attempts: int, last: BaseException | None, fatal: bool = False) -> None:
        super().__init__(attempts, last, fatal)
        self.attempts = attempts
        self.last = last
        self.fatal = fatal

    def __str__(self) -> str:
        if self.fatal:
            return f"gave up without another attempt: {told(self.last)}"
        last = "" if self.last is None else f"; the last: {told(self.last)}"
        return f"gave up after {self.attempts} failed attempts{last}"
