"""What partitions cost: a pipeline with `partition_by` beside one without, `python -m benchmarks.compare.partitions`.

A flood of trades of eight symbols. A compiled key is found without the GIL, in a thread of its own; a function parses the
JSON of each message once more.
"""

from __future__ import annotations

from benchmarks.compare.sides import all_rounds, heading, lines, parser

#: Sides by name: --partition-by of the driver.
SIDES = {"no partitions": "nothing", "a field": "field", "a slice": "slice", "a function": "function"}


def main() -> None:
    """Print a block for each number of processors and each handler."""
    made = parser(__doc__)
    made.add_argument("--concurrency", default="1,8", help="numbers of processors")
    made.add_argument("--handlers", default="pass,pass-chunks,json", help="of the driver")
    options = made.parse_args()
    print(heading(options))
    for concurrency in map(int, options.concurrency.split(",")):
        for handler in options.handlers.split(","):
            common = ("--handler", handler, "--concurrency", concurrency)
            sides = {name: (*common, "--partition-by", by) for name, by in SIDES.items()}
            print(f"\n{concurrency} processors, handler {handler!r}")
            print("\n".join(lines(all_rounds(sides, options))), flush=True)


if __name__ == "__main__":
    main()
