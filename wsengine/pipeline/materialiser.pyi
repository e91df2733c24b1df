from collections import deque
from typing import final

from wsengine.engine.ring import Account
from wsengine.message import Message

NO_KEY: str

@final
class Materialiser:
    def __new__(cls, account: Account, spares: deque[list[Message]] | None = ...) -> Materialiser: ...
