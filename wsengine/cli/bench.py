"""`wsengine bench`: its options, how far it has got while it runs, and the table at its end.

What is measured, and how, stands in `wsengine.bench`. Standard output gets the table or the JSON alone; progress goes to
standard error, as a bar where that is a terminal and rich is there.
"""

from __future__ import annotations

import contextlib
import json
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TextIO

from wsengine.bench.case import cases, labels
from wsengine.bench.feeds import Source
from wsengine.bench.rounds import Contest, Entry
from wsengine.bench.table import lines, summary
from wsengine.cli.arguments import duration, items, rate, whole_number
from wsengine.errors import ConfigurationError, InvalidURI
from wsengine.testing.peers.catalogue import PEERS, missing
from wsengine.testing.recording import load_recording
from wsengine.websocket.uri import parse_uri

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

__all__ = ["add_options", "in_words_of_the_command", "run"]

#: The most runs of one call: more would be a mistake in a list.
MOST = 500


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    option = parser.add_argument
    option("--size", type=items(whole_number), default=[128], metavar="BYTES,…", help="of each message (128)")
    option("--concurrency", type=items(whole_number), default=[1], metavar="N,…", help="processors (1)")
    option("--min-demand", type=items(whole_number), default=[0], metavar="N,…",
           help="a processor asks for more when it holds so few (0)")
    option("--max-demand", type=items(whole_number), default=[100], metavar="N,…",
           help="messages that a processor holds at the most (100)")
    option("--handler", type=items(str), default=["message"], metavar="KIND,…",
           help="message: handle_message; chunk: handle_messages (message)")
    option("--cost", type=items(str), default=["none"], metavar="COST,…",
           help="of the handler: none, json, orjson, spin:MICROSECONDS, sleep:MILLISECONDS (none)")
    option("--tls", type=items(str), default=["none"], metavar="PATH,…", help="none, A or B (none)")
    option("--deflate", type=items(_yes_or_no), default=[False], metavar="YESNO,…",
           help="whether the feed compresses its messages: yes, no or both (no)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--recording", metavar="FILE", help="send this recorded feed, over and over, flat out")
    source.add_argument("--url", help="take what this server sends instead of a feed of this machine")
    option("--rate", type=rate, default=0.0, metavar="N",
           help="messages a second, 0 for as many as are taken (0); latencies say something at a rate only")
    option("--seed", type=whole_number, default=1, metavar="N", help="of the made-up trades that are sent (1)")
    option("--port", type=whole_number, default=0, metavar="N", help="of the feed; 0 takes a free one (0)")
    option("--rounds", type=whole_number, default=3, metavar="N", help="each is measured so often, in turns (3)")
    option("--seconds", type=duration, default=1.0, metavar="N", help="measured in each round (1)")
    option("--warmup", type=duration, default=0.5, metavar="N", help="before that (0.5)")
    option("--compare", nargs="?", const=",".join(PEERS), metavar="PEER,…", type=str,
           help="beside other clients, by default all that are installed of " + ", ".join(PEERS))
    option("--json", action="store_true", help="everything as JSON, each round by itself, instead of the table")


def run(given: argparse.Namespace, stream: TextIO) -> int:
    """Run it and print; returns the exit status."""
    if find_spec("psutil") is None:
        print("wsengine bench: psutil, which it measures by, is missing: pip install 'wsengine[bench]'", file=sys.stderr)
        return 1
    contest = Contest(_entries(given), _source(given), rounds=given.rounds, seconds=given.seconds, warmup=given.warmup)
    if not 1 <= given.rounds * len(contest.entries) <= MOST:
        raise ConfigurationError("bench.rounds", given.rounds, f"give a whole number above 0, for at most {MOST} runs; "
                                 f"these lists make {len(contest.entries)} a round")
    with _progress(contest, sys.stderr) as told:
        rounds = contest.run(told)
    shown = {name: value for name, value in vars(given).items()
             if name in ("rounds", "seconds", "warmup", "rate", "seed", "recording") and value}
    if given.url is not None:
        shown["url"] = parse_uri(given.url).redacted
    shown |= {name: values[0] for name, values in _lists(given).items() if len(set(values)) == 1}
    found = summary(shown, contest.entries, rounds)
    print(json.dumps(found, indent=1) if given.json else "\n".join(lines(found)), file=stream, flush=True)
    return 0


