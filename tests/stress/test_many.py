"""A thousand connections of one producer: one reader and one timer, little memory and CPU each, and a bounded return.

The pipeline runs in a process of its own (this file, run as a program), so that resident memory, CPU and open files are
its own. The server is another process. With WSENGINE_LONG=1 the bound of memory is the design's, and TLS has as many.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

import wsengine
from wsengine import Backoff, Pipeline, WebSocketProducer, telemetry
from wsengine.testing import Feed, ScriptedServer, steps
from wsengine.testing.feed_server import allow_many_files
from wsengine.websocket.dialers import MOST

pytestmark = pytest.mark.stress

LONG = os.environ.get("WSENGINE_LONG") == "1"
MANY = 1000
EACH = 5  # messages of a generation
KIB = 1024
BOUND = (64 if LONG else 128) * KIB
KEEPALIVE = 2.0
IDLE = 3.0
DELAY = 2.0
#: Deadline of what takes a second or two on an idle machine.
PATIENCE = 120.0
ID = "many"


# --------------------------------------------------------------------------------------------- the pipeline's own process


class Tally(Pipeline):
    """Counts (index, epoch, seq) of what arrives."""

    def __init__(self, producers, **options):
        super().__init__(producers, **options)
        self.arrivals = Counter()
        self.total = 0

    def handle_messages(self, messages):
        self.arrivals.update((one.connection_index, one.epoch, one.seq) for one in messages)
        self.total += len(messages)


class Dials:
    """A url callable that notes how many dialers there are whenever it is asked."""

    def __init__(self, url):
        self.url = url
        self.most = 0
        self.lock = threading.Lock()

    def __call__(self, index):
        with self.lock:
            self.most = max(self.most, sum(":dialer_" in one.name for one in threading.enumerate()))
        return self.url


def client(url, count, cafile):
    """The program: tells what it has come to, a line of JSON each time that it is told to go on."""
    allow_many_files()
    process = psutil.Process()
    delays = []
    telemetry.attach("many", telemetry.connection_event(ID, "disconnected"),
                     lambda event, measurements, metadata, config: delays.append(measurements["delay"]))
    options = {}
    if cafile:
        import ssl

        options["ssl"] = ssl.create_default_context(cafile=cafile)
    dials = Dials(url)
    retry = Backoff(DELAY, factor=1, maximum=DELAY)
    warm_up(url, retry, options)
    feed = WebSocketProducer(dials, concurrency=count, keepalive=KEEPALIVE, retry=retry, telemetry_id=ID, **options)
    pipeline = Tally(feed)
    gc.collect()
    before = process.memory_info().rss
    with pipeline:
        until(lambda: pipeline.total == count * EACH)
        gc.collect()
        growth = process.memory_info().rss - before
        spent = sum(process.cpu_times()[:2])
        time.sleep(IDLE)
        spent = sum(process.cpu_times()[:2]) - spent
        tell(each=growth / count, cpu=spent, threads=names(), files=process.num_fds(), most_dialers=dials.most,
             once=exactly_once(pipeline, feed), states=Counter(one.state for one in feed.connections))
        until(lambda: len(delays) == count)
        tell(lost=len(delays), delays=delays)
        until(lambda: all(one.is_ready and one.opened == 2 for one in feed.connections)
              and sum(pipeline.arrivals[one.index, one.epoch, EACH - 1] for one in feed.connections) == count)
        gc.collect()
        tell(each=(process.memory_info().rss - before) / count, threads=names(), files=process.num_fds(),
             most_dialers=dials.most, once=exactly_once(pipeline, feed), lost=len(delays),
             states=Counter(one.state for one in feed.connections))
        begun = time.monotonic()
        result = pipeline.stop()
    tell(stop_seconds=time.monotonic() - begun, failed=result.failed, left=result.left, alive=result.threads_alive,
         threads=names())


def warm_up(url, retry, options):
    """What a first connection takes is not taken again by the others."""
    with Tally(WebSocketProducer(url, keepalive=None, retry=retry, **options)) as first:
        until(lambda: first.total == EACH)


def names():
    """The engine's threads, the dialers apart: those come and go."""
    return sorted(one.name.rpartition(":")[2] for one in threading.enumerate() if ":producer_" in one.name
                  and ":dialer_" not in one.name)


