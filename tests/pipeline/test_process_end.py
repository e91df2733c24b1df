"""A pipeline and the process it lives in: signals, the end of the interpreter, and forks. Each in a process of its own."""

from __future__ import annotations

import signal
import time

import pytest

RUNNING = """
class Slow(Pipeline):
    def handle_message(self, message):
        say("handling", message.data)
        time.sleep(message.data)
        say("returned", time.monotonic())

def feed(pipeline, seconds):
    while pipeline.state != "running":
        time.sleep(0.01)
    for one in seconds:
        pipeline.push_messages(Message(one))
    say("ready")

def run(seconds, **options):
    pipeline = Slow(Quiet(), processors=Processors(max_demand=1), **options)
    threading.Thread(target=feed, args=(pipeline, seconds), daemon=True).start()
    result = pipeline.run()
    say("result", result.drained, result.successful, result.left, time.monotonic())
    return result
"""

#: Python warns of forks where threads run.
FORKING = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)

class P(Pipeline):
    def handle_message(self, message):
        pass

"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_idle_pipeline_at_once(child, number):
    script = child(RUNNING + "run([])")
    assert script.line() == "ready"
    script.signal(number)
    sent = time.monotonic()
    words = script.line().split()
    assert words[:4] == ["result", "True", "0", "0"]
    code, _, errors = script.end(5)
    assert time.monotonic() - sent < 1.5
    assert (code, errors) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_handler_sleeps_ends_it_within_a_second_of_its_return(child, number):
    script = child(RUNNING + "run([0.6])")
    assert {script.line(), script.line()} == {"ready", "handling 0.6"}
    script.signal(number)
    word, returned = script.line().split()
    assert word == "returned"
    result = script.line().split()
    assert result[:4] == ["result", "True", "1", "0"]
    code, _, errors = script.end(5)
    assert time.monotonic() - float(returned) < 1
    assert (code, errors) == (0, "")


def test_one_signal_drains_what_waits(child):
    script = child(RUNNING + "run([0.1] * 5)")
    script.wait_for("ready")
    script.signal()
    code, out, _ = script.end(10)
    assert "result True 5 0" in out
    assert code == 0


def test_a_second_signal_ends_the_run_within_a_second(child):
    script = child(RUNNING + "run([3, 0])")
    assert {script.line(), script.line()} == {"ready", "handling 3"}
    script.signal()
    time.sleep(0.3)
    script.signal()
    sent = time.monotonic()
    result = script.line().split()
    assert result[:2] == ["result", "False"]
    assert float(result[4]) - sent < 1.1
    code, out, _ = script.end(10)
    assert code == 0
    assert "handling 0" not in out


def test_the_signal_handlers_of_the_program_are_put_back(child):
    script = child(RUNNING + """
mine = lambda *args: say("mine")
signal.signal(signal.SIGTERM, mine)
run([])
assert signal.getsignal(signal.SIGTERM) is mine
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
os.kill(os.getpid(), signal.SIGTERM)
""")
    assert script.line() == "ready"
    script.signal()
    assert script.line().startswith("result True")
    assert script.line() == "mine"
    assert script.end(5)[0] == 0


