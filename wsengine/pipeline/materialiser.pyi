from typing import final

from wsengine.engine.ring import Account

@final
class Materialiser:
    def __new__(cls, account: Account) -> Materialiser: ...
