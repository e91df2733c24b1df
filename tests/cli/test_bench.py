"""`wsengine bench`, run as a user runs it: the table, the JSON, and one clear line for what is wrong."""

from __future__ import annotations

import json
import socket

import pytest

from tests.cli.test_command import in_a_terminal, run
from wsengine.cli.main import main

BRIEF = ("--rounds", "1", "--seconds", "0.3", "--warmup", "0.1")


def test_the_json_has_each_round_of_each_case():
    done = run("bench", *BRIEF, "--rounds", "2", "--concurrency", "1,2", "--handler", "chunk", "--cost", "json", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["entries"]) == ["concurrency=1", "concurrency=2"]
    assert found["options"]["seed"] == 1
    for number, one in enumerate(found["entries"].values(), 1):
        assert len(one["rounds"]) == 2
        for figures in one["rounds"]:
            assert figures["messages"] > 1000
            assert figures["bytes"] > 0
            assert figures["dropped"] == figures["failed"] == 0
            assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["p999_us"]
            assert {"reader", "processor"} <= set(figures["cpu_seconds_per_million_by_role"])
            assert figures["settings"]["concurrency"] == number
            assert figures["settings"]["cost"] == "json"
    assert "4 runs, about" in done.stderr
    assert "run 4 of 4: concurrency=1" in done.stderr  # the second round goes the other way


def test_a_rate_is_kept_and_the_table_is_all_that_is_printed():
    done = run("bench", *BRIEF, "--rate", "5000")
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("wsengine "))
    assert "concurrency=1" in done.stdout.splitlines()[0]
    assert 1000 < int(row.split()[1].replace(",", "")) < 20_000
    assert "run 1 of 1" not in done.stdout


@pytest.mark.parametrize("tls", ["A", "B"])
def test_over_tls_and_compressed(tls):
    pytest.importorskip("trustme", reason="trustme issues the feed's certificate")
    done = run("bench", *BRIEF, "--tls", tls, "--deflate", "yes,no", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["entries"]
    assert list(found) == ["deflate=yes", "deflate=no"]
    assert [one["rounds"][0]["settings"]["stamped"] for one in found.values()] == ["no", "chunk"]
    assert all(one["rounds"][0]["messages"] > 100 for one in found.values())
    assert all(one["rounds"][0]["settings"]["tls_path"] == tls for one in found.values())


@pytest.mark.recording
def test_a_recording(recordings):
    done = run("bench", *BRIEF, "--recording", str(recordings / "coinbase.jsonl.gz"), "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["entries"]["wsengine"]["rounds"][0]
    assert figures["bytes"] / figures["messages"] > 100
    assert figures["settings"]["stamped"] == "no"


@pytest.mark.parametrize("handler", ["message", "chunk"])
def test_a_slow_handler_is_counted_message_by_message(handler):
    """A chunk of a hundred would take a second, and be counted at its end."""
    done = run("bench", *BRIEF, "--cost", "sleep:10", "--handler", handler, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["entries"]["wsengine"]["rounds"][0]
    assert 5 <= figures["messages"] <= 40
    assert 30 < figures["messages_per_second"] < 120


def test_at_a_rate_each_message_has_a_latency():
    done = run("bench", *BRIEF, "--rate", "2000", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["entries"]["wsengine"]["rounds"][0]
    assert figures["settings"]["stamped"] == "message"
    assert figures["p50_us"] <= figures["p999_us"]


def test_a_server_somewhere_else():
    from wsengine.testing import Feed

    with Feed.trades(rate=5000) as feed:
        done = run("bench", *BRIEF, "--url", feed.url, "--json")
        assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["entries"]["wsengine"]["rounds"][0]
    assert figures["server_idle_share"] is None
    assert figures["messages"] > 500


def test_a_terminal_sees_how_far_it_has_got():
    status, shown = in_a_terminal("bench", *BRIEF)
    assert status == 0, shown
    assert "0/1" in shown


@pytest.mark.parametrize(("arguments", "said"), [
    (("--size", "5"), "--size 5: give a whole number from 96 to 1048576"),
    (("--size", "128,x"), "'x' is not a whole number"),
    (("--concurrency", "0"), "--concurrency 0: give a whole number from 1"),
    (("--max-demand", "10", "--min-demand", "10"), "--min-demand 10: give a number below --max-demand 10"),
    (("--handler", "batch"), "--handler batch: give one of 'message', 'chunk'"),
    (("--cost", "spin"), "--cost spin: give none, json, orjson, spin:MICROSECONDS or sleep:MILLISECONDS"),
    (("--tls", "C"), "--tls C: give one of 'none', 'A', 'B'"),
    (("--deflate", "perhaps"), "neither yes nor no"),
    (("--rounds", "0"), "--rounds 0: give a whole number above 0"),
    (("--rounds", "1000"), "for at most 500 runs"),
    (("--recording", "/nowhere/feed.gz"), "/nowhere/feed.gz"),
    (("--url", "ftp://x"), "ftp"), (("--url", "ws://"), "ws://"),
    (("--url", "ws://127.0.0.1:1", "--rate", "5"), "--rate 5.0: leave it out"),
    (("--compare", "asyncio"), "--compare asyncio: give some of picows, websockets, websocket-client, aiohttp"),
    (("--compare", "--cost", "json"), "--cost json: leave it out; peers are measured over plain connections"),
])
def test_what_is_wrong_is_told_in_one_line(arguments, said):
    done = run("bench", *BRIEF, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("wsengine bench: ")
    assert said in done.stderr


def test_a_port_that_is_taken_is_told_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("bench", *BRIEF, "--port", str(port))
    assert done.returncode == 2, done.stderr
    assert f"--port {port}: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_peer_that_is_not_installed_is_left_out_and_named(monkeypatch, capsys):
    monkeypatch.setattr("wsengine.testing.peers.catalogue.find_spec", lambda name: None)
    assert main(["bench", *BRIEF, "--compare"]) == 0
    out, told = capsys.readouterr()
    for name in ("picows", "websockets", "websocket-client", "aiohttp"):
        assert f"wsengine bench: {name} is left out, not installed: {name}" in told
    assert any(line.startswith("wsengine ") for line in out.splitlines())


def test_without_psutil_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("wsengine.cli.bench.find_spec", lambda name: None)
    assert main(["bench", *BRIEF]) == 1
    assert "pip install 'wsengine[bench]'" in capsys.readouterr().err
