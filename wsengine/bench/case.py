"""One case of the benchmark: what is sent, and the pipeline that takes it. A table of cases is the product of lists.

How a case is run stands in `client` (the pipeline) and `feeds` (the server); what its handler does, in `handlers`.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from wsengine.bench.handlers import checked_cost
from wsengine.errors import ConfigurationError
from wsengine.options import boolean, choice, whole
from wsengine.pipeline.processors import Processors
from wsengine.testing.images import MINIMUM_TRADE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["LARGEST", "Case", "cases", "labels"]

#: Bytes of the largest payload: the default of a producer's `max_size`.
LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Args:
        size: bytes of each payload, 96 to 2**20; what a recording or a server sends has its own.
        concurrency, min_demand, max_demand: of `Processors`.
        handler: "message", handle_message once a message, or "chunk", handle_messages once a claimed chunk.
        cost: what the handler does with each payload, see `handlers`.
        tls: "none"; "A", the reader decrypts without the GIL; "B", a thread of its own does, with it.
        deflate: whether the feed compresses its messages, each by itself.

    Raises:
        ConfigurationError: a value is none of these.
    """

    size: int = 128
    concurrency: int = 1
    min_demand: int = 0
    max_demand: int = 100
    handler: str = "message"
    cost: str = "none"
    tls: str = "none"
    deflate: bool = False

    def __post_init__(self) -> None:
        whole("case.size", self.size, minimum=MINIMUM_TRADE, maximum=LARGEST)
        Processors(concurrency=self.concurrency, min_demand=self.min_demand, max_demand=self.max_demand)
        choice("case.handler", self.handler, ("message", "chunk"))
        checked_cost(self.cost)
        choice("case.tls", self.tls, ("none", "A", "B"))
        boolean("case.deflate", self.deflate)

    def settings(self) -> dict[str, Any]:
        """Its values by name."""
        return asdict(self)


def cases(lists: Mapping[str, Sequence[Any]]) -> list[Case]:
    """The case of each combination of values; what has no list keeps its default. The last list varies fastest.

    Raises:
        ConfigurationError: a value is wrong, or a list is empty.
    """
    names = [one.name for one in fields(Case) if one.name in lists]
    for name in names:
        if not lists[name]:
            raise ConfigurationError(f"case.{name}", list(lists[name]), "give at least one value")
    return [Case(**dict(zip(names, values, strict=True)))
            for values in itertools.product(*(dict.fromkeys(lists[name]) for name in names))]


def labels(found: Sequence[Case]) -> list[str]:
    """What tells each case from the others: the values that are not the same in all of them."""
    names = [one.name for one in fields(Case) if len({getattr(case, one.name) for case in found}) > 1]
    return [" ".join(f"{name}={_shown(getattr(case, name))}" for name in names) or "wsengine" for case in found]


def _shown(value: object) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)
