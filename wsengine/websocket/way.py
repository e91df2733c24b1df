"""The way to a server: which transport a dial takes, as the user's options say, checked and with their defaults.

Here are the options that concern sockets, TLS and proxies, and nothing of the handshake on top. Nothing is opened here.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from wsengine.errors import ConfigurationError
from wsengine.options import boolean, text
from wsengine.websocket.headers import Headers, refuse_in_clear, resolve_headers
from wsengine.websocket.proxies_environment import environment_proxy
from wsengine.websocket.proxy import Proxy, parse_proxy
from wsengine.websocket.socket_options import SocketOptions
from wsengine.websocket.supplied import check_sock, check_unix, is_loopback
from wsengine.websocket.tls import check_context, default_context

if TYPE_CHECKING:
    import os
    from ssl import SSLContext

    from wsengine.websocket.supplied import Supply
    from wsengine.websocket.uri import WebSocketURI

__all__ = ["Way"]


class Way:
    """By which way a server is reached: the options of a dial that concern the transport, checked. Immutable.

    Args:
        uri: of the server; None where it is known only at an attempt, and what depends on it is looked at there.
        ssl: context of wss://, used as it is; None for `ssl.create_default_context()` with ALPN http/1.1.
        server_hostname: name for SNI and the certificate, instead of the host of the URL.
        sock: a connected socket, or a callable () -> socket; neither look-up nor connect then.
        unix: path of a Unix socket to connect to; the URL gives Host and resource only.
        socket_options: default `SocketOptions()`.
        proxy: URL of a proxy, scheme://[user:password@]host[:port] with http, https, socks4, socks4a, socks5 (we look the
            server up) or socks5h (the proxy does); None for none. True takes the environment's (see
            `environment_proxy`), which is asked at each dial.
        proxy_ssl: context for an https:// proxy; default as for `ssl`.
        allow_plaintext_credentials: True lets ws:// carry user name and password, and headers that are credentials by their
            name (see `is_credential`), to other machines than this one.
        path: of the options, for errors.

    Raises:
        ConfigurationError: an option is wrong, or contradicts the URL or another one.
    """

    def __init__(self, uri: WebSocketURI | None, *, ssl: SSLContext | None = None, server_hostname: str | None = None,
                 sock: Supply = None, unix: str | os.PathLike[str] | None = None,
                 socket_options: SocketOptions | None = None, proxy: str | bool | None = True,
                 proxy_ssl: SSLContext | None = None, allow_plaintext_credentials: bool = False, path: str = "") -> None:
        if socket_options is not None and not isinstance(socket_options, SocketOptions):
            raise ConfigurationError(f"{path}socket_options", socket_options, "give SocketOptions(...)")
        self.socket_options = socket_options or SocketOptions()
        self.sock_path = f"{path}sock"
        self.allow_plaintext_credentials = boolean(f"{path}allow_plaintext_credentials", allow_plaintext_credentials)
        self._context = check_context(f"{path}ssl", ssl)
        self._uri = uri
        if server_hostname is not None:
            text(f"{path}server_hostname", server_hostname)
        self.server_hostname = server_hostname
        for name, value in (("ssl", ssl), ("server_hostname", server_hostname)):
            if value is not None and uri is not None and not uri.secure:
                raise ConfigurationError(f"{path}{name}", value, "the url is ws://, which has no TLS; make it wss://, or "
                                                                 "leave this out")
        check_sock(self.sock_path, sock)
        self.sock = sock
        self.unix = check_unix(f"{path}unix", unix)
        if sock is not None and unix is not None:
            raise ConfigurationError(f"{path}unix", unix, "give unix or sock, not both")
        self._set_proxy(path, proxy, proxy_ssl)

    def _set_proxy(self, path: str, proxy: str | bool | None, proxy_ssl: SSLContext | None) -> None:
        self._proxy_path = f"{path}proxy"
        self._proxy = None if proxy is None or proxy is True else parse_proxy(self._proxy_path, proxy)
        self._ask_environment = proxy is True and not self.supplied
        if self._proxy is not None and self.supplied:
            raise ConfigurationError(self._proxy_path, str(self._proxy), "a proxy has no part in sock or unix; leave it out")
        self._proxy_context = check_context(f"{path}proxy_ssl", proxy_ssl)
        if proxy_ssl is not None and not (proxy is True or (self._proxy is not None and self._proxy.scheme == "https")):
            raise ConfigurationError(f"{path}proxy_ssl", proxy_ssl, "it is for a proxy with https://; leave it out")
        if self._uri is not None:
            self.proxy_for(self._uri)  # what is wrong about the environment's shall be told now

    @property
    def serves_once(self) -> bool:
        """Whether there can be one dial only: the user has given one socket."""
        return isinstance(self.sock, socket.socket)

    @property
    def supplied(self) -> bool:
        """Whether there is nothing to look up, and so no other host to go to."""
        return self.sock is not None or self.unix is not None

    def check_headers(self, headers: Headers) -> None:
        """Refuse, before anything is dialed, credentials that would go out in clear; a callable's are for the attempt."""
        if self._uri is not None and not self.is_safe(self._uri, self.proxy_for(self._uri)):
            refuse_in_clear(self._uri, [] if callable(headers) else resolve_headers(headers))

    def is_safe(self, uri: WebSocketURI, proxy: Proxy | None) -> bool:
        """Whether credentials may go this way: over TLS, or on this machine, as far as one knows before connecting."""
        local = self.supplied or (is_loopback(uri) and (proxy is None or proxy.is_local))
        return uri.secure or self.allow_plaintext_credentials or local

    def proxy_for(self, uri: WebSocketURI) -> Proxy | None:
        """The proxy for a server, None for none. Raises ConfigurationError if the environment's is wrong."""
        if not self._ask_environment:
            return self._proxy
        found = environment_proxy(uri)
        return None if found is None else parse_proxy(f"{self._proxy_path} (the environment's {found[0]})", found[1])

    def proxy_context(self) -> SSLContext:
        """The context of https:// proxies; one for all dials of this way."""
        if self._proxy_context is None:
            self._proxy_context = default_context()
        return self._proxy_context

    def prepare(self) -> None:
        """Make the default context now: it reads the system's CAs, which takes a while."""
        if self._uri is not None and self._uri.secure:
            self.context()

    def context(self) -> SSLContext:
        """The context of wss://; one for all dials of this way."""
        if self._context is None:  # two threads may make one each; either will do
            self._context = default_context()
        return self._context

    def hostname(self, uri: WebSocketURI, first: WebSocketURI | None = None) -> str:
        """The name for SNI and the certificate; a redirect, away from `first` to another host, has that host's."""
        return self.server_hostname if self.server_hostname and (first is None or uri.host == first.host) else uri.host
