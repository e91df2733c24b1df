"""Servers to test and measure against, and what else tests of programs built on this package need.

Each server runs in a process of its own: `Feed` sends fast and keeps an exact log, `ScriptedServer` does what `steps`
tell it, `OpenSSLServer` changes its keys under way. `capture` records telemetry; `Collector` keeps its messages;
`DummyProducer` is a source that is quiet.
This file names what is public, and holds nothing itself.
"""

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
