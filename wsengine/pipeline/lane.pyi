from typing import final

@final
class Lane:
    def __new__(cls, shared: bool) -> Lane: ...
