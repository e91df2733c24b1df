"""Sending on a connection: what the server gets, from any thread, in which order, how much may wait, and how it ends.

The servers are in processes of their own and record the frames that they read. That pings of keepalive go out in time is a
matter of the engine's tests.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import contextmanager

import pytest

from tests.waiting import until
from wsengine import (
    Backoff,
    ConfigurationError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    EngineError,
    WebSocketProducer,
)
from wsengine.testing import Collector, ScriptedServer, build_server_frame, steps

pytestmark = pytest.mark.usefixtures("no_leaks")

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MIB = 2**20


@contextmanager
def connected(*script, handler=None, pipeline=None, **options):
    """A pipeline whose one connection is ready, its server, and the connection."""

    class Handling(Collector):
        def handle_messages(self, messages):
            if handler is not None:
                handler(self, messages)
            super().handle_messages(messages)

    with ScriptedServer([[steps.accept(), *script], [steps.respond(503)]]) as server:
        source = WebSocketProducer(server.url, **{
            "retry": Backoff(0.02, factor=1, jitter="none"), "keepalive": None, "close_timeout": 0.5, **options})
        with Handling(source, **(pipeline or {})) as running:
            [connection] = source.connections
            until(lambda: connection.is_ready or connection.close_code is not None)
            yield running, server, connection


def data_frames(server):
    return [one for one in server.connections[0].frames if one.opcode < CLOSE]


def messages_of(frames):
    """Put fragments together: (opcode, payload) each."""
    out, parts, opcode = [], [], None
    for one in frames:
        if one.opcode != CONTINUATION:
            assert not parts, "a message began inside another one"
            opcode = one.opcode
        parts.append(one.payload)
        if one.fin:
            out.append((opcode, b"".join(parts)))
            parts = []
    assert not parts
    return out


# ------------------------------------------------------------------------------------------------------------- what is sent


@pytest.mark.parametrize(("message", "text", "opcode", "payload"), [
    ("grün €", None, TEXT, "grün €".encode()), ("", None, TEXT, b""), (b"\x00\xff", None, BINARY, b"\x00\xff"),
    (b"", None, BINARY, b""), (bytearray(b"abc"), None, BINARY, b"abc"), (memoryview(b"abcd")[1:3], None, BINARY, b"bc"),
    (b"text", True, TEXT, b"text"), ("binary", False, BINARY, b"binary"), ("x" * 126, None, TEXT, b"x" * 126),
    (b"y" * 65536, None, BINARY, b"y" * 65536), (memoryview(b"abcdef")[::2], None, BINARY, b"ace"),
    (memoryview(bytearray(12)).cast("B", (3, 4)), None, BINARY, bytes(12)),
])
def test_a_message_goes_as_one_masked_frame_of_its_kind(message, text, opcode, payload):
    with connected(steps.receive(), steps.serve()) as (_, server, connection):
        connection.send(message, text)
        [frame] = server.wait(lambda records: records[0].frames)[0].frames
    assert (frame.opcode, frame.payload, frame.fin, frame.rsv, frame.masked) == (opcode, payload, True, 0, True)


def test_an_array_is_sent_by_its_bytes():
    from array import array

    with connected(steps.receive(), steps.serve()) as (_, server, connection):
        connection.send(memoryview(array("H", [1, 2, 3])))
        [frame] = server.wait(lambda records: records[0].frames)[0].frames
    assert frame.payload == array("H", [1, 2, 3]).tobytes()


@pytest.mark.parametrize("message", [None, 7, ["a", b"b"], [b"a", 3], [None], [], object(), {"key": "s3cret"},
                                     [{"key": "s3cret"}], "s3cret \ud800"],
                         ids=["None", "a number", "mixed", "with a number", "of None", "nothing", "an object",
                              "a dictionary", "of dictionaries", "half a character"])
def test_what_is_no_message_is_refused_by_name_and_nothing_of_it_is_sent(message):
    with connected(steps.receive(), steps.serve()) as (_, server, connection):
        with pytest.raises(ConfigurationError, match=r"send\.message") as caught:
            connection.send(message)
        assert "s3cret" not in repr(caught.value) + str(caught.value)
        connection.send(b"the next one")
        assert messages_of(server.wait(lambda records: records[0].frames)[0].frames) == [(BINARY, b"the next one")]


@pytest.mark.parametrize(("fragments", "expected"), [
    (["one"], [(TEXT, True)]), (["a", "", "b"], [(TEXT, False), (CONTINUATION, False), (CONTINUATION, True)]),
    ([b"x", b"y"], [(BINARY, False), (CONTINUATION, True)]),
])
def test_an_iterable_goes_in_fragments_of_one_message(fragments, expected):
    with connected(steps.receive(len(expected)), steps.serve()) as (_, server, connection):
        connection.send(iter(fragments))
        frames = server.wait(lambda records: len(records[0].frames) >= len(expected))[0].frames
    assert [(one.opcode, one.fin) for one in frames] == expected
    whole = b"".join(one.encode() if isinstance(one, str) else one for one in fragments)
    assert b"".join(one.payload for one in frames) == whole


def test_fragments_go_as_they_were_when_they_came_whatever_becomes_of_their_buffer():
    def reusing():
        buffer = bytearray(b"one")
        yield buffer
        buffer[:] = b"second"
        yield buffer
        buffer.clear()
        yield memoryview(buffer)

    with connected(steps.receive(), steps.serve()) as (_, server, connection):
        connection.send(reusing())
        frames = server.wait(lambda records: len(records[0].frames) >= 3)[0].frames
    assert [one.payload for one in frames] == [b"one", b"second", b""]


@pytest.mark.parametrize("broken", ["raises", "mixes"])
def test_a_message_that_breaks_off_ends_the_connection_as_nothing_can_follow_it(broken):
    def fragments():
        yield "first"
        yield "second"
        if broken == "raises":
            raise LookupError("no more")
        yield b"third"

    with connected(steps.serve()) as (_, server, connection):
        with pytest.raises(LookupError if broken == "raises" else ConfigurationError):
            connection.send(fragments())
        [record, *_] = server.wait_ended(1)
        assert not any(one.fin for one in record.frames[:-1])
        assert record.frames[-1].payload[:2] == (1011).to_bytes(2, "big")


def test_messages_of_many_threads_do_not_mix_and_keep_each_threads_order(seed):
    threads, each = 8, 60
    chance = random.Random(seed)
    sizes = [[chance.choice([0, 3, 200, 5000]) for _ in range(each)] for _ in range(threads)]
    with connected(steps.serve()) as (_, server, connection):
        def send(number):
            for at, size in enumerate(sizes[number]):
                head = b"%d:%d:" % (number, at)
                connection.send([head, b"x" * size] if size % 2 else head + b"x" * size)

        senders = [threading.Thread(target=send, args=(number,)) for number in range(threads)]
        for one in senders:
            one.start()
        for one in senders:
            one.join(30)
        server.wait(lambda records: sum(f.fin for f in records[0].frames if f.opcode < CLOSE) == threads * each)
        got = messages_of(data_frames(server))
    order = [[] for _ in range(threads)]
    for _, payload in got:
        number, at, rest = payload.split(b":", 2)
        assert rest == b"x" * sizes[int(number)][int(at)]
        order[int(number)].append(int(at))
    assert order == [list(range(each))] * threads


def test_a_handler_answers_on_the_connection_its_message_came_by():
    def handler(_, messages):
        for one in messages:
            one.connection.send(b"re: " + one.data)

    sent = [steps.binary(b"%d" % number) for number in range(5)]
    with connected(*sent, steps.receive(5), steps.serve(), handler=handler) as (_, server, _connection):
        server.wait(lambda records: len(records[0].frames) == 5)
        assert messages_of(data_frames(server)) == [(BINARY, b"re: %d" % number) for number in range(5)]


# ------------------------------------------------------------------------------------------------------------- when it may


def test_before_the_first_connection_a_send_says_so():
    with ScriptedServer([[steps.stall()]]) as server:
        source = WebSocketProducer(server.url, keepalive=None, close_timeout=0.5)
        with Collector(source):
            for call in (lambda: source.connections[0].send("x"), lambda: source.connections[0].ping()):
                with pytest.raises(ConnectionClosedError, match="not connected yet"):
                    call()


@pytest.mark.parametrize(("code", "kind"), [(1000, ConnectionClosedOK), (4001, ConnectionClosedError)])
def test_after_the_servers_close_a_send_tells_its_code(code, kind):
    with connected(steps.close(code, "that's all"), steps.until_eof()) as (_, _server, connection):
        until(lambda: connection.close_code is not None)
        with pytest.raises(kind) as caught:
            connection.send("x")
        assert (caught.value.code, caught.value.reason) == (code, "that's all")


def test_a_send_for_a_generation_that_is_over_is_refused_and_one_for_the_present_is_sent():
    script = [steps.accept(), steps.close(1001), steps.until_eof()]
    with ScriptedServer([script, [steps.accept(), steps.receive(), steps.serve()]]) as server:
        source = WebSocketProducer(server.url, retry=Backoff(0.02, factor=1, jitter="none"), keepalive=None)
        with Collector(source):
            [connection] = source.connections
            until(lambda: connection.reconnects == 1 and connection.is_ready)
            with pytest.raises(ConnectionClosed):
                connection.send("for the first", epoch=1)
            connection.send("for the second", epoch=2)
            server.wait(lambda records: len(records) == 2 and records[1].frames)
            assert [one.payload for one in server.connections[1].frames] == [b"for the second"]


# ------------------------------------------------------------------------------------------------------------ how much waits


def test_a_server_that_does_not_read_bounds_what_waits_and_a_send_times_out_with_the_cause():
    with connected(steps.stall(), write_limit=MIB, close_timeout=0.3) as (_, _server, connection):
        def fill():
            for _ in range(4096):
                connection.send(b"x" * 65536)

        with pytest.raises(TimeoutError, match="the server does not read"):
            fill()
        assert connection.queued_bytes <= MIB + 65536 + 14
        with pytest.raises(TimeoutError):
            connection.send(b"another", timeout=0.05)


def test_two_full_directions_end_in_a_time_out_that_names_both():
    """The server reads nothing before it has sent everything, the handler sends before it lets go of its message."""
    errors = []

    def handler(pipeline, messages):
        try:
            while True:
                messages[0].connection.send(b"x" * 65536)
        except (TimeoutError, ConnectionClosed) as error:
            errors.append(error)

    flood = steps.send(build_server_frame(BINARY, b"y" * 1000) * 30_000)
    with connected(flood, steps.stall(), handler=handler, pipeline={"max_queue": 64}, close_timeout=0.3,
                   write_limit=MIB) as (_, _server, connection):
        until(lambda: errors, 60)
        assert isinstance(errors[0], TimeoutError)
        for cause in ("the server does not read", "reading is paused while the pipeline is full"):
            assert cause in str(errors[0])
        connection.close()


def test_a_send_that_waits_for_room_goes_on_as_soon_as_the_server_reads():
    with connected(steps.wait(1.0), steps.serve(), write_limit=1) as (_, server, connection):
        sizes = [3 * MIB, 5, 2 * MIB, 0, 7]
        for size in sizes:
            connection.send(b"x" * size, timeout=20)
        server.wait(lambda records: len(records[0].frames) == len(sizes), 20)
        assert [len(one.payload) for one in data_frames(server)] == sizes
        until(lambda: connection.queued_bytes == 0)


@pytest.mark.parametrize("ends", ["cut", "reset", "stop"])
def test_a_send_that_waits_for_room_ends_with_the_connection(ends):
    ending = {"cut": [steps.stall(0.3), steps.cut(linger=0)], "reset": [steps.stall(0.3), steps.reset()],
              "stop": [steps.stall()]}[ends]
    errors = []
    with connected(*ending, write_limit=1, close_timeout=0.5) as (running, _server, connection):
        def send():
            try:
                for _ in range(100):
                    connection.send(b"x" * MIB, timeout=30)
            except ConnectionClosed as error:
                errors.append(error)

        sender = threading.Thread(target=send)
        sender.start()
        if ends == "stop":
            until(lambda: connection.queued_bytes > 0)
            running.stop()
        sender.join(20)
        assert not sender.is_alive()
        assert len(errors) == 1


def test_a_pong_overtakes_between_messages_that_wait():
    script = [steps.stall(0.3), steps.ping(b"still there?"), steps.serve()]
    with connected(*script, write_limit=64 * MIB) as (_, server, connection):
        for _ in range(40):
            connection.send(b"x" * MIB)
        record = server.wait(lambda records: len(records[0].frames) == 41, 20)[0]
    at = [one.opcode for one in record.frames].index(PONG)
    assert record.frames[at].payload == b"still there?"
    assert at < 40, "the pong waited for all messages"


def resting(gate, *fragments):
    """An iterable that waits before the last fragment."""
    yield from fragments[:-1]
    assert gate.wait(30)
    yield fragments[-1]


def test_behind_a_message_in_the_making_a_send_waits_and_says_so():
    with connected(steps.serve()) as (_, server, connection):
        gate = threading.Event()
        maker = threading.Thread(target=connection.send, args=(resting(gate, "a", "b", "c"),))
        maker.start()
        server.wait(lambda records: records[0].frames)
        with pytest.raises(TimeoutError, match="another message has been in the making") as caught:
            connection.send("x", timeout=0.1)
        assert "does not read" not in str(caught.value)
        assert connection.ping().wait(10), "a ping goes between the fragments"
        gate.set()
        maker.join(10)
        connection.send("y")
        assert messages_of([one for one in server.wait(lambda records: len(records[0].frames) >= 5)[0].frames
                            if one.opcode < CLOSE]) == [(TEXT, b"abc"), (TEXT, b"y")]


def test_a_send_that_waits_for_a_message_in_the_making_ends_with_the_connection():
    with connected(steps.wait(0.7), steps.close(4000, "enough"), steps.until_eof()) as (_, server, connection):
        gate, errors = threading.Event(), []

        def send(message):
            try:
                connection.send(message, timeout=None)
            except ConnectionClosed as error:
                errors.append(error.code)

        maker = threading.Thread(target=send, args=(resting(gate, "a", "b", "c"),))
        maker.start()
        server.wait(lambda records: records[0].frames)
        waiting = threading.Thread(target=send, args=("x",))
        waiting.start()
        waiting.join(10)
        assert (waiting.is_alive(), errors) == (False, [4000])
        gate.set()
        maker.join(10)
        assert errors == [4000, 4000]


class Interrupted:
    """A sender behind whose first frame a signal's handler raises."""

    def __init__(self, sender):
        self.sender = sender

    def send(self, *arguments, **options):
        self.sender.send(*arguments, **options)
        raise KeyboardInterrupt

    def __getattr__(self, name):
        return getattr(self.sender, name)


