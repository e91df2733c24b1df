"""How many cores this process may use, and for what share of their time nobody wanted them.

Its affinity may leave it some of the machine's cores only, and a control group (cgroup v2) may grant it less time than they
have, as in a container with a quota. Linux says so in /proc and /sys; what cannot be read there limits nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Group", "Look", "granted", "idle_share", "look", "paths_of", "ticks", "usable_cores", "used"]

GROUPS = Path("/sys/fs/cgroup")
#: The fields of a core in /proc/stat that add up to its time; those of guests are in the first two already.
FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


class Group(NamedTuple):
    """A control group with a quota: the cores that it is granted, and the microseconds that it has used of them."""

    cores: float
    used: int


class Look(NamedTuple):
    """What the cores have spent until a moment."""

    at_ns: int
    idle: int
    total: int
    groups: dict[str, Group]


def usable_cores() -> float:
    """How many there are for this process; with a quota, also a part of one."""
    return min([len(_own_cores()), *(group.cores for group in _groups().values())])


def look() -> Look:
    """Look at them now."""
    text = ""
    with contextlib.suppress(OSError):
        text = Path("/proc/stat").read_text(encoding="ascii")
    return Look(time.monotonic_ns(), *ticks(text, _own_cores()), _groups())


def idle_share(before: Look, after: Look) -> float:
    """The least share that was idle: of the time of the cores, and of what each group was granted. 1 if nothing is known."""
    total = after.total - before.total
    shares = [(after.idle - before.idle) / total] if total else []
    passed = (after.at_ns - before.at_ns) / 1000
    for name in before.groups.keys() & after.groups.keys():
        group = after.groups[name]
        shares.append(1 - (group.used - before.groups[name].used) / (group.cores * passed))
    return min(1.0, max(0.0, min(shares, default=1.0)))


def ticks(stat: str, cores: Collection[int]) -> tuple[int, int]:
    """Idle and all ticks of these cores, by the text of /proc/stat.

    What another guest of the same hardware has taken, "steal", was wanted here: it is not idle.
    """
    idle = total = 0
    for line in stat.splitlines():
        name, *counts = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cores:
            spent = dict(zip(FIELDS, map(int, counts), strict=False))  # kernels before our time have fewer fields
            idle += spent["idle"] + spent.get("iowait", 0)
            total += sum(spent.values())
    return idle, total


def granted(limit: str) -> float | None:
    """Cores, by the text of a group's cpu.max: microseconds in each period, and the period. None for no limit."""
    quota, period = limit.split()
    return None if quota == "max" else int(quota) / int(period)


def used(stat: str) -> int:
    """Microseconds, by the text of a group's cpu.stat."""
    return int(dict(line.split() for line in stat.splitlines())["usage_usec"])


def paths_of(membership: str) -> list[str]:
    """The group of a process and those around it, as paths below the mount, by the text of /proc/self/cgroup.

    Seen from inside a container, a group around it is not there, and its own may be the root.
    """
    for line in membership.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and controllers == "":
            own = PurePosixPath(path.lstrip("/"))
            return [str(one) for one in (own, *own.parents) if ".." not in one.parts]
    return []


def _own_cores() -> Collection[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def _groups() -> dict[str, Group]:
    found = {}
    with contextlib.suppress(OSError):
        for path in paths_of(Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="replace")):
            with contextlib.suppress(OSError, ValueError, KeyError):
                cores = granted((GROUPS / path / "cpu.max").read_text(encoding="ascii"))
                if cores:
                    found[path] = Group(cores, used((GROUPS / path / "cpu.stat").read_text(encoding="ascii")))
    return found
