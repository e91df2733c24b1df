"""WebSocket addresses: from the text a user gives to the parts a dialer needs, and back to text that is safe to log.

Here live the syntax of ws:// and wss:// URIs (RFC 6455 §3 over RFC 3986), their checks, and the form without secrets.
What is done with the parts (look-up, connection, Host and Authorization headers) belongs to `dial` and `handshake`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from wsengine.errors import ConfigurationError, InvalidURI

if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["WebSocketURI", "parse_uri"]

# scheme -> (TLS, default port); RFC 6455 §3
SCHEMES = {"ws": (False, 80), "wss": (True, 443)}

# RFC 1035 §2.3.4: 255 octets on the wire are 253 characters of text.
LONGEST_HOST = 253

HIDDEN = "***"
PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_ZONE = re.compile(r"[A-Za-z0-9._~-]+")


@dataclass(frozen=True, repr=False)
class WebSocketURI:
    """The parts of a WebSocket URI. Immutable, so safe to share between threads; `repr` and `str` show no secrets.

    Attributes:
        secure: whether the connection is over TLS; the scheme alone decides.
        host: name in its ASCII form and lower case, or IP address without brackets.
        port: from 1 to 65535.
        resource: path and query as they go into the request line (RFC 6455 §3 "resource name"); "/" if there is none.
        username: percent-decoded, None if the URI has none.
        password: percent-decoded, None if the URI has none.
    """

    secure: bool
    host: str
    port: int
    resource: str = "/"
    username: str | None = None
    password: str | None = None

    @property
    def scheme(self) -> str:
        """Either "wss" or "ws"."""
        return "wss" if self.secure else "ws"

    @property
    def authority(self) -> str:
        """host:port with the port always there; an IPv6 address in brackets. Names the peer in errors."""
        return f"{self._bracketed(self.host)}:{self.port}"

    @property
    def host_header(self) -> str:
        """The value of Host: without the default port (RFC 6455 §4.1), and without an IPv6 zone (RFC 6874 §4)."""
        host = self._bracketed(self.host.partition("%")[0])
        return host if self.port == SCHEMES[self.scheme][1] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URI without its credentials. The query is there, so it may hold secrets: log `redacted` instead."""
        return f"{self._origin}{self.resource}"

    @property
    def redacted(self) -> str:
        """The URI without its credentials and with its query hidden, for logs, events and errors."""
        return self._origin + _without_query(self.resource)

    @property
    def _origin(self) -> str:
        host = self._bracketed(self.host.replace("%", "%25"))
        return f"{self.scheme}://{host}" + ("" if self.port == SCHEMES[self.scheme][1] else f":{self.port}")

    @staticmethod
    def _bracketed(host: str) -> str:
        return f"[{host}]" if ":" in host else host

    def __repr__(self) -> str:
        return f"WebSocketURI({self.redacted!r})"

    __str__ = __repr__


def parse_uri(uri: str, path: str | None = None) -> WebSocketURI:
    """Parse a ws:// or wss:// URI.

    Spaces and non-ASCII characters of the path and the query are percent-encoded (UTF-8); other printable ASCII is kept
    as it is.

    Args:
        uri: the address (RFC 6455 §3).
        path: path and query, if they are given apart from the address, as the ancestor's option `path`.

    Raises:
        InvalidURI: the address is not usable; the text tells why and hides its credentials and its query.
        ConfigurationError: `path` is wrong, or given although the address has a path or a query of its own.
    """
    if not isinstance(uri, str):
        raise InvalidURI(f"<{type(uri).__name__}>", "give a str such as 'wss://example.com/feed'")
    _check_characters(uri)
    scheme, rest = _split_scheme(uri)
    secure, default_port = SCHEMES[scheme]
    authority, resource = _split_authority(rest)
    userinfo, _, host_and_port = authority.rpartition("@")
    username, password = _parse_userinfo(uri, userinfo)
    host, port = _split_port(uri, host_and_port)
    if path is not None:
        resource = _join_path(resource, path)
    return WebSocketURI(secure=secure, host=_parse_host(uri, host), port=default_port if port is None else port,
                        resource=_encode_resource(uri, resource), username=username, password=password)


def _refuse(uri: str, problem: str) -> NoReturn:
    # `from None`: the cause's text (of the IDNA codec, of ipaddress) may hold the very parts that are hidden here.
    raise InvalidURI(_hide_secrets(uri), problem) from None


def _hide_secrets(uri: str) -> str:
    """Return an unparsed URI without what could be a secret. Where that is unclear, only the scheme is left."""
    match = _SCHEME.match(uri)
    scheme = match[0] if match else ""
    rest = uri[len(scheme):]
    authority, resource = _split_authority(rest.partition("#")[0])
    if "@" in resource or "@" in rest.partition("#")[2]:
        # An unescaped "/", "?" or "#" in a password ends the authority early: what follows may be half a password.
        return f"{scheme}{HIDDEN}"
    _, at, host_and_port = authority.rpartition("@")
    return f"{scheme}{HIDDEN + at if at else ''}{host_and_port}{_without_query(resource)}"


def _without_query(resource: str) -> str:
    path, question, _ = resource.partition("?")
    return path + (question + HIDDEN if question else "")