def test_a_signal_behind_the_first_fragment_ends_the_connection_as_nothing_can_follow_it():
    with connected(steps.serve()) as (_, server, connection):
        connection._outgoing._sender = Interrupted(connection._outgoing._sender)
        with pytest.raises(KeyboardInterrupt):
            connection.send(["a", "b", "c"])
        frames = server.wait(lambda records: len(records[0].frames) == 2)[0].frames
        assert [(one.opcode, one.payload[:2]) for one in frames] == [(TEXT, b"a"), (CLOSE, (1011).to_bytes(2, "big"))]


@pytest.mark.parametrize("timeout", [float("nan"), "5", True, object()])
def test_what_is_no_time_is_refused(timeout):
    with connected(steps.serve()) as (_, _server, connection):
        with pytest.raises(ConfigurationError, match=r"send\.timeout"):
            connection.send("x", timeout=timeout)
        with pytest.raises(ConfigurationError, match=r"wait\.timeout"):
            connection.ping().wait(timeout)
        for wait in (-1, float("inf"), 1e300):
            connection.send("x", timeout=wait)


def test_an_iterable_that_sends_is_told_so_and_does_not_hang():
    with connected(steps.serve()) as (_, _server, connection):
        def wrong():
            yield "a"
            yield "b"
            connection.send("another message", timeout=None)

        with pytest.raises(EngineError, match="in the middle of a message"):
            connection.send(wrong())


