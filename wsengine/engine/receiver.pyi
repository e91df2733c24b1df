from typing import Final, NamedTuple, final

from wsengine.engine.ring import Parker, Ring
from wsengine.engine.stream import Stream

class Note(NamedTuple):
    kind: str
    index: int
    epoch: int
    cause: str
    code: int
    error: int
    text: bytes
    detail: int
    round_trip: float

KINDS: Final[tuple[str, ...]]
CAUSES: Final[tuple[str, ...]]

@final
class Receiver:
    def __new__(cls, ring: Ring, supervisor: Parker, timer: Parker, *, loud: bool = ...) -> Receiver: ...
    @property
    def ring(self) -> Ring: ...
    def run(self) -> None: ...
    def add(self, stream: Stream) -> None: ...
    def close(self, index: int, epoch: int, code: int, reason: bytes = ...) -> None: ...
    def release(self, index: int, epoch: int) -> None: ...
    def discard(self) -> None: ...
    def stop(self) -> None: ...
    def notes(self) -> list[Note]: ...
