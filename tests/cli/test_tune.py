"""`wsengine tune`, run as a user runs it, on handlers of which it knows nothing but their names."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from tests.cli.test_command import ROOT
from tests.waiting import until
from wsengine.testing import Feed
from wsengine.tune.sampling import can_look

#: Enough for what the first settings show; the search by itself stands in tests/tune.
BRIEF = ("--most", "4", "--seconds", "0.4", "--warmup", "0.1", "--budget", "5")
LONGER = (*BRIEF, "--budget", "40")
HANDLERS = textwrap.dedent("""
    import ctypes, json, os, random, sys, threading, time
    import wsengine
    from wsengine import Batcher, Message, Pipeline, WebSocketProducer

    def computes(message):
        for _ in range(500):
            pass

    def waits(message):
        time.sleep(0.002)

    def fails(message):
        print("a line for standard output")
        if random.random() < 0.1:
            raise ValueError("one in ten")
        time.sleep(0.001)

    def counts_chunks(messages):
        assert isinstance(messages, list)

    def hangs(message):
        time.sleep(1000)

    def hangs_later(message):
        if message.seq > 10:
            time.sleep(1000)

    def always_fails(message):
        raise KeyError("no such field")

    def crowds(message):
        global inside
        inside += 1
        try:
            if inside > 2:
                raise OSError("too many at a time")
            time.sleep(0.005)
        finally:
            inside -= 1

    def forks(message):
        import subprocess
        subprocess.Popen(["sleep", "987"])
        time.sleep(0.5)

    def threads(message):
        one = threading.Thread(target=time.sleep, args=(0.001,))
        one.start()
        one.join()

    inside = 0

    def fails_slowly(message):
        time.sleep(0.02)
        raise KeyError("no such field")

    def dies(message):
        import os, signal
        os.kill(os.getpid(), signal.SIGSEGV)

    def connects(message):
        wsengine.connect(REAL)

    def holds_the_gil(message):
        ctypes.pythonapi.sleep(1000) if message.seq > 100 else None

    def ends(message):
        import os
        sys.stderr.write("the handler ends the process\\n")
        sys.stderr.flush()
        os._exit(3)

    class Computes(Pipeline):
        def handle_message(self, message): computes(message)

    class Transformed(Pipeline):
        def __init__(self):
            super().__init__(WebSocketProducer(
                "wss://127.0.0.1:1/real", headers={"authorization": "secret"}, server_hostname="real", max_size=4096,
                transformer=lambda data, metadata: Message(("transformed", data))))
        def handle_message(self, message):
            assert message.data[0] == "transformed"

    class OwnFeed(Pipeline):
        def handle_message(self, message):
            assert json.loads(message.data)["n"] < 50

    class Batched(Pipeline):
        def __init__(self, producer):
            super().__init__(producer, batchers={"default": Batcher()})
        def handle_message(self, message): pass
        def handle_batch(self, messages, batch_info): time.sleep(0.02)