def test_a_signals_handler_may_ping_within_a_send_that_waits_but_not_send():
    pongs, errors = [], []
    with connected(steps.stall(1.5), steps.serve(), write_limit=4 * MIB) as (_, _server, connection):
        def handle(*_):
            pongs.append(connection.ping())
            try:
                connection.send("x", timeout=None)
            except EngineError as error:
                errors.append(error)

        before = signal.signal(signal.SIGUSR1, handle)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        try:
            for _ in range(8):
                connection.send(bytes(4 * MIB), timeout=30)
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, before)
        assert (len(pongs), len(errors)) == (1, 1)
        assert pongs[0].wait(10)


def test_pings_without_an_answer_are_bounded():
    with connected(steps.stall()) as (_, _server, connection):
        for number in range(256):
            connection.ping(b"x" * 120 + number.to_bytes(2, "big"))
        with pytest.raises(TimeoutError, match="256 pings"):
            connection.ping()
        connection.send("messages still go")


# ------------------------------------------------------------------------------------------------------------ pings, closing


def test_a_ping_is_answered_and_its_round_trip_is_told_though_pings_are_silent():
    with connected(steps.serve()) as (_, server, connection):
        for data, payload in ((None, None), ("text", b"text"), (b"bytes", b"bytes"), (b"", b"")):
            pong = connection.ping(data)
            assert pong.wait(10)
            assert pong.is_set()
            assert 0 <= pong.round_trip < 10
            if payload is not None:
                assert server.connections[0].frames[-1].payload == payload


