"""What a pipeline is to be: its options, checked against each other and against the class that handles its messages.

A plan is constant, and serves every start. What is made of it is the topology's matter; options of single parts stand with
those (`Processors`, `Batcher`, `RateLimiting`).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsengine.errors import ConfigurationError
from wsengine.options import OVERFLOW_POLICIES, choice, reject_unknown, seconds, text, whole
from wsengine.pipeline.batchers import Batcher
from wsengine.pipeline.partition_by import check_shares, checked_partition_by
from wsengine.pipeline.processors import Processors
from wsengine.pipeline.rate_limiting import RateLimiting
from wsengine.pipeline.source import Producer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsengine.pipeline.partition_by import PartitionBy

__all__ = ["Plan", "check_handlers", "check_plan", "make_plan"]

#: What users of other versions or libraries may write, and what it is called here.
RENAMED = {
    "producer": "the first argument", "producers": "the first argument", "context": "attributes of your Pipeline: self is "
    "the context", "shutdown": "shutdown_timeout (seconds)", "queue_size": "max_queue", "max_size": "max_size of the "
    "WebSocketProducer", "concurrency": "processors=Processors(concurrency=...)",
    "allowed_messages": "rate_limiting=RateLimiting(...)", "batcher": "batchers={name: Batcher(...)}",
    "batch_size": "batchers={name: Batcher(batch_size=...)}", "batch_timeout": "batchers={name: Batcher(batch_timeout=...)}",
    "max_demand": "processors=Processors(max_demand=...)", "min_demand": "processors=Processors(min_demand=...)",
}
OPTIONS = ("processors", "batchers", "partition_by", "rate_limiting", "name", "max_queue", "max_queue_bytes", "overflow",
           "shutdown_timeout")


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of a `Pipeline`, as described there, checked; `max_queue` is rounded up."""

    producers: tuple[Producer, ...]
    processors: Processors
    batchers: dict[str, Batcher]
    partition_by: PartitionBy | None
    rate_limiting: RateLimiting | None
    name: str
    max_queue: int
    max_queue_bytes: int
    overflow: str
    shutdown_timeout: float

    @property
    def partitioned_by(self) -> PartitionBy | None:
        """What says which processor a message goes to, None if any may have it."""
        return self.processors.partition_by or self.partition_by

    def check_shares(self, path: str, partitions: int) -> None:
        """Check that there can be so many processors with a share of the bound each; ConfigurationError if not."""
        if self.partitioned_by is not None:
            check_shares(path, partitions, len(self.producers), self.max_queue, self.max_queue_bytes)


def make_plan(producers: Producer | Sequence[Producer], processors: Processors | None,
              batchers: Mapping[str, Batcher] | None, partition_by: PartitionBy | None,
              rate_limiting: RateLimiting | None, name: str, max_queue: int, max_queue_bytes: int, overflow: str,
              shutdown_timeout: float, unknown: Mapping[str, object]) -> Plan:
    """Check the options of a pipeline.

    Raises:
        ConfigurationError: one is wrong or unknown, or two contradict each other.
    """
    reject_unknown("pipeline", unknown, OPTIONS, RENAMED)
    checked = _checked_producers(producers)
    if processors is not None and not isinstance(processors, Processors):
        raise ConfigurationError("pipeline.processors", processors, "give a Processors(...)")
    if rate_limiting is not None and not isinstance(rate_limiting, RateLimiting):
        raise ConfigurationError("pipeline.rate_limiting", rate_limiting, "give a RateLimiting(...), or None")
    timeout = seconds("pipeline.shutdown_timeout", shutdown_timeout, optional=False, zero=True)
    assert timeout is not None
    plan = Plan(
        producers=checked, processors=processors or Processors(), batchers=_checked_batchers(batchers),
        partition_by=checked_partition_by("pipeline.partition_by", partition_by), rate_limiting=rate_limiting,
        name=text("pipeline.name", name),
        max_queue=1 << (whole("pipeline.max_queue", max_queue, minimum=1, maximum=2**23) - 1).bit_length(),
        max_queue_bytes=whole("pipeline.max_queue_bytes", max_queue_bytes, minimum=1, maximum=2**39),
        overflow=choice("pipeline.overflow", overflow, OVERFLOW_POLICIES), shutdown_timeout=timeout)
    check_plan(plan)
    return plan


def check_plan(plan: Plan) -> None:
    """Check that the options of a plan go together; ConfigurationError if not."""
    plan.check_shares("processors.concurrency", plan.processors.concurrency)
    for key, batcher in plan.batchers.items():
        if batcher.count > plan.max_queue:
            raise ConfigurationError(f"pipeline.batchers[{key!r}].batch_size", batcher.count, "give a number up to "
                                     f"max_queue={plan.max_queue}, or no batch would ever be full")
    for producer in plan.producers:
        check = getattr(producer, "check_bounds", None)
        if check is not None:
            check(plan.max_queue_bytes)


def check_handlers(owner: object, plan: Plan) -> None:
    """Check that an object has the methods that its pipeline will call; ConfigurationError if not."""
    name = type(owner).__name__
    handlers = [one for one in ("handle_message", "handle_messages") if getattr(owner, one) is not None]
    if len(handlers) != 1:
        raise ConfigurationError("pipeline", name, "define either handle_message(self, message) or handle_messages(self, "
                                 "messages)")
    batches = getattr(owner, "handle_batch", None) is not None
    if plan.batchers and not batches:
        raise ConfigurationError("pipeline.batchers", list(plan.batchers), "define handle_batch(self, messages, batch_info)")
    if batches and not plan.batchers:
        raise ConfigurationError("pipeline.handle_batch", name, "give batchers={name: Batcher(...)}, or nothing would ever "
                                 "be batched")
    for hook in (*handlers, "prepare_messages", "handle_failed", "handle_batch"):
        function = getattr(owner, hook)
        if function is not None and not callable(function):
            raise ConfigurationError(f"pipeline.{hook}", function, "define a method")
        if inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"pipeline.{hook}", name, "define it without async: it is called in a thread, and its "
                                     "result is what counts")


def _checked_batchers(batchers: object) -> dict[str, Batcher]:
    if batchers is None:
        return {}
    if not isinstance(batchers, Mapping):
        raise ConfigurationError("pipeline.batchers", batchers, "give a dict {name: Batcher(...)}")
    for key, batcher in batchers.items():
        text("pipeline.batchers", key)
        if not isinstance(batcher, Batcher):
            raise ConfigurationError(f"pipeline.batchers[{key!r}]", batcher, "give a Batcher(...)")
    return dict(batchers)


def _checked_producers(producers: object) -> tuple[Producer, ...]:
    given = producers if isinstance(producers, (list, tuple)) else [producers]
    for producer in given:
        if not isinstance(producer, Producer):
            raise ConfigurationError("pipeline.producers", producer, "give a Producer, such as WebSocketProducer(url), "
                                     "or a sequence of them")
    if not given or len(given) > 60 or len(set(map(id, given))) != len(given):
        raise ConfigurationError("pipeline.producers", producers, "give from 1 to 60 different producers")
    return tuple(given)
