"""The figures of a benchmark for people and for programs: a line for each entry, or all rounds as JSON."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any

from wsengine.bench.statistics import column, machine_set, ratios, server_set, spread, why_machine
from wsengine.testing.peers.cores import usable_cores

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from wsengine.bench.rounds import Entry, Failure

__all__ = ["lines", "machine", "summary"]

#: Roles of threads that have a column; what all others take is in the last.
ROLES = ("reader", "processor")
#: What a run says beside its figures.
ABOUT = ("settings", "cpu_seconds_per_million_by_role", "messages", "seconds")


def machine() -> dict[str, Any]:
    """What the figures depend on, in general terms."""
    return {"cores": os.cpu_count(), "usable_cores": usable_cores(), "system": platform.system(),
            "architecture": platform.machine(), "python": platform.python_version(), "load": round(os.getloadavg()[0], 2)}


def summary(
    options: dict[str, Any], entries: Sequence[Entry], rounds: Mapping[str, Sequence[dict[str, Any]]],
    failures: Mapping[str, Failure] | None = None,
) -> dict[str, Any]:
    """All of it, for --json: options, machine, and for each entry its settings, rounds, spreads and ratios. Those are the
    figures of the first entry with messages of the same size over its own, round by round. Of an entry that has failed there
    are no spreads: `failure` says why, and `rounds` has what was measured before."""
    found: dict[str, Any] = {}
    first: dict[int, Entry] = {}
    for entry in entries:
        runs, failure = rounds[entry.name], (failures or {}).get(entry.name)
        about = {"client": entry.peer or "wsengine", "settings": runs[0]["settings"] if runs else {},
                 "failure": None if failure is None else failure._asdict(), "rounds": list(runs)}
        if failure is not None:
            found[entry.name] = about
            continue
        beside = first.setdefault(entry.case.size, entry)
        found[entry.name] = about | _figures(runs) | {
            "over": beside.name,
            "ratios": {} if entry is beside else {
                key: spread(ratios(rounds[beside.name], runs, key))._asdict()
                for key in ("messages_per_second", "cpu_seconds_per_million")},
        }
    return {"command": "bench", "options": options, "machine": machine(), "entries": found}


def _figures(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is made of the rounds of one entry. A figure may be there in some of them only, as a latency is."""
    keys = dict.fromkeys(key for one in runs for key, value in one.items() if key not in ABOUT and value is not None)
    return {
        "spread": {key: spread(column([one for one in runs if one.get(key) is not None], key))._asdict() for key in keys},
        "roles": {role: spread(one["cpu_seconds_per_million_by_role"].get(role, 0.0) for one in runs)._asdict()
                  for role in sorted({role for one in runs for role in one["cpu_seconds_per_million_by_role"]})},
        "rounds_set_by": {"machine": machine_set(runs), "server": server_set(runs)},
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    measured = {name: one for name, one in found["entries"].items() if one["failure"] is None}
    yield from _heading(found)
    yield from _aligned([HEADINGS, *(list(_row(name, one)) for name, one in found["entries"].items())])
    rated = {name: one for name, one in measured.items() if one["ratios"]}
    if rated:
        yield ""
        yield from _aligned([["ratio", "msg/s: median (least … greatest)", "CPU"],
                             *([f"{entry['over']} over {name}", *(_ratio(one) for one in entry["ratios"].values())]
                               for name, entry in rated.items())])
    if any(one["settings"].get("stamped") == "no" for one in measured.values()):
        yield ""
        yield ("~ from receive to acknowledgement, since the start, to an eighth: what is sent has no stamps. All others: "
               "from the server's stamp to the handler.")
    yield from _settings(found["entries"])
    yield from _failures(found["entries"])
    yield from _warnings(measured)


def _heading(found: dict[str, Any]) -> Iterator[str]:
    about = found["machine"]
    usable = about["usable_cores"]
    cores = f"{about['cores']} cores" if usable == about["cores"] else f"{usable:.3g} of {about['cores']} cores"
    yield (f"{cores}, {about['system']} {about['architecture']}, Python {about['python']}, load {about['load']}; "
           + ", ".join(f"{key}={value}" for key, value in found["options"].items()))
    yield ("Medians of the rounds; behind ± half of what lies between the least and the greatest. CPU: seconds a million "
           "messages, of all threads and by their role.")
    yield ""


HEADINGS = ["", "msg/s", "±", "MB/s", "CPU", *ROLES, "others", "p50 µs", "p99 µs", "p99.9 µs", "RSS MiB", "dropped",
            "server idle"]


def _row(name: str, one: dict[str, Any]) -> Iterator[str]:
    if one["failure"] is not None:
        yield from (name, "failed", *[""] * (len(HEADINGS) - 2))
        return
    spreads, roles = one["spread"], {role: value["median"] for role, value in one["roles"].items()}
    rate, cpu = spreads["messages_per_second"], spreads["cpu_seconds_per_million"]["median"]
    yield name
    yield f"{rate['median']:,.0f}"
    yield f"{(rate['greatest'] - rate['least']) / 2 / rate['median']:.0%}"
    yield f"{spreads['bytes_per_second']['median'] / 1e6:,.1f}"
    yield f"{cpu:.3f}"
    yield from (f"{roles[role]:.3f}" if role in roles else "" for role in ROLES)
    others = sum(value for role, value in roles.items() if role not in ROLES)
    yield f"{others:.3f}" if roles.keys() & set(ROLES) else ""
    about = "~" if one["settings"].get("stamped") == "no" else ""
    yield from (_figure(spreads, key, about + "{:,.1f}") for key in ("p50_us", "p99_us", "p999_us"))
    yield f"{spreads['rss_bytes']['median'] / 2**20:,.0f}"
    yield _figure(spreads, "dropped", "{:,.0f}")
    yield _figure(spreads, "server_idle_share", "{:.0%}")


def _figure(spreads: dict[str, Any], key: str, form: str) -> str:
    return form.format(spreads[key]["median"]) if key in spreads else ""


def _ratio(one: dict[str, float]) -> str:
    return f"{one['median']:.2f} ({one['least']:.2f} … {one['greatest']:.2f}) ×"


def _settings(entries: dict[str, Any]) -> Iterator[str]:
    """How each peer was used; our own options are the line above, and what tells the cases apart is in their names."""
    for name, one in entries.items():
        if one["client"] != "wsengine" and one["settings"]:
            yield ""
            yield f"{name}: " + ", ".join(f"{key}={value}" for key, value in one["settings"].items() if key != "client")


def _failures(entries: dict[str, Any]) -> Iterator[str]:
    for name, one in entries.items():
        if one["failure"] is not None:
            yield ""
            yield f"FAILED  {name} in round {one['failure']['round']}: {one['failure']['reason']}"


def _warnings(entries: dict[str, Any]) -> Iterator[str]:
    """Where something other than the engine set the figure, or it is one of something else."""
    whose = {"server": "the feed was hardly ever idle, so a faster server would show more", "machine": why_machine()}
    for by, why in whose.items():
        said = [f"{name} ({one['rounds_set_by'][by]} of {len(one['rounds'])} rounds)"
                for name, one in entries.items() if one["rounds_set_by"][by]]
        if said:
            yield ""
            yield f"WARNING  the {by}, not the engine, set the figure of {', '.join(said)}: {why}"
    for key, what in (("failed", "messages failed in the handler"), ("reconnects", "times the connection was made anew")):
        for name, one in entries.items():
            count = sum(each.get(key, 0) for each in one["rounds"])
            if count:
                yield ""
                yield f"WARNING  {name}: {count:,} {what}"


def _aligned(rows: Sequence[Sequence[str]], heads: int = 1) -> Iterator[str]:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()
        if number < heads:
            yield "  ".join("─" * width for width in widths)