def test_keyboard_interrupt_passes_through_in_the_main_thread_and_does_not_drain(child):
    script = child(RUNNING + """
try:
    with Slow(Quiet(), processors=Processors(max_demand=1)) as pipeline:
        pipeline.push_messages(Message(0.5) for _ in range(20))
        say("ready")
        pipeline.join()
except KeyboardInterrupt:
    say("interrupted", pipeline.state, pipeline.stop().left)
""")
    script.wait_for("ready")
    script.signal()
    sent = time.monotonic()
    code, out, _ = script.end(10)
    assert "interrupted stopped" in out
    assert int(out.split("stopped")[1].split()[0]) >= 18
    assert code == 0
    assert time.monotonic() - sent < 5


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("pipeline = Slow(Quiet())", ""),
        ("pipeline = Slow(Quiet()).start()", ""),
        ("pipeline = Slow(Quiet(), processors=Processors(concurrency=16)).start(); time.sleep(0.2)", ""),
        ("pipeline = Slow(Quiet()).start(); pipeline.stop()", ""),
        ("pipeline = Slow(Quiet()).start(); pipeline.request_stop()", ""),
        ("pipeline = Slow(Quiet()).start(); pipeline.push_messages(Message(0.1) for _ in range(3))", "returned"),
        ("pipeline = Slow(Quiet()).start(); del pipeline", ""),
        ("a = Slow(Quiet(), name='a').start(); b = Slow(Quiet(), name='b').start()", ""),
    ],
    ids=["never started", "running", "parked processors", "stopped", "stopping", "with work", "unreferenced", "two"],
)
def test_the_interpreter_ends_in_every_state(child, body, expected):
    started = time.monotonic()
    code, out, errors = child(RUNNING + body).end(10)
    assert time.monotonic() - started < 5
    assert (code, errors) == (0, "")
    assert out.count("returned") == (3 if expected else 0)


def test_the_interpreter_ends_by_an_error_with_a_pipeline_running(child):
    code, _, errors = child(RUNNING + "pipeline = Slow(Quiet()).start()\nraise RuntimeError('program error')").end(10)
    assert code == 1
    assert "program error" in errors


def test_the_interpreter_ends_after_a_stuck_handler_returned(child):
    script = child(RUNNING + """
pipeline = Slow(Quiet(), shutdown_timeout=0.2).start()
pipeline.push_messages(Message(1.5))
""")
    code, out, errors = script.end(10)
    assert (code, errors) == (0, "")
    assert "returned" in out


def test_a_pipeline_of_before_a_fork_refuses_to_work_in_the_child_and_goes_on_in_the_parent(child):
    code, out, errors = child(FORKING + """
from wsengine import ForkedProcessError
pipeline = P(Quiet(), name="running").start()
other = P(Quiet(), name="new")
if (pid := os.fork()) == 0:
    for call in (pipeline.stop, pipeline.join, pipeline.request_stop, other.start, pipeline.run,
                 lambda: pipeline.push_messages(Message(1))):
        try:
            call()
        except ForkedProcessError as error:
            assert "create it after" in str(error)
        else:
            say("not refused", call)
    fresh = P(Quiet(), name="fresh").start()
    fresh.push_messages(Message(1))
    say("child", fresh.stop().successful)
    sys.exit(7)
_, status = os.waitpid(pid, 0)
pipeline.push_messages(Message(1))
say("parent", os.waitstatus_to_exitcode(status), pipeline.stop().successful)
""").end(15)
    assert errors == ""
    assert out.split() == ["child", "1", "parent", "7", "1"]
    assert code == 0


def test_a_child_forked_inside_a_with_statement_leaves_it_quietly(child):
    code, out, errors = child(FORKING + """
with P(Quiet()) as pipeline:
    pid = os.fork()
if pid == 0:
    sys.exit(7)
_, status = os.waitpid(pid, 0)
say("parent", os.waitstatus_to_exitcode(status), pipeline.stats().state)
""").end(15)
    assert errors == ""
    assert out.split() == ["parent", "7", "stopped"]
    assert code == 0


def test_a_child_may_run_a_pipeline_of_a_name_that_runs_in_the_parent(child):
    code, out, errors = child(FORKING + """
import wsengine
pipeline = P(Quiet()).start()
if (pid := os.fork()) == 0:
    say(wsengine.all_running())
    with P(Quiet()) as mine:
        mine.push_messages(Message(1))
    sys.exit(0)
_, status = os.waitpid(pid, 0)
pipeline.stop()
say(os.waitstatus_to_exitcode(status))
""").end(15)
    assert (out.split(), errors, code) == (["[]", "0"], "", 0)