def in_words_of_the_command(error: ConfigurationError | InvalidURI) -> str:
    """The error of an option object, with the option named as the user has typed it."""
    if isinstance(error, InvalidURI):
        return str(error)
    name = error.path.rpartition(".")[2].replace("_", "-")
    return f"--{name} {error.value}: {error.remedy.replace('max_demand=', '--max-demand ')}"


def _lists(given: argparse.Namespace) -> dict[str, list[Any]]:
    """The values of each option of a case."""
    return {name: getattr(given, name)
            for name in ("size", "concurrency", "min_demand", "max_demand", "handler", "cost", "tls", "deflate")}


def _entries(given: argparse.Namespace) -> list[Entry]:
    lists = _lists(given)
    if given.url is not None or given.recording is not None:
        _refuse(given, "size", [128], "the messages of --url and --recording have sizes of their own")
    if given.url is not None:
        parse_uri(given.url)
        for name, default in (("tls", ["none"]), ("deflate", [False]), ("rate", 0.0)):
            _refuse(given, name, default, "what a server somewhere else does is not decided here")
    if given.recording is not None:
        load_recording(given.recording)
        _refuse(given, "rate", 0.0, "a recording is sent flat out")
    made = cases(lists)
    entries = [Entry(name, case) for name, case in zip(labels(made), made, strict=True)]
    return entries + _peers(given, entries)


def _peers(given: argparse.Namespace, ours: list[Entry]) -> list[Entry]:
    if given.compare is None:
        return []
    for name in ("recording", "url"):
        _refuse(given, name, None, "peers are measured on made-up trades")
    for name, default in (("cost", ["none"]), ("tls", ["none"]), ("deflate", [False])):
        _refuse(given, name, default, "peers are measured over plain connections, with a handler that only counts")
    found = []
    sizes = list(dict.fromkeys(entry.case.size for entry in ours))
    for name in dict.fromkeys(one.strip() for one in given.compare.split(",")):
        if name not in PEERS:
            raise ConfigurationError("bench.compare", name, f"give some of {', '.join(PEERS)}")
        absent = missing(PEERS[name])
        if absent:
            print(f"wsengine bench: {name} is left out, not installed: {', '.join(absent)} (pip install 'wsengine[bench]')",
                  file=sys.stderr)
            continue
        found += [Entry(name if len(sizes) == 1 else f"{name} size={size}", case, name)
                  for size, case in zip(sizes, cases({"size": sizes}), strict=True)]
    return found


def _refuse(given: argparse.Namespace, name: str, default: object, why: str) -> None:
    if getattr(given, name) != default:
        value = getattr(given, name)
        raise ConfigurationError(f"bench.{name}", ",".join(map(str, value)) if isinstance(value, list) else value,
                                 f"leave it out; {why}")


def _source(given: argparse.Namespace) -> Source:
    return Source(url=given.url, recording=given.recording, rate=given.rate or None, seed=given.seed, port=given.port)


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"{text!r} is neither yes nor no")
    return text == "yes"


@contextlib.contextmanager
def _progress(contest: Contest, stream: TextIO) -> Iterator[Callable[[Entry, int], None]]:
    """How far it has got: a bar in a terminal, else a line for each run."""
    total = contest.rounds * len(contest.entries)
    if stream.isatty() and find_spec("rich") is not None:
        from wsengine.cli.progress import bar

        with bar(stream, total) as advance:
            yield lambda entry, done: advance(done, entry.name)
        return
    print(f"{total} runs, about {contest.expected_seconds:.0f} s", file=stream, flush=True)
    yield lambda entry, done: print(f"run {done + 1} of {total}: {entry.name}", file=stream, flush=True)
