"""The peers: which driver measures each, and whether it can be had. How they are used at their fastest stands there."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

__all__ = ["OURS_WITH_ONE", "PEERS", "Peer", "missing"]


class Peer(NamedTuple):
    """A driver, and the modules that it needs, by the names under which they are installed."""

    driver: str
    needs: dict[str, str]


#: wsengine with one processor, all else as it is: what --concurrency is compared with.
OURS_WITH_ONE = "wsengine-x1"

PEERS = {
    OURS_WITH_ONE: Peer("wsengine_client", {}),
    "picows": Peer("picows_client", {"picows": "picows", "uvloop": "uvloop"}),
    "websockets": Peer("websockets_client", {"websockets": "websockets"}),
    "websocket-client": Peer("websocket_client_client", {"websocket-client": "websocket"}),
    "aiohttp": Peer("aiohttp_client", {"aiohttp": "aiohttp", "uvloop": "uvloop"}),
}


def missing(peer: Peer) -> list[str]:
    """What would have to be installed first."""
    return [name for name, module in peer.needs.items() if find_spec(module) is None]
