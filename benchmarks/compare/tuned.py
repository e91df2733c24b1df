"""What `wsengine tune` recommends, beside the best of an exhaustive sweep: `python -m benchmarks.compare.tuned`.

For each handler the search runs, then the sweep over its whole grid. The best of so many measurements was also lucky, so
the two settings are measured again, in turns, and those figures compared. Budget: within 10 % of the best that the sweep
finds, in a fifth of its time. Takes several minutes a handler.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.compare.sides import shown
from wsengine.bench.table import machine
from wsengine.cli.tune import NOT_TUNED
from wsengine.testing.peers.cores import usable_cores
from wsengine.tune.measure import Measure
from wsengine.tune.reason import reason_of
from wsengine.tune.search import Search, exhaustive

if TYPE_CHECKING:
    from wsengine.tune.setting import Point

HANDLERS = ("computes", "parses", "waits", "mixes", "raises")


def main() -> None:
    """Print a block for each handler."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--handlers", default=",".join(HANDLERS))
    parser.add_argument("--seconds", type=float, default=0.5, help="measured at each setting")
    parser.add_argument("--warmup", type=float, default=0.2)
    parser.add_argument("--most", type=int, default=64, help="processors")
    parser.add_argument("--again", type=int, default=5, help="measurements of the two at the end")
    options = parser.parse_args()
    unknown = [name for name in options.handlers.split(",") if name not in HANDLERS]
    if unknown:
        parser.error(f"--handlers: there is no {', '.join(unknown)}; give some of {', '.join(HANDLERS)}")
    print(machine(), flush=True)
    for name in options.handlers.split(","):
        compare(name, options)


def compare(name: str, options: argparse.Namespace) -> None:
    """One handler."""
    measure = Measure(f"benchmarks.drivers.tuned_handlers:{name}", "message", seconds=options.seconds, warmup=options.warmup)

    def enough(point: Point) -> bool:
        return reason_of(point, gil=measure.gil, cores=usable_cores()).bound in NOT_TUNED

    found = Search(measure, budget=1e9, most=options.most, enough=enough).run()
    if not found.of(found.best):
        print(f"\n{name}: {found.points[0].problem}", flush=True)
        return
    reason = reason_of(found.typical(found.best), gil=measure.gil, cores=usable_cores())
    print(f"\n{name}: {found.best}, {reason.bound}\n  {reason.evidence}", flush=True)
    begun, grid = time.monotonic(), exhaustive(options.most)
    swept = [measure(setting) for setting in grid]
    took = time.monotonic() - begun
    best = max(swept, key=lambda point: point.rate)
    print(f"  {len(found.points)} measurements in {found.seconds:.0f} s, sweep {len(grid)} in {took:.0f} s: "
          f"{found.seconds / took:.2f} of its time", flush=True)
    print(f"  sweep's best: {best.setting}, {best.rate:,.0f} msg/s; recommended {found.rate(found.best):,.0f}", flush=True)
    ratios = []
    for number in range(options.again):
        rates = {setting: measure(setting).rate for setting in (found.best, best.setting)[:: 1 if number % 2 else -1]}
        ratios.append(rates[found.best] / rates[best.setting])
        print(f"again {number + 1} of {options.again}", file=sys.stderr)
    print(f"  measured again, recommended over the sweep's best: {shown(ratios)}", flush=True)


if __name__ == "__main__":
    main()
