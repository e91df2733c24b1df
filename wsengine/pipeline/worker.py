"""What has a thread in a pipeline, as those see it that give it one: protocols only.

Who they are is not said here: processors, batchers and batch processors fit without knowing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from wsengine.pipeline.latency import Latency

__all__ = ["Runner", "Worker"]


class Runner(Protocol):
    """What has a thread."""

    @property
    def thread_name(self) -> str: ...

    def run(self) -> None: ...


class Worker(Runner, Protocol):
    """A processor or batch processor: a runner that has messages in hand."""

    @property
    def successful(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def busy_ns(self) -> int: ...
    @property
    def ticks(self) -> int: ...
    @property
    def since_ns(self) -> int: ...
    @property
    def latency(self) -> Latency: ...

    def take_over(self, reason: object) -> tuple[int, int, int]: ...
    def retire(self) -> None: ...
