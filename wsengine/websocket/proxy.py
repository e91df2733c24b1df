"""A proxy on the way: its URL, and how it is asked for a connection to the server.

HTTP proxies get a CONNECT (RFC 9110 §9.3.6), with TLS to the proxy where its URL says https. SOCKS is spoken by
python-socks: its sync client takes its transport from another proxy object (`forward`), and that object here hands it a
connection of ours. So python-socks does the protocol, and deadline, cancellation and descriptors stay with the attempt; its
own connect would block without either. Which proxy is used where none is named stands in proxies_environment.
"""

from __future__ import annotations

import re
import socket
from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from wsengine.errors import ConfigurationError, InvalidMessage, ProxyError
from wsengine.websocket.addresses import is_ip, resolve
from wsengine.websocket.answer import AnswerCollector
from wsengine.websocket.failures import status_is_worth_a_retry
from wsengine.websocket.headers import USER_AGENT
from wsengine.websocket.supplied import is_loopback_address

if TYPE_CHECKING:
    from wsengine.websocket.attempt import Attempt
    from wsengine.websocket.channel import Channel
    from wsengine.websocket.uri import WebSocketURI

__all__ = ["Proxy", "Tunnel", "parse_proxy", "pass_proxy"]

#: scheme -> (default port, who looks the server up: "proxy" or "we"); None for HTTP proxies, where it is the proxy
SCHEMES: dict[str, tuple[int, str]] = {
    "http": (80, "proxy"), "https": (443, "proxy"), "socks4": (1080, "we"), "socks4a": (1080, "proxy"),
    "socks5": (1080, "we"), "socks5h": (1080, "proxy"),
}
#: SOCKS5 replies that would come again: a ruleset, a command or an address type (RFC 1928 §6).
FATAL_REPLIES = (2, 7, 8)
# SOCKS4 has one reply for most, and two about its user id.
FATAL_REPLIES_4 = (92, 93)

_HOST = re.compile(r"[0-9A-Za-z._-]+|[0-9A-Fa-f:.]+")


@dataclass(frozen=True, repr=False)
class Proxy:
    """The parts of a proxy's URL. Immutable; `str` and `repr` show neither user name nor password."""

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def authority(self) -> str:
        """host:port, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine, by its name."""
        return self.host == "localhost" or is_loopback_address(self.host)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"

    __repr__ = __str__


def parse_proxy(path: str, url: object) -> Proxy:
    """Parse a proxy's URL, scheme://[user:password@]host[:port].

    Raises:
        ConfigurationError: it is not usable, or python-socks is missing; hides user name and password.
    """
    if not isinstance(url, str):
        raise ConfigurationError(path, type(url).__name__, f"give a URL with one of the schemes {', '.join(SCHEMES)}; True "
                                                           "for the environment's; or None for none")
    shown = _shown(url)
    if any(ord(one) < 32 or ord(one) == 127 for one in url):  # urlsplit would take line ends and tabs out of a password
        raise ConfigurationError(path, shown, "it has a control character (a line end, perhaps); remove it")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigurationError(path, shown, "its host or its port is not one") from None
    if port == 0:
        raise ConfigurationError(path, shown, "its port is not a whole number from 1 to 65535")
    if parts.scheme not in SCHEMES:
        raise ConfigurationError(path, shown, f"give a URL with one of the schemes {', '.join(SCHEMES)}")
    if not _HOST.fullmatch(host) or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigurationError(path, shown, "write it as scheme://[user:password@]host[:port], and no more")
    username = None if parts.username is None else unquote(parts.username)
    password = None if parts.username is None else unquote(parts.password or "")
    proxy = Proxy(parts.scheme, host, SCHEMES[parts.scheme][0] if port is None else port, username, password)
    _check_credentials(path, shown, proxy)
    if proxy.scheme.startswith("socks"):
        _import_socks(path, shown)
    return proxy


def _shown(url: str) -> str:
    """A proxy's URL as errors show it: where it is malformed one cannot tell what is a password. Of what is before the last
    "@" only the scheme is left, of what is behind "?" or "#" nothing; where the two overlap, the scheme alone."""
    match = re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,9}://", url)
    scheme = match[0] if match else ""
    before, at, rest = url[len(scheme):].rpartition("@")
    if re.search(r"[/?#]", before):
        return f"{scheme}***"
    rest = re.sub(r"[?#].*", lambda match: f"{match[0][0]}***", rest, flags=re.DOTALL)
    return f"{scheme}***@{rest}" if at else f"{scheme}{rest}"


def _check_credentials(path: str, shown: str, proxy: Proxy) -> None:
    both = f"{proxy.username or ''}{proxy.password or ''}"
    if any(ord(one) < 32 or ord(one) == 127 for one in both) or (proxy.username and ":" in proxy.username):
        raise ConfigurationError(path, shown, "its user name or password has a control character, or the name a colon")
    if any("\ud800" <= one <= "\udfff" for one in both):
        raise ConfigurationError(path, shown, "its user name or password has a lone surrogate, which UTF-8 cannot encode")
    longest = max(len(proxy.username or ""), len(proxy.password or ""))
    if proxy.scheme.startswith("socks") and (not both.isascii() or longest > 255):
        raise ConfigurationError(path, shown, "its user name and password must be ASCII, each of 255 characters at most")


def _import_socks(path: str, shown: str) -> Any:
    try:
        import python_socks.sync
    except ImportError:
        raise ConfigurationError(path, shown, "SOCKS needs python-socks: pip install 'wsengine[proxy]'") from None
    return python_socks


