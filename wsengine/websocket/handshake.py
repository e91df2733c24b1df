"""The opening handshake (RFC 6455 §4.1), sans-IO: the request as bytes, and the answer judged as its bytes arrive.

Here live the checks that make a 101 acceptable. wsproto makes the request with its key and checks the accept hash; what it
leaves open is checked before it is asked. The request's headers (headers), the response's head (head), sockets, deadlines
and retries do not belong here.

wsproto never sees a byte behind the head: it would keep it, and those bytes are the first frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request
from wsproto.utilities import RemoteProtocolError

from wsengine.errors import (
    ConfigurationError,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
)
from wsengine.websocket.answer import AnswerCollector
from wsengine.websocket.extensions import agreed_deflate, extension_headers
from wsengine.websocket.headers import TOKEN, USER_AGENT, request_headers
from wsengine.websocket.tls import CLIENT_CERTIFICATE
from wsengine.wording import Unshown

if TYPE_CHECKING:
    from wsengine.engine.inflate import DeflateParameters
    from wsengine.websocket.extensions import PerMessageDeflate
    from wsengine.websocket.response import Response
    from wsengine.websocket.uri import WebSocketURI

__all__ = ["Accepted", "Handshake"]

#: Characters of a subprotocol that go into an error at most.
LONGEST_SHOWN = 8
_NO_HOST = "host.invalid"


@dataclass(frozen=True)
class Accepted:
    """The upgrade is accepted.

    Attributes:
        response: the 101.
        subprotocol: the one the server chose of those offered, or None.
        leftover: the bytes that arrived behind the head, which are the server's first frames.
        deflate: how messages are compressed, or None.
    """

    response: Response
    subprotocol: str | None
    leftover: bytes = field(repr=False)
    deflate: DeflateParameters | None = None


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
        compression: offered; None offers none (RFC 7692).

    Raises:
        ConfigurationError: an option is wrong.
    """

    def __init__(self, uri: WebSocketURI, headers: Sequence[tuple[str, str]] = (), *,
                 user_agent_header: str | None = USER_AGENT, origin: str | None = None,
                 subprotocols: Sequence[str] | None = None, compression: PerMessageDeflate | None = None) -> None:
        self._offered = _checked_subprotocols(subprotocols)
        self._compression = compression
        host, extra = request_headers(uri, headers, user_agent_header, origin)
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._answer = AnswerCollector(lambda status: status == 101)
        self._decided = False
        # Many TLS servers say nothing to HTTP; and some nothing to a client whose certificate they miss, which in TLS 1.3
        # they do behind a handshake that the client takes for done.
        self._doubt = (f"; if it does so every time, {CLIENT_CERTIFICATE}" if uri.secure else
                       "; if its port is for TLS, use wss://")
        try:
            # wsproto puts the port of Host through IDNA as a part of its last label, which is then too long from 59
            # characters on: it gets another host, and Host, its first header, is ours.
            made = self._protocol.send(Request(host=_NO_HOST, target=uri.resource, subprotocols=self._offered,
                                               extra_headers=extra + extension_headers(compression)))
            self._request = made.replace(f"\r\nHost: {_NO_HOST}\r\n".encode(), f"\r\nHost: {host}\r\n".encode("ascii"), 1)
        except Exception as error:  # every known reason is checked above; the text may hold a header's value
            raise InvalidHandshake(f"the upgrade request cannot be made ({type(error).__name__})") from None

    def request(self) -> bytes:
        """Return the upgrade request; the same bytes at every call."""
        return self._request

    def feed(self, data: bytes) -> Accepted | None:
        """Take bytes from the server, in any portions; return the outcome once the response head is complete.

        Informational responses before the final one are skipped (RFC 9110 §15.2). A refusal is raised once its body is
        complete or `MAX_BODY` is there; until then `refused` is True.

        Raises:
            InvalidMessage: a line is not HTTP/1.1, or the head is larger than `MAX_HEAD`.
            InvalidStatus: the status is not 101; its response carries the body.
            InvalidUpgrade: a 101 with a wrong Sec-WebSocket-Accept, Upgrade or Connection header.
            NegotiationError: a subprotocol or an extension that was not offered.
            RuntimeError: the outcome is there already; a bug of the caller.
        """
        if self._decided:
            raise RuntimeError("the handshake is decided; bytes behind it belong to the frame parser")
        try:
            answer = self._answer.feed(data)
            if answer is None:
                return None
            response, rest = answer
            subprotocol, deflate = self._judge(response)
        except InvalidHandshake:
            self._decided = True
            raise
        self._decided = True
        return Accepted(response, subprotocol, rest, deflate)

    @property
    def refused(self) -> bool:
        """Whether the head of a refusal is complete, and its body is not."""
        return self._answer.refusal is not None and not self._decided

    def eof(self) -> InvalidMessage | InvalidStatus:
        """Return the error that fits a connection that ends now: a refusal with what there is of its body, if it is one."""
        if self._answer.refusal is not None:
            return InvalidStatus(self._answer.refusal)
        arrived = self._answer.head.arrived
        place = f"inside its response head, after {arrived} bytes"
        return InvalidMessage("the server closed the connection " + (
            place if arrived else "without answering the upgrade request" + self._doubt))

    def _judge(self, response: Response) -> tuple[str | None, DeflateParameters | None]:
        """Return the agreed subprotocol and compression of an acceptable 101."""
        if response.status_code != 101:
            raise InvalidStatus(response)
        if self._answer.head.minor_version != 1:
            raise InvalidUpgrade("the 101 response is HTTP/1.0, which has no upgrade; it must be HTTP/1.1")
        _check_upgrade(response)
        deflate = agreed_deflate(response.all("Sec-WebSocket-Extensions"), self._compression)
        subprotocol = _agreed_subprotocol(response, self._offered)
        self._check_accept(response)
        return subprotocol, deflate

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


def _agreed_subprotocol(response: Response, offered: Sequence[str]) -> str | None:
    chosen = response.all("Sec-WebSocket-Protocol")
    if not chosen:
        return None
    if len(chosen) > 1:
        raise NegotiationError(f"the server chose {len(chosen)} subprotocols; it may choose one")
    if chosen[0] not in offered:
        raise NegotiationError(f"the server chose the subprotocol {_beginning(chosen[0])!r}; "
                               + (f"it is none of the {len(offered)} offered" if offered else "none was offered"))
    return chosen[0]


def _checked_subprotocols(subprotocols: Sequence[str] | None) -> list[str]:
    if subprotocols is None:
        return []
    if isinstance(subprotocols, (str, bytes)) or not isinstance(subprotocols, Sequence):
        raise ConfigurationError("subprotocols", Unshown.of(subprotocols),
                                 "give a sequence of names, such as ['graphql-ws']")
    for at, name in enumerate(subprotocols):
        if not isinstance(name, str) or not TOKEN.fullmatch(name):
            raise ConfigurationError(f"subprotocols[{at}]", Unshown.of(name),  # some servers take a token in one
                                     "give a name of letters, digits and !#$%&'*+-.^_`|~")
        if name in subprotocols[:at]:
            raise ConfigurationError(f"subprotocols[{at}]", Unshown.of(name), "give each name once (RFC 6455 §4.1)")
    return list(subprotocols)


def _beginning(name: str) -> str:
    """What errors show of a subprotocol: some services take a bearer token as one."""
    return name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}..."
