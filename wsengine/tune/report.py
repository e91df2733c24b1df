"""What `wsengine tune` has found, for people and as JSON. The figures are made elsewhere."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from wsengine.testing.peers.cores import usable_cores
from wsengine.tune.setting import Setting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsengine.tune.found import Found
    from wsengine.tune.reason import Reason

__all__ = ["figures", "lines", "said", "time_text"]


def figures(found: Found, reason: Reason, first: Reason, about: dict[str, Any]) -> dict[str, Any]:
    """All of it, for JSON. `reason`: at the recommended setting; `first`: with one processor."""
    return {
        "command": "tune", **about,
        "machine": {"cores": usable_cores(), "system": platform.system(), "architecture": platform.machine()},
        "recommended": found.best.settings(), "reason": asdict(reason), "reason_with_one_processor": asdict(first),
        "settings": [{"setting": one.settings(), "rate": found.rate(one), "measured": len(found.of(one))}
                     for one in found.settings()],
        "points": [point.figures() for point in found.points], "seconds": found.seconds, "cut": found.cut,
        "changes": [change.figures() for change in found.changes],
        "paced": found.paced.figures() if found.paced else None,
    }


def lines(found: Found, reason: Reason, first: Reason) -> Iterator[str]:
    """The same for people."""
    yield f"{'':2}{'setting':<70} {'msg/s':>12}  {'p50':>9} {'p99':>9}  running   GIL  core  blocked  idle"
    for setting in found.settings():
        mark = "→" if setting == found.best else " "
        points = found.of(setting)
        if not points:
            problem = next(point.problem for point in found.points if point.setting == setting)
            yield f"{mark} {setting!s:<70} {problem}"
            continue
        point = found.typical(setting)
        share = point.shares.get("processor")
        shown = "" if share is None else (f"{share.running:>7.0%} {share.gil:>5.0%} {share.core:>5.0%} "
                                          f"{share.blocked:>8.0%} {share.idle:>5.0%}")
        yield (f"{mark} {setting!s:<70} {found.rate(setting):>12,.0f}  {time_text(point.latency_p50):>9} "
               f"{time_text(point.latency_p99):>9}  {shown}")
    yield ""
    yield f"{len(found.points)} measurements in {found.seconds:.0f} s" + (
        "; the budget was used up before all was tried: give more by --budget" if found.cut else "")
    yield ""
    recommended, *sentences = said(found, reason, first)
    yield f"Recommended: {recommended}"
    yield from sentences
    yield from _paced_lines(found)


def said(found: Found, reason: Reason, first: Reason) -> Iterator[str]:
    """What is recommended, as it is written in a program; then why, a sentence each."""
    yield _shown(found.best)
    yield f"It is {reason.bound}: {reason.evidence}."
    yield f"What would help: {reason.remedy}."
    if found.best.concurrency > 1 and first.bound != reason.bound:
        yield f"With one processor it is {first.bound}: {first.evidence}."
    for change in found.changes:
        yield f"What else would change it: {change.said()}."
    failed = max((point.failed for point in found.of(found.best)), default=0.0)
    if failed:
        yield f"WARNING  {failed:.1%} of the messages failed: their handler raised, or failed them."


def _paced_lines(found: Found) -> Iterator[str]:
    if found.paced is None:
        return
    yield ""
    if found.paced.problem:
        yield f"Latency at a pace that it can bear: not measured, {found.paced.problem}."
        return
    yield f"Latency from receive to acknowledgement at {found.paced.rate:,.0f} messages/s, {found.paced.part} of that:"
    for point in found.paced.points:
        mark = "→" if point.setting == found.best else " "
        yield (f"{mark} {point.setting!s:<70} p50 {time_text(point.latency_p50):>9}, "
               f"p99 {time_text(point.latency_p99):>9}")


def _shown(setting: Setting) -> str:
    """What has its default is left out."""
    plain = Setting()
    options = [f"{name}={getattr(setting, name)}" for name in ("concurrency", "min_demand", "max_demand")
               if name == "concurrency" or getattr(setting, name) != getattr(plain, name)]
    queue = "" if setting.max_queue == plain.max_queue else f", max_queue={setting.max_queue}"
    return f"processors=Processors({', '.join(options)}){queue}"


def time_text(seconds: float | None) -> str:
    """A time in words that are short; a dash for none."""
    if seconds is None:
        return "–"
    return f"{seconds * 1e3:,.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:,.0f} µs"
