from collections.abc import Mapping
from typing import Any, final

@final
class EventCounter:
    def __call__(
        self, event: tuple[str, ...], measurements: Mapping[str, Any], metadata: Mapping[str, Any], config: Any
    ) -> None: ...
    @property
    def value(self) -> int: ...
    def reset(self) -> int: ...
