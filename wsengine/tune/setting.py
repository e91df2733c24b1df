"""What is tuned, and what was found at one setting."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from wsengine.options import whole
from wsengine.pipeline.processors import Processors

if TYPE_CHECKING:
    from wsengine.tune.shares import Shares

__all__ = ["Point", "Setting"]


@dataclass(frozen=True, slots=True)
class Setting:
    """The options that are tuned: of `Processors`, and `max_queue` of the pipeline. ConfigurationError as those raise."""

    concurrency: int = 1
    min_demand: int = 0
    max_demand: int = 100
    max_queue: int = 65536

    def __post_init__(self) -> None:
        Processors(concurrency=self.concurrency, min_demand=self.min_demand, max_demand=self.max_demand)
        whole("pipeline.max_queue", self.max_queue, minimum=1, maximum=2**23)

    def __str__(self) -> str:
        return (f"concurrency={self.concurrency}, min_demand={self.min_demand}, max_demand={self.max_demand}, "
                f"max_queue={self.max_queue}")

    def settings(self) -> dict[str, Any]:
        """Its values by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured at a setting; times of a second, rates a second.

    Attributes:
        rate: messages a second that did not fail. failed: the share of those that did.
        latency_p50, latency_p99: seconds from receive to acknowledgement since the start, to an eighth; None where nothing
            had been acknowledged.
        shares: of the threads' time by role, see `shares`, the mean of those of a role; busiest: the same of the one of
            each role that waits for work least. threads: how many there are of each role.
        paused: the share of the looks that found the pipeline full. server_idle: of the feed's time that it waited.
        problem: why there are no figures, "" if there are. late: it was a matter of time, and another setting may do better.
    """

    setting: Setting
    rate: float = 0.0
    failed: float = 0.0
    latency_p50: float | None = None
    latency_p99: float | None = None
    shares: dict[str, Shares] = field(default_factory=dict)
    busiest: dict[str, Shares] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)
    paused: float = 0.0
    server_idle: float | None = None
    problem: str = ""
    late: bool = False

    def figures(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)
