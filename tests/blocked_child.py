"""A child process that is blocked under a feed, tells what it holds, and goes on when told to. What it runs, and what is to
be said of its figures, stands with the tests."""

import json
import os
import subprocess
import time
from pathlib import Path

import wsengine

__all__ = ["blocked_then_freed", "peak_while"]


def blocked_then_freed(feed, command):
    """Run a command that prints a line of JSON while it is blocked, another when it is done, and reads a line in between.
    Both, each with what the feed's log said then: (blocked, log, done, log)."""
    environment = {**os.environ, "PYTHONPATH": str(Path(wsengine.__file__).resolve().parents[1])}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
                          cwd=Path(__file__).resolve().parents[1]) as child:
        blocked = json.loads(child.stdout.readline())
        during = feed.log()
        child.stdin.write("go\n")
        child.stdin.flush()
        after = json.loads(child.stdout.readline())
    assert child.returncode == 0
    return blocked, during, after, feed.log()


def peak_while(process, seconds, wanted):
    """The most memory that a process is seen to have, while something is wanted and for so many seconds at the most."""
    deadline, peak = time.monotonic() + seconds, 0
    while time.monotonic() < deadline and wanted():
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.005)
    return peak
