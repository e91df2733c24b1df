"""Servers to test and measure against, and what else tests of programs built on this package need.

Each server runs in a process of its own: `Feed` sends fast and keeps an exact log, `ScriptedServer` does what `steps`
tell it, `OpenSSLServer` changes its keys under way. `capture` records telemetry; `Collector` keeps its messages;
`DummyProducer` is a source that is quiet.
This file names what is public, and holds nothing itself; a name is loaded when it is first asked for, as in `wsengine`.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from wsengine.testing import steps
    from wsengine.testing.capture import Capture, CapturedEvent, capture
    from wsengine.testing.collector import Collector
    from wsengine.testing.dummy import DummyProducer
    from wsengine.testing.feed import Feed, FeedConnectionLog, FeedLog, PingSeen, PongSeen
    from wsengine.testing.openssl_server import OpenSSLServer
    from wsengine.testing.recording import Recording, load_recording
    from wsengine.testing.scripted import ReceivedFrame, ScriptedRecord, ScriptedServer
    from wsengine.testing.tls import ServerTLS
    from wsengine.testing.wire import build_server_frame

__all__ = [
    "Capture",
    "CapturedEvent",
    "Collector",
    "DummyProducer",
    "Feed",
    "FeedConnectionLog",
    "FeedLog",
    "OpenSSLServer",
    "PingSeen",
    "PongSeen",
    "ReceivedFrame",
    "Recording",
    "ScriptedRecord",
    "ScriptedServer",
    "ServerTLS",
    "build_server_frame",
    "capture",
    "load_recording",
    "steps",
]

#: Where the names come from; a module of the package stands for itself.
_PLACES = {
    "steps": "",
    "Capture": "capture",
    "CapturedEvent": "capture",
    "capture": "capture",
    "Collector": "collector",
    "DummyProducer": "dummy",
    "Feed": "feed",
    "FeedConnectionLog": "feed",
    "FeedLog": "feed",
    "PingSeen": "feed",
    "PongSeen": "feed",
    "OpenSSLServer": "openssl_server",
    "Recording": "recording",
    "load_recording": "recording",
    "ReceivedFrame": "scripted",
    "ScriptedRecord": "scripted",
    "ScriptedServer": "scripted",
    "ServerTLS": "tls",
    "build_server_frame": "wire",
}

if not typing.TYPE_CHECKING:

    def __getattr__(name):
        """Load a public name."""
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = importlib.import_module(f"{__name__}.{_PLACES[name] or name}")
        value = globals()[name] = getattr(module, name) if _PLACES[name] else module
        return value

    def __dir__():
        """The public names, loaded or not."""
        return sorted({*globals(), *__all__})
