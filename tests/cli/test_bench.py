"""`wsengine bench`, run as a user runs it: the table, the JSON, and one clear line for what is wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess

import psutil
import pytest

from tests.cli.test_command import COMMAND, ENVIRONMENT, in_a_terminal, run
from wsengine.cli.main import main
from wsengine.testing.peers.catalogue import PEERS, Peer

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
            assert figures["bytes"] == 128 * figures["messages"]  # whatever came, and waits, meanwhile
            assert figures["bytes_per_second"] == pytest.approx(128 * figures["messages_per_second"])
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
    assert "size" not in figures["settings"]
    assert not {"size", "rate", "seed"} & set(json.loads(done.stdout)["options"])


@pytest.mark.parametrize("handler", ["message", "chunk"])
def test_a_slow_handler_is_counted_message_by_message(handler):
    """A chunk of a hundred would take a second, and be counted at its end."""
    done = run("bench", *BRIEF, "--cost", "sleep:10", "--handler", handler, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["entries"]["wsengine"]["rounds"][0]
    assert 5 <= figures["messages"] <= 40
    assert 30 < figures["messages_per_second"] < 120
    assert figures["settings"]["stamped"] == "message"
    assert figures["p50_us"] > 5000  # of each message, which waits for those before it in its chunk, too


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
    (("--url", "ws://127.0.0.1:1", "--rate", "5"), "--rate 5: leave it out beside --url; what a server somewhere else"),
    (("--url", "ws://127.0.0.1:1", "--size", "128"), "--size 128: leave it out beside --url"),  # the default, but given
    (("--url", "ws://127.0.0.1:1", "--seed", "1"), "--seed 1: leave it out beside --url"),
    (("--url", "ws://127.0.0.1:1", "--port", "0"), "--port 0: leave it out beside --url"),
    (("--url", "ws://127.0.0.1:1", "--tls", "A,B"), "--tls A,B: leave it out beside --url"),
    (("--url", "ws://127.0.0.1:1", "--deflate", "yes,no"), "--deflate yes,no: leave it out beside --url"),
    (("--url", "ws://127.0.0.1:1/?key=secret", "--compare"), "--url ws://127.0.0.1:1/?***: leave it out beside --compare"),
    (("--port", "65536"), "--port 65536: give a whole number from 0 to 65535"),
    (("--seed", "-1"), "--seed -1: give a whole number of at least 0"),
    (("--seconds", "0"), "--seconds: '0' does not do; give seconds above 0"),
    (("--compare", "asyncio"), "--compare asyncio: give some of picows, websockets, websocket-client, aiohttp"),
    (("--compare", "--cost", "json"), "--cost json: leave it out beside --compare; peers are measured over plain "),
    (("--compare", "--deflate", "yes"), "--deflate yes: leave it out beside --compare"),
])
def test_what_is_wrong_is_told_in_one_line(arguments, said):
    done = run("bench", *BRIEF, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("wsengine bench: ")
    assert said in done.stderr


@pytest.mark.recording
@pytest.mark.parametrize(("option", "value"), [("seed", "1"), ("size", "128"), ("rate", "0")])
def test_a_recording_is_sent_as_it_is(recordings, capsys, option, value):
    assert main(["bench", *BRIEF, "--recording", str(recordings / "bitfinex.jsonl.gz"), f"--{option}", value]) == 2
    said = f"--{option} {value}: leave it out beside --recording; its messages are sent as they are"
    assert said in capsys.readouterr().err


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


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_peer_that_fails_is_left_out_and_the_rest_is_measured(form, tmp_path, monkeypatch, capsys):
    tmp_path.joinpath("broken_client.py").write_text("raise OSError('out of luck')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setitem(PEERS, "broken", Peer("broken_client", {}))
    assert main(["bench", *BRIEF, "--rate", "1000", "--compare", "broken", *form]) == 0
    out, told = capsys.readouterr()
    reason = "broken_client: status 1: OSError: out of luck"
    assert told.splitlines()[-1] == f"wsengine bench: broken failed in round 1 of 1, and is left out from there on: {reason}"
    if form:
        found = json.loads(out)["entries"]
        assert found["broken"]["failure"] == {"round": 1, "reason": reason}
        assert found["wsengine"]["rounds"][0]["messages"] > 0
    else:
        assert f"FAILED  broken in round 1: {reason}" in out.splitlines()


def test_with_nothing_left_the_reason_is_all_that_is_told():
    done = run("bench", *BRIEF, "--rounds", "3", "--url", "ws://127.0.0.1:9/?key=secret")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "wsengine failed in round 1 of 3, and nothing is left to measure: " in done.stderr.splitlines()[-1]
    assert "refused" in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 3
    assert "secret" not in done.stderr


def test_an_output_in_ascii_and_no_standard_error():
    done = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, "bench", *BRIEF, "--rate", "1000"], text=True,
                          timeout=60, env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}, stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert "p50 ?s" in done.stdout
    assert "run 1 of 1" not in done.stdout


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_what_it_has_started(number, status):
    process = subprocess.Popen([*COMMAND, "bench", "--rate", "100", "--seconds", "600"], env=ENVIRONMENT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        while "run 1 of" not in process.stderr.readline():
            assert process.poll() is None
        started = psutil.Process(process.pid)
        while len(children := started.children()) < 2:  # the feed and the client
            assert process.poll() is None
        process.send_signal(number)
        assert process.wait(30) == status
        assert process.stdout.read() == ""
    assert psutil.wait_procs(children, timeout=10)[1] == []
