"""The options of a pipeline's processors. How they work stands in `processor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from wsengine.errors import ConfigurationError
from wsengine.options import number, reject_unknown, seconds, whole
from wsengine.pipeline.partition_by import checked_partition_by
from wsengine.pipeline.retry import Retry, checked_retry

if TYPE_CHECKING:
    from wsengine.pipeline.partition_by import PartitionBy

__all__ = ["Processors"]


@dataclass(frozen=True, slots=True)
class Processors:
    """How many processors there are, and how much each asks for.

    Args:
        concurrency: threads that call your handler, 1 to 1024. With one, messages are handled in the order of arrival;
            with more, only those of one chunk are.
        min_demand: 0 to max_demand − 1. A processor claims at most max_demand − min_demand messages at a time: a high
            value makes small chunks, a low one makes few of them.
        max_demand: messages that a processor may hold at once, claimed and not yet acknowledged, 1 to 65536.
        retry: a Retry, for messages whose handler fails by an exception; None fails them at once.
        time_limit: seconds that a callback may take, `partition_by` among them, before it is told as PROCESSOR_OVERDUE, with
            the name of its thread, and logged; nothing else happens to it, as a thread cannot be ended from outside. None:
            no limit.
        spin: microseconds that a processor without work looks for more before it sleeps, 0 to 10000. It costs a core
            while it lasts, and saves the wake.
        partition_by: as of `Pipeline`, for its processors alone; None: what the pipeline says.

    Raises:
        ConfigurationError: at construction, with the path of the option.

    Source: Broadway's processor options; reference §5.1, B-2.
    """

    def __new__(cls, *args: object, **options: object) -> Self:
        """Refuse what is no option before the options are taken."""
        known = ("concurrency", "min_demand", "max_demand", "spin", "retry", "time_limit", "partition_by")
        reject_unknown("processors", options, known, {})
        return object.__new__(cls)

    concurrency: int = 1
    min_demand: int = 0
    max_demand: int = 100
    spin: float = 0.0
    retry: Retry | None = None
    time_limit: float | None = None
    partition_by: PartitionBy | None = None

    def __post_init__(self) -> None:
        whole("processors.concurrency", self.concurrency, minimum=1, maximum=1024)
        whole("processors.max_demand", self.max_demand, minimum=1, maximum=65536)
        whole("processors.min_demand", self.min_demand)
        if self.min_demand >= self.max_demand:
            raise ConfigurationError("processors.min_demand", self.min_demand,
                                     f"give a number below max_demand={self.max_demand}, or nothing would ever be claimed")
        number("processors.spin", self.spin, 0, 10000, "microseconds")
        checked_retry("processors.retry", self.retry)
        seconds("processors.time_limit", self.time_limit)
        checked_partition_by("processors.partition_by", self.partition_by)
