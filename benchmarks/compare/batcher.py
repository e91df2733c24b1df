"""What a batcher costs: the whole pipeline with one beside processors only, `python -m benchmarks.compare.batcher`.

All callbacks do nothing, and every message goes to the one batcher. The budget is twice the cost of a message.
"""

from __future__ import annotations

from benchmarks.compare.sides import all_rounds, heading, lines, parser

HANDLERS = {"handle_message": "pass", "handle_messages": "pass-chunks"}


def main() -> None:
    """Print a block for each number of processors and each kind of handler."""
    made = parser(__doc__)
    made.add_argument("--concurrency", default="1,8", help="numbers of processors")
    made.add_argument("--handlers", default=",".join(HANDLERS))
    made.add_argument("--batch-size", type=int, default=100)
    options = made.parse_args()
    print(heading(options))
    for concurrency in map(int, options.concurrency.split(",")):
        for handler in options.handlers.split(","):
            common = ("--handler", HANDLERS[handler], "--concurrency", concurrency, "--batch-size", options.batch_size)
            sides = {"processors only": common}
            for threads in sorted({1, concurrency}):
                sides[f"a batcher of concurrency {threads}"] = (*common, "--batcher", threads)
            print(f"\n{concurrency} processors, {handler}")
            print("\n".join(lines(all_rounds(sides, options))), flush=True)


if __name__ == "__main__":
    main()
