"""The comparisons of memory and of many connections: who takes turns, what is said of them, and that each client's driver
measures. Clients that are not installed are skipped visibly."""

from __future__ import annotations

import pytest

from benchmarks.compare import many, memory, turns
from benchmarks.compare.turns import Client
from benchmarks.drivers import blocked_peer, many_peer
from benchmarks.runs import drive_feed
from wsengine.bench.runs import DriverFailed
from wsengine.testing import Feed
from wsengine.testing.peers import catalogue
from wsengine.testing.peers.catalogue import PEERS, Peer, missing

OURS = {"mine": Client("mine"), "theirs": Client("theirs", peer="picows")}


def require(client):
    absent = missing(PEERS[client.peer]) if client.peer else []
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}; pip install 'wsengine[bench]'")


def test_turns_go_the_other_way_every_other_round_and_who_fails_has_no_more():
    told = []

    def run(name):
        told.append(name)
        if told.count("moody") == 2 and name == "moody":
            raise DriverFailed("it has run dry")
        return {"figure": len(told)}

    rounds, failed = turns.take_turns(["steady", "moody"], 4, run)
    assert told == ["steady", "moody", "moody", "steady", "steady", "steady"]
    assert [len(rounds[name]) for name in ("steady", "moody")] == [4, 1]
    assert failed == {"moody": "round 2: it has run dry"}


def test_who_is_not_installed_is_left_out_with_a_line(monkeypatch, capsys):
    monkeypatch.setitem(catalogue.PEERS, "picows", Peer("picows_client", {"some-thing": "nonesuch_module"}))
    parser = turns.parser("benchmarks.compare.none", "", OURS)
    assert list(turns.chosen(parser, "theirs,mine", OURS)) == ["mine"]
    assert capsys.readouterr().err == "theirs is left out: not installed: some-thing (pip install 'wsengine[bench]')\n"


@pytest.mark.parametrize(("main", "wrong", "said"), [
    (memory.main, ["--clients", "nobody"], "there is no 'nobody'; give some of wsengine, "),
    (memory.main, ["--sizes", "12,x"], "x: give a whole number above 0"),
    (many.main, ["--rounds", "-1"], "-1: give a whole number above 0"),
    (many.main, ["--connections", "1000000"], "the limit of open files"),
])
def test_wrong_options_are_one_line(main, wrong, said, capsys):
    with pytest.raises(SystemExit):
        main(wrong)
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_what_is_told_of_memory():
    runs = [{"growth_bytes": n << 20, "held_messages": 5000 + n, "ended_after": 0.5 if n == 3 else None} for n in (1, 2, 3)]
    assert memory.line(runs) == ("2.0 (1.0 … 3.0) MiB, 5,002 (5,001 … 5,003) messages held; ended at the ceiling in 1 of 3 "
                                 "rounds, after 0.50 (0.50 … 0.50) s")
    assert memory.line([{"growth_bytes": 1 << 20, "held_messages": None, "ended_after": None}]) == "1.0 (1.0 … 1.0) MiB"


def test_what_is_told_of_many():
    runs = [{"bytes_each": 1024 * n, "connect_seconds": n / 10, "idle_cpu_share": n / 100, "threads": n} for n in (1, 2, 3)]
    assert many.line(runs) == ("2.0 (1.0 … 3.0) KiB each, connected in 0.20 (0.10 … 0.30) s, idle at 2.00 (1.00 … 3.00) % "
                               "of a core, 2 (1 … 3) threads")


def test_each_driver_knows_its_clients():
    for clients, driver, known in ((memory.CLIENTS, "blocked_peer", blocked_peer.CLIENTS),
                                   (many.CLIENTS, "many_peer", many_peer.CLIENTS)):
        assert {one.arguments[0] for one in clients.values() if one.driver == driver} == set(known)


@pytest.mark.parametrize("name", memory.CLIENTS)
def test_a_blocked_client_is_measured(name):
    client = memory.CLIENTS[name]
    require(client)
    found = drive_feed(Feed.binary(128), client.driver, *client.arguments, seconds=0.3)
    assert found["growth_bytes"] > 0
    assert found["settings"]


def test_a_client_whose_queue_grows_is_ended_at_the_ceiling():
    require(memory.CLIENTS["picows-queue"])
    found = drive_feed(Feed.binary(1 << 20), "blocked_peer", "picows-queue", "--ceiling", 64 << 20, seconds=60)
    assert found["growth_bytes"] >= 64 << 20
    assert found["held_messages"] > 10
    assert 0 < found["ended_after"] < 60


@pytest.mark.parametrize("name", many.CLIENTS)
def test_many_connections_are_measured(name):
    client = many.CLIENTS[name]
    require(client)
    found = drive_feed(Feed.payloads([(2, b"hello")], resume=False), client.driver, *client.arguments, "--connections", 5,
                       seconds=0.2)
    assert found["threads"] >= 1
    assert found["connect_seconds"] > 0
    assert 0 <= found["idle_cpu_share"] < 10


@pytest.mark.parametrize(("main", "arguments", "said"), [
    (memory.main, ["--sizes", "128", "--max-queue-bytes", "1048576"], "MiB"),
    (many.main, ["--connections", "3"], "KiB each"),
])
def test_a_whole_comparison_is_run_and_told(main, arguments, said, capsys):
    assert main([*arguments, "--clients", "wsengine", "--rounds", "1", "--seconds", "0.3"]) == 0
    assert said in capsys.readouterr().out
