"""The options of a pipeline's rate limit. How it is kept stands in `rate_limiter`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from wsengine.options import choice, number, reject_unknown, whole

__all__ = ["RateLimiting"]

OPTIONS = ("allowed_messages", "interval", "mode")


@dataclass(frozen=True, slots=True)
class RateLimiting:
    """How many messages processors may claim, all of them together and from all sources.

    Messages above that wait where they are, within the pipeline's bounds; then the server waits. What `test_message` and
    `test_batch` put in is not counted.

    Args:
        allowed_messages: so many in each interval, 1 to 2**31 − 1.
        interval: seconds, 0.001 to 1e9.
        mode: "bucket": allowances come evenly, allowed_messages / interval a second, and up to `allowed_messages` are saved
            while nothing comes. "window": the ancestor's; all come at the beginning of each interval, and what is left at
            its end is lost.

    Raises:
        ConfigurationError: at construction, with the path of the option.

    Source: Broadway's `rate_limiting`; reference §5.4, B-10.
    """

    def __new__(cls, *args: object, **options: object) -> Self:
        """Refuse what is no option before the options are taken."""
        reject_unknown("rate_limiting", options, OPTIONS, {})
        return object.__new__(cls)

    allowed_messages: int
    interval: float = 1.0
    mode: str = "bucket"

    def __post_init__(self) -> None:
        whole("rate_limiting.allowed_messages", self.allowed_messages, minimum=1, maximum=2**31 - 1)
        number("rate_limiting.interval", self.interval, 0.001, 1e9, "seconds")
        choice("rate_limiting.mode", self.mode, ("bucket", "window"))
