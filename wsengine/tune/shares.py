"""Where a thread's time went: running, waiting for a core, for the GIL, for anything else, or for work.

A thread is looked at from outside, many times a second: in which call of the system it sleeps, if it sleeps. What it sleeps
on says why: the engine waits for work on words of its own, the interpreter for its lock on one within its runtime's memory.
How long it ran, and how long it was ready and had no core, the system counts exactly. Nothing is measured here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Sequence

__all__ = ["FUTEX", "Looks", "Shares", "busiest", "classified", "mean"]

#: Numbers of system calls by machine: what waits on a word, and what polls many descriptors at once.
FUTEX = {"x86_64": 202, "aarch64": 98}
EPOLL = {"x86_64": (232, 281, 441), "aarch64": (22, 441)}
#: How the engine waits on its words, FUTEX_WAIT_PRIVATE; the interpreter waits until a moment, which has another code.
ENGINE_WAIT = 128


@dataclass(frozen=True, slots=True)
class Shares:
    """Of a thread's time, 0 to 1 each, about 1 together. `gil`: waiting for the GIL; `core`: ready to run, without a core;
    `blocked`: in a call of the handler's that waits, such as I/O, a lock or a sleep; `idle`: waiting for work."""

    running: float = 0.0
    gil: float = 0.0
    core: float = 0.0
    blocked: float = 0.0
    idle: float = 0.0


@dataclass(slots=True)
class Looks:
    """What was seen of one thread. `awake`: it ran, or was ready to; `ran`, `ready`: seconds, counted by the system."""

    states: Counter[str]
    ran: float = 0.0
    ready: float = 0.0
    seconds: float = 0.0

    def shares(self, busy: float | None = None) -> Shares:
        """The exact figures as they are; what is left in the proportions that were seen.

        `busy`: the share of the time that the thread had messages in hand, by the engine's own count; None where it does not
        count. A handler may wait by the same calls as the engine, so waiting for work is held within what that allows.
        """
        if not self.seconds:
            return Shares()
        running, core = min(self.ran / self.seconds, 1.0), min(self.ready / self.seconds, 1.0)
        asleep = {state: self.states[state] for state in ("gil", "blocked", "idle")}
        left, seen = max(1.0 - running - core, 0.0), sum(asleep.values())
        part = {state: left * count / seen if seen else 0.0 for state, count in asleep.items()}
        rest = left - part["gil"]
        idle = part["idle"] if seen else rest
        if busy is not None:
            idle = min(max(idle, 1.0 - busy - part["gil"] - core - running), 1.0 - busy, rest)
        idle = max(idle, 0.0)
        return Shares(running, part["gil"], core, rest - idle, idle)


def classified(line: str, machine: str, runtime: range) -> str:
    """The state that a line of /proc/…/syscall tells: "awake", "gil", "idle" or "blocked".

    Args:
        line: its text. machine: as `platform.machine` says. runtime: addresses of the interpreter's runtime.
    """
    fields = line.split()
    if len(fields) < 4:                      # "running", or nothing: it has ended
        return "awake"
    number = int(fields[0])
    if number in EPOLL.get(machine, ()):     # as a rule the reader's loop, which an idle processor may run
        return "idle"
    if number == FUTEX.get(machine):
        if int(fields[1], 16) in runtime:
            return "gil"
        if int(fields[2], 16) == ENGINE_WAIT:
            return "idle"
    return "blocked" if number >= 0 else "awake"


def busiest(all_shares: Iterable[Shares]) -> Shares:
    """Of several threads the shares of the one that waits for work least; nothing for none."""
    return min(all_shares, key=lambda one: one.idle, default=Shares())


def mean(all_shares: Iterable[Shares]) -> Shares:
    """Of several threads; nothing for none."""
    found: Sequence[Shares] = list(all_shares)
    if not found:
        return Shares()
    names = ("running", "gil", "core", "blocked", "idle")
    return Shares(*(sum(getattr(one, name) for one in found) / len(found) for name in names))