""")


@pytest.fixture
def tune(tmp_path):
    """Run the command in a folder with the handlers."""
    (tmp_path / "handlers.py").write_text(HANDLERS)

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run([sys.executable, "-m", "wsengine", "tune", *arguments], cwd=tmp_path, env=environment,
                              capture_output=True, text=True, timeout=120, check=False)

    return run


def recommended(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


looked = pytest.mark.skipif(not can_look(os.getpid()), reason="this system does not show what threads wait for")


@looked
def test_a_handler_that_waits_wants_threads(tune):
    found = recommended(tune("--handler", "handlers:waits", *LONGER, "--json"))
    assert found["reason"]["bound"] == "I/O-bound", found["reason"]
    assert found["recommended"]["concurrency"] == 4
    for point in found["points"]:
        assert point["shares"]["processor"]["blocked"] > 0.5, point
        assert 100 * point["setting"]["concurrency"] < point["rate"] < 700 * point["setting"]["concurrency"]
    assert found["gil"] is getattr(sys, "_is_gil_enabled", lambda: True)()


@looked
@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="without a GIL, nobody waits for it")
def test_a_handler_that_computes_is_bound_by_the_gil(tune):
    done = tune("--handler", "handlers:computes", *LONGER, "--most", "2")
    assert done.returncode == 0, done.stderr
    assert "It is GIL-bound: processors run for" in done.stdout
    assert "more processors add nothing" in done.stdout
    assert "Recommended: processors=Processors(concurrency=" in done.stdout
    assert "concurrency=2, min_demand=0, max_demand=100, max_queue=65536: " in done.stderr  # how far it has got


@looked
def test_a_batcher_that_is_slow_is_named(tune):
    found = recommended(tune("handlers:Batched", *BRIEF, "--json"))
    assert found["reason"]["bound"] == "batcher-bound", found["reason"]
    assert found["recommended"]["concurrency"] == 1


@looked
def test_a_feed_that_is_slow_is_named(tune):
    found = recommended(tune("--handler", "handlers:counts_chunks", "--chunk", "--rate", "1000", *BRIEF, "--json"))
    assert found["reason"]["bound"] == "feed-bound", found["reason"]
    assert found["recommended"] == {"concurrency": 1, "min_demand": 0, "max_demand": 100, "max_queue": 65536}


def test_a_handler_that_raises_is_survived_and_told(tune):
    done = tune("--handler", "handlers:fails", *BRIEF)
    assert done.returncode == 0, done.stderr
    share = float(done.stdout.partition("WARNING  ")[2].partition("%")[0])
    assert 5 < share < 16
    assert "a line for standard output" not in done.stdout


def test_what_else_would_change_it_is_measured(tune):
    """A chunk handler, and latency at a pace; what a Python without the GIL brings is at least told of."""
    found = recommended(tune("handlers:Computes", *BRIEF, "--budget", "90", "--most", "1", "--json"))
    changes = {change["name"]: change for change in found["changes"]}
    assert len(changes["handle_messages"]["ratios"]) == 2
    assert changes["handle_messages"]["ratio"] > 0.3
    if found["gil"]:
        assert changes["free-threaded"]["ratios"] or changes["free-threaded"]["problem"]
    assert found["paced"]["problem"] == ""
    (point,) = found["paced"]["points"]
    assert 0 < point["latency_p50"] < found["points"][0]["latency_p50"]
    assert point["rate"] < 0.7 * max(one["rate"] for one in found["points"])


def test_what_becomes_of_messages_is_as_in_its_own_pipeline(tune, tmp_path):
    """The options of its own producer that act on messages are taken over, those of its endpoint are not."""
    found = recommended(tune("handlers:Transformed", *BRIEF, "--most", "1", "--json"))
    assert found["points"][0]["failed"] == 0
    assert found["points"][0]["rate"] > 0


def test_a_recording_may_be_sent_at_a_rate(tune, tmp_path):
    with gzip.open(tmp_path / "feed.jsonl.gz", "wt") as file:
        for number in range(50):
            file.write(json.dumps([number / 10, json.dumps({"n": number})]) + "\n")
    found = recommended(tune("handlers:OwnFeed", "--recording", "feed.jsonl.gz", "--rate", "2000", *BRIEF, "--json"))
    assert found["reason"]["bound"] == "feed-bound"
    assert found["points"][0]["failed"] == 0
    assert found["paced"] is None


def test_another_server_is_used_only_where_it_is_named(tune):
    with Feed.trades(rate=5000) as feed:
        found = recommended(tune("--handler", "handlers:computes", *BRIEF, "--url", feed.url, "--json"))
        # One for each point, and those that changes are measured by.
        assert len(feed.log().connections) >= len(found["points"]) + 2 * sum(len(one["ratios"]) for one in found["changes"])
    assert found["points"][0]["server_idle"] is None


@looked
def test_threads_that_come_and_go_spoil_nothing(tune):
    found = recommended(tune("--handler", "handlers:threads", *BRIEF, "--most", "1", "--json"))
    assert all("processor" in point["shares"] for point in found["points"])
    assert found["reason"]["bound"] != "feed-bound"


def test_failing_fast_is_not_taken_for_being_fast(tune):
    found = recommended(tune("--handler", "handlers:crowds", *LONGER, "--json"))
    assert found["recommended"]["concurrency"] <= 2, found["settings"]


def test_what_a_handler_has_started_ends_with_the_measuring(tune):
    assert tune("--handler", "handlers:forks", *BRIEF, "--most", "1").returncode in (0, 1)
    assert not [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", "987"]]


def test_a_module_that_starts_its_pipeline_reaches_no_endpoint(tune, tmp_path):
    with Feed.trades(rate=100) as real:
        (tmp_path / "careless.py").write_text(
            f"import handlers\nfrom wsengine import WebSocketProducer\n"
            f"pipeline = handlers.Batched(WebSocketProducer({real.url!r}))\n"
            f"pipeline.start()\n")
        done = tune("careless:pipeline", *BRIEF)
        assert done.returncode == 2
        assert "start it under if __name__ == '__main__'" in done.stderr
        assert real.log().connections == ()


def test_a_pipeline_of_its_own_endpoint_is_tuned_without_it(tune, tmp_path):
    with Feed.trades(rate=100) as real:
        (tmp_path / "careful.py").write_text(
            f"import handlers\nfrom wsengine import WebSocketProducer\n"
            f"pipeline = handlers.Batched(WebSocketProducer({real.url!r}))\n")
        assert tune("careful:pipeline", *BRIEF, "--most", "1").returncode == 0
        assert real.log().connections == ()


@pytest.mark.parametrize("when", ["as it is imported", "in a thread", "in its handler"])
def test_whatever_its_module_starts_reaches_no_endpoint(tune, tmp_path, when):
    start = "handlers.Batched(WebSocketProducer(REAL)).start()"
    program = {
        "as it is imported": "try: wsengine.connect(REAL)\nexcept wsengine.EngineStopped: pass",
        "in a thread": f"threading.Timer(0.2, lambda: {start}).start()",
        "in its handler": "",
    }[when]
    with Feed.trades(rate=100) as real:
        (tmp_path / "reaching.py").write_text(
            f"import threading\nimport handlers, wsengine\nfrom handlers import *\nfrom wsengine import WebSocketProducer\n"
            f"REAL = handlers.REAL = {real.url!r}\n{program}\n")
        name = "reaching:connects" if when == "in its handler" else "reaching:waits"
        done = tune("--handler", name, *BRIEF, "--most", "1")
        assert real.log().connections == ()
    if when == "in its handler":
        assert "EngineStopped: no connection may be made while its module is tuned" in done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_an_endpoint_that_refuses_is_told_at_once(tune):
    done = tune("--handler", "handlers:waits", *BRIEF, "--url", "ws://127.0.0.1:9/?key=secret")
    assert done.returncode == 1
    assert "nothing could be measured: the connection failed: " in done.stderr.splitlines()[-1]
    assert "refused" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize(("handler", "number"), [
    *((one, number) for one in ("forks", "holds_the_gil") for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)),
    ("holds_the_gil", signal.SIGKILL),           # then nobody is left to end what a handler has started
])
def test_however_it_is_ended_no_process_is_left(tmp_path, handler, number):
    (tmp_path / "handlers.py").write_text(HANDLERS)
    command = [sys.executable, "-m", "wsengine", "tune", "--seconds", "60", "--budget", "300"]
    process = subprocess.Popen([*command, "--handler", f"handlers:{handler}"], cwd=tmp_path, stdout=subprocess.PIPE,
                               env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)
    with process:
        own = psutil.Process(process.pid)
        until(lambda: any(map(runs_a_pipeline, own.children())))
        children = own.children(recursive=True)
        process.send_signal(number)
        process.wait(30)
        alive = psutil.wait_procs(children, timeout=10)[1]
    assert alive == []


def runs_a_pipeline(process):
    """Whether it is one that is measured; those that only look are gone again soon."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return "wsengine.tune.client" in process.cmdline() and len(process.threads()) > 5
    return False


