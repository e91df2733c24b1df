"""The reader's loop in the hands of the one processor: when it is lent, and that nobody outside notices who leads.

How often a processor has led is read from the receiver; everything else is seen from outside, at servers in processes of
their own. How the lead changes hands without loss is the matter of tests/model and tests/stress.
"""

from __future__ import annotations

import ctypes
import gzip
import json
import os
import random
import signal
import threading
import time
from contextlib import contextmanager

import psutil
import pytest

from wsengine import Backoff, Message, Processors, Producer, WebSocketProducer, telemetry
from wsengine.testing import Collector, Feed, ScriptedServer, build_server_frame, capture, steps
from wsengine.testing.stamp import read_sequence

pytestmark = pytest.mark.usefixtures("no_leaks")

ID = "led"
TIMEOUT, PING = (telemetry.connection_event(ID, name) for name in ("timeout", "ping"))

#: Messages a second at which an idle processor is lent the loop within some hundredths of a second.
CALM = 500
#: Seconds in which a wake has come; a processor that leads looks up by itself once a second only.
PROMPT = 0.5
#: Seconds that a handler blocks: the reader stands by for thousandths.
BLOCKED = 0.6


def producer(url, **options):
    return WebSocketProducer(url, **{
        "telemetry_id": ID, "retry": Backoff(0.01, factor=1, jitter="none"), "keepalive": None, **options})


def sequences(messages):
    return [read_sequence(one.data) for one in messages]


class Noting(Collector):
    """Notes with each message how often a processor had led when it was handled; `before` is called with a chunk first."""

    def __init__(self, producers, *, before=None, **options):
        super().__init__(producers, **options)
        self.before = before
        self.notes = []
        self.noted = 0

    def handle_messages(self, messages):
        self.noted = self.lent
        if self.before is not None:
            self.before(messages)
        self.notes += [self.noted] * len(messages)
        super().handle_messages(messages)

    @property
    def lent(self):
        return sum(one._receiver.lent for one in self._wsengine_producers if isinstance(one, WebSocketProducer))

    @property
    def leads(self):
        """Whether the processor has taken the lead since it last handled something; it has it still, if all is quiet."""
        return self.lent > self.noted

    @property
    def processor_thread(self):
        return self._wsengine_topology.seats[0].thread


@contextmanager
def quiet_while_it_leads(feed, pipeline):
    """Stop the server's process at a moment at which the processor leads, so that it goes on leading; then let it go on."""
    deadline = time.monotonic() + 10
    try:
        while True:
            os.kill(feed.pid, signal.SIGSTOP)
            time.sleep(0.03)                     # what was under way is handled
            if pipeline.leads:
                break
            os.kill(feed.pid, signal.SIGCONT)
            assert time.monotonic() < deadline, "the processor never leads"
            time.sleep(0.05)
        yield
    finally:
        os.kill(feed.pid, signal.SIGCONT)


def led_in_one_of_three(run):
    """Call `run`, which asserts what always holds and returns whether the processor led wherever the feed was calm: three
    times at most, as a machine that is busy elsewhere brings in one read what the server sent one by one."""
    assert any(run() for _ in range(3)), "the processor has not led in each calm phase of any of three runs"


def record(path, phases):
    """Write a recording of phases (seconds of pause before it, messages, seconds between them); returns the payloads."""
    payloads, at = [], 0.0
    with gzip.open(path, "wt") as lines:
        for pause, count, interval in phases:
            at += pause
            for _ in range(count):
                payloads.append(b"%d" % len(payloads))
                lines.write(json.dumps([at, payloads[-1].decode()]) + "\n")
                at += interval
    return payloads


# ------------------------------------------------------------------------------------------------------ when it is lent