def exactly_once(pipeline, feed):
    """Whether each message of the generations that there were, and no other, arrived once."""
    opened = {(index, epoch) for index, epoch, _ in pipeline.arrivals}
    return (set(pipeline.arrivals.values()) == {1}
            and all(pipeline.arrivals[index, epoch, seq] for index, epoch in opened for seq in range(EACH))
            and len(pipeline.arrivals) == EACH * len(opened) == EACH * sum(one.opened for one in feed.connections))


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() >= deadline:
            raise TimeoutError("the condition did not come true in time")
        time.sleep(0.02)


def tell(**figures):
    print(json.dumps(figures), flush=True)
    sys.stdin.readline()


# ------------------------------------------------------------------------------------------------------------- the tests


class Client:
    """The program, seen from the test."""

    def __init__(self, *arguments):
        environment = {**os.environ, "PYTHONPATH": str(Path(wsengine.__file__).resolve().parents[1])}
        self.child = subprocess.Popen([sys.executable, __file__, *map(str, arguments)], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True)

    def hear(self):
        line = self.child.stdout.readline()
        assert line, f"the client ended with status {self.child.wait(10)}"
        return json.loads(line)

    def go_on(self):
        self.child.stdin.write("go\n")
        self.child.stdin.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(0 if sys.exc_info()[0] else 10)
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()


PAYLOADS = [(2, b"message %d" % number) for number in range(EACH)]
THREADS = ["reader", "supervisor", "timer"]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_a_thousand_connections_are_one_reader_and_one_timer_and_come_back_spread(no_leaks, secure, certificates):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4 * MANY:
        pytest.skip(f"the system allows {hard} open files, and this takes {4 * MANY}")
    count = MANY if LONG or not secure else MANY // 5
    tls = certificates.server() if secure else None
    with contextlib.ExitStack() as stack:
        feed = stack.enter_context(Feed.payloads(PAYLOADS, resume=False, tls=tls))
        one = stack.enter_context(Client(feed.url, count, certificates.ca_file if secure else ""))
        up = one.hear()
        feed.wait(lambda log: sum(len(each.pings) >= 2 for each in log.connections[1:]) == count, PATIENCE)
        one.go_on()
        port = feed.port
        os.kill(feed.pid, signal.SIGKILL)
        down = one.hear()
        again = stack.enter_context(Feed.payloads(PAYLOADS, resume=False, tls=tls, port=port))
        one.go_on()
        back = one.hear()
        log = again.log()
        one.go_on()
        stopped = one.hear()
        one.go_on()
    opened = sorted(each.opened_ns / 1e9 for each in log.connections)
    in_100_ms = max(sum(at <= other < at + 0.1 for other in opened) for at in opened)
    print(f"{count} connections{' over TLS' if secure else ''}: {up['each'] / KIB:.1f} KiB each, "
          f"{back['each'] / KIB:.1f} KiB after all came back; idle with a ping in {KEEPALIVE:.0f} s each: "
          f"{up['cpu'] / IDLE:.1%} of a core; at most {back['most_dialers']} dials at once; came back within "
          f"{opened[-1] - opened[0]:.2f} s, at most {in_100_ms} in 100 ms; stopped in {stopped['stop_seconds']:.2f} s")
    assert up["once"]
    assert up["states"] == {"ready": count}
    assert up["threads"] == back["threads"] == THREADS
    assert up["each"] <= BOUND
    assert back["each"] <= BOUND
    assert up["cpu"] <= IDLE / 2
    assert back["most_dialers"] <= MOST
    assert down["lost"] == back["lost"] == count
    quarters = statistics.quantiles(down["delays"], n=4)
    assert [round(each / DELAY * 4) for each in quarters] == [1, 2, 3], "full jitter spreads evenly from 0 to the delay"
    assert opened[-1] - opened[0] >= DELAY / 4
    assert back["once"]
    assert back["states"] == {"ready": count}
    assert len(log.connections) == count
    assert back["files"] <= up["files"] + MOST
    assert (stopped["failed"], stopped["left"], stopped["alive"], stopped["threads"]) == (0, 0, [], [])
    assert one.child.returncode == 0


def test_a_server_that_answers_nobody_sees_eight_dials_at_once(no_leaks):
    """The server's side of it: the attempts stand in a queue of their own, and go one after the other's time-out."""
    with ScriptedServer([[steps.stall()]]) as server:
        feed = WebSocketProducer(server.url, concurrency=100, open_timeout=0.3, retry=Backoff(0.01, jitter="none"))
        with Tally(feed):
            server.wait_connections(5 * MOST, 60)
            assert server.most_live <= MOST
        assert server.most_live == MOST


if __name__ == "__main__":
    client(sys.argv[1], int(sys.argv[2]), sys.argv[3])
