"""`wsengine demo`: its options. What it shows stands in demonstration.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from wsengine.cli.arguments import duration, rate, whole_number
from wsengine.cli.demonstration import Options
from wsengine.cli.demonstration import run as demonstrate

if TYPE_CHECKING:
    import argparse

    from wsengine.errors import ConfigurationError

__all__ = ["add_options", "in_words_of_the_command", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    default = Options()
    option = parser.add_argument
    option("--seconds", type=duration, default=default.seconds, metavar="N", help="how long it lasts (%(default)g)")
    option("--concurrency", type=whole_number, default=default.concurrency, metavar="N", help="processors (%(default)d)")
    option("--max-demand", type=whole_number, default=default.max_demand, metavar="N",
           help="messages that a processor holds at the most (%(default)d)")
    option("--min-demand", type=whole_number, default=default.min_demand, metavar="N",
           help="a processor asks for more when it holds so few (%(default)d)")
    option("--rate", type=rate, default=default.rate, metavar="N",
           help="messages a second, 0 for as fast as the pipeline takes them (%(default)g)")
    option("--size", type=whole_number, default=default.size, metavar="BYTES", help="of each message (%(default)d)")
    option("--port", type=whole_number, default=default.port, metavar="N",
           help="of the feed; 0 takes a free one (%(default)d)")
    option("--plain", action="store_true", help="a line each second instead of a live table")
    option("--no-cut", dest="cut", action="store_false", help="do not cut the connection on the way")


def run(given: argparse.Namespace, stream: TextIO) -> int:
    """Run the demo on `stream`; returns the exit status. Main thread only; raises what the demonstration raises."""
    options = Options(seconds=given.seconds, concurrency=given.concurrency, max_demand=given.max_demand,
                      min_demand=given.min_demand, rate=given.rate, size=given.size, port=given.port, cut=given.cut)
    return demonstrate(options, stream, plain=given.plain)


def in_words_of_the_command(error: ConfigurationError) -> str:
    """The error of an option object, with the option named as the user has typed it."""
    name = error.path.rpartition(".")[2].replace("_", "-")
    return f"--{name} {error.value}: {error.remedy.replace('max_demand=', '--max-demand ')}"
