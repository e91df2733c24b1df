"""The programs in docs and README that say so, each run as it stands there, and the tables against what they list."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import wsengine
from wsengine.testing import ScriptedServer, steps

ROOT = Path(__file__).resolve().parents[1]
CONNECT = (ROOT / "docs" / "connect.md").read_text()
README = (ROOT / "README.md").read_text()
URL = "ws://127.0.0.1:9001/"


def programs(text):
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def section(text, heading):
    return text.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]


def run(program):
    """Run it against a server that echoes; its output and the close codes of its connections."""
    assert URL in program
    with ScriptedServer([[steps.accept(), steps.serve(echo=True)]]) as server:
        done = subprocess.run([sys.executable, "-W", "error", "-c", program.replace(URL, server.url)], text=True,
                              capture_output=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        records = server.wait(lambda records: records and not any(one.open for one in records))
    return done.stdout.splitlines(), [one.frames[-1].payload for one in records]


def test_every_program_of_connect_md_is_run_here():
    assert len(programs(CONNECT)) == 2


def test_the_first_program_of_connect_md():
    assert run(programs(CONNECT)[0]) == (["hello", "b'in two parts'", "nothing more", "True"], [b"\x03\xe8"])


def test_the_program_with_a_thread_of_connect_md():
    assert run(programs(CONNECT)[1]) == (["message 0", "message 1", "message 2", "1000"], [b"\x03\xe8"])


def test_the_program_of_the_readme():
    [program] = programs(section(README, "### One connection: `connect()`"))
    assert run(program) == (["hello"], [b"\x03\xe8"])


def test_the_programs_of_batching_md(tmp_path):
    """The first handles a recording of its own making, into a database; the second's ceiling holds."""
    first, second = programs((ROOT / "docs" / "batching.md").read_text())
    with contextlib.closing(sqlite3.connect(tmp_path / "trades.db")) as database:
        database.execute("create table trades (S, p)")
    trades = [f'{{"T": "{"t" if i % 3 else "q"}", "S": "{"AB"[i % 2]}", "p": {i}}}' for i in range(30)]
    with ScriptedServer([[steps.accept(), *map(steps.text, trades), steps.serve()]]) as server:
        stop = ("\nimport time\npipeline.start()\nwhile pipeline.stats().batchers[0].held < 20: time.sleep(0.01)\n"
                "print(pipeline.stop().successful)\n")
        done = subprocess.run([sys.executable, "-W", "error", "-c", first.replace(URL, server.url) + stop],
                              text=True, capture_output=True, timeout=60, cwd=tmp_path, check=False,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "30"
    with contextlib.closing(sqlite3.connect(tmp_path / "trades.db")) as database:
        rows = database.execute("select S, p from trades").fetchall()
    assert [row for row in rows if row[0] == "A"] == [("A", i) for i in range(0, 30, 2) if i % 3]
    assert [row for row in rows if row[0] == "B"] == [("B", i) for i in range(1, 30, 2) if i % 3]
    made = {}
    exec(second, made)
    assert made["by_bytes"](wsengine.Message(bytes(400_000)), 700_000) == ("emit_before", 400_000)
    assert made["by_bytes"](wsengine.Message(bytes(300_000)), 700_000) == ("cont", 1_000_000)


def test_the_program_of_pipeline_md():
    [program] = programs((ROOT / "docs" / "pipeline.md").read_text())
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], text=True, capture_output=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert (done.stdout, done.stderr) == ("HELLO []\n['YES'] ['not that']\n", "")


def names(heading, column):
    """The names in backticks in one column of the table below a heading."""
    rows = [row.split("|")[column + 1] for row in section(CONNECT, heading).splitlines() if row.startswith("|")]
    return set(re.findall(r"[a-z_]+(?=[=(`])|(?<=`)[a-z_]+", " ".join(rows)))


def test_the_table_of_options_has_all_of_ours():
    ours = {name for name, one in inspect.signature(wsengine.connect).parameters.items() if one.kind != one.VAR_KEYWORD}
    missing = ours - names("## Options of `connect`", 0) - names("## Options of `connect`", 1)
    assert not missing


def test_the_tables_have_all_that_websockets_has():
    client = pytest.importorskip("websockets.sync.client", reason="websockets is not installed: nothing to compare with")
    theirs = {name for name, one in inspect.signature(client.connect).parameters.items() if one.kind != one.VAR_KEYWORD}
    assert not theirs - names("## Options of `connect`", 0)
    documented = {"recv", "recv_streaming", "send", "ping", "pong", "close", "fileno", "id", "logger", "request", "response",
                  "subprotocol", "local_address", "remote_address", "latency", "state", "close_code", "close_reason"}
    assert not documented - names("## The object", 0)


def test_what_the_tables_call_the_same_is_there():
    for heading, holder in (("## The object", wsengine.ClientConnection), ("## Exceptions", wsengine)):
        for row in section(CONNECT, heading).splitlines():
            cells = row.split("|")
            if len(cells) > 3 and cells[2].strip().startswith("the same"):
                for name in re.findall(r"`([A-Za-z_]+)[`(]", cells[1]):
                    known = hasattr(holder, name) or name in (holder.__doc__ or "") or name in (
                        wsengine.Connection.__doc__ or "") or name in ("with", "TimeoutError", "recv", "connect")
                    assert known, name


@pytest.mark.parametrize("page", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "benchmarks/README.md"],
                         ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_shows_and_points_to_is_there(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
