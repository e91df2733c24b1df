"""The option `partition_by`, and whether there can be so many partitions. What these are stands in `partitions`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsengine.engine.keys import KeyExtractor
from wsengine.errors import ConfigurationError
from wsengine.options import function

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from wsengine.message import Message

    PartitionBy: TypeAlias = KeyExtractor | Callable[[Message], int | str | bytes]

__all__ = ["BUFFERS", "SMALLEST", "check_shares", "checked_partition_by"]

#: A partition's share has to hold so many receive buffers for each ring, of so many bytes at the least.
BUFFERS, SMALLEST = 4, 2**12


def checked_partition_by(path: str, value: object) -> PartitionBy | None:
    """Check what finds the keys of messages.

    Raises:
        ConfigurationError: neither None, nor a key extractor, nor a callable.
    """
    if value is None or isinstance(value, KeyExtractor):
        return value
    if isinstance(value, type):
        raise ConfigurationError(path, value, "give an object, such as JSONField('symbol'), or a function")
    return function(path, value, "(message)")  # type: ignore[return-value]


def check_shares(path: str, partitions: int, rings: int, max_messages: int, max_bytes: int) -> None:
    """Check that so many partitions can have a share each; ConfigurationError if not."""
    if partitions > max_messages:
        raise ConfigurationError(path, partitions, f"give up to max_queue={max_messages}, of which each has a share")
    least = BUFFERS * SMALLEST * rings * partitions
    if max_bytes < least:
        raise ConfigurationError(path, partitions, f"give fewer, or max_queue_bytes of at least {least} for so many")
