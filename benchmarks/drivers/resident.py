"""The most memory that was resident while a client was blocked. What blocks it, and how it is made, is not known here."""

from __future__ import annotations

import os
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import psutil

from wsengine.testing.peers.window import PATIENCE, report

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PERIOD", "Watch"]

#: Seconds between looks at the memory.
PERIOD = 0.02


class Watch:
    """Looks from its making on, in a thread of its own, for clients that occupy the main thread. `seconds` after `block` was
    called, or once the growth has come to `ceiling` bytes, it prints the figures and ends the process: each client has a way
    of its own to be stopped, and none of them is measured.

    Args:
        settings: of the client, to be printed.
        held: how many messages wait, where that can be told.
    """

    def __init__(self, *, seconds: float, ceiling: int, settings: dict[str, Any],
                 held: Callable[[], int] | None = None) -> None:
        self._seconds = seconds
        self._ceiling = ceiling
        self._settings = settings
        self._held = held
        self._blocked = threading.Event()
        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def block(self) -> None:
        """The first message is there, and whoever called does not return to the others."""
        self._blocked.set()

    def _run(self) -> None:
        status = 1
        try:
            self._look()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _look(self) -> None:
        if not self._blocked.wait(PATIENCE):
            raise TimeoutError(f"no message came within {PATIENCE} seconds; does the feed send?")
        begun, most, ended_after = time.monotonic(), 0, None
        while time.monotonic() < begun + self._seconds and ended_after is None:
            most = max(most, self._process.memory_info().rss - self._before)
            if most >= self._ceiling:
                ended_after = time.monotonic() - begun
            time.sleep(PERIOD)
        report({"growth_bytes": most, "held_messages": self._held() if self._held else None, "ended_after": ended_after},
               self._settings)
