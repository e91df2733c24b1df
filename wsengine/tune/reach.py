"""What a program may reach while it is tuned: the measured feed, and by this package nothing else.

A module that is imported to be tuned may start pipelines and open connections, then or later, in its handlers or in threads
of its own. What they would reach is the user's real endpoint, which is not to be touched unless the user names it.
"""

from __future__ import annotations

from typing import Any

from wsengine.errors import EngineStopped
from wsengine.pipeline.pipeline import Pipeline
from wsengine.websocket import client

__all__ = ["Reach"]


class Reach:
    """From `begin` on, for as long as the process lives, no pipeline starts but the one that is `allowed`, and no connection
    of `connect()` begins, unless the user has named an endpoint."""

    def __init__(self, *, connections: bool) -> None:
        self._connections = connections
        self._allowed: Pipeline | None = None

    def begin(self) -> None:
        """Put it in the place of what starts pipelines and connections."""
        start, dial = Pipeline.start, vars(client)["dial"]

        def start_if_allowed(pipeline: Pipeline) -> Pipeline:
            if pipeline is not self._allowed:
                raise EngineStopped("no other pipeline may start while its module is tuned; start it under "
                                    "if __name__ == '__main__'")
            return start(pipeline)

        def dial_if_allowed(*arguments: Any, **options: Any) -> Any:
            if not self._connections:
                raise EngineStopped("no connection may be made while its module is tuned, as it would reach the real "
                                    "endpoint; connect under if __name__ == '__main__'")
            return dial(*arguments, **options)

        Pipeline.start = start_if_allowed  # type: ignore[assignment, method-assign]
        vars(client)["dial"] = dial_if_allowed

    def allow(self, pipeline: Pipeline) -> None:
        """This is the one that is measured."""
        self._allowed = pipeline
