"""`Retry`: whether a message whose handler failed is handed to it again, and when. What is done about it stands in
`callbacks`. Connections are another matter: see `websocket/retry.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from wsengine.errors import ConfigurationError
from wsengine.options import number, reject_unknown, whole

__all__ = ["Retry", "checked_retry"]

OPTIONS = ("max_retries", "initial", "factor", "maximum", "on")


@dataclass(frozen=True, slots=True)
class Retry:
    """Call a handler again for messages that failed by an exception, before they are failed for good.

    It is the thread that has the messages which waits and calls again, so order is kept, and what comes behind waits. The
    exception may have been raised, or given to `message.fail`. `handle_messages` and `handle_batch` are called again
    with those messages only that failed so. What `ack_immediately` has acknowledged is not handled again. What the handler
    did to a message stays done. The deadline of a stop ends the waiting.

    Args:
        max_retries: calls after the first, 1 to 1000.
        initial: seconds before the first of these, 0 to 3600.
        factor: each further delay is so many times the one before, 1 to 100.
        maximum: seconds that no delay exceeds, 0 to 3600.
        on: an exception class, or a tuple of them. Others fail at once.

    Raises:
        ConfigurationError: at construction, with the path of the option.

    Source: what Broadway's users ask for; reference B-14.
    """

    def __new__(cls, *args: object, **options: object) -> Self:
        """Refuse what is no option before the options are taken."""
        reject_unknown("retry", options, OPTIONS, {})
        return object.__new__(cls)

    max_retries: int = 3
    initial: float = 0.1
    factor: float = 2.0
    maximum: float = 10.0
    on: type[BaseException] | tuple[type[BaseException], ...] = Exception

    def __post_init__(self) -> None:
        whole("retry.max_retries", self.max_retries, minimum=1, maximum=1000)
        number("retry.initial", self.initial, 0, 3600, "seconds")
        number("retry.factor", self.factor, 1, 100, "a number")
        number("retry.maximum", self.maximum, 0, 3600, "seconds")
        classes = self.on if isinstance(self.on, tuple) else (self.on,)
        if not classes or not all(isinstance(one, type) and issubclass(one, BaseException) for one in classes):
            raise ConfigurationError("retry.on", self.on, "give an exception class, or a tuple of them")

    def delay(self, retries: int, error: BaseException | None) -> float | None:
        """Seconds to wait after a failure by `error`, with so many retries behind it; None: it is final."""
        if retries >= self.max_retries or not isinstance(error, self.on):
            return None
        try:
            return min(self.initial * self.factor**retries, self.maximum)
        except OverflowError:
            return self.maximum


def checked_retry(path: str, value: object) -> None:
    """Check an option that is a Retry or None."""
    if value is not None and not isinstance(value, Retry):
        raise ConfigurationError(path, value, "give a Retry(...), or None")

