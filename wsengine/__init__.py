"""A Broadway for Python threads, whose socket keeps running while your code holds the GIL.

The public names. Everything else is reached through its module, and may change.
"""

from wsengine import errors, telemetry
from wsengine.engine.inflate import HAVE_ZLIB
from wsengine.errors import *  # noqa: F403
from wsengine.message import Failed, Message
from wsengine.pipeline.acknowledger import CallerAcknowledger, NoopAcknowledger
from wsengine.pipeline.drain import StopResult
from wsengine.pipeline.frame_handler import Emit, Fail, Skip
from wsengine.pipeline.pipeline import Pipeline, all_running
from wsengine.pipeline.processors import Processors
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
    "CallerAcknowledger",
    "ClientConnection",
    "Connection",
    "Emit",
    "Fail",
    "Failed",
    "Inbox",
    "Message",
    "NoopAcknowledger",
    "PerMessageDeflate",
    "Pipeline",
    "Processors",
    "Producer",
    "Response",
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
