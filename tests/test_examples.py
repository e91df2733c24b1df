"""The examples, each run as a program: they are documentation that must be true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


def run(name, *arguments, status=0, stdin=""):
    done = subprocess.run([sys.executable, "-W", "error", EXAMPLES / name, *arguments], input=stdin, text=True,
                          capture_output=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == status, done.stdout + done.stderr
    return done


def test_every_example_is_run_here():
    tested = set(re.findall(r'run\("(\w+\.py)"', Path(__file__).read_text()))
    assert tested == {path.name for path in EXAMPLES.glob("*.py")}


def test_the_trades_are_all_counted():
    done = run("trades.py")
    counts = [int(count.replace(",", "")) for count in re.findall(r": ([\d,]+) trades, volume", done.stdout)]
    assert len(counts) == 8
    assert sum(counts) == 20_000
    assert "20,000 trades in all" in done.stdout
    assert done.stderr == ""


def test_the_log_shows_the_life_of_the_connection():
    done = run("telemetry_logging.py")
    told = re.findall(r"^prices: (success|status|disconnected|failure|timeout) (\{.*?\})", done.stderr, re.MULTILINE)
    assert [name for name, _ in told] == ["success", "status", "disconnected", "status", "success", "status", "status"]
    assert [values for name, values in told if name == "status"] == ["{'value': 1}", "{'value': 0}"] * 2
    messages, chunks = re.search(r"prices: (\d+) messages in (\d+) chunks", done.stderr).groups()
    assert int(messages) > 1000
    assert 0 < int(chunks) <= int(messages)


def test_channel_ids_are_looked_up_in_their_own_session():
    done = run("channels.py")
    assert done.stdout == "ETH/EUR: 200 updates\nXBT/EUR: 200 updates\n400 updates in all, 2 sessions\n"
    assert "1006" in done.stderr, "the log tells the cut, and nothing else"
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.recording
@pytest.mark.parametrize(("exchange", "names", "updates"), [("kraken", 10, "4,280"), ("bitfinex", 21, "1,628")])
def test_channel_ids_of_recorded_exchanges_are_looked_up(recordings, exchange, names, updates):
    done = run("channels.py", exchange, str(recordings / f"{exchange}.jsonl.gz"))
    *counts, total = done.stdout.splitlines()
    assert len(counts) == names
    assert total == f"{updates} updates in all, 1 sessions"
    assert done.stderr == ""


@pytest.mark.parametrize("through", ["file", "standard input"])
def test_lines_come_from_a_file_or_from_standard_input(tmp_path, through):
    text = "".join(f"line {number} here\n" for number in range(5000))
    if through == "file":
        (tmp_path / "some.log").write_text(text)
        done = run("line_producer.py", str(tmp_path / "some.log"))
    else:
        done = run("line_producer.py", stdin=text)
    assert done.stdout == "5000 lines, 15000 words\n"
    assert done.stderr == ""


def test_a_line_that_is_not_text_fails_alone():
    done = run("line_producer.py", stdin="a b\nc\n\0\nd e f")
    assert done.stdout == "3 lines, 6 words\nnot text: line 3\n"
    assert "ValueError: this is not text" in done.stderr
