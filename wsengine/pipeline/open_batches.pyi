from typing import Any, Self

from typing_extensions import disjoint_base

from wsengine.engine.ring import Parker
from wsengine.pipeline.batchers import SizeFunction
from wsengine.pipeline.crew import Crew
from wsengine.pipeline.lane import Lane

@disjoint_base
class OpenBatches:
    def __new__(
        cls,
        crew: Crew,
        *args: object,
        concurrency: int,
        size: int | tuple[Any, SizeFunction],
        timeout: float | None,
        by: object = ...,
        **others: object,
    ) -> Self: ...
    @property
    def parker(self) -> Parker: ...
    @property
    def lanes(self) -> list[Lane]: ...
