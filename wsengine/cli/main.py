"""The command `wsengine`: its options, and the exit status and the one line that each kind of error becomes.

What a subcommand does, and its options, stand in a file of its name (demo.py, tail.py, bench.py, tune.py, doctor.py), which
has `add_options`, `run` and `in_words_of_the_command`. Nothing is started here.

    0    done, and for the demo: proven, for the doctor: nothing has failed
    1    the demo could not prove its sum, or its server ended by itself; a connection failed; output cannot be written
    2    a wrong option, or a port that is in use
    130  ended by Ctrl-C, 143 by SIGTERM; 141 when nobody reads the output any more
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from typing import TYPE_CHECKING, Any

from wsengine.cli.arguments import WRONG_OPTION, Parser
from wsengine.cli.harmless import one_line
from wsengine.errors import ConfigurationError, InvalidURI

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

PROVEN, UNPROVEN = 0, 1
INTERRUPTED, NO_READER = 130, 141
#: By name: what --help of the whole command says of it, and its own; and what is said behind "ended at once" at Ctrl-C.
COMMANDS = {
    "demo": (
        "watch a pipeline work on a feed of this machine, and have the sum proven",
        "Starts a feed of made-up trades in a process of its own and a pipeline that takes it, shows the pipeline at work, "
        "cuts the connection once on the way, and proves at the end that each message sent was handled exactly once.",
        ", without a summary"),
    "tail": (
        "print what a server sends",
        "Connects to a WebSocket server and prints each message as it comes: text with its control characters escaped, "
        "binary as its length and hexadecimal digits.",
        ""),
    "bench": (
        "measure a pipeline's throughput, CPU time and latency, beside other clients, too",
        "Runs pipelines against a feed of this machine, in turns and in processes of their own, for each combination of the "
        "values given, and prints a table. Options that name several values take a comma between them.",
        ", without a table"),
    "tune": (
        "find the concurrency, demand and queue that serve a handler best, and why",
        "Runs your pipeline against a feed of this machine at one setting after the other, measures where the time of its "
        "threads goes, and recommends a setting with the reason.",
        ", without a recommendation"),
    "doctor": (
        "find out why a connection to a server fails, or how well it works",
        "Connects to a WebSocket server step by step, and says of each what works, what fails, and what to do.",
        ", before all steps were done"),
}


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
    parser.add_argument("--version", action=_Version, help="show program's version number and exit")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND", parser_class=_CommandParser)
    for name, (short, long, interrupted) in COMMANDS.items():
        command = commands.add_parser(name, allow_abbrev=False, help=short, description=long)
        command.set_defaults(interrupted=interrupted)
    return parser


class _CommandParser(Parser):
    """Of a subcommand: its module is imported, and its options are added, when it is chosen. All modules at once would
    take half a second, of which each start of the command would have its share."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        module = importlib.import_module(f"wsengine.cli.{self.prog.rpartition(' ')[2]}")
        module.add_options(self)
        self.set_defaults(run=module.run, words=module.in_words_of_the_command)
        return super().parse_known_args(args, namespace)


class _Version(argparse.Action):
    """Prints the version, which is looked up only then, and ends."""

    def __init__(self, option_strings: Sequence[str], dest: str, **given: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, **given)

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        print(version_line())
        parser.exit()


def version_line() -> str:
    """What --version prints."""
    import importlib.metadata

    try:
        version = importlib.metadata.version("wsengine")
    except importlib.metadata.PackageNotFoundError:
        version = "of unknown version (it runs from its sources, and is not installed)"
    return f"wsengine {version}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
