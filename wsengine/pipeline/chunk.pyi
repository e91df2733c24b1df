from typing import final

from wsengine.message import Message
from wsengine.pipeline.crew import Crew

@final
class Chunk:
    def __new__(cls, crew: Crew) -> Chunk: ...
    def ack_now(self, message: Message) -> None: ...
    def take_over(self, reason: object) -> tuple[int, int, int]: ...
