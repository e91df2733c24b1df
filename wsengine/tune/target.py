"""The user's handler, found by its name, as a pipeline that takes another feed and other settings than its own.

Nothing of the user's producers is ever started: the pipeline is given one of ours before it starts, which does with messages
what theirs would. What the user's module may reach otherwise is said in `reach`.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from typing import TYPE_CHECKING, Any

from wsengine.errors import ConfigurationError
from wsengine.pipeline.pipeline import Pipeline
from wsengine.testing.dummy import DummyProducer
from wsengine.websocket.producer import OPTIONS, WebSocketProducer

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.message import Message
    from wsengine.testing.fault import Fault

__all__ = ["handled_in_a_loop", "load", "producer_for"]

#: Options of a producer that say what becomes of its messages.
OF_MESSAGES = ("transformer", "frame_handler", "frame_handler_state", "session_markers", "max_size", "silence_pings",
               "telemetry_id", "logger")
#: Those that belong to the one endpoint that it was made for.
OF_THE_ENDPOINT = ("path", "sock", "unix", "server_hostname")


def load(name: str, kind: str) -> Pipeline:
    """The pipeline that is meant by `module:name`, not started.

    Args:
        name: of a Pipeline, the class or an object; or of a function.
        kind: "pipeline"; "message", a function that is called once a message; "chunk", one that is given a list.

    Raises:
        ConfigurationError: the module can't be imported, has no such name, or it is none of these.
    """
    path = f"tune.{'target' if kind == 'pipeline' else 'handler'}"
    found = _found(path, name)
    if kind == "pipeline":
        return _pipeline(path, name, found)
    if not callable(found) or inspect.isclass(found):
        raise ConfigurationError(path, name, "give a function (message), or a pipeline as TARGET")
    return _of_function(found, kind)


def _found(path: str, name: str) -> Any:
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigurationError(path, name, "give it as module:name")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except BaseException as error:               # a program that ends when it is imported, too
        raise ConfigurationError(path, name, f"make it importable ({type(error).__name__}: {error})") from error
    return found


def _pipeline(path: str, name: str, found: Any) -> Pipeline:
    if isinstance(found, Pipeline):
        if found.state != "new":
            raise ConfigurationError(path, name, f"give a pipeline that has not been started; this one is {found.state}")
        return found
    if not inspect.isclass(found) or not issubclass(found, Pipeline):
        raise ConfigurationError(path, name, "give a Pipeline, the class or an object, or --handler module:function")
    required = [one.name for one in inspect.signature(found).parameters.values()
                if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    try:
        return found(*[DummyProducer()] * len(required[:1]))
    except Exception as error:
        raise ConfigurationError(
            path, name, f"give an object of it ({name.partition(':')[0]}:NAME), for the class can't be called with a "
            f"producer alone ({type(error).__name__}: {error})") from error


def producer_for(pipeline: Pipeline, url: str, fault: Fault, *, ours: bool) -> WebSocketProducer:
    """What feeds a pipeline while it is tuned, with the options of its own WebSocketProducer, the first if it has several.

    Args:
        url: of the feed.
        fault: takes note of why a connection fails.
        ours: whether that is a feed of this machine. Then only what becomes of messages is as in theirs; else all is, so
            that it gets in and subscribes, but for what belongs to their endpoint alone.
    """
    theirs = next((one for one in pipeline._wsengine_producers if isinstance(one, WebSocketProducer)), None)
    if theirs is None:
        return WebSocketProducer(url, proxy=None if ours else True, process_exception=fault)
    if ours:
        return theirs._wsengine_elsewhere(url, OF_MESSAGES, proxy=None, process_exception=fault)
    without = {"process_exception", *OF_THE_ENDPOINT, *(("ssl",) if url.startswith("ws:") else ())}
    return theirs._wsengine_elsewhere(url, [one for one in OPTIONS if one not in without], process_exception=fault)


def handled_in_a_loop(pipeline: Pipeline) -> None:
    """Have `handle_messages` call what was `handle_message`, in a loop: what a chunk handler saves at the least."""
    one = pipeline.handle_message
    if one is None:
        return

    def handle_messages(messages: list[Message]) -> list[Message]:
        for at, message in enumerate(messages):
            try:
                result = one(message)
                if result is not None:
                    messages[at] = result
            except BaseException as error:       # as in handle_message, it fails this message only
                message.fail(error)
        return messages

    vars(pipeline).update(handle_message=None, handle_messages=handle_messages)


def _of_function(function: Callable[[Any], Any], kind: str) -> Pipeline:
    hook = "handle_message" if kind == "message" else "handle_messages"
    made: type[Pipeline] = type("Tuned", (Pipeline,), {hook: lambda self, given: function(given)})
    return made(DummyProducer())
