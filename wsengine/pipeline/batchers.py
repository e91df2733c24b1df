"""The options of one of a pipeline's batchers. How it works stands in `batcher`, `sized_batcher` and `lane`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from wsengine.errors import ConfigurationError
from wsengine.options import function, reject_unknown, seconds, whole
from wsengine.pipeline.partition_by import checked_partition_by
from wsengine.pipeline.retry import Retry, checked_retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsengine.message import Message
    from wsengine.pipeline.partition_by import PartitionBy

    SizeFunction = Callable[[Message, Any], tuple[str, Any]]

__all__ = ["Batcher"]

OPTIONS = ("concurrency", "batch_size", "batch_timeout", "max_demand", "retry", "time_limit", "partition_by")


@dataclass(frozen=True, slots=True)
class Batcher:
    """How messages are put together for `handle_batch`.

    A message goes to the batcher that its `batcher` names. Messages of one `batch_key` form a batch, which is emitted at
    `batch_size`, or `batch_timeout` after its first message, or behind a message whose `batch_mode` is "flush", or by a
    stop. Batches of one key are handled one after the other, whatever `concurrency` is.

    Args:
        concurrency: threads that call `handle_batch`, 1 to 1024.
        batch_size: messages of a batch, 1 to 2**20; or `(initial, function)`, where `function(message, accumulator)` is
            called for each message, once the processor has handled it, and returns one of

            - ("cont", accumulator): the message joins the batch, which waits for more;
            - ("emit", accumulator): the message joins the batch, which is complete;
            - ("emit_before", accumulator): the batch so far is complete without the message, which begins the next. So a
              batch never exceeds a ceiling in bytes.

            The next message of the same key is given the accumulator returned. `initial` is that of a key's first message,
            and of the first after `batch_timeout` without any, or once 10,000 other keys have come that have an accumulator
            and no message in an open batch. What the function raises, or a wrong result, fails the message. It runs in the
            batcher's thread.
        batch_timeout: seconds from the first message of a batch to its emission at the latest; None: never.
        max_demand: messages for each processor that may wait in complete batches for a thread to handle them; at that, and
            until half of them wait, the batcher asks for no more. When no batcher asks, processors do not claim. None: 8192
            for all processors together, or `batch_size` if that is more; with a function, required.
        retry: a Retry, for messages that fail by an exception in `handle_batch`, which is called again with those; None
            fails them at once.
        time_limit: seconds that a call of `handle_batch`, or of the function of `batch_size`, may take before it is told as
            BATCH_PROCESSOR_OVERDUE, with the name of its thread, and logged. None: no limit.
        partition_by: which of the threads handles a message: as of `Pipeline`, but asked once the processor has handled
            the message. Then a batch holds messages of one partition only, and `batch_info.partition` is its number. None:
            where processors have partitions, that of the processor, whatever the handler made of the data; else none.

    Raises:
        ConfigurationError: at construction, with the path of the option.

    Source: Broadway's batcher options; reference §4.4, §6.5, B-3, B-4.
    """

    def __new__(cls, *args: object, **options: object) -> Self:
        """Refuse what is no option before the options are taken."""
        reject_unknown("batcher", options, OPTIONS, {})
        return object.__new__(cls)

    concurrency: int = 1
    batch_size: int | tuple[Any, SizeFunction] = 100
    batch_timeout: float | None = 1.0
    max_demand: int | None = None
    retry: Retry | None = None
    time_limit: float | None = None
    partition_by: PartitionBy | None = None

    def __post_init__(self) -> None:
        whole("batcher.concurrency", self.concurrency, minimum=1, maximum=1024)
        seconds("batcher.batch_timeout", self.batch_timeout)
        if self.max_demand is not None:
            whole("batcher.max_demand", self.max_demand, minimum=1, maximum=2**23)
        checked_retry("batcher.retry", self.retry)
        seconds("batcher.time_limit", self.time_limit)
        checked_partition_by("batcher.partition_by", self.partition_by)
        if not isinstance(self.batch_size, tuple):
            whole("batcher.batch_size", self.batch_size, minimum=1, maximum=2**20)
            return
        if len(self.batch_size) != 2:
            raise ConfigurationError("batcher.batch_size", self.batch_size, "give a whole number, or (initial, function)")
        function("batcher.batch_size[1]", self.batch_size[1], "(message, accumulator)", optional=False)
        if self.max_demand is None:
            raise ConfigurationError("batcher.max_demand", None, "give it, because with a function as batch_size nothing "
                                     "else says how much to take")

    @property
    def count(self) -> int:
        """Messages of a batch, 0 where a function decides."""
        return self.batch_size if isinstance(self.batch_size, int) else 0

    def bound(self, processors: int) -> int:
        """Messages that may wait for so many processors together: `max_demand` each, or what stands for None."""
        return max(8192, self.count) if self.max_demand is None else self.max_demand * processors
