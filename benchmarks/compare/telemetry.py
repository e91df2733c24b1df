"""What telemetry costs: a pipeline with handlers attached beside one without, `python -m benchmarks.compare.telemetry`.

All callbacks of the pipeline do nothing. Each event that is heard has a handler of its own, which adds one to a count; the
budget is a loss of 30 % of the messages a second. Sides: nothing attached, the same once more, which shows what chance does;
a handler of an event that never comes; all events but those of each message; those of each message; all events; the last
two once more, counted by EventCounter, where the others are counted by functions in Python.
"""

from __future__ import annotations

from benchmarks.compare.sides import all_rounds, heading, lines, parser

HANDLERS = {"handle_message": "pass", "handle_messages": "pass-chunks"}
SIDES = {
    "nothing": "nothing", "nothing again": "nothing", "an unrelated event": "unrelated", "chunks and batches": "chunk",
    "messages": "message", "all events": "all",
}
#: Sides whose handlers are an EventCounter for each event; those of the other sides are functions in Python.
COMPILED = {"messages, EventCounter": "message", "all events, EventCounter": "all"}


def main() -> None:
    """Print a block for each kind of handler, without and with a batcher."""
    made = parser(__doc__)
    made.add_argument("--concurrency", type=int, default=1, help="processors")
    made.add_argument("--handlers", default=",".join(HANDLERS))
    made.add_argument("--batchers", default="0,1", help="0: none; else the threads of one")
    made.add_argument("--sides", default=";".join([*SIDES, *COMPILED]), help="their names, a semicolon between them")
    options = made.parse_args()
    print(heading(options))
    for handler in options.handlers.split(","):
        for batcher in map(int, options.batchers.split(",")):
            sides = {
                name: ("--handler", HANDLERS[handler], "--concurrency", options.concurrency, "--batcher", batcher,
                       "--telemetry", (SIDES | COMPILED)[name], "--counter", "compiled" if name in COMPILED else "function")
                for name in options.sides.split(";")
            }
            print(f"\n{handler}, {'a' if batcher else 'no'} batcher")
            print("\n".join(lines(all_rounds(sides, options))), flush=True)


if __name__ == "__main__":
    main()