@pytest.mark.parametrize("spin", [0, 300])
def test_calm_phases_are_led_by_the_processor_and_bursts_between_them_change_nothing(tmp_path, seed, spin):
    source = random.Random(f"{seed}-{spin}")
    phases, calm, first = [], [], 0
    for _ in range(5):
        for count, interval in ((80, source.choice((0.001, 0.002, 0.004))), (source.choice((50, 300, 1500, 4000)), 0.0)):
            phases.append((source.choice((0.0, 0.01)), count, interval))
            calm += [(first, first + count)] if interval else []
            first += count
    payloads = record(tmp_path / "phases.jsonl.gz", phases)

    def run():
        with Feed.recording(tmp_path / "phases.jsonl.gz") as feed:
            with Noting(producer(feed.url), processors=Processors(spin=spin)) as pipeline:
                pipeline.wait(len(payloads), timeout=20)
                result = pipeline.stop()
            log = feed.log()
        assert [one.data for one in pipeline.received] == payloads
        assert [one.seq for one in pipeline.received] == list(range(len(payloads)))
        assert (log.messages, result.successful, result.failed) == (len(payloads), len(payloads), 0)
        grown = [pipeline.notes[end - 1] - pipeline.notes[begin] for begin, end in calm]
        print(f"led {pipeline.lent} times, in the calm phases {grown}")
        return all(grown)

    led_in_one_of_three(run)


def test_with_two_processors_it_is_never_lent():
    with Feed.trades(rate=CALM, count=200) as feed:
        with Noting(producer(feed.url), processors=Processors(concurrency=2)) as pipeline:
            pipeline.wait(200)
            assert pipeline.stop().successful == 200
        assert feed.log().messages == 200
    assert sorted(sequences(pipeline.received)) == list(range(200))
    assert pipeline.lent == 0


def test_with_two_sockets_to_read_it_is_never_lent():
    with Feed.trades(rate=CALM, count=200) as one, Feed.trades(rate=CALM, count=200) as other:
        both = [producer(one.url), producer(other.url)]
        with Noting(both) as pipeline:
            pipeline.wait(400)
            assert pipeline.stop().successful == 400
    for source in both:
        assert sequences(m for m in pipeline.received if m.connection is source.connections[0]) == list(range(200))
    assert pipeline.lent == 0


def test_one_producer_of_several_connections_is_led_as_well():
    with Feed.trades(rate=CALM / 5, count=60) as feed:
        with Noting(producer(feed.url, concurrency=5)) as pipeline:
            pipeline.wait(300)
    for index in range(5):
        assert sequences(m for m in pipeline.received if m.connection_index == index) == list(range(60))
    assert pipeline.lent > 0


def test_a_producer_written_in_python_beside_it_is_served_while_the_processor_leads():
    class Ticks(Producer):
        def run(self, inbox):
            for number in range(100):
                inbox.push(Message(number))
                time.sleep(0.003)

    with Feed.trades(rate=CALM, count=200) as feed:
        with Noting([producer(feed.url), Ticks()]) as pipeline:
            pipeline.wait(300)
    assert sequences(m for m in pipeline.received if isinstance(m.data, bytes)) == list(range(200))
    assert [m.data for m in pipeline.received if isinstance(m.data, int)] == list(range(100))
    assert pipeline.lent > 0


# ---------------------------------------------------------------------------------------------------- waking a processor


def test_a_push_from_another_thread_wakes_the_processor_that_leads_though_the_socket_is_silent():
    arrivals = {}

    def before(messages):
        arrivals.update({one.data: time.monotonic() for one in messages if isinstance(one.data, str)})

    with Feed.trades(rate=CALM) as feed, Noting(producer(feed.url), before=before) as pipeline:
        for name in ("one", "two", "three", "four"):
            with quiet_while_it_leads(feed, pipeline):
                begun = time.monotonic()
                pusher = threading.Thread(target=pipeline.push_messages, args=[Message(name)])
                pusher.start()
                pusher.join(5)
                while name not in arrivals and time.monotonic() < begun + 5:
                    time.sleep(0.001)
                assert name in arrivals
                assert arrivals[name] - begun < PROMPT
        assert pipeline.stop().drained
    fed = sequences(m for m in pipeline.received if isinstance(m.data, bytes))
    assert fed == list(range(len(fed)))


def test_many_pushes_between_the_messages_of_a_calm_feed_all_arrive_in_order():
    with Feed.trades(rate=CALM, count=400) as feed, Noting(producer(feed.url)) as pipeline:
        for number in range(200):
            pipeline.push_messages(Message(number))
            time.sleep(0.003)
        pipeline.wait(600)
        assert pipeline.stop().successful == 600
    assert sequences(m for m in pipeline.received if isinstance(m.data, bytes)) == list(range(400))
    assert [m.data for m in pipeline.received if isinstance(m.data, int)] == list(range(200))
    assert pipeline.lent > 0


