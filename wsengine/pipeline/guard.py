"""Calls of producers that must not hold up a stop: what they raise is logged and kept, and the stop goes on.

Which calls those are, and in which order they come, is the matter of `drain`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.pipeline.failure_log import FailureLog
    from wsengine.pipeline.source import Producer

__all__ = ["Guard"]

T = TypeVar("T")
Other = TypeVar("Other")


class Guard:
    """Calls producers of one pipeline; one thread at a time.

    Attributes:
        error: the first that a producer raised; None while none has.
    """

    def __init__(self, log_failure: FailureLog) -> None:
        self.error: BaseException | None = None
        self._log_failure = log_failure
        self._told: set[tuple[int, str]] = set()  # what is asked again and again is told once

    def call(self, producer: Producer, what: str, call: Callable[[], T], otherwise: Other) -> T | Other:
        """What `call` returns, or `otherwise` if it raises; `what` is for the log."""
        try:
            return call()
        except BaseException as error:
            if self.error is None:
                self.error = error
            if (id(producer), what) not in self._told:
                self._told.add((id(producer), what))
                self._log_failure(f"{type(producer).__name__}.{what}", error)
            return otherwise
