"""Who fails takes no more turns, and the others go on. The drivers are small programs of this file, in processes of their
own, as all are; what they print is made up."""

from __future__ import annotations

import pytest

from wsengine.bench.case import Case
from wsengine.bench.feeds import Source
from wsengine.bench.rounds import Contest, Entry
from wsengine.errors import ConfigurationError
from wsengine.testing.peers.catalogue import PEERS, Peer

REPORTS = """
import json
print(json.dumps({"messages": 0, "messages_per_second": 1000.0, "settings": {"client": "steady"}}))
"""
FAILS_LATER = """
import pathlib, sys
already = pathlib.Path(__file__).with_suffix(".ran")
if already.exists():
    sys.exit("it has run dry \\x1b[2J")
already.touch()
""" + REPORTS
COUNTS_WRONG = REPORTS.replace('"messages": 0', '"messages": 12')


@pytest.fixture
def peer(tmp_path, monkeypatch):
    """A function that makes a peer of a program's text."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")

    def make(name, text):
        tmp_path.joinpath(f"{name}_client.py").write_text(text)
        monkeypatch.setitem(PEERS, name, Peer(f"{name}_client", {}))
        return Entry(name, Case(), name)

    return make


def outcome_of(*entries, rounds):
    """What comes of it, and what was told: runs as names, failures as what they were called with."""
    told = []
    found = Contest(entries, Source(), rounds=rounds, seconds=0.1, warmup=0.1).run(
        lambda entry, done: told.append((entry.name, done)), lambda *failed: told.append(failed))
    return found, told


def test_who_fails_is_left_out_from_there_on(peer):
    steady, moody = peer("steady", REPORTS), peer("moody", FAILS_LATER)
    found, told = outcome_of(steady, moody, rounds=3)
    failure = (2, r"moody_client: status 1: it has run dry \x1b[2J")  # harmless to a terminal
    assert [len(found.rounds[name]) for name in ("steady", "moody")] == [3, 1]
    assert found.failures == {"moody": failure}
    assert told == [("steady", 0), ("moody", 1), ("moody", 2), (moody, failure, True), ("steady", 3), ("steady", 4)]


def test_where_nobody_is_left_it_ends(peer):
    moody, silent = peer("moody", "raise SystemExit(3)"), peer("silent", "")
    found, told = outcome_of(moody, silent, rounds=2)
    assert found.rounds == {"moody": [], "silent": []}
    assert found.failures["moody"] == (1, "moody_client: status 3: it said nothing")
    assert found.failures["silent"] == (1, "silent_client: it ended without a result: it said nothing")
    assert [one[2] for one in told if len(one) == 3] == [True, False]
    assert len(told) == 4


def test_who_counts_what_was_never_sent_has_failed(peer):
    found, _ = outcome_of(peer("dreamer", COUNTS_WRONG), rounds=1)
    assert "counted 12 messages, and the feed, as far as it could still say, sent 0" in found.failures["dreamer"].reason


def test_a_wrong_option_of_the_feed_is_nobodys_failure():
    for wrong in ({"port": 65536}, {"seed": -1}):
        with pytest.raises(ConfigurationError, match="give a whole number"):
            Source(**wrong)