# --------------------------------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("timeout", [None, 0])
def test_a_stop_while_the_processor_leads_is_quick_and_complete_life_after_life(timeout):
    """In one of five lives it leads at least: a busy machine may be elsewhere in the others."""
    led, lent = [], []
    with Feed.trades(rate=CALM, count=60, resume=False) as feed:
        pipeline = Noting(producer(feed.url))
        for life in range(1, 6):
            pipeline.start()
            pipeline.wait(60 * life)
            time.sleep(0.03)                     # time to take the lead again, behind the last message
            led.append(pipeline.leads)
            result = pipeline.stop(timeout)
            assert (result.drained, result.left, result.failed, result.threads_alive) == (True, 0, 0, ())
            assert (result.successful, result.discarded, result.error) == (60, 0, None)
            assert result.seconds < PROMPT
            lent.append(pipeline.lent)
            pipeline.noted = 0                   # the next life counts anew
        log = feed.wait(lambda log: not any(one.open for one in log.connections))
    assert any(led)
    assert any(lent)
    assert [one.close_code for one in log.connections] == [1000] * 5
    assert sequences(pipeline.received) == [*range(60)] * 5


@pytest.mark.parametrize("timeout", [None, 0])
def test_a_stop_in_the_midst_of_a_feed_that_is_led_loses_nothing_that_was_taken(seed, timeout):
    source = random.Random(f"{seed}-{timeout}")
    with Feed.trades(rate=4 * CALM, resume=False) as feed:
        pipeline = Noting(producer(feed.url))
        for _ in range(8):
            before = len(pipeline.received)
            pipeline.start()
            pipeline.wait(before + source.randrange(20, 200))
            result = pipeline.stop(timeout)
            handled = sequences(pipeline.received[before:])
            assert result.drained or timeout == 0
            assert result.threads_alive == ()
            assert result.seconds < 2
            assert handled == list(range(len(handled)))
            assert result.failed == result.left
            if timeout == 0:                     # what a handler has just done may count as left: nobody waits for its word
                assert result.successful <= len(handled) <= result.successful + result.left
            else:
                assert result.successful == len(handled)


def test_the_end_of_the_interpreter_while_the_processor_leads_is_a_stop(child):
    with Feed.trades(rate=CALM) as feed:
        one = child(f"""
            from wsengine import WebSocketProducer
            from wsengine.testing import Collector

            producer = WebSocketProducer({feed.url!r})
            Collector(producer).start()
            while producer._receiver.lent < 20:
                time.sleep(0.005)
            say("led")
        """)
        one.wait_for("led")
        begun = time.monotonic()
        code, _, errors = one.end()
        assert (code, errors) == (0, "")
        assert time.monotonic() - begun < 5
        [connection] = feed.wait(lambda log: not any(one.open for one in log.connections)).connections
    assert connection.close_code == 1000


def test_a_fork_while_the_processor_leads_leaves_the_parent_leading(child):
    with Feed.trades(rate=CALM) as feed:
        one = child(f"""
            import gc
            from wsengine import ForkedProcessError, WebSocketProducer
            from wsengine.testing import Collector
            from wsengine.testing.stamp import read_sequence

            def lead(times):
                until = producer._receiver.lent + times
                while producer._receiver.lent < until:
                    time.sleep(0.005)

            producer = WebSocketProducer({feed.url!r})
            pipeline = Collector(producer).start()
            lead(20)
            pid = os.fork()
            if pid == 0:
                try:
                    pipeline.stop()
                except ForkedProcessError:
                    del pipeline, producer
                    gc.collect()
                    os._exit(7)
                os._exit(1)
            say("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            lead(50)
            result = pipeline.stop()
            seen = [read_sequence(one.data) for one in pipeline.received]
            say("parent", result.drained, seen == list(range(len(seen))), result.threads_alive)
        """)
        one.wait_for("child 7")
        one.wait_for("parent True True ()")
        assert one.end()[0] == 0


# --------------------------------------------------------------------------------------------- while the handler is busy


HOLDS = {"sleeping": time.sleep, "holding the GIL": lambda seconds: ctypes.PyDLL(None).usleep(int(seconds * 1e6))}


