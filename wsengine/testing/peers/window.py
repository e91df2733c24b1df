"""One stretch of time of a running client: messages, bytes, CPU time by thread role, latencies, as one line of JSON.

Every driver is measured by this file, so that no client is measured another way than the rest. What a client does with
a message is not known here.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from wsengine.testing.peers.cores import idle_share, look

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Tally", "arguments", "measure", "percentiles", "report", "role_of"]

#: Seconds until the first message must have come.
PATIENCE = 15.0


class Tally:
    """What a handler counts up. A plain object, because that is what plain Python code would use."""

    __slots__ = ("each", "latencies", "messages", "size")

    def __init__(self, each: int = 0) -> None:
        self.each = each
        self.messages = 0
        self.size = 0
        self.latencies: list[int] = []

    def read(self) -> tuple[int, int]:
        """Messages and bytes so far; where payloads have one size, a handler need not add the bytes up."""
        return self.messages, self.size or self.messages * self.each


class Sample(NamedTuple):
    """The state at one moment. Taken without a call that gives up the GIL, so that its parts belong together."""

    at_ns: int
    messages: int
    size: int
    latencies: int
    cpu_ns: int
    threads: dict[int, tuple[str, int]]


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with what every driver takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("url", help="of the feed")
    parser.add_argument("--mode", choices=("flood", "latency"), default="flood",
                        help="count payloads, or compare the stamp in each with the clock")
    parser.add_argument("--size", type=int, default=128, help="of each payload, as the feed was told")
    parser.add_argument("--seconds", type=float, default=2.0, help="that are measured")
    parser.add_argument("--warmup", type=float, default=0.5, help="seconds between the first message and the measuring")
    return parser


def measure(
    read: Callable[[], tuple[int, int]], latencies: Sequence[int], *, seconds: float, warmup: float
) -> dict[str, Any]:
    """Wait for the first message, then for the warm-up, and measure for `seconds`.

    Args:
        read: messages and bytes handled so far; called from this thread.
        latencies: in ns, in the order of handling; grows meanwhile. Empty where none are taken.

    Raises:
        TimeoutError: no message came within 15 seconds, or none in the time measured.
    """
    import psutil  # here, for whoever only looks which drivers there are does without

    deadline = time.monotonic() + PATIENCE
    while not read()[0]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no message came within {PATIENCE} seconds; does the feed send?")
        time.sleep(0.01)
    time.sleep(warmup)
    cores = look()
    before = _sample(read, latencies)
    time.sleep(seconds)
    after = _sample(read, latencies)
    if after.messages == before.messages:
        raise TimeoutError(f"no message came in the {seconds} seconds measured; measure longer, or send faster")
    return _difference(before, after, latencies) | {
        "machine_idle_share": idle_share(cores, look()), "rss_bytes": psutil.Process().memory_info().rss}


def report(result: dict[str, Any], settings: dict[str, Any]) -> None:
    """Print the one line."""
    json.dump({**result, "settings": {"python": sys.version.split()[0], **settings}}, sys.stdout)
    sys.stdout.write("\n")
    sys.stdout.flush()


def percentiles(latencies: Sequence[int]) -> dict[str, float]:
    """p50, p99 and p99.9 in microseconds, of at least one latency."""
    ordered = sorted(latencies)
    last = len(ordered) - 1
    return {name: ordered[min(last, int(share * len(ordered)))] / 1000
            for name, share in (("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999))}


def _sample(read: Callable[[], tuple[int, int]], latencies: Sequence[int]) -> Sample:
    # The thread clocks count nanoseconds; the figures in /proc/self/task/*/stat, hundredths of a second, are too coarse
    # for a second's measurement, and reading files would give up the GIL for milliseconds each.
    clock, clock_of = time.clock_gettime_ns, time.pthread_getcpuclockid
    threads = {one.ident: (role_of(one.name), clock(clock_of(one.ident)))
               for one in threading.enumerate() if one.ident is not None}
    messages, size = read()
    return Sample(time.monotonic_ns(), messages, size, len(latencies), time.process_time_ns(), threads)


def role_of(name: str) -> str:
    """"wsengine:Count:processor_3" is a "processor", "wsengine:Count:producer_0:reader" a "reader"."""
    return name.rsplit(":", 1)[-1].rstrip("0123456789").rstrip("_- ") or name


def _difference(before: Sample, after: Sample, latencies: Sequence[int]) -> dict[str, Any]:
    messages = after.messages - before.messages
    seconds = (after.at_ns - before.at_ns) / 1e9
    cpu = (after.cpu_ns - before.cpu_ns) / 1e9
    roles: Counter[str] = Counter()
    for ident, (role, ns) in after.threads.items():
        roles[role] += ns - before.threads.get(ident, (role, 0))[1]
    result: dict[str, Any] = {
        "messages": messages, "bytes": after.size - before.size, "seconds": seconds,
        "messages_per_second": messages / seconds, "bytes_per_second": (after.size - before.size) / seconds,
        "cpu_seconds": cpu, "cpu_seconds_per_million": cpu * 1e6 / messages,
        "cpu_seconds_per_million_by_role": {
            role: ns / 1e3 / messages for role, ns in roles.items() if ns / 1e9 > 0.001 * seconds},
    }
    measured = latencies[before.latencies : after.latencies]
    return result | percentiles(measured) if measured else result
