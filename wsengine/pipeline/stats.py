"""The figures of a running pipeline, read at one moment. How they come about stands where they are counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["PipelineStats", "ProcessorStats"]


@dataclass(frozen=True, slots=True)
class ProcessorStats:
    """One processor. `outstanding`: claimed and not acknowledged; `busy_seconds`: spent on chunks."""

    index: int
    outstanding: int
    successful: int
    failed: int
    busy_seconds: float


@dataclass(frozen=True, slots=True)
class PipelineStats:
    """A pipeline at one moment.

    Attributes:
        name, state: "new", "running", "stopping" or "stopped".
        successful, failed: messages acknowledged since the start.
        rate: messages a second, from the call of `stats` before this one (or the start) to this one.
        depth: messages that wait to be claimed.
        held_messages, held_bytes: what the pipeline holds, from arrival to acknowledgement, against
            max_queue, max_queue_bytes.
        processors, producers: each by itself.
    """

    name: str
    state: str
    successful: int
    failed: int
    rate: float
    depth: int
    held_messages: int
    held_bytes: int
    max_queue: int
    max_queue_bytes: int
    processors: tuple[ProcessorStats, ...]
    producers: tuple[dict[str, Any], ...]
