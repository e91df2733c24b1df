"""The log of what callbacks raise: every kind of failure with its traceback, a flood of them once a second with a count."""

from __future__ import annotations

import logging
import threading
import time

from wsengine.logs import log

__all__ = ["FailureLog"]

logger = logging.getLogger("wsengine.pipeline")


class FailureLog:
    """Logs failures of callbacks; thread-safe.

    Args:
        pipeline: its name.
        burst: so many are logged as they come; after that one a second, which says how many were passed over.
    """

    def __init__(self, pipeline: str, burst: int = 20) -> None:
        self._pipeline = pipeline
        self._left = burst
        self._lock = threading.Lock()
        self._last = 0.0
        self._silent = 0

    def __call__(self, what: str, error: BaseException) -> None:
        """Log that the callback `what` raised `error`."""
        with self._lock:
            now = time.monotonic()
            if self._left > 0:
                self._left -= 1
            elif now - self._last < 1:
                self._silent += 1
                return
            self._last = now
            silent, self._silent = self._silent, 0
        log(logger, logging.ERROR, "pipeline %s: %s raised %s%s", self._pipeline, what, type(error).__name__,
            f" (and {silent} more failures since the last line)" if silent else "", error=error)