def _is_control(character: str) -> bool:
    # The C0 and C1 sets and DEL.
    return character < " " or "\x7f" <= character <= "\x9f"


def _check_characters(uri: str) -> None:
    if any(map(_is_control, uri)):
        _refuse(uri, "it has a control character (a line end, perhaps); remove it")
    if uri != uri.strip():
        _refuse(uri, "there is white space around it; remove it")
    if "#" in uri:
        _refuse(uri, "a fragment has no meaning here (RFC 6455 §3); remove it, or write %23 for a literal '#'")


def _split_scheme(uri: str) -> tuple[str, str]:
    scheme, separator, rest = uri.partition("://")
    if not separator:
        _refuse(uri, "it has no scheme; begin it with ws:// or wss://")
    lowered = scheme.lower()
    if lowered in ("http", "https"):
        _refuse(uri, f"{lowered}:// is not a WebSocket scheme; write {'wss' if lowered == 'https' else 'ws'}://")
    if lowered not in SCHEMES:
        _refuse(uri, "the scheme is not ws or wss; begin it with ws:// or wss://")
    return lowered, rest


def _split_authority(rest: str) -> tuple[str, str]:
    """Split what follows the "://" where the path or the query begins."""
    end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    return rest[:end], rest[end:]


def _parse_userinfo(uri: str, userinfo: str) -> tuple[str | None, str | None]:
    if not userinfo:
        return None, None
    name, colon, secret = userinfo.partition(":")
    username, password = unquote(name), unquote(secret) if colon else None
    if ":" in username:
        _refuse(uri, "its user name has a colon, which Basic authentication cannot carry (RFC 7617 §2)")
    if any(map(_is_control, username + (password or ""))):
        _refuse(uri, "its user name or password has a control character (RFC 7617 §2); remove it")
    try:
        f"{username}{password}".encode()
    except UnicodeEncodeError:
        _refuse(uri, "its user name or password has a lone surrogate, which UTF-8 cannot encode")
    return username, password


def _split_port(uri: str, host_and_port: str) -> tuple[str, int | None]:
    if host_and_port.startswith("["):
        host, bracket, after = host_and_port.partition("]")
        if not bracket or (after and not after.startswith(":")):
            _refuse(uri, "the brackets around its IPv6 address do not close before the port")
        return host + bracket, _parse_port(uri, after[1:])
    host, _, port = host_and_port.partition(":")
    if ":" in port:
        _refuse(uri, "it has several colons after the host; put an IPv6 address in brackets: ws://[::1]:8080/")
    return host, _parse_port(uri, port)


def _parse_port(uri: str, port: str) -> int | None:
    if not port:  # RFC 3986 §3.2.3: an empty port is the default port
        return None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        _refuse(uri, "its port is not a whole number from 1 to 65535 (a reserved character in a password must be "
                     "percent-encoded)")
    return int(port)


def _parse_host(uri: str, host: str) -> str:
    if not host:
        _refuse(uri, "it has no host; write ws://example.com/path")
    if host.startswith("["):
        return _parse_ipv6(uri, host[1:-1])
    if len(host) > LONGEST_HOST:  # checked before the codec as well: its running time is not linear
        _refuse(uri, f"its host has more than {LONGEST_HOST} characters")
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        _refuse(uri, "its host is not a host name (labels of 1 to 63 characters that IDNA can encode)")
    if len(name) > LONGEST_HOST or not _HOST.fullmatch(name):
        _refuse(uri, "its host is not a host name or an IP address")
    return name.lower()


def _parse_ipv6(uri: str, address: str) -> str:
    # RFC 6874: a zone is written as %25eth0; a bare % is what other tools print, and means the same.
    number, percent, zone = address.replace("%25", "%", 1).partition("%")
    try:
        parsed = ipaddress.IPv6Address(number)
    except ValueError:
        _refuse(uri, "there is no valid IPv6 address in its brackets")
    if percent and not _ZONE.fullmatch(zone):
        _refuse(uri, "the zone of its IPv6 address is not an interface name")
    return str(parsed) + percent + zone


def _join_path(resource: str, path: str) -> str:
    if not isinstance(path, str):
        raise ConfigurationError("path", type(path).__name__, "give a str that begins with '/', such as '/feed?id=1'")
    shown = _without_query(path)
    if resource not in ("", "/"):
        raise ConfigurationError("path", shown, "the url has a path or a query of its own; give it in one place only")
    if not path.startswith("/"):
        raise ConfigurationError("path", shown, "begin it with '/'")
    if "#" in path:
        raise ConfigurationError("path", shown.partition("#")[0] + "#" + HIDDEN,
                                 "a fragment has no meaning here (RFC 6455 §3); remove it, or write %23")
    if any(map(_is_control, path)):
        raise ConfigurationError("path", shown, "remove the control character (a line end, perhaps)")
    return path


def _encode_resource(uri: str, resource: str) -> str:
    if not resource.startswith("/"):
        resource = "/" + resource
    try:
        return quote(resource, safe=PRINTABLE)
    except UnicodeEncodeError:
        _refuse(uri, "its path or query has a lone surrogate, which UTF-8 cannot encode")
