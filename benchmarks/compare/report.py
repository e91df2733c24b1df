"""A comparison as lines of text. What the figures are is worked out in statistics.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsengine.bench.statistics import Spread, column, ratios, spread, warnings
from wsengine.bench.table import machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["lines", "summary"]

US = "wsengine"
#: The figures of each command: key, heading, format, and whether a ratio of it is given.
FIGURES = {
    "flood": (
        ("messages_per_second", "messages/s", "{:,.0f}", True),
        ("bytes_per_second", "bytes/s", "{:,.0f}", False),
        ("cpu_seconds_per_million", "CPU s per million", "{:.3f}", True),
    ),
    "latency": (
        ("p50_us", "p50 µs", "{:,.1f}", True),
        ("p99_us", "p99 µs", "{:,.1f}", True),
        ("p999_us", "p99.9 µs", "{:,.1f}", True),
        ("messages_per_second", "messages/s", "{:,.0f}", False),
        ("cpu_seconds_per_million", "CPU s per million", "{:.3f}", True),
    ),
}


def summary(command: str, options: dict[str, Any], rounds: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """All of a comparison for --json: options, machine, and for each client its rounds, spreads and ratios."""
    clients: dict[str, Any] = {}
    for name, runs in rounds.items():
        keys = [figure[0] for figure in FIGURES[command]]
        clients[name] = {
            "settings": runs[0]["settings"], "rounds": list(runs), "warnings": warnings(name, runs),
            "spread": {key: spread(column(runs, key))._asdict() for key in (*keys, "server_idle_share")},
            "ours_over_theirs": {} if name == US else {
                key: spread(ratios(rounds[US], runs, key))._asdict() for key, _, _, rated in FIGURES[command] if rated},
        }
    return {"command": command, "options": options, "machine": machine(), "clients": clients}


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    about = found["machine"]
    yield (f"{found['command']} on {about['cores']} cores, {about['system']} {about['architecture']}, "
           f"Python {about['python']}, load {about['load']}; " + _pairs(found["options"]))
    yield "Each figure: median (least … greatest) of the rounds."
    for name, client in found["clients"].items():
        yield ""
        yield f"{name}: " + _pairs({key: value for key, value in client["settings"].items() if key != "client"})
        yield from _client(found["command"], client)
    said = [line for client in found["clients"].values() for line in client["warnings"]]
    if said:
        yield ""
        yield from (f"WARNING  {line}" for line in said)


def _client(command: str, client: dict[str, Any]) -> Iterator[str]:
    for key, heading, form, _ in FIGURES[command]:
        line = f"  {heading:<18} {_spread(client['spread'][key], form)}"
        ratio = client["ours_over_theirs"].get(key)
        if ratio:
            line += f"   wsengine / this: {_spread(ratio, '{:.2f}')} ×"
        yield line
    yield f"  {'server idle':<18} {_spread(client['spread']['server_idle_share'], '{:.0%}')}"


def _spread(value: dict[str, float], form: str) -> str:
    one = Spread(**value)
    return f"{form.format(one.median)} ({form.format(one.least)} … {form.format(one.greatest)})"


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())
