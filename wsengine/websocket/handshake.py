"""The opening handshake (RFC 6455 §4.1), sans-IO: the request as bytes, and the answer judged as its bytes arrive.

Here live the request's headers, the collection of the response head, and the checks that make a 101 acceptable. wsproto
makes the request with its key and checks the accept hash; what it leaves open is checked before it is asked. Sockets,
deadlines and retries do not belong here.

wsproto never sees a byte behind the head: it would keep it, and those bytes are the first frames.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeAlias

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request
from wsproto.utilities import RemoteProtocolError

from wsengine.errors import (
    ConfigurationError,
    HeadersError,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
)

if TYPE_CHECKING:
    from wsengine.websocket.uri import WebSocketURI

__all__ = ["MAX_BODY", "MAX_HEAD", "USER_AGENT", "Accepted", "Handshake", "Headers", "Response", "resolve_headers"]

#: Bytes of the response head at most, informational responses before it included; h11 and nginx take as much.
MAX_HEAD = 16 * 1024
#: Bytes of the body of a refusal that are kept, for its message.
MAX_BODY = 4 * 1024
#: Characters of a text from the server that go into an error at most.
LONGEST_QUOTE = 100

HeaderPairs: TypeAlias = Mapping[str, str] | Sequence[tuple[str, str]]
#: What the option `headers` takes: a mapping, pairs, None for none, or a callable that returns one of these.
Headers: TypeAlias = HeaderPairs | Callable[[], HeaderPairs | None] | None

HIDDEN = "(hidden)"
SECRET_HEADERS = ("authorization", "cookie", "set-cookie", "set-cookie2", "authentication-info")

# Headers that would contradict the handshake -> what to do instead.
OWNED = {
    "upgrade": "remove it; the handshake sets it",
    "connection": "remove it; the handshake sets it",
    "sec-websocket-protocol": "give it as subprotocols=[...]",
    "sec-websocket-extensions": "remove it; extensions are offered by the option compression",
    "content-length": "remove it; the upgrade request has no body",
    "transfer-encoding": "remove it; the upgrade request has no body",
}

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t -~]*")
_HOST_HEADER = re.compile(r"[0-9A-Za-z._-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: (.*))?", re.DOTALL)
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", re.DOTALL)
_HTTP = b"HTTP/1."


def _version() -> str:
    try:
        return importlib.metadata.version("wsengine")
    except importlib.metadata.PackageNotFoundError:  # imported from a source tree
        return "unknown"


#: The User-Agent header that is sent by default.
USER_AGENT = f"wsengine/{_version()}"


@dataclass(frozen=True, repr=False)
class Response:
    """The server's answer to the upgrade request. Immutable; its `repr` shows no cookies, credentials or body.

    Attributes:
        status_code: the HTTP status, 101 for an accepted upgrade.
        reason_phrase: the text behind the status, "" if there is none; unprintable characters are replaced.
        headers: pairs of name and value in the order and spelling of the server, decoded as ISO 8859-1.
        body: what had arrived of the body of a refusal, as it came, at most `MAX_BODY` bytes; empty for a 101.
    """

    status_code: int
    reason_phrase: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Return the value of a header by its name in any case, None if it is absent; several are joined."""
        values = self.all(name)
        return ", ".join(values) if values else None

    def all(self, name: str) -> list[str]:
        """Return every value of a header by its name in any case, in the order of the server."""
        return [value for one, value in self.headers if one.lower() == name.lower()]

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asks to wait (RFC 9110 §10.2.3), at least 0; None if it does not, or not intelligibly.

        A date is taken relative to the response's own Date header, so neither side's clock needs to be right.
        """
        value = (self.header("Retry-After") or "").strip()
        if value.isascii() and value.isdigit():
            return float(value[:10])
        try:
            wait = parsedate_to_datetime(value) - parsedate_to_datetime(self.header("Date") or "")
        except (ValueError, TypeError):  # no date, or one with a zone and one without
            return None
        return max(0.0, wait.total_seconds())

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}: {_shown(name, value)}" for name, value in self.headers)
        return f"Response({self.status_code} {self.reason_phrase}, [{shown}], body of {len(self.body)} bytes)"


@dataclass(frozen=True)
class Accepted:
    """The upgrade is accepted.

    Attributes:
        response: the 101.
        subprotocol: the one the server chose of those offered, or None.
        leftover: the bytes that arrived behind the head, which are the server's first frames.
    """

    response: Response
    subprotocol: str | None
    leftover: bytes = field(repr=False)


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
        if isinstance(error, (KeyboardInterrupt, SystemExit)) and threading.current_thread() is threading.main_thread():
            raise
        # Only the type: the text of an HTTP client's error is often a URL with its token.
        raise HeadersError(f"the headers callable raised {type(error).__name__}") from error
    if inspect.iscoroutine(answer):
        answer.close()  # else it warns, in another place, that nobody awaited it
        raise HeadersError("the headers callable returned a coroutine; give a plain function")
    try:
        return _checked_headers(answer)
    except ConfigurationError as error:
        raise HeadersError(f"the headers callable returned wrong headers: {error}") from error


class Handshake:
    """One opening handshake. Sans-IO: `request()` goes to the server, what it answers into `feed()`. Not thread-safe.

    Of `User-Agent`, `Origin` and `Authorization`, the one in `headers` stands, and the option or the URI's credentials
    step back. A `Host` in `headers` replaces the one of the URI.

    Args:
        uri: the address.
        headers: extra headers, from `resolve_headers`.
        user_agent_header: value of User-Agent; None sends none.
        origin: value of Origin (RFC 6455 §10.2); None sends none.
        subprotocols: names offered, the preferred one first (RFC 6455 §1.9).

    Raises:
        ConfigurationError: an option is wrong.
    """

    def __init__(self, uri: WebSocketURI, headers: Sequence[tuple[str, str]] = (), *,
                 user_agent_header: str | None = USER_AGENT, origin: str | None = None,
                 subprotocols: Sequence[str] | None = None) -> None:
        self._offered = _checked_subprotocols(subprotocols)
        host, extra = _request_headers(uri, headers, user_agent_header, origin)
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._head = _HeadCollector()
        self._decided = False
        try:
            self._request = self._protocol.send(Request(host=host, target=uri.resource, subprotocols=self._offered,
                                                        extra_headers=extra))
        except Exception as error:  # every known reason is checked above; the text may hold a header's value
            raise InvalidHandshake(f"the upgrade request cannot be made ({type(error).__name__})") from None

    def request(self) -> bytes:
        """Return the upgrade request; the same bytes at every call."""
        return self._request

    def feed(self, data: bytes) -> Accepted | None:
        """Take bytes from the server, in any portions; return the outcome once the response head is complete.

        Informational responses before the final one are skipped (RFC 9110 §15.2).

        Raises:
            InvalidMessage: a line is not HTTP/1.1, or the head is larger than `MAX_HEAD`.
            InvalidStatus: the status is not 101; its response carries the body as far as it is among these bytes.
            InvalidUpgrade: a 101 with a wrong Sec-WebSocket-Accept, Upgrade or Connection header.
            NegotiationError: a subprotocol or an extension that was not offered.
            RuntimeError: the outcome is there already; a bug of the caller.
        """
        if self._decided:
            raise RuntimeError("the handshake is decided; bytes behind it belong to the frame parser")
        try:
            response, rest = self._head.feed(data)
            if response is None:
                return None
            subprotocol = self._judge(response, rest)
        except InvalidHandshake:
            self._decided = True
            raise
        self._decided = True
        return Accepted(response, subprotocol, rest)

    def eof(self) -> InvalidMessage:
        """Return the error that fits a server that closes the connection now, before the response head is complete."""
        arrived = self._head.arrived
        return InvalidMessage("the server closed the connection " + (
            f"inside its response head, after {arrived} bytes" if arrived else "without answering the upgrade request"))

    def _judge(self, response: Response, rest: bytes) -> str | None:
        """Return the agreed subprotocol of an acceptable 101."""
        if response.status_code != 101:
            raise InvalidStatus(replace(response, body=rest[:MAX_BODY]))
        if self._head.minor_version != 1:
            raise InvalidUpgrade("the 101 response is HTTP/1.0, which has no upgrade; it must be HTTP/1.1")
        _check_upgrade(response)
        _check_no_extension(response)
        subprotocol = _agreed_subprotocol(response, self._offered)
        self._check_accept(response)
        return subprotocol

    def _check_accept(self, response: Response) -> None:
        """Have wsproto check the accept hash (RFC 6455 §4.2.2), on a head without anything else."""
        accepts = response.all("Sec-WebSocket-Accept")
        if len(accepts) != 1:  # wsproto takes the last
            raise InvalidUpgrade(f"the 101 response has {len(accepts)} Sec-WebSocket-Accept headers; it must have one")
        head = ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accepts[0]}\r\n\r\n")
        try:
            self._protocol.receive_data(head.encode("iso-8859-1"))
            events = list(self._protocol.events())
        except RemoteProtocolError:
            raise InvalidUpgrade("the Sec-WebSocket-Accept of the 101 response does not answer our key") from None
        except Exception as error:  # wsproto also lets ValueError and AssertionError out
            raise InvalidUpgrade(f"the 101 response cannot be checked ({type(error).__name__})") from None
        if [type(event) for event in events] != [AcceptConnection]:
            raise InvalidUpgrade("the 101 response does not accept our request")


class _HeadCollector:
    """Collects lines up to the end of a response head, and judges each as it completes.

    Attributes:
        arrived: bytes fed so far.
        minor_version: y of the last status line's HTTP/1.y.
    """

    def __init__(self) -> None:
        self.arrived = 0
        self.minor_version = 1
        self._buffer = bytearray()
        self._searched = 0  # bytes of the buffer that have no line end
        self._taken = 0  # bytes of complete lines, over all heads
        self._status: tuple[int, str] | None = None
        self._headers: list[tuple[bytes, bytes]] = []

    def feed(self, data: bytes) -> tuple[Response | None, bytes]:
        """Return the final response and the bytes behind it, or None and nothing while it is incomplete."""
        self.arrived += len(data)
        self._buffer += data
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if end < 0:
                self._searched = len(self._buffer)
                self._check_beginning()
                return None, b""
            line = self._take_line(end + 1)
            if line:
                self._add(line)
                continue
            response = self._finish()
            if response.status_code == 101 or response.status_code >= 200:
                return response, bytes(self._buffer)

    def _take_line(self, length: int) -> bytes:
        self._check_size(length)
        line = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._taken += length
        self._searched = 0
        # A bare CR or LF, or a NUL, means different things to different parsers (RFC 9112 §2.2): none of them is taken.
        if not line.endswith(b"\r\n") or b"\r" in line[:-2] or b"\0" in line:
            raise InvalidMessage(f"{self._place()} is not HTTP: it does not end with CR LF, or has a CR or NUL inside")
        return line[:-2]

    def _check_beginning(self) -> None:
        """Refuse an incomplete line as soon as it cannot become one that we take."""
        self._check_size(len(self._buffer))
        if self._status is None:
            beginning = bytes(self._buffer[:len(_HTTP)])
            if not _HTTP.startswith(beginning):
                raise InvalidMessage(_not_http(beginning))

    def _check_size(self, length: int) -> None:
        if self._taken + length > MAX_HEAD:
            raise InvalidMessage(f"the response head is larger than {MAX_HEAD} bytes")

    def _add(self, line: bytes) -> None:
        if self._status is None:
            match = _STATUS_LINE.fullmatch(line)
            if match is None:
                raise InvalidMessage(_not_http(line))
            self.minor_version = int(match[1])
            self._status = int(match[2]), _printable(match[3] or b"")
        elif line[:1] in (b" ", b"\t") and self._headers:  # a folded line (RFC 9112 §5.2)
            name, value = self._headers.pop()
            self._headers.append((name, value + b" " + line.strip(b" \t")))
        else:
            match = _HEADER_LINE.fullmatch(line)
            if match is None:
                raise InvalidMessage(f"{self._place()} is not an HTTP header")
            self._headers.append((match[1], match[2]))

    def _finish(self) -> Response:
        if self._status is None:
            raise InvalidMessage("the response begins with an empty line instead of an HTTP/1.1 status line")
        headers = tuple((name.decode("ascii"), value.decode("iso-8859-1")) for name, value in self._headers)
        response = Response(*self._status, headers)
        self._status = None
        self._headers = []
        return response

    def _place(self) -> str:
        # The number and never the text: the line may be a cookie, or an echo of our own request.
        return "the status line" if self._status is None else f"header line {len(self._headers) + 1} of the response"


def _not_http(line: bytes) -> str:
    if line[:1] in (b"\x15", b"\x16"):  # the record types alert and handshake (RFC 8446 §5.1)
        return "the answer is not HTTP but TLS; use wss:// for this port"
    # Four bytes name a protocol ("SSH-", "GET ") and are too few to show a secret.
    return f"the answer is not HTTP/1.1; it begins with {line[:4]!r}"


def _printable(raw: bytes) -> str:
    # Goes into the text of errors, so into logs and terminals: no escape sequences, no endless lines.
    text = raw.decode("iso-8859-1").strip()[:LONGEST_QUOTE]
    return "".join(one if one.isprintable() else "?" for one in text)


def _shown(name: str, value: str) -> str:
    lowered = name.lower()
    if lowered in SECRET_HEADERS or lowered.startswith("proxy-"):
        return HIDDEN
    if lowered in ("location", "content-location", "refresh", "link"):  # URIs, whose queries and user names are secrets
        return HIDDEN if "?" in value or "@" in value else repr(value)
    return repr(value)


def _tokens(values: Sequence[str]) -> list[str]:
    """Split the values of a list header into its elements, in lower case (RFC 9110 §5.6.1)."""
    return [token for value in values for token in map(str.strip, value.lower().split(",")) if token]


def _check_upgrade(response: Response) -> None:
    upgrades = response.all("Upgrade")
    if len(upgrades) != 1 or upgrades[0].lower() != "websocket":
        raise InvalidUpgrade("the 101 response has no header 'Upgrade: websocket'" if not upgrades else
                             "the 101 response must have one Upgrade header, with the value 'websocket'")
    if "upgrade" not in _tokens(response.all("Connection")):
        raise InvalidUpgrade("the 101 response has no header 'Connection: Upgrade'")


def _check_no_extension(response: Response) -> None:
    extensions = _tokens(response.all("Sec-WebSocket-Extensions"))
    if extensions:
        raise NegotiationError(f"the server chose the extension {extensions[0][:LONGEST_QUOTE]!r}; none was offered")


def _agreed_subprotocol(response: Response, offered: Sequence[str]) -> str | None:
    chosen = response.all("Sec-WebSocket-Protocol")
    if not chosen:
        return None
    if len(chosen) > 1:
        raise NegotiationError(f"the server chose {len(chosen)} subprotocols; it may choose one")
    if chosen[0] not in offered:
        raise NegotiationError(f"the server chose the subprotocol {chosen[0][:LONGEST_QUOTE]!r}; offered: "
                               + (", ".join(offered) or "none"))
    return chosen[0]


def _request_headers(uri: WebSocketURI, headers: Sequence[tuple[str, str]], user_agent: str | None,
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
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
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
    try:
        value.encode("idna")  # as wsproto does
    except UnicodeError:
        return False
    return _HOST_HEADER.fullmatch(value) is not None


def _checked_subprotocols(subprotocols: Sequence[str] | None) -> list[str]:
    if subprotocols is None:
        return []
    if isinstance(subprotocols, (str, bytes)) or not isinstance(subprotocols, Sequence):
        raise ConfigurationError("subprotocols", subprotocols, "give a sequence of names, such as ['graphql-ws']")
    for at, name in enumerate(subprotocols):
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ConfigurationError(f"subprotocols[{at}]", name, "give a name of letters, digits and !#$%&'*+-.^_`|~")
        if name in subprotocols[:at]:
            raise ConfigurationError(f"subprotocols[{at}]", name, "give each name once (RFC 6455 §4.1)")
    return list(subprotocols)
