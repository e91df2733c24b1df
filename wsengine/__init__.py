"""A Broadway for Python threads, whose socket keeps running while your code holds the GIL.

The public names. Everything else is reached through its module, and may change.
"""

from wsengine import telemetry
from wsengine.message import Failed, Message
from wsengine.pipeline.acknowledger import CallerAcknowledger, NoopAcknowledger
from wsengine.pipeline.drain import StopResult
from wsengine.pipeline.pipeline import Pipeline, all_running
from wsengine.pipeline.processors import Processors
from wsengine.pipeline.source import Inbox, Producer

__all__ = ["CallerAcknowledger", "Failed", "Inbox", "Message", "NoopAcknowledger", "Pipeline", "Processors", "Producer",
           "StopResult", "all_running", "telemetry"]
