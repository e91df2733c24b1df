from ssl import SSLSocket
from typing import final

from wsengine.engine.control import ControlBlock
from wsengine.engine.inflate import DeflateParameters

@final
class Stream:
    def __new__(
        cls,
        fd: int,
        control: ControlBlock,
        index: int,
        epoch: int,
        max_size: int,
        leftover: bytes = ...,
        consumed: tuple[int, ...] = ...,
        *,
        tls: SSLSocket | None = ...,
        deflate: DeflateParameters | None = ...,
    ) -> Stream: ...
    @property
    def leftover(self) -> bytes: ...
    @property
    def consumed(self) -> tuple[int, ...]: ...
