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
from wsengine.cli.endings import ended_by_signals
from wsengine.cli.harmless import one_line
from wsengine.errors import ConfigurationError, InvalidURI
from wsengine.testing.peers.catalogue import PEERS, missing
from wsengine.testing.recording import load_recording
from wsengine.websocket.uri import parse_uri

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator

    from wsengine.bench.rounds import Failure

__all__ = ["add_options", "in_words_of_the_command", "run"]

#: The most runs of one call: more would be a mistake in a list.
MOST = 500
#: What options are that have not been given. They have no default in the parser: an option that has no effect beside others
#: is refused, also with the value that would have been its default.
DEFAULTS: dict[str, Any] = {
    "size": [128], "concurrency": [1], "min_demand": [0], "max_demand": [100], "handler": ["message"], "cost": ["none"],
    "tls": ["none"], "deflate": [False], "rate": 0.0, "seed": 1, "port": 0,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    option = parser.add_argument
    option("--size", type=items(whole_number), metavar="BYTES,…", help="of each message (128)")
    option("--concurrency", type=items(whole_number), metavar="N,…", help="processors (1)")
    option("--min-demand", type=items(whole_number), metavar="N,…",
           help="a processor asks for more when it holds so few (0)")
    option("--max-demand", type=items(whole_number), metavar="N,…",
           help="messages that a processor holds at the most (100)")
    option("--handler", type=items(str), metavar="KIND,…",
           help="message: handle_message; chunk: handle_messages (message)")
    option("--cost", type=items(str), metavar="COST,…",
           help="of the handler: none, json, orjson, spin:MICROSECONDS, sleep:MILLISECONDS (none)")
    option("--tls", type=items(str), metavar="PATH,…", help="none, A or B (none)")
    option("--deflate", type=items(_yes_or_no), metavar="YESNO,…",
           help="whether the feed compresses its messages: yes, no or both (no)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--recording", metavar="FILE", help="send this recorded feed, over and over, flat out")
    source.add_argument("--url", help="take what this server sends instead of a feed of this machine")
    option("--rate", type=rate, metavar="N",
           help="messages a second, 0 for as many as are taken (0); latencies say something at a rate only")
    option("--seed", type=whole_number, metavar="N", help="of the made-up trades that are sent (1)")
    option("--port", type=whole_number, metavar="N", help="of the feed; 0 takes a free one (0)")
    option("--rounds", type=whole_number, default=3, metavar="N", help="each is measured so often, in turns (3)")
    option("--seconds", type=duration, default=1.0, metavar="N", help="measured in each round (1)")
    option("--warmup", type=duration, default=0.5, metavar="N", help="before that (0.5)")
    option("--compare", nargs="?", const=",".join(PEERS), metavar="PEER,…", type=str,
           help="beside other clients, by default all that are installed of " + ", ".join(PEERS))
    option("--json", action="store_true", help="everything as JSON, each round by itself, instead of the table")


def run(given: argparse.Namespace, stream: TextIO) -> int:
    """Run it and print; returns the exit status. Main thread only.

    Raises:
        ConfigurationError, InvalidURI: an option is wrong, or has no effect. SystemExit: by SIGTERM or SIGHUP. OSError.
    """
    if find_spec("psutil") is None:
        _tell("psutil, which it measures by, is missing: pip install 'wsengine[bench]'")
        return 1
    source = _source(given)
    contest = Contest(_entries(given), source, rounds=given.rounds, seconds=given.seconds, warmup=given.warmup)
    if not 1 <= given.rounds * len(contest.entries) <= MOST:
        raise ConfigurationError("bench.rounds", given.rounds, f"give a whole number above 0, for at most {MOST} runs; "
                                 f"these lists make {len(contest.entries)} a round")
    with ended_by_signals(), _progress(contest, sys.stderr) as told:
        outcome = contest.run(told, lambda entry, failure, left: _tell(_failed(contest, entry, failure, left)))
    if any(outcome.rounds.values()):
        found = summary(_shown(given, source), contest.entries, outcome.rounds, outcome.failures)
        _write(json.dumps(found, indent=1) if given.json else "\n".join(lines(found)), stream)
    return 0 if len(outcome.failures) < len(contest.entries) else 1


def in_words_of_the_command(error: ConfigurationError | InvalidURI) -> str:
    """The error of an option object, with the option named as the user has typed it."""
    if isinstance(error, InvalidURI):
        return str(error)
    name = error.path.rpartition(".")[2].replace("_", "-")
    return f"--{name} {error.value}: {error.remedy.replace('max_demand=', '--max-demand ')}"


def _source(given: argparse.Namespace) -> Source:
    """Where messages come from; what has no effect on it is refused, and what was not given has its default from here on."""
    source = Source(url=given.url, recording=given.recording)
    if source.url is not None:
        parse_uri(source.url)
        _refuse(given, source.ignores, "url", "what a server somewhere else sends, and how, is not decided here")
    if source.recording is not None:
        load_recording(source.recording)
        _refuse(given, source.ignores, "recording", "its messages are sent as they are, flat out")
    if given.compare is not None:
        _refuse(given, ("recording", "url"), "compare", "peers are measured on made-up trades")
        different = [name for name in ("cost", "tls", "deflate") if getattr(given, name) != DEFAULTS[name]]
        _refuse(given, different, "compare", "peers are measured over plain connections, with a handler that only counts")
    for name, default in DEFAULTS.items():
        if getattr(given, name) is None:
            setattr(given, name, default)
    return Source(url=given.url, recording=given.recording, rate=given.rate or None, seed=given.seed, port=given.port)


def _refuse(given: argparse.Namespace, names: Iterable[str], beside: str, why: str) -> None:
    for name in names:
        value = getattr(given, name)
        if value is not None:
            raise ConfigurationError(f"bench.{name}", _typed(name, value), f"leave it out beside --{beside}; {why}")


def _typed(name: str, value: Any) -> str:
    """A value as the user has typed it; of a URL, no secret."""
    if isinstance(value, list):
        return ",".join(_typed(name, one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return parse_uri(value).redacted if name == "url" else f"{value:g}" if isinstance(value, float) else str(value)


def _lists(given: argparse.Namespace) -> dict[str, list[Any]]:
    """The values of each option of a case."""
    return {name: getattr(given, name) for name, default in DEFAULTS.items() if isinstance(default, list)}


def _entries(given: argparse.Namespace) -> list[Entry]:
    made = cases(_lists(given))
    entries = [Entry(name, case) for name, case in zip(labels(made), made, strict=True)]
    return entries if given.compare is None else entries + _peers(given, entries)


def _peers(given: argparse.Namespace, ours: list[Entry]) -> list[Entry]:
    found = []
    sizes = list(dict.fromkeys(entry.case.size for entry in ours))
    for name in dict.fromkeys(one.strip() for one in given.compare.split(",")):
        if name not in PEERS:
            raise ConfigurationError("bench.compare", name, f"give some of {', '.join(PEERS)}")
        absent = missing(PEERS[name])
        if absent:
            _tell(f"{name} is left out, not installed: {', '.join(absent)} (pip install 'wsengine[bench]')")
            continue
        found += [Entry(name if len(sizes) == 1 else f"{name} size={size}", case, name)
                  for size, case in zip(sizes, cases({"size": sizes}), strict=True)]
    return found


def _shown(given: argparse.Namespace, source: Source) -> dict[str, Any]:
    """The options that had an effect, and are the same for all."""
    shown: dict[str, Any] = {name: getattr(given, name) for name in ("rounds", "seconds", "warmup", "recording")}
    shown |= {"rate": source.rate, "seed": source.seed, "url": source.url and parse_uri(source.url).redacted}
    shown |= {name: values[0] for name, values in _lists(given).items() if len(set(values)) == 1}
    return {name: value for name, value in shown.items() if value is not None and name not in source.ignores}


def _failed(contest: Contest, entry: Entry, failure: Failure, left: bool) -> str:
    what = "is left out from there on" if left else "nothing is left to measure"
    return f"{entry.name} failed in round {failure.round} of {contest.rounds}, and {what}: {failure.reason}"


def _tell(text: str) -> None:
    """A line on standard error, if there is one."""
    if sys.stderr is not None:
        print(f"wsengine bench: {one_line(text)}", file=sys.stderr, flush=True)


def _write(text: str, stream: TextIO) -> None:
    """With question marks for what the output's encoding does not have."""
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), file=stream, flush=True)


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"{text!r} is neither yes nor no")
    return text == "yes"


@contextlib.contextmanager
def _progress(contest: Contest, stream: TextIO | None) -> Iterator[Callable[[Entry, int], None]]:
    """How far it has got: a bar in a terminal, else a line for each run; nothing where standard error is closed."""
    total = contest.rounds * len(contest.entries)
    if stream is None:
        yield lambda entry, done: None
        return
    if stream.isatty() and find_spec("rich") is not None:
        from wsengine.cli.progress import bar

        with bar(stream, total) as advance:
            yield lambda entry, done: advance(done, entry.name)
        return
    print(f"{total} runs, about {contest.expected_seconds:.0f} s", file=stream, flush=True)
    yield lambda entry, done: print(f"run {done + 1} of {total}: {entry.name}", file=stream, flush=True)
