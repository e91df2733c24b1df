from typing import final

from typing_extensions import Buffer

@final
class FrameParser:
    def __new__(cls, max_size: int = ...) -> FrameParser: ...
    def feed(self, data: Buffer) -> list[tuple[str, bytes] | tuple[str, int, str]]: ...

def build_frame(opcode: int, payload: Buffer, *, fin: bool = ..., mask: bytes | None = ...) -> bytes: ...
