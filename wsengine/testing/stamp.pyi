from typing import Final

SEQUENCE_OFFSET: Final[int]
SEQUENCE_WIDTH: Final[int]
STAMP_OFFSET: Final[int]
STAMP_WIDTH: Final[int]

def stamp_block(
    buffer: bytearray | memoryview, offset: int, stride: int, count: int, first_sequence: int, stamp_ns: int
) -> None: ...
def read_sequence(payload: bytes) -> int: ...
def read_stamp(payload: bytes) -> int: ...
