"""Log lines of the engine's own threads: what a logger raises, a filter most likely, ends neither thread nor connection.

Only that. What is said, and at which level, is decided where it happens.
"""

from __future__ import annotations

import logging
import weakref
from typing import Any

from wsengine.wording import is_interrupt, shown

__all__ = ["log"]

#: Loggers whose fault has been told; any thread adds to it.
_faulty: weakref.WeakSet[Any] = weakref.WeakSet()


def log(logger: logging.Logger | logging.LoggerAdapter[Any], level: int, message: str, *args: object,
        error: BaseException | None = None) -> None:
    """Log a line, with the traceback of `error`. What the logger raises is told once, by logging's handler of last resort.

    Thread-safe. Only KeyboardInterrupt and SystemExit in the main thread pass through.
    """
    try:
        logger.log(level, message, *args, exc_info=error, stacklevel=2)
    except BaseException as fault:
        if is_interrupt(fault):
            raise
        _tell_once(logger, fault)


def _tell_once(logger: object, fault: BaseException) -> None:
    if logger in _faulty:
        return
    _faulty.add(logger)
    if logging.lastResort is not None:
        logging.lastResort.handle(logging.LogRecord(
            __name__, logging.ERROR, __file__, 0, "the logger %s raised; its lines are missing, the connections go on",
            (shown(logger),), (type(fault), fault, fault.__traceback__)))