@pytest.mark.parametrize(("how", "rate", "keepalive"), [
    ("sleeping", CALM, 0.05), ("sleeping", CALM / 5, None),
    ("holding the GIL", CALM, 0.05), ("holding the GIL", CALM, None),
])
def test_while_a_handler_that_has_led_blocks_the_socket_is_read_and_pings_go_both_ways(how, rate, keepalive):
    span, noted = [], []

    def before(messages):
        noted.append(pipeline.noted)
        if not span and len(noted) > 20 and noted[-1] > noted[-2] > noted[-3]:   # this processor has led up to now
            begin = time.monotonic_ns()
            HOLDS[how](BLOCKED)
            span.extend((begin, time.monotonic_ns()))

    with Feed.trades(rate=rate, ping_interval=0.05) as feed:
        pipeline = Noting(producer(feed.url, keepalive=keepalive), before=before)
        with pipeline:
            deepest, deadline = 0, time.monotonic() + 15
            while not span and time.monotonic() < deadline:
                deepest = max(deepest, pipeline.stats().depth)
                time.sleep(0.01)
            assert span, "the processor never led for long enough"
            led = pipeline.lent
            pipeline.wait(len(pipeline.received) + int(rate * (BLOCKED + 0.3)))
            assert pipeline.lent > led           # calm again: it leads again
            log = feed.log()
        begin, end = span
    [connection] = log.connections
    read = [one for one in pipeline.received if begin < one.received_ns < end]
    pings = [one for one in connection.pings if begin < one.at_ns < end]
    delays = [one.delay for one in connection.pongs if begin < one.at_ns < end]
    print(f"{len(read)} messages read, {len(pings)} pings sent, {len(delays)} answered; the deepest queue was {deepest}")
    assert len(read) > BLOCKED * rate / 4
    assert how != "sleeping" or deepest > BLOCKED * rate / 4
    assert keepalive is None or len(pings) > BLOCKED / keepalive / 4
    assert len(delays) > BLOCKED / 0.05 / 4
    assert max(delays) < BLOCKED / 2
    handled = sequences(pipeline.received)
    assert handled == list(range(len(handled)))


@pytest.mark.parametrize("max_queue", [1, 32])
def test_a_full_pipeline_pauses_a_feed_that_was_led_and_resumes_it_without_loss(tmp_path, eventually, max_queue):
    payloads = record(tmp_path / "phases.jsonl.gz", [(0, 80, 0.002), (0.01, 2000, 0.0), (1.5, 100, 0.003)])

    def run():
        gate, blocked = threading.Event(), threading.Event()

        def before(messages):
            if int(messages[-1].data) >= 80:
                blocked.set()
                gate.wait(10)

        with Feed.recording(tmp_path / "phases.jsonl.gz") as feed:
            one = producer(feed.url)
            with Noting(one, before=before, max_queue=max_queue) as pipeline:
                try:
                    assert blocked.wait(5)
                    eventually(lambda: one.connections[0].paused)
                    led, held = pipeline.lent, pipeline.stats().held_messages
                finally:
                    gate.set()
                assert held <= max_queue
                assert len(pipeline.received) < 80 + 2 * max_queue
                pipeline.wait(len(payloads))
                assert not one.connections[0].paused
                assert pipeline.stop().successful == len(payloads)
            assert feed.log().messages == len(payloads)
        assert [m.data for m in pipeline.received] == payloads
        return led > 0 and pipeline.notes[-1] > pipeline.notes[-100]    # in the calm before the burst, and behind it

    led_in_one_of_three(run)


# ----------------------------------------------------------------------------------------- what ends while somebody leads


ENDINGS = {"cut": steps.cut(), "reset": steps.reset(), "closed": steps.close(1001, "going away")}


