"""What a run of suites comes to: for each benchmark its figures, each with a unit, and why those that are missing are.

A benchmark that puts figures of a known name into extra_info has those; all others have the time of a round.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["MORE_IS_BETTER", "TIME", "UNITS", "Run", "figures_of", "reason_of", "short"]

#: Keys of extra_info, and the unit of each.
UNITS = {
    "messages_per_second": "messages/s", "bytes_per_second": "bytes/s",
    "cpu_seconds_per_million": "CPU s per million", "engine_us": "CPU µs a message",
    "ns_per_message": "ns a message", "ns_per_call": "ns a call", "p50_us": "p50 µs", "p99_us": "p99 µs",
    "growth_bytes": "bytes grown", "bytes_each": "bytes each", "connect_seconds": "s to connect",
    "idle_cpu_share": "of a core, idle", "most_off_its_time_ms": "ms off its time",
}
#: The unit of the others.
TIME = "µs a round"
MORE_IS_BETTER = frozenset({"messages/s", "bytes/s"})


class Run(NamedTuple):
    """One run: figures by benchmark and unit, and the reasons of benchmarks, or of whole files, that have none."""

    figures: dict[tuple[str, str], float]
    missing: dict[str, str]

    def write(self, path: Path) -> None:
        """Leave it for `read`."""
        figures = [[name, unit, value] for (name, unit), value in self.figures.items()]
        path.write_text(json.dumps({"figures": figures, "missing": self.missing}), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Run:
        """What `write` has left."""
        found = json.loads(path.read_text(encoding="utf-8"))
        return cls({(name, unit): value for name, unit, value in found["figures"]}, found["missing"])


def figures_of(benchmarks: Iterable[Any], missing: Mapping[str, str]) -> Run:
    """Of the benchmarks that pytest-benchmark has seen in a session, those without a reason to be left out."""
    found: dict[tuple[str, str], float] = {}
    for one in benchmarks:
        if one.fullname not in missing:
            known = {unit: one.extra_info[key] for key, unit in UNITS.items() if one.extra_info.get(key) is not None}
            if "messages/s" in known:
                known.pop("bytes/s", None)  # the same once more, by a constant
            for unit, value in (known or {TIME: one.stats.median * 1e6}).items():
                found[short(one.fullname), unit] = value
    return Run(found, {short(name): reason for name, reason in missing.items()})


def short(name: str) -> str:
    """`benchmarks/test_keys.py::test_a_field[far]` as `keys: a field[far]`."""
    file, _, test = name.partition("::")
    suite = Path(file).stem.removeprefix("test_")
    function, bracket, parameters = test.removeprefix("test_").partition("[")
    return f"{suite}: {function.replace('_', ' ')}{bracket}{parameters}" if test else suite


def reason_of(report: Any) -> str:
    """Why a test, or the import of a file, did not do: one line of pytest's report."""
    if isinstance(report.longrepr, tuple):  # skipped: file, line, reason
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    said = [one for one in (crash.message if crash else str(report.longrepr)).splitlines() if one.strip()] or ["it failed"]
    return str(said[0] if crash else said[-1].removeprefix("E").strip())