def test_a_pong_answers_the_pings_before_it_too():
    script = [steps.wait(0.3), steps.pong(b"second"), steps.serve()]
    with connected(*script) as (_, _server, connection):
        first, second = connection.ping("first"), connection.ping("second")
        assert first.wait(10)
        assert second.wait(10)


@pytest.mark.parametrize("data", ["ü" * 63, b"x" * 126, 7, "\ud800"], ids=["text", "bytes", "number", "half a character"])
def test_what_is_no_payload_of_a_ping_is_refused(data):
    with connected(steps.serve()) as (_, _server, connection):
        with pytest.raises(ConfigurationError, match=r"ping\.data"):
            connection.ping(data)


def test_the_same_payload_cannot_wait_twice():
    with connected(steps.stall()) as (_, _server, connection):
        connection.ping(b"once")
        with pytest.raises(ConfigurationError, match="still waits"):
            connection.ping(b"once")


def test_who_waits_for_a_pong_learns_of_the_connections_end():
    with connected(steps.wait(0.3), steps.close(1012, "restart"), steps.until_eof()) as (_, _server, connection):
        with pytest.raises(ConnectionClosedError) as caught:
            connection.ping().wait(10)
        assert caught.value.code == 1012


def test_closing_sends_the_code_and_reason_and_the_retry_policy_decides_about_the_next():
    with connected(steps.echo_close(), steps.until_eof()) as (_, server, connection):
        connection.close(4000, "grün")
        record = server.wait_connections(2)[0]
        assert record.frames[-1].payload == (4000).to_bytes(2, "big") + "grün".encode()
        assert connection.close_code == 4000
        connection.close()                       # there is none now: nothing happens