def test_a_folder_for_the_report_that_nothing_came_of_stays_empty(tune, tmp_path):
    assert tune("--handler", "handlers:always_fails", *BRIEF, "--out", "report").returncode == 1
    assert list((tmp_path / "report").iterdir()) == []


def test_a_handler_that_fails_slowly_is_not_recommended(tune):
    done = tune("--handler", "handlers:fails_slowly", *BRIEF)
    assert done.returncode == 1
    assert "100% of the messages fail: KeyError: 'no such field'" in done.stderr


def test_a_budget_is_kept_and_said_to_have_been_used_up(tune):
    begun = time.monotonic()
    found = recommended(tune("--handler", "handlers:waits", *BRIEF, "--budget", "4", "--json"))
    assert time.monotonic() - begun < 4 + 2              # and what the interpreter takes to start and end
    assert found["cut"]
    assert 1 <= len(found["points"]) < 8


@pytest.mark.parametrize(("handler", "said"), [
    ("hangs", "no message was handled within 1 s; give more by --patience if one takes longer"),
    ("ends", "the handler ends the process (its process ended with status 3)"),
    ("dies", "it said nothing (its process ended by SIGSEGV)"),
    ("hangs_later", "no call of the handler has ended in the 0.4 s measured: it hangs, or takes longer; give more by "
     "--seconds if it does"),
    ("always_fails", "100% of the messages fail: KeyError: 'no such field'"),
])
def test_what_cannot_be_measured_is_told_in_one_line(tune, handler, said):
    done = tune("--handler", f"handlers:{handler}", *BRIEF, "--budget", "12", "--patience", "1")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == f"wsengine tune: nothing could be measured: {said}"


@pytest.mark.parametrize(("arguments", "said"), [
    ((), "wsengine tune: give a pipeline as MODULE:PIPELINE, or a function by --handler"),
    (("--handler", "handlers:waits", "--budget", "1"), "--budget 1: give at least 3.3, for one measurement"),
    (("handlers:Batched", "--handler", "handlers:waits"), "and not both"),
    (("handlers:Missing",), "handlers:Missing: make it importable"),
    (("--handler", "handlers"), "--handler handlers: give it as module:name"),
    (("handlers:Batched", "--chunk"), "--chunk: leave it out"),
    (("--handler", "handlers:waits", "--most", "0"), "--most 0: give a whole number from 1 to 1024"),
    (("--handler", "handlers:waits", "--size", "5"), "--size 5: give a whole number from 96"),
    (("--handler", "handlers:waits", "--url", "ftp://x"), "ftp"),
    (("--handler", "handlers:waits", "--url", "ws://127.0.0.1:1", "--rate", "5"), "--rate 5: leave it out"),
    (("--handler", "handlers:waits", "--recording", "/nowhere.gz"), "/nowhere.gz"),
    (("--handler", "handlers:waits", "--url", "ws://127.0.0.1:1", "--size", "500"), "--size 500: leave it out"),
    (("--handler", "handlers:waits", "--url", "ws://127.0.0.1:1", "--seed", "5"), "--seed 5: leave it out"),
    (("--handler", "handlers:waits", "--free-threaded", "nowhere"), "--free-threaded nowhere: name one by"),
])
def test_what_is_wrong_is_told_in_one_line(tune, arguments, said):
    done = tune(*arguments)
    assert done.returncode == 2, done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert said in done.stderr
