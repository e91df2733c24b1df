from typing import final

@final
class Listeners: ...
