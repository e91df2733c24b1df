"""Which signals the engine's threads take: those that run a user's code as any thread of Python's, so that processes started
there can be ended; and what is meant for the process still reaches the main thread, whatever the others do."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.waiting import until
from wsengine import Batcher, Processors, WebSocketProducer, connect
from wsengine.testing import DummyProducer, Feed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="masks of threads are read in /proc")


def blocked(thread):
    """The signals that a thread blocks; None of one that has not begun, or has ended."""
    try:
        status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    except OSError:
        return None
    mask = int(status.partition("SigBlk:")[2].split()[0], 16)
    return {number for number in range(1, 65) if mask >> number - 1 & 1}


def masks(prefix):
    """Of the threads whose names begin so, the rest of their names: of those that block all, of those that block nothing,
    and of the others."""
    threads = {one.name.removeprefix(prefix): blocked(one) for one in threading.enumerate() if one.name.startswith(prefix)}
    deaf = {name for name, mask in threads.items() if mask is not None and mask >= ALL}
    hearing = {name for name, mask in threads.items() if mask == set()}
    return deaf, hearing, set(threads) - deaf - hearing


#: All that can be blocked, and that no C library keeps for itself.
ALL = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}


def test_threads_that_run_a_users_code_block_nothing_and_the_others_all(launch, eventually):
    with Feed.trades(count=None, rate=1000) as feed:
        pipeline = launch(
            producers=[WebSocketProducer(feed.url, frame_handler=lambda payload, state: ("skip", state)), DummyProducer()],
            handle_batch=lambda messages, info: None, batchers={"default": Batcher()}, partition_by=lambda message: 0,
            processors=Processors(concurrency=2))
        pipeline.resize(3)
        eventually(lambda: masks(f"wsengine:{pipeline.name}:") == (
            {"producer_0:reader", "producer_0:timer"},
            {"producer_0:supervisor", "producer_1", "dispatcher", "partitioner", "processor_0", "processor_1", "processor_2",
             "batcher_default", "batch_processor_default_0", "monitor"}, set()))


def test_a_dialer_blocks_nothing(build, gate):
    seen = []

    def headers():
        seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return []

    build(producers=WebSocketProducer("ws://127.0.0.1:9", headers=headers)).start()
    until(lambda: seen)
    assert seen[0] == set()


def test_the_reader_and_the_timer_of_connect_block_all(eventually):
    with Feed.trades(count=None, rate=1000) as feed, connect(feed.url):
        eventually(lambda: masks("wsengine:connect:")[0] == {"reader", "timer"})


STARTING = """
import subprocess
from wsengine import Batcher

def start_and_end():
    with subprocess.Popen([sys.executable, "-c", "print(1, flush=True); import time; time.sleep(60)"],
                          stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.terminate()
        try:
            return process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            return "terminated in vain"

class P(Pipeline):
    def handle_message(self, message):
        say("handle_message", start_and_end())

    def handle_batch(self, messages, info):
        say("handle_batch", start_and_end())

def key(message):
    say("partition_by", start_and_end())
    return 0

"""


def test_processes_that_callbacks_start_can_be_terminated(child):
    script = child(STARTING + """
with P(Quiet(), partition_by=key, batchers={"default": Batcher(batch_timeout=0.01)}) as pipeline:
    pipeline.push_messages(Message(1))
""")
    for callback in ("partition_by", "handle_message", "handle_batch"):
        assert script.line() == f"{callback} {-signal.SIGTERM}"
    assert script.end(10)[0] == 0


BUSY = """
class Busy(Pipeline):
    def handle_messages(self, messages):
        until = time.monotonic() + 0.002
        while time.monotonic() < until:
            pass

def feed(pipeline):
    try:
        while True:
            pipeline.push_messages([Message(number) for number in range(100)])
    except Exception:
        pass

with Busy(Quiet(), processors=Processors(concurrency=8, max_demand=2), max_queue=1024, shutdown_timeout=20) as pipeline:
    threading.Thread(target=feed, args=(pipeline,)).start()
    for _ in range(20):
        try:
            say("sleeping")
            time.sleep(60)
        except KeyboardInterrupt:
            say("interrupted", time.monotonic())
say("over")
"""


def asleep(process):
    """Whether the main thread of a process sleeps: Python does not see a signal that comes just before its sleep begins."""
    where = Path(f"/proc/{process.pid}/wchan").read_text()
    if where in ("", "0"):                       # this system does not tell
        time.sleep(0.1)
        return True
    return "nanosleep" in where


def test_a_signal_reaches_the_main_thread_at_once_while_all_processors_are_busy(child):
    script = child(BUSY)
    took = []
    for _ in range(20):
        assert script.line() == "sleeping"
        until(lambda: asleep(script.process))
        sent = time.monotonic()
        script.signal(signal.SIGINT)
        word, at = script.line().split()
        assert word == "interrupted"
        took.append(float(at) - sent)
    assert script.line() == "over"
    assert max(took) < 3, took
    assert script.end(20)[0] == 0


def test_what_was_blocked_before_the_start_can_be_waited_for(child):
    script = child("""
        class P(Pipeline):
            def handle_message(self, message):
                say("handled")

        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        with P(Quiet(), processors=Processors(concurrency=4)) as pipeline:
            pipeline.push_messages(Message(1))
            say("got", int(signal.sigwait({signal.SIGTERM})))
        """)
    assert script.line() == "handled"
    script.signal(signal.SIGTERM)
    assert script.line() == f"got {int(signal.SIGTERM)}"
    assert script.end(10)[0] == 0
