from ssl import SSLSocket
from typing import final

from wsengine.engine.control import ControlBlock

@final
class Stream:
    def __new__(
        cls, fd: int, control: ControlBlock, index: int, epoch: int, max_size: int, leftover: bytes = ..., *,
        tls: SSLSocket | None = ...,
    ) -> Stream: ...
    @property
    def leftover(self) -> bytes: ...
