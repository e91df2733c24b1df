"""Where a redirect leads, and what may go there: one attempt's way through them, as a pure function of the answers.

Here belong the rules for the Location header and for credentials. The dialing of each hop is `dial`'s. The configured URL
is untouched by it: the next attempt begins there again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from wsengine.errors import InvalidRedirect, InvalidURI
from wsengine.websocket.credentials import goes_to_another_origin
from wsengine.websocket.uri import parse_uri

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsengine.websocket.response import Response
    from wsengine.websocket.uri import WebSocketURI

__all__ = ["MOST", "Redirects"]

#: Redirects that one attempt follows.
MOST = 10

STATUSES = (301, 302, 303, 307, 308)
#: The schemes that a server may write, and the schemes that they mean here.
SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


class Redirects:
    """The hops of one attempt.

    Attributes:
        first: where it began.
        uri: of the present hop.
        headers: for the present hop, as pairs.
    """

    def __init__(self, uri: WebSocketURI, headers: Sequence[tuple[str, str]]) -> None:
        self.first = self.uri = uri
        self.headers = list(headers)
        self._seen = {uri.url}

    @property
    def peer(self) -> str:
        """host:port of the present hop, for errors; and from where it came, if that is another one."""
        here, first = self.uri.authority, self.first.authority
        return here if here == first else f"{here} (redirected from {first})"

    def follow(self, response: Response, anywhere: bool = True) -> bool:
        """Go on to where the response leads; False if it is no redirect. `anywhere`: whether it may lead to another origin.

        To another origin (scheme, host or port) the user name and password of the URL do not go, and of the user's headers
        only those that tell nothing of the user (see credentials). Origin and User-Agent do.

        Raises:
            InvalidRedirect: the Location is missing or not usable, leads from wss:// to ws://, or to where we have
                been, or not `anywhere` to another origin; or there are more than `MOST`.
        """
        if response.status_code not in STATUSES:
            return False
        target = self._target(response)
        if self.uri.secure and not target.secure:
            raise InvalidRedirect(response, f"it leads from wss:// to {target.redacted}, which is in clear")
        same = (target.secure, target.host, target.port) == (self.uri.secure, self.uri.host, self.uri.port)
        if not (same or anywhere):
            raise InvalidRedirect(response, f"it leads to {target.redacted}, and a Unix socket has one server behind it")
        if target.url in self._seen:
            raise InvalidRedirect(response, f"it leads back to {target.redacted}")
        if len(self._seen) > MOST:
            raise InvalidRedirect(response, f"there are more than {MOST} in a row")
        self._seen.add(target.url)
        if same:
            self.uri = replace(target, username=self.uri.username, password=self.uri.password)
        else:
            self.uri = replace(target, username=None, password=None)
            self.headers = [(name, value) for name, value in self.headers if goes_to_another_origin(name)]
        return True

    def _target(self, response: Response) -> WebSocketURI:
        locations = response.all("Location")
        if len(locations) != 1 or not locations[0]:
            raise InvalidRedirect(response, "it has no Location" if not locations else "its Location is not one URL")
        # As http, since urljoin resolves references for the schemes that it knows only.
        base = self.uri.url.replace("ws", "http", 1)
        try:
            scheme, separator, rest = urljoin(base, locations[0]).partition("#")[0].partition(":")
            return parse_uri(f"{SCHEMES.get(scheme.lower(), scheme)}{separator}{rest}")
        except ValueError as error:  # from None: its text may quote the Location, which may hold secrets
            problem = error.problem if isinstance(error, InvalidURI) else "it is not a URL"
            raise InvalidRedirect(response, f"its Location is not usable: {problem}") from None