@pytest.mark.parametrize("how", ENDINGS)
def test_a_connection_that_the_server_ends_while_the_processor_leads_is_replaced_and_led_again(how):
    lives = [[b"%d:%02d" % (life, number) for number in range(60)] for life in range(4)]
    scripts = []
    for life in lives:
        frames = [build_server_frame(2, payload) for payload in life]
        sent = steps.drip(b"".join(frames), len(frames[0]), 0.002)
        scripts.append([steps.accept(), sent, steps.wait(0.05), ENDINGS[how]])
    scripts[-1][2:] = [steps.serve()]

    def run():
        with ScriptedServer(scripts) as server:
            one = producer(server.url)
            with Noting(one) as pipeline:
                pipeline.wait(60 * len(lives))
                assert (one.connections[0].epoch, one.connections[0].reconnects) == (4, 3)
                result = pipeline.stop()
            assert len(server.connections) == 4
        assert (result.drained, result.failed, result.threads_alive) == (True, 0, ())
        assert [(m.epoch, m.seq, m.data) for m in pipeline.received] == [
            (life + 1, number, payload) for life, payloads in enumerate(lives) for number, payload in enumerate(payloads)]
        firsts, lasts = pipeline.notes[0::60], pipeline.notes[59::60]
        led_when_it_ended = any(first > last for first, last in zip(firsts[1:], lasts, strict=False))
        return led_when_it_ended and all(last > first for first, last in zip(firsts, lasts, strict=True))

    led_in_one_of_three(run)


def test_a_processor_that_dies_after_it_has_led_is_replaced_by_one_that_leads(uncollected, eventually):
    class Fatal(BaseException):
        """Raised where no callback runs."""

    count = 600
    with Feed.trades(rate=CALM, count=count) as feed, capture(telemetry.WORKER_REPLACED) as seen:
        with Noting(producer(feed.url)) as pipeline:
            for deaths in (1, 2):
                with quiet_while_it_leads(feed, pipeline):
                    led, thread = pipeline.lent, pipeline.processor_thread
                    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(thread.ident), ctypes.py_object(Fatal)) == 1
                seen.wait(telemetry.WORKER_REPLACED, deaths)
                assert pipeline.processor_thread is not thread
                eventually(lambda led=led: pipeline.lent > led + 5)
            eventually(lambda: pipeline.stats().successful + pipeline.stats().failed == count)
            result = pipeline.stop()
        assert feed.log().messages == count
    handled = sequences(pipeline.received)
    assert handled == sorted(set(handled))
    assert (result.successful, result.failed) == (len(handled), count - len(handled))
    assert result.failed == sum(one.measurements["failed_messages"] for one in seen.events) >= 2


# ------------------------------------------------------------------------------------------------------ quiet connections


def test_a_processor_that_leads_a_silent_connection_costs_next_to_nothing():
    process = psutil.Process()
    with Feed.trades(rate=CALM) as feed, Noting(producer(feed.url)) as pipeline:
        with quiet_while_it_leads(feed, pipeline):
            led, before = pipeline.lent, sum(process.cpu_times()[:2])
            time.sleep(1.2)
            spent = sum(process.cpu_times()[:2]) - before
            assert pipeline.leads
            assert pipeline.lent <= led + 2      # it looks up once a second
        assert spent < 0.3, f"{spent:.2f} s of CPU in 1.2 seconds of waiting"
        pipeline.wait(len(pipeline.received) + 50)


@pytest.mark.parametrize("options", [{"ws_timeout": 0.4}, {"keepalive": 0.1, "pong_timeout": 0.3}], ids=["ws", "pong"])
def test_a_silent_connection_times_out_while_the_processor_leads_it_and_the_next_is_led(options):
    with Feed.trades(rate=CALM) as feed, capture(TIMEOUT) as seen:
        with Noting(producer(feed.url, **options)) as pipeline:
            with quiet_while_it_leads(feed, pipeline):
                begun = time.monotonic()
                seen.wait(TIMEOUT)
                assert time.monotonic() - begun < 3
            led = pipeline.lent
            pipeline.wait(len(pipeline.received) + 100)
            assert pipeline.lent > led
    assert len({one.epoch for one in pipeline.received}) > 1


def test_pings_that_are_heard_and_answered_while_the_processor_leads_are_told_to_telemetry():
    with Feed.trades(rate=CALM / 5, ping_interval=0.023) as feed, capture(PING) as seen:
        with Noting(producer(feed.url, silence_pings=False)) as pipeline:
            told = seen.wait(PING, 30)
            pipeline.wait(50)
            assert pipeline.lent > 0
        log = feed.log()
    payloads = [one.metadata["payload"] for one in told]
    assert payloads == [number.to_bytes(8, "big") for number in range(len(payloads))]
    delays = [one.delay for one in log.connections[0].pongs]
    assert len(delays) >= 30
    assert max(delays) < PROMPT