@pytest.mark.parametrize(("code", "reason", "names"), [
    (999, "", "close.code"), (1005, "", "close.code"), (1006, "", "close.code"), (1015, "", "close.code"),
    (2000, "", "close.code"), (5000, "", "close.code"), ("1000", "", "close.code"), (True, "", "close.code"),
    (1000, "x" * 124, "close.reason"), (1000, "€" * 42, "close.reason"), (1000, b"x", "close.reason"),
    (1000, "\ud800", "close.reason"),
])
def test_what_must_not_be_in_a_close_is_refused(code, reason, names):
    with connected(steps.serve()) as (_, _server, connection):
        with pytest.raises(ConfigurationError, match=names):
            connection.close(code, reason)


def test_a_close_goes_behind_every_message_that_was_sent_before():
    with connected(steps.stall(0.3), steps.echo_close(), steps.until_eof(), close_timeout=20,
                   write_limit=64 * MIB) as (_, server, connection):
        for number in range(8):
            connection.send(bytes([number]) * MIB)
        connection.close(4001)
        with pytest.raises(ConnectionClosed):
            connection.send(b"too late")
        record = server.wait_ended(1, 20)[0]
        assert [one.payload[0] for one in record.frames[:8]] == list(range(8))
        assert record.frames[-1].opcode == CLOSE


def test_a_close_in_the_hook_that_tells_of_the_connection_is_carried_out():
    from wsengine import telemetry

    name = telemetry.connection_event("hooked", "success")
    script = [steps.accept(), steps.echo_close(), steps.until_eof()]
    with ScriptedServer([script, [steps.respond(403)]]) as server:
        source = WebSocketProducer(server.url, telemetry_id="hooked", keepalive=None)
        telemetry.attach("close at once", name, lambda *_: source.connections[0].close(4000, "no"), None)
        try:
            with Collector(source):
                record = server.wait_ended(1)[0]
        finally:
            telemetry.detach("close at once")
    assert record.frames[-1].payload == (4000).to_bytes(2, "big") + b"no"


def test_a_server_that_never_answers_our_close_is_let_go_after_close_timeout():
    with connected(steps.read_until_close(), steps.wait(30), close_timeout=0.3) as (_, _server, connection):
        begun = time.monotonic()
        connection.close()
        until(lambda: connection.close_code is not None)
        assert 0.25 < time.monotonic() - begun < 5
        assert connection.close_code == 1006


@pytest.mark.parametrize("broken", [build_server_frame(3, b""), build_server_frame(PING, b"x", rsv=4), b"\x81\x02\xff\xff"])
def test_answers_to_what_came_right_before_a_protocol_error_go_out_before_our_close(broken):
    def handler(_, messages):
        for one in messages:
            one.connection.send(b"re: " + one.data)

    sent = build_server_frame(BINARY, b"one") + build_server_frame(BINARY, b"two") + broken
    script = [steps.send(sent), steps.read_until_close(), steps.until_eof()]
    with connected(*script, handler=handler) as (_, server, _connection):
        [record, *_] = server.wait_ended(1)
    assert [(one.opcode, one.payload) for one in record.frames[:2]] == [(BINARY, b"re: one"), (BINARY, b"re: two")]
    assert [one.opcode for one in record.frames[2:]] == [CLOSE]
    assert int.from_bytes(record.frames[2].payload[:2], "big") in (1002, 1007)
