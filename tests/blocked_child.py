"""A child process that is blocked under a feed, tells what it holds, and goes on when told to. What it runs, and what is to
be said of its figures, stands with the tests."""

import json
import os
import subprocess
from pathlib import Path

import wsengine

__all__ = ["blocked_then_freed"]


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
