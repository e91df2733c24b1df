"""Waiting for a condition, with one deadline for all tests. How a child process or a server is waited for stands with these.

What the engine does on its own account is done in milliseconds; the deadline is for a machine that is busy elsewhere. So
whatever else a test has wait meanwhile, such as a handler at a gate, has to wait for longer: else its time-out could make
true what should have been true before.
"""

import time

__all__ = ["DEADLINE", "until"]

#: Seconds that a condition may take.
DEADLINE = 20.0
#: Seconds between two looks: few at first, for what is true at once, and no more than that cost nothing.
SHORTEST, LONGEST = 0.0002, 0.002


def until(condition, timeout=DEADLINE):
    """Wait until the condition holds; a test that waits in vain fails here. `timeout` only for what takes longer by far."""
    deadline, pause = time.monotonic() + timeout, SHORTEST
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not come true in {timeout:g} s"
        time.sleep(pause)
        pause = min(2 * pause, LONGEST)
