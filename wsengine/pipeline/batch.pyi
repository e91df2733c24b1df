from collections.abc import Hashable
from typing import Literal, final

from wsengine.engine.ring import Account
from wsengine.pipeline.chunk import Chunk

@final
class BatchInfo:
    def __init__(
        self,
        batcher: str,
        batch_key: Hashable,
        partition: int | None,
        size: int,
        trigger: Literal["size", "timeout", "flush"],
    ) -> None: ...
    @property
    def batcher(self) -> str: ...
    @property
    def batch_key(self) -> Hashable: ...
    @property
    def partition(self) -> int | None: ...
    @property
    def size(self) -> int: ...
    @property
    def trigger(self) -> Literal["size", "timeout", "flush"]: ...

@final
class Batch(Chunk):
    def __new__(cls, account: Account, hands_on: bool = ...) -> Batch: ...
    def info(self, batcher: str, size: int) -> BatchInfo: ...
