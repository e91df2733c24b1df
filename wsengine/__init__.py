"""A Broadway for Python threads, whose socket keeps running while your code holds the GIL.

The public names. Everything else is reached through its module, and may change. A name is loaded when it is first asked for,
so that a process that needs little of the package, such as a test's server, starts in a third of the time.
"""

import importlib
import typing

from wsengine import errors
from wsengine.errors import *  # noqa: F403

if typing.TYPE_CHECKING:
    from wsengine import telemetry
    from wsengine.engine.inflate import HAVE_ZLIB
    from wsengine.engine.keys import ByteSlice, JSONField
    from wsengine.event_counter import EventCounter
    from wsengine.message import Failed, Message
    from wsengine.pipeline.acknowledger import CallerAcknowledger, NoopAcknowledger
    from wsengine.pipeline.batch import BatchInfo
    from wsengine.pipeline.batchers import Batcher
    from wsengine.pipeline.delivery import Delivery
    from wsengine.pipeline.drain import StopResult
    from wsengine.pipeline.frame_handler import Emit, Fail, Skip
    from wsengine.pipeline.pipeline import Pipeline, all_running
    from wsengine.pipeline.processors import Processors
    from wsengine.pipeline.rate_limiting import RateLimiting
    from wsengine.pipeline.retry import Retry
    from wsengine.pipeline.source import Inbox, Producer
    from wsengine.websocket.bootstrap import Upgrade
    from wsengine.websocket.client import ClientConnection, connect
    from wsengine.websocket.connection import Connection
    from wsengine.websocket.extensions import PerMessageDeflate
    from wsengine.websocket.failures import process_exception
    from wsengine.websocket.producer import WebSocketProducer
    from wsengine.websocket.response import Response
    from wsengine.websocket.retry import Backoff, RetryState
    from wsengine.websocket.socket_options import SocketOptions

__all__ = [
    "HAVE_ZLIB",
    "Backoff",
    "BatchInfo",
    "Batcher",
    "ByteSlice",
    "CallerAcknowledger",
    "ClientConnection",
    "Connection",
    "Delivery",
    "Emit",
    "EventCounter",
    "Fail",
    "Failed",
    "Inbox",
    "JSONField",
    "Message",
    "NoopAcknowledger",
    "PerMessageDeflate",
    "Pipeline",
    "Processors",
    "Producer",
    "RateLimiting",
    "Response",
    "Retry",
    "RetryState",
    "Skip",
    "SocketOptions",
    "StopResult",
    "Upgrade",
    "WebSocketProducer",
    "all_running",
    "connect",
    "process_exception",
    "telemetry",
]
__all__ += errors.__all__

#: Where the names come from; a module of the package stands for itself.
_PLACES = {
    "telemetry": "",
    "HAVE_ZLIB": "engine.inflate",
    "ByteSlice": "engine.keys",
    "EventCounter": "event_counter",
    "JSONField": "engine.keys",
    "Failed": "message",
    "Message": "message",
    "CallerAcknowledger": "pipeline.acknowledger",
    "NoopAcknowledger": "pipeline.acknowledger",
    "BatchInfo": "pipeline.batch",
    "Batcher": "pipeline.batchers",
    "Delivery": "pipeline.delivery",
    "RateLimiting": "pipeline.rate_limiting",
    "Retry": "pipeline.retry",
    "StopResult": "pipeline.drain",
    "Emit": "pipeline.frame_handler",
    "Fail": "pipeline.frame_handler",
    "Skip": "pipeline.frame_handler",
    "Pipeline": "pipeline.pipeline",
    "all_running": "pipeline.pipeline",
    "Processors": "pipeline.processors",
    "Inbox": "pipeline.source",
    "Producer": "pipeline.source",
    "Upgrade": "websocket.bootstrap",
    "ClientConnection": "websocket.client",
    "connect": "websocket.client",
    "Connection": "websocket.connection",
    "PerMessageDeflate": "websocket.extensions",
    "process_exception": "websocket.failures",
    "WebSocketProducer": "websocket.producer",
    "Response": "websocket.response",
    "Backoff": "websocket.retry",
    "RetryState": "websocket.retry",
    "SocketOptions": "websocket.socket_options",
}

if not typing.TYPE_CHECKING:                     # for a type checker, every name of any spelling would exist

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
