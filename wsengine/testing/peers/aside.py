"""Measuring a peer whose client occupies the main thread: the measuring is done in a thread beside it.

It is of use to drivers of peers only: a pipeline occupies no thread of its user.
"""

from __future__ import annotations

import os
import threading
import traceback
from typing import TYPE_CHECKING, Any

from wsengine.testing.peers.window import Tally, measure, report

if TYPE_CHECKING:
    import argparse

__all__ = ["measure_aside"]


def measure_aside(tally: Tally, options: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Start the measuring, which ends the process when it is done."""

    def run() -> None:
        status = 1
        try:
            report(measure(tally.read, tally.latencies, seconds=options.seconds, warmup=options.warmup), settings)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            # Each client has a way of its own to be stopped from outside, and none of them is measured.
            os._exit(status)

    threading.Thread(target=run, name="measuring", daemon=True).start()
