"""The headers of the upgrade request: which a user may give, how they are checked, and which are added.

Here belong their rules and the errors that name a header and never show its value. The handshake that sends them does not.
"""

from __future__ import annotations

import importlib.metadata
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from wsengine.errors import ConfigurationError, HeadersError
from wsengine.options import close_coroutine
from wsengine.websocket.credentials import is_credential
from wsengine.websocket.response import HIDDEN
from wsengine.wording import is_interrupt

if TYPE_CHECKING:
    from wsengine.websocket.uri import WebSocketURI

__all__ = ["TOKEN", "USER_AGENT", "HeaderPairs", "Headers", "refuse_in_clear", "request_headers", "resolve_headers"]

HeaderPairs: TypeAlias = Mapping[str, str] | Sequence[tuple[str, str]]
#: What the option `headers` takes: a mapping, pairs, None for none, or a callable that returns one of these.
Headers: TypeAlias = HeaderPairs | Callable[[], HeaderPairs | None] | None

# Headers that would contradict the handshake -> what to do instead.
OWNED = {
    "upgrade": "remove it; the handshake sets it",
    "connection": "remove it; the handshake sets it",
    "sec-websocket-protocol": "give it as subprotocols=[...]",
    "sec-websocket-extensions": "remove it; extensions are offered by the option compression",
    "content-length": "remove it; the upgrade request has no body",
    "transfer-encoding": "remove it; the upgrade request has no body",
}

#: A token (RFC 9110 §5.6.2), as which names are written.
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Characters of a Host header at most: a name and a port (RFC 1035 §2.3.4).
LONGEST_HOST_HEADER = 253 + 6
_VALUE = re.compile(r"[\t -~]*")
_HOST_HEADER = re.compile(r"([0-9A-Za-z_-]{1,63}(\.[0-9A-Za-z_-]{1,63})*\.?|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?")


def _version() -> str:
    try:
        return importlib.metadata.version("wsengine")
    except importlib.metadata.PackageNotFoundError:  # imported from a source tree
        return "unknown"


#: The User-Agent header that is sent by default.
USER_AGENT = f"wsengine/{_version()}"


def resolve_headers(headers: Headers) -> list[tuple[str, str]]:
    """Return the extra request headers as checked pairs; a callable is asked, in the calling thread.

    Raises:
        ConfigurationError: given headers are wrong; names the header and never shows its value.
        HeadersError: the callable raised, or returned wrong headers; the reason is the cause. Of what it raises, only
            KeyboardInterrupt and SystemExit in the main thread pass through.
    """
    if isinstance(headers, Mapping) or not callable(headers):
        return _checked_headers(headers)
    try:
        answer = headers()
    except BaseException as error:
        if is_interrupt(error):
            raise
        # Only the type: the text of an HTTP client's error is often a URL with its token.
        raise HeadersError(f"the headers callable raised {type(error).__name__}") from error
    if close_coroutine(answer):
        raise HeadersError("the headers callable returned a coroutine; give a plain function")
    try:
        return _checked_headers(answer)
    except ConfigurationError as error:
        raise HeadersError(f"the headers callable returned wrong headers: {error}") from error


def request_headers(uri: WebSocketURI, headers: Sequence[tuple[str, str]], user_agent: str | None,
                    origin: str | None) -> tuple[str, list[tuple[bytes, bytes]]]:
    """Return the value of Host and the headers to add to those that wsproto makes."""
    pairs = _checked_headers(headers)
    given = {name.lower(): value for name, value in pairs}
    if user_agent is not None and "user-agent" not in given:
        pairs.append(("User-Agent", _checked_value("user_agent_header", user_agent)))
    if origin is not None and "origin" not in given:
        pairs.append(("Origin", _checked_value("origin", origin)))
    if uri.username is not None and "authorization" not in given:
        credentials = b64encode(f"{uri.username}:{uri.password or ''}".encode()).decode("ascii")
        pairs.append(("Authorization", f"Basic {credentials}"))
    extra = [(name.encode("ascii"), value.encode("ascii")) for name, value in pairs if name.lower() != "host"]
    return given.get("host", uri.host_header), extra


def refuse_in_clear(uri: WebSocketURI, headers: Sequence[tuple[str, str]]) -> None:
    """Refuse credentials, of the URI and by the names of headers, that would go out over ws:// (conformance C32).

    The caller has seen that the way is not safe.

    Raises:
        ConfigurationError: names the url or the header, and shows neither.
    """
    remedy = ("it would cross the network in clear: use wss://, or, where the network is trusted, say "
              "allow_plaintext_credentials=True")
    if uri.username is not None:
        raise ConfigurationError("url", uri.redacted, f"it has a user name and a password, and {remedy}")
    for name, _ in headers:
        if is_credential(name):
            raise ConfigurationError(f"headers[{name!r}]", HIDDEN, remedy)


def _checked_headers(headers: object) -> list[tuple[str, str]]:
    if headers is None:
        return []
    if isinstance(headers, Mapping):
        headers = list(headers.items())
    if isinstance(headers, (str, bytes)) or not isinstance(headers, Sequence):
        raise ConfigurationError("headers", type(headers).__name__,
                                 "give a mapping, a sequence of (name, value) pairs, or a callable that returns one")
    pairs = [_checked_pair(at, pair) for at, pair in enumerate(headers)]
    if sum(name.lower() == "host" for name, _ in pairs) > 1:
        raise ConfigurationError("headers['Host']", HIDDEN, "give it once")
    return pairs


def _checked_pair(at: int, pair: object) -> tuple[str, str]:
    if isinstance(pair, (str, bytes)) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise ConfigurationError(f"headers[{at}]", type(pair).__name__, "give a pair (name, value)")
    name, value = pair
    if not isinstance(name, str) or not TOKEN.fullmatch(name):
        # Not the name either: swapped pairs and "Name: value" strings end up here.
        raise ConfigurationError(f"headers[{at}]", HIDDEN,
                                 "its name is not a header name; give a str such as 'X-Api-Key'")
    path, lowered = f"headers[{name!r}]", name.lower()
    if lowered in OWNED or lowered.startswith("sec-websocket-"):
        raise ConfigurationError(path, HIDDEN, OWNED.get(lowered, "remove it; the handshake sets it"))
    value = _checked_value(path, value)
    if lowered == "host" and not _is_host(value):
        raise ConfigurationError(path, HIDDEN, "give host or host:port")
    return name, value


def _checked_value(path: str, value: object) -> str:
    """Check a field value (RFC 9110 §5.5) and take the white space around it off; errors never show it."""
    if not isinstance(value, str):
        raise ConfigurationError(path, f"{HIDDEN} {type(value).__name__}", "give its value as a str")
    stripped = value.strip(" \t")
    if not _VALUE.fullmatch(stripped):
        raise ConfigurationError(path, HIDDEN,
                                 "its value has a line end (perhaps of the file it was read from), another control "
                                 "character or a non-ASCII character; strip or encode it")
    return stripped


def _is_host(value: str) -> bool:
    return len(value) <= LONGEST_HOST_HEADER and _HOST_HEADER.fullmatch(value) is not None
