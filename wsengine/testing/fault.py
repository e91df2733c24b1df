"""Why a connection that is measured fails: whoever waits for its first message need not wait on."""

from __future__ import annotations

from wsengine.websocket.failures import process_exception
from wsengine.wording import told

__all__ = ["Fault"]


class Fault:
    """Given as `process_exception`, it decides as that does, and keeps why the connection was lost or could not be made.

    It is written in the supervisor's thread, and read in any.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __call__(self, error: BaseException) -> BaseException | None:
        self.error = error
        return process_exception(error)

    def said(self) -> str:
        """It, in words; "" where there was none."""
        return "" if self.error is None else f"the connection failed: {told(self.error)}"

    def check(self) -> None:
        """RuntimeError if there was one."""
        if self.error is not None:
            raise RuntimeError(self.said()) from self.error
