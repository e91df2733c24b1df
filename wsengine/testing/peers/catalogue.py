"""The peers: which driver measures each, and whether it can be had. How they are used at their fastest stands there."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

__all__ = ["PEERS", "Peer", "missing"]


class Peer(NamedTuple):
    """A driver's module, and the modules that it needs, by the names under which they are installed."""

    driver: str
    needs: dict[str, str]


def _peer(driver: str, **needs: str) -> Peer:
    return Peer(f"{__package__}.{driver}", {name.replace("_", "-"): module for name, module in needs.items()})


PEERS = {
    "picows": _peer("picows_client", picows="picows", uvloop="uvloop"),
    "websockets": _peer("websockets_client", websockets="websockets"),
    "websocket-client": _peer("websocket_client_client", websocket_client="websocket"),
    "aiohttp": _peer("aiohttp_client", aiohttp="aiohttp", uvloop="uvloop"),
}


def missing(peer: Peer) -> list[str]:
    """What would have to be installed first."""
    return [name for name, module in peer.needs.items() if find_spec(module) is None]
