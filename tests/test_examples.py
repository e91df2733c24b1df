"""The examples, each run as a program: they are documentation that must be true."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.postgres import postgres
from tests.waiting import until

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


def test_the_three_handlers_that_are_tuned_handle():
    done = run("tuning.py")
    assert done.stdout == "".join(f"{name}: 200 messages, 0 failed\n" for name in ("Averages", "Enriches", "Signs"))
    assert done.stderr == ""


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


def test_the_ancestors_example_on_a_feed_of_its_own():
    done = run("from_elixir.py")
    assert done.stdout == ("3 successful, 1 failed; 1 heartbeats, 2 data, 1 undecoded, 3 acknowledged, 1 failed\n")
    told = done.stderr.splitlines()
    assert "my_app: custom_telemetry_id connection success: {'count': 1" in done.stderr
    assert "my_app: custom_telemetry_id connection status: {'value': 1}" in told
    assert "my_app: Failed to decode message: Expecting value: line 1 column 1 (char 0)" in told
    assert 'my_app: Received message: {"event":"trade","price":"1.25"}' in told
    assert told[-1] == "my_app: custom_telemetry_id connection status: {'value': 0}"


@pytest.mark.recording
@pytest.mark.parametrize(("exchange", "data", "heartbeats"), [("kraken", 4290, 31), ("coinbase", 9946, 0)])
def test_the_ancestors_example_on_a_recorded_feed(recordings, exchange, data, heartbeats):
    done = run("from_elixir.py", str(recordings / f"{exchange}.jsonl.gz"))
    total = data + heartbeats
    assert done.stdout == (f"{total} successful, 0 failed; {heartbeats} heartbeats, {data} data, 0 undecoded, {total} "
                           "acknowledged, 0 failed\n")
    assert len([line for line in done.stderr.splitlines() if line.startswith("my_app: Received message: ")]) == data


def test_the_items_of_a_queue_are_done_when_they_are_acknowledged():
    done = run("queue_producer.py")
    assert done.stdout == "1000 squares add up to 332833500; refused: [-1]\n"
    assert "ValueError: no square is wanted of -1" in done.stderr


def test_batches_are_stored_in_sqlite(tmp_path):
    done = run("sqlite_sink.py", str(tmp_path / "trades.db"), "5000")
    stored, batches = map(int, re.findall(r"\d+", done.stdout))
    assert (stored, done.stderr) == (5000, "")
    assert batches >= 10
    with contextlib.closing(sqlite3.connect(tmp_path / "trades.db")) as database:
        rows = database.execute("select number, symbol, price, size from trades order by number").fetchall()
    assert [row[0] for row in rows] == list(range(5000))
    assert all(isinstance(symbol, str) and price > 0 and size > 0 for _, symbol, price, size in rows)


def test_a_locked_sqlite_database_is_waited_for(tmp_path):
    path = tmp_path / "trades.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("create table trades (number integer primary key, symbol text, price real, size integer)")
        database.execute("begin immediate")
        process = subprocess.Popen([sys.executable, EXAMPLES / "sqlite_sink.py", path, "1000"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        database.rollback()
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert out.startswith("1000 trades stored")
        assert database.execute("select count(*) from trades").fetchone() == (1000,)


def test_batches_are_copied_into_postgresql():
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'wsengine[examples]'")
    with postgres() as address:
        done = run("postgres_sink.py", address, "5000")
        assert (done.stdout, done.stderr) == ("5000 trades stored\n", "")
        with psycopg.connect(address) as database:
            rows = database.execute("select number, symbol from trades order by id").fetchall()
    assert sorted(number for number, _ in rows) == list(range(5000))
    for symbol in {symbol for _, symbol in rows}:
        numbers = [number for number, other in rows if other == symbol]
        assert numbers == sorted(numbers), "batches of a key were stored one after the other"


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


def unread(pipe):
    """Bytes that wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_lines_that_come_from_a_silent_input(number):
    """The pipe stays open: who ends the program by a signal does not have to end its input as well."""
    command = [sys.executable, "-W", "error", EXAMPLES / "line_producer.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=environment) as child:
        try:
            child.stdin.write(b"a b\nc d e\nnot a whole line")
            child.stdin.flush()
            until(lambda: unread(child.stdin) == 0)
            sent = time.monotonic()
            child.send_signal(number)
            assert child.wait(20) == 0
            assert time.monotonic() - sent < 5
            assert re.fullmatch(rb"[0-2] lines, [025] words\n", child.stdout.read())  # those that came before it
            assert child.stderr.read() == b""
        finally:
            child.kill()
