"""The command `wsengine`: its options, and the exit status and the one line that each kind of error becomes.

What a subcommand does stands in a file of its own (demo.py, tail.py, bench.py, tune.py, doctor.py). Nothing is started here.

    0    done, and for the demo: proven, for the doctor: nothing has failed
    1    the demo could not prove its sum, or its server ended by itself; a connection failed; output cannot be written
    2    a wrong option, or a port that is in use
    130  ended by Ctrl-C, 143 by SIGTERM; 141 when nobody reads the output any more
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import TYPE_CHECKING, TextIO

from wsengine.cli import bench, demo, doctor, tail, tune
from wsengine.cli.arguments import WRONG_OPTION, Parser, duration, rate, whole_number
from wsengine.cli.harmless import one_line
from wsengine.cli.server import in_words_of_the_command
from wsengine.errors import ConfigurationError, InvalidURI

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["main"]

PROVEN, UNPROVEN = 0, 1
INTERRUPTED, NO_READER = 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status. Main thread only, because it listens to signals.

    Args:
        arguments: without the name of the program; None takes those of the process.

    Raises:
        SystemExit: 2 for a wrong option, 0 after --help and --version.
    """
    parser = build_parser()
    given = parser.parse_arguments(arguments)
    if given.command is None:
        parser.print_help()
        return PROVEN
    name = f"wsengine {given.command}"
    if sys.stdout is None:
        print(f"{name}: standard output is closed; give it somewhere to write", file=sys.stderr)
        return UNPROVEN
    try:
        status: int = given.run(given, sys.stdout)
        return status
    except (ConfigurationError, InvalidURI) as error:
        print(f"{name}: {one_line(given.words(error))}", file=sys.stderr)
        return WRONG_OPTION
    except KeyboardInterrupt:
        print(f"{name}: ended at once{given.interrupted}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _give_up_what_is_unwritten()
        return NO_READER
    except OSError as error:
        print(f"{name}: {error}", file=sys.stderr)
        _give_up_what_is_unwritten()
        return UNPROVEN
    except RuntimeError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return UNPROVEN


def _give_up_what_is_unwritten() -> None:
    """The interpreter flushes both streams once more when it ends: where that fails it complains, and ends with 120."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # a closed one is None
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def build_parser() -> Parser:
    """The options of the command, with their texts."""
    parser = Parser(prog="wsengine", allow_abbrev=False,
                    description="A Broadway for Python threads: a WebSocket feed into synchronous programs.")
    parser.add_argument("--version", action="version", version=version_line())
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND", parser_class=Parser)
    _add_demo(commands.add_parser(
        "demo", allow_abbrev=False, help="watch a pipeline work on a feed of this machine, and have the sum proven",
        description="Starts a feed of made-up trades in a process of its own and a pipeline that takes it, shows the "
                    "pipeline at work, cuts the connection once on the way, and proves at the end that each message "
                    "sent was handled exactly once."))
    followed = commands.add_parser(
        "tail", allow_abbrev=False, help="print what a server sends",
        description="Connects to a WebSocket server and prints each message as it comes: text with its control characters "
                    "escaped, binary as its length and hexadecimal digits.")
    tail.add_options(followed)
    followed.set_defaults(run=tail.run, words=in_words_of_the_command, interrupted="")
    measured = commands.add_parser(
        "bench", allow_abbrev=False, help="measure a pipeline's throughput, CPU time and latency, beside other clients, too",
        description="Runs pipelines against a feed of this machine, in turns and in processes of their own, for each "
                    "combination of the values given, and prints a table. Options that name several values take a comma "
                    "between them.")
    bench.add_options(measured)
    measured.set_defaults(run=bench.run, words=bench.in_words_of_the_command, interrupted=", without a table")
    tuned = commands.add_parser(
        "tune", allow_abbrev=False, help="find the concurrency, demand and queue that serve a handler best, and why",
        description="Runs your pipeline against a feed of this machine at one setting after the other, measures where the "
                    "time of its threads goes, and recommends a setting with the reason.")
    tune.add_options(tuned)
    tuned.set_defaults(run=tune.run, words=tune.in_words_of_the_command, interrupted=", without a recommendation")
    examined = commands.add_parser(
        "doctor", allow_abbrev=False, help="find out why a connection to a server fails, or how well it works",
        description="Connects to a WebSocket server step by step, and says of each what works, what fails, and what to do.")
    doctor.add_options(examined)
    examined.set_defaults(run=doctor.run, words=in_words_of_the_command, interrupted=", before all steps were done")
    return parser


def _add_demo(shown: argparse.ArgumentParser) -> None:
    default = demo.Options()
    option = shown.add_argument
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
    shown.set_defaults(run=_run_demo, words=_in_words_of_the_demo, interrupted=", without a summary")


def version_line() -> str:
    """What --version prints."""
    try:
        version = importlib.metadata.version("wsengine")
    except importlib.metadata.PackageNotFoundError:
        version = "of unknown version (it runs from its sources, and is not installed)"
    return f"wsengine {version}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"


def _run_demo(given: argparse.Namespace, stream: TextIO) -> int:
    return demo.run(_demo_options(given), stream, plain=given.plain)


def _demo_options(given: argparse.Namespace) -> demo.Options:
    return demo.Options(seconds=given.seconds, concurrency=given.concurrency, max_demand=given.max_demand,
                        min_demand=given.min_demand, rate=given.rate, size=given.size, port=given.port, cut=given.cut)


def _in_words_of_the_demo(error: ConfigurationError) -> str:
    """The error of an option object, with the option named as the user has typed it."""
    name = error.path.rpartition(".")[2].replace("_", "-")
    return f"--{name} {error.value}: {error.remedy.replace('max_demand=', '--max-demand ')}"