def pass_proxy(attempt: Attempt, channel: Channel, proxy: Proxy, uri: WebSocketURI, user_agent: str | None) -> None:
    """Have the proxy, to which the channel is connected, connect it to the server.

    Raises:
        ProxyError: it refuses, or does not speak its protocol.
        OSError: the network; and as `Attempt.check`.
    """
    if proxy.scheme.startswith("socks"):
        with attempt.timed("proxy", "the SOCKS handshake"):
            _pass_socks(attempt, channel, proxy, uri)
    else:
        tunnel = Tunnel(proxy, uri, user_agent)
        channel.converse(tunnel, "proxy", "the sending of CONNECT to the proxy", "the wait for the proxy's answer")


# ------------------------------------------------------------------------------------------------------------------ HTTP


class Tunnel:
    """One CONNECT and its answer. Sans-IO; not thread-safe.

    Args:
        proxy: with the credentials, which go as Basic (RFC 7617).
        uri: of the server.
        user_agent: as for the upgrade; None sends none.
    """

    def __init__(self, proxy: Proxy, uri: WebSocketURI, user_agent: str | None = USER_AGENT) -> None:
        self._proxy = proxy
        self._answer = AnswerCollector(lambda status: 200 <= status < 300)
        self._decided = False
        host = uri.host.partition("%")[0]  # a zone means nothing to another machine
        target = f"[{host}]:{uri.port}" if ":" in host else f"{host}:{uri.port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if user_agent is not None:
            lines.append(f"User-Agent: {user_agent}")
        if proxy.username is not None:
            credentials = b64encode(f"{proxy.username}:{proxy.password or ''}".encode()).decode("ascii")
            lines.append(f"Proxy-Authorization: Basic {credentials}")
        self._request = "\r\n".join([*lines, "", ""]).encode("ascii")

    def request(self) -> bytes:
        """Return the CONNECT."""
        return self._request

    @property
    def refused(self) -> bool:
        """Whether the head of a refusal is complete, and its body is not."""
        return self._answer.refusal is not None and not self._decided

    def feed(self, data: bytes) -> bool | None:
        """Take bytes from the proxy; True once it has connected. Raises ProxyError."""
        try:
            answer = self._answer.feed(data)
        except InvalidMessage as error:
            raise ProxyError(str(self._proxy), str(error)) from None
        if answer is None:
            return None
        self._decided = True
        if self._answer.refusal is not None:
            raise self.eof()
        if answer[1]:
            raise ProxyError(str(self._proxy), "it sent bytes of its own behind its answer")
        return True

    def eof(self) -> ProxyError:
        """Return the error that fits a proxy that ends the connection now."""
        response = self._answer.refusal
        if response is None:
            return ProxyError(str(self._proxy), "it closed the connection without a complete answer")
        status = response.status_code
        said = f"it answered HTTP {status} {response.reason_phrase}".rstrip()
        if status == 407:
            said += "; give user name and password in the proxy's URL" if self._proxy.username is None else (
                "; it does not take the user name and password of its URL")
        return ProxyError(str(self._proxy), said, response, not status_is_worth_a_retry(status))


# ----------------------------------------------------------------------------------------------------------------- SOCKS


class _Transport:
    """What python-socks takes for a socket: our channel, whose every wait is under the attempt's deadline."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def sendall(self, data: bytes) -> None:
        self._channel.send(data)

    def recv(self, size: int) -> bytes:
        return self._channel.receive(size) or b""

    def close(self) -> None:
        """The channel's owner closes it."""


class _Forward:
    """What python-socks takes for the proxy before its own: it gives the connection, which there is already."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def connect(self, **_: object) -> _Transport:
        return _Transport(self._channel)


def _pass_socks(attempt: Attempt, channel: Channel, proxy: Proxy, uri: WebSocketURI) -> None:
    socks = _import_socks("proxy", str(proxy))
    old = proxy.scheme in ("socks4", "socks4a")
    host = uri.host
    if SCHEMES[proxy.scheme][1] == "we" and not is_ip(host):
        host = _look_up(attempt, uri, old)
    client = socks.sync.Proxy(
        socks.ProxyType.SOCKS4 if old else socks.ProxyType.SOCKS5, proxy.host, proxy.port, proxy.username or None,
        proxy.password or None, rdns=True, forward=_Forward(channel))
    try:
        client.connect(dest_host=host, dest_port=uri.port)
    except socks.ProxyTimeoutError as error:  # made of our TimeoutError, which names the phase
        raise (error.__cause__ or error) from None
    except socks.ProxyError as error:
        code = error.error_code
        # Without a code: its answer is not SOCKS, or it takes none of our ways to say who we are.
        fatal = code in (FATAL_REPLIES_4 if old else FATAL_REPLIES) or "uthentication" in str(error)
        raise ProxyError(str(proxy), str(error) or "its answer breaks off", None, fatal) from None
    except UnicodeError:  # of the host that it says it is bound to; from None: the text is the proxy's
        raise ProxyError(str(proxy), "its answer is not SOCKS: a host name in it is not text") from None


def _look_up(attempt: Attempt, uri: WebSocketURI, old: bool) -> str:
    """The server's first address, of IPv4 for SOCKS4; for the schemes that leave the look-up to us."""
    peer, phase = attempt.peer, attempt.phase
    attempt.peer = uri.authority
    found = resolve(attempt, uri.host, uri.port, socket.AF_INET if old else socket.AF_UNSPEC)
    attempt.peer, attempt.phase = peer, phase
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, f"cannot look up {uri.authority}: it has no address")
    return str(found[0][2][0])
