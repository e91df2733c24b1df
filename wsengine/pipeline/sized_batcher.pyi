from typing import final

from wsengine.message import Message
from wsengine.pipeline.batcher import BatcherStage

@final
class SizedBatcherStage(BatcherStage):
    def ack_now(self, message: Message) -> None: ...
