"""Which proxy the environment names for a server: `*_proxy` and `no_proxy`, or on macOS the system's settings.

urllib reads them; here stands in which order they count. What a proxy's URL means is `proxy`'s.
"""

from __future__ import annotations

import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsengine.websocket.uri import WebSocketURI

__all__ = ["environment_proxy"]

# RFC 6455 §4.1 prefers SOCKS to HTTP proxies, and those for HTTPS to those for HTTP; one named for WebSockets goes first.
# `all_proxy` is for what no other variable names, as for curl.
SECURE = ("wss", "socks", "https", "all")
PLAIN = ("ws", "socks", "https", "http", "all")


def environment_proxy(uri: WebSocketURI) -> tuple[str, str] | None:
    """The variable and the URL of the proxy for a server, or None.

    `no_proxy` alone exempts servers, those on this machine as well, as for `websockets`, curl and urllib. It takes names,
    whose subdomains count, names with a port, and "*".
    """
    proxies = urllib.request.getproxies()
    if not proxies or urllib.request.proxy_bypass(f"{uri.host}:{uri.port}"):
        return None
    for scheme in SECURE if uri.secure else PLAIN:
        url = proxies.get(scheme)
        if url:
            if "://" not in url:  # host:port, as curl takes it
                url = f"http://{url}"
            if scheme == "socks" and url.startswith("http://"):  # the form of macOS
                url = f"socks5h://{url[7:]}"
            return f"{scheme}_proxy", url
    return None
