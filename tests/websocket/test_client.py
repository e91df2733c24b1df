"""`connect()`: what its options do, what `recv` gives and when, how it closes, and how each end is told.

Sending and pings are those of every connection (test_sending), the way to the server is the dial's. What connections share
is tested with the hub, signals, forks and the interpreter's exit with client_process. Servers are processes of their own.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import logging
import socket
import ssl
import threading
import time
import weakref
from contextlib import contextmanager

import psutil
import pytest

import wsengine
from tests.waiting import until
from wsengine import ConfigurationError, ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, InvalidURI
from wsengine.engine import tls as engine_tls
from wsengine.errors import InvalidHandshake, InvalidStatus, PayloadTooBig, ProtocolError, ProxyError
from wsengine.testing import Feed, ScriptedServer, build_server_frame, steps
from wsengine.testing.stamp import read_sequence
from wsengine.websocket import client as client_module
from wsengine.websocket.extensions import PerMessageDeflate
from wsengine.websocket.socket_options import SocketOptions

pytestmark = pytest.mark.usefixtures("no_leaks")

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MIB = 2**20


@contextmanager
def served(*script, tls=None, accept=None, **options):
    """A server that accepts and does this, and the connection to it."""
    with ScriptedServer([[accept or steps.accept(), *script]], tls=tls) as server:
        with wsengine.connect(server.url, **{"keepalive": None, "close_timeout": 5.0, **options}) as connection:
            yield server, connection


def numbered(count, first=0):
    return steps.send(b"".join(build_server_frame(BINARY, b"%d" % number) for number in range(first, first + count)))


def ended(connection):
    """Wait for the end of a connection whose messages nobody wants; what it raises then."""
    until(lambda: connection.state == "stopped")
    drained(connection)
    with pytest.raises(ConnectionClosed) as caught:
        connection.recv(0)
    return caught.value


def drained(connection, timeout=20.0):
    """What comes until the end, as bytes."""
    got = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            got.append(connection.recv(timeout, decode=False))
    return got


def fill(connection):
    """Send until there is no room."""
    for _ in range(200):
        connection.send(b"x" * MIB)


class Started:
    """A call in a thread of its own: its result, or what it raised."""

    def __init__(self, call, *arguments, **options):
        self.result = self.error = None

        def run():
            try:
                self.result = call(*arguments, **options)
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def join(self, timeout=20.0):
        self.thread.join(timeout)
        assert not self.thread.is_alive(), "the call does not end"
        return self


# ------------------------------------------------------------------------------------------------------------------ recv


def test_text_comes_as_str_and_binary_as_bytes_in_the_order_of_the_wire():
    with served(steps.text("grün €"), steps.binary(b"\x00\xff"), steps.text(""), steps.binary(b""), numbered(500),
                steps.serve()) as (_, connection):
        assert [connection.recv(10) for _ in range(4)] == ["grün €", b"\x00\xff", "", b""]
        assert [connection.recv(10) for _ in range(500)] == [b"%d" % number for number in range(500)]


def test_what_comes_with_the_101_in_fragments_and_byte_by_byte_is_whole():
    glued = build_server_frame(TEXT, b"first") + build_server_frame(TEXT, "grün".encode()[:3], fin=False)
    rest = build_server_frame(0, "grün".encode()[3:]) + build_server_frame(BINARY, b"x" * 200_000)
    with served(steps.drip(rest[:20], 1, 0.001), steps.send(rest[20:]), steps.serve(),
                accept=steps.accept_glued(glued)) as (_, connection):
        assert [connection.recv(10) for _ in range(3)] == ["first", "grün", b"x" * 200_000]


@pytest.mark.parametrize(("decode", "expected"), [
    (None, ["grün", b"bytes"]), (True, ["grün", "bytes"]), (False, ["grün".encode(), b"bytes"])])
def test_decode_makes_all_messages_str_or_all_bytes(decode, expected):
    with served(steps.text("grün"), steps.binary(b"bytes"), steps.serve()) as (_, connection):
        assert [connection.recv(10, decode) for _ in range(2)] == expected


def test_a_binary_message_that_is_not_utf8_and_shall_be_str_is_taken_and_the_next_one_comes():
    with served(steps.binary(b"\xff"), steps.binary(b"next"), steps.serve()) as (_, connection):
        with pytest.raises(UnicodeDecodeError):
            connection.recv(10, decode=True)
        assert connection.recv(10) == b"next"


class Looks:
    """Stands before what `recv` waits in, and keeps for how long it was asked to."""

    def __init__(self, parker):
        self.parker, self.asked = parker, []

    def wait(self, ready, timeout):
        self.asked.append(timeout)
        self.parker.wait(ready, timeout)

    def notify_all(self):
        self.parker.notify_all()


def test_only_the_main_thread_looks_for_signals_while_it_waits_and_others_are_woken_at_once():
    with served(steps.receive(), numbered(1), steps.serve()) as (_, connection):
        looks = connection._waiting = Looks(connection._waiting)
        with pytest.raises(TimeoutError):
            connection.recv(0.35)
        assert max(looks.asked) <= 0.1
        assert len(looks.asked) >= 4
        looks.asked.clear()
        received = []
        thread = threading.Thread(target=lambda: received.append(connection.recv(60)))
        thread.start()
        until(lambda: looks.asked)
        connection.send("now")
        thread.join()
        assert received == [b"0"]
        assert looks.asked == [client_module.ELSEWHERE]


@pytest.mark.parametrize("timeout", [0, -1, 0.05, 0.25], ids=str)
def test_a_recv_without_a_message_times_out_not_before_its_time_and_receives_afterwards(timeout):
    with served(steps.receive(), steps.text("late"), steps.serve()) as (_, connection):
        begun = time.monotonic()
        with pytest.raises(TimeoutError, match="no message came"):
            connection.recv(timeout=timeout)
        assert time.monotonic() - begun >= timeout
        connection.send("now")
        assert connection.recv(10) == "late"


def test_a_recv_with_timeout_0_takes_what_is_there():
    with served(steps.text("one"), steps.text("two"), steps.pong(), steps.serve()) as (_, connection):
        until(lambda: connection.counts()["messages"] == 2)
        assert [connection.recv(0), connection.recv(0)] == ["one", "two"]
        with pytest.raises(TimeoutError):
            connection.recv(0)


@pytest.mark.parametrize("timeout", ["1", float("nan"), True, [1]], ids=repr)
def test_a_timeout_that_is_none_is_refused_by_name(timeout):
    with served(steps.text("one"), steps.serve()) as (_, connection):
        with pytest.raises(ConfigurationError, match=r"recv\.timeout"):
            connection.recv(timeout)
        assert connection.recv(float("inf")) == "one"


def test_iteration_gives_everything_and_ends_with_a_normal_close():
    with served(numbered(300), steps.close(1001), steps.until_eof()) as (_, connection):
        assert list(connection) == [b"%d" % number for number in range(300)]
        assert list(connection) == []


def test_iteration_gives_everything_and_raises_what_is_not_a_normal_close():
    with served(numbered(300), steps.close(1011, "trouble"), steps.until_eof()) as (_, connection):
        got = []
        with pytest.raises(ConnectionClosedError, match="1011"):
            got.extend(iter_into(connection, got))
        assert got == [b"%d" % number for number in range(300)]


def iter_into(connection, got):
    for message in connection:
        got.append(message)
    return []


def test_two_threads_receive_each_message_once_and_both_learn_of_the_end():
    count = 4000
    with served(numbered(count), steps.wait(0.2), steps.close(1000), steps.until_eof()) as (_, connection):
        lists = [[], []]
        threads = [Started(iter_into, connection, one) for one in lists]
        for one in threads:
            assert one.join().error is None
    assert all(got == sorted(got, key=int) for got in lists), "each gets its own in order"
    assert sorted(lists[0] + lists[1], key=int) == [b"%d" % number for number in range(count)]


def test_a_recv_that_finds_another_thread_receiving_times_out_and_says_so():
    with served(steps.receive(), steps.text("for the first"), steps.serve()) as (_, connection):
        first = Started(connection.recv)
        until(lambda: connection._taking.taken)
        for timeout in (0, 0.05):
            with pytest.raises(TimeoutError, match="another thread has been receiving"):
                connection.recv(timeout)
        connection.send("now")
        assert first.join().result == "for the first"


def test_messages_go_out_from_other_threads_while_one_receives():
    count = 200
    with served(steps.serve(echo=True)) as (_, connection):
        senders = [Started(lambda number=number: [connection.send(b"%d:%d" % (number, at)) for at in range(count)])
                   for number in range(4)]
        got = [connection.recv(20) for _ in range(4 * count)]
        for one in senders:
            assert one.join().error is None
    for number in range(4):
        own = [one for one in got if one.startswith(b"%d:" % number)]
        assert own == [b"%d:%d" % (number, at) for at in range(count)]


# ------------------------------------------------------------------------------------------------------------ how it ends

ENDS = {  # name: (steps, kind, code, reason, the cause's type)
    "1000": ([steps.close(1000, "bye")], ConnectionClosedOK, 1000, "bye", None),
    "1001": ([steps.close(1001)], ConnectionClosedOK, 1001, "", None),
    "1011": ([steps.close(1011, "trouble")], ConnectionClosedError, 1011, "trouble", None),
    "4000": ([steps.close(4000, "grün")], ConnectionClosedError, 4000, "grün", None),
    "no code": ([steps.close(None)], ConnectionClosedOK, 1005, "", None),
    "cut": ([steps.cut()], ConnectionClosedError, 1006, "", None),
    "reset": ([steps.wait(0.3), steps.reset()], ConnectionClosedError, 1006, "", ConnectionResetError),
    "protocol": ([steps.frame(3, b"?")], ConnectionClosedError, 1006, "", ProtocolError),
    "not utf-8": ([steps.frame(TEXT, b"\xff")], ConnectionClosedError, 1006, "", ProtocolError),
    "too big": ([steps.binary(b"x" * 5000)], ConnectionClosedError, 1006, "", PayloadTooBig),
    "silence": ([], ConnectionClosedError, 1006, "", TimeoutError),
    "no pong": ([steps.wait(20)], ConnectionClosedError, 1006, "", TimeoutError),
}
OPTIONS = {"too big": {"max_size": 4999}, "silence": {"ws_timeout": 0.4},
           "no pong": {"keepalive": 0.1, "pong_timeout": 0.2, "ws_timeout": None}}


@pytest.mark.parametrize("how", ENDS)
def test_everything_that_came_before_the_end_is_received_and_then_it_is_told_again_and_again(how, caplog):
    """Conformance item C60; the two below it, too."""
    script, kind, code, reason, cause = ENDS[how]
    caplog.set_level(logging.INFO, "wsengine.connection")
    with served(numbered(150), *script, steps.until_eof(), **OPTIONS.get(how, {})) as (server, connection):
        until(lambda: connection.state == "stopped")
        assert [connection.recv() for _ in range(150)] == [b"%d" % number for number in range(150)]
        seen = []
        for timeout in (None, 0, 5):
            with pytest.raises(kind) as caught:
                connection.recv(timeout)
            seen.append(caught.value)
        assert len(set(map(id, seen))) == 3, "each who asks gets one of its own"
        assert {one.code for one in seen} == {code} == {connection.close_code}
        assert connection.close_reason == reason
        if cause is None:
            assert {one.reason for one in seen} == {reason}
            assert seen[0].__cause__ is None
        else:
            assert isinstance(seen[0].__cause__, cause)
            assert str(seen[0].__cause__) in str(seen[0])
        for call in (lambda: connection.send("x"), connection.ping):
            with pytest.raises(kind) as caught:
                call()
            assert caught.value.code == code
            assert caught.value.__cause__ is seen[0].__cause__
        if how in ("1011", "protocol", "not utf-8", "too big"):
            sent = {"protocol": 1002, "not utf-8": 1007, "too big": 1009}.get(how, code)
            frames = server.wait_ended(1)[0].frames
            assert int.from_bytes(frames[-1].payload[:2], "big") == sent
    until(lambda: any("has ended" in one.getMessage() for one in caplog.records))
    [told] = [one for one in caplog.records if "has ended" in one.getMessage()]
    assert told.levelno == (logging.INFO if kind is ConnectionClosedOK else logging.WARNING)


@pytest.mark.parametrize("how", ["1000", "4000", "cut", "reset", "silence"])
def test_a_recv_that_waits_ends_when_the_server_does(how):
    script, kind, code, _, _ = ENDS[how]
    with served(steps.wait(0.2), *script, steps.until_eof(), **OPTIONS.get(how, {})) as (_, connection):
        waiting = [Started(connection.recv) for _ in range(3)]
        for one in waiting:
            assert isinstance(one.join().error, kind)
            assert one.error.code == code


def test_a_recv_that_waits_ends_when_the_servers_process_is_killed():
    with Feed.payloads([]) as feed:
        connection = wsengine.connect(feed.url)
        waiting = Started(connection.recv)
        until(lambda: connection._taking.taken)
        psutil.Process(feed.pid).kill()
        assert waiting.join().error.code == 1006
        connection.close()


def test_the_texts_of_lost_connections_name_the_option():
    with served(steps.binary(b"x" * 5000), steps.until_eof(), max_size=4999) as (_, connection):
        with pytest.raises(ConnectionClosedError, match=r"5000 bytes is over max_size=4999.*raise max_size"):
            connection.recv(10)
    with served(steps.until_eof(), ws_timeout=0.2) as (_, connection):
        with pytest.raises(ConnectionClosedError, match="ws_timeout"):
            connection.recv(10)


# ------------------------------------------------------------------------------------------------------------------ close


def test_close_waits_for_the_servers_close_and_further_ones_do_nothing():
    """Conformance item C61, as all of this part."""
    with served(steps.serve()) as (server, connection):
        connection.close(4000, "grün")
        assert (connection.state, connection.close_code, connection.close_reason) == ("stopped", 4000, "grün")
        connection.close(1000)
        connection.close(4001, "other")
        assert connection.close_code == 4000
        with pytest.raises(ConnectionClosedError) as caught:
            connection.recv()
        assert (caught.value.code, caught.value.reason) == (4000, "grün")
        [record] = server.wait_ended(1)
    assert [one.payload for one in record.frames] == [(4000).to_bytes(2, "big") + "grün".encode()]


@pytest.mark.parametrize("given", [{"code": 999}, {"code": 1006}, {"code": "1000"}, {"reason": "x" * 124}, {"reason": b""}],
                         ids=repr)
def test_what_cannot_go_into_a_close_is_refused_and_the_connection_goes_on(given):
    with served(steps.serve(echo=True)) as (_, connection):
        with pytest.raises(ConfigurationError, match=r"close\.(code|reason)"):
            connection.close(**given)
        connection.send("on")
        assert connection.recv(10) == "on"


def test_what_was_sent_before_a_close_goes_out_first_and_a_send_behind_it_is_refused():
    with served(steps.serve()) as (server, connection):
        for number in range(100):
            connection.send(b"%d" % number * 1000)
        connection.close()
        with pytest.raises(ConnectionClosedOK):
            connection.send("late")
        [record] = server.wait_ended(1)
    assert [one.opcode for one in record.frames] == [BINARY] * 100 + [CLOSE]


def test_messages_that_came_before_a_close_are_still_received_after_it():
    with served(numbered(50), steps.serve()) as (_, connection):
        until(lambda: connection.counts()["messages"] == 50)
        connection.close()
        assert list(connection) == [b"%d" % number for number in range(50)]


def test_a_server_that_does_not_answer_our_close_is_left_after_close_timeout():
    with served(steps.read_until_close(), steps.stall(), close_timeout=0.4) as (_, connection):
        begun = time.monotonic()
        connection.close()
        assert time.monotonic() - begun >= 0.4
        assert connection.state == "stopped", "close returns when it is over, however that came"
        assert connection.close_code == 1006
        with pytest.raises(ConnectionClosedError):
            connection.recv(0)


def test_a_close_with_a_full_queue_reads_on_and_does_not_wait_for_room():
    with Feed.trades(size=4096) as feed:
        connection = wsengine.connect(feed.url, max_queue=16, close_timeout=30)
        until(lambda: connection.paused)
        begun = time.monotonic()
        connection.close()
        assert time.monotonic() - begun < 20, "it waited for the time-out"
        log = feed.wait(lambda log: not log.connections[0].open)
        assert log.connections[0].close_code == 1000
        numbers = [read_sequence(one) for one in drained(connection)]
        assert numbers == list(range(len(numbers)))
        assert 1 <= len(numbers) <= 16


def test_a_recv_that_waits_ends_when_another_thread_closes():
    with served(steps.serve()) as (_, connection):
        waiting = [Started(connection.recv) for _ in range(2)]
        until(lambda: connection._taking.taken)
        connection.close()
        for one in waiting:
            assert isinstance(one.join().error, ConnectionClosedOK)


def test_many_threads_close_and_all_wait_until_it_is_over():
    with served(steps.read_until_close(), steps.wait(0.2), steps.close(1000), steps.until_eof()) as (_, connection):
        states = []
        for one in [Started(lambda: (connection.close(), states.append(connection.state))) for _ in range(6)]:
            assert one.join().error is None
        assert states == ["stopped"] * 6


def test_our_close_does_not_hide_how_the_server_had_ended_it():
    """Whoever comes second, our Close or the end, changes nothing: senders and receivers are told the same."""
    with ScriptedServer([[steps.accept(), steps.close(4007, "first"), steps.until_eof()]]) as server:
        for _ in range(30):
            connection = wsengine.connect(server.url)
            connection.close()
            with pytest.raises(ConnectionClosed) as sent:
                connection.send("x")
            with pytest.raises(ConnectionClosed) as received:
                connection.recv()
            assert (sent.value.code, sent.value.reason) == (received.value.code, received.value.reason)
            assert received.value.code == connection.close_code


@pytest.mark.parametrize(("error", "code"), [(None, 1000), (LookupError, 1011), (KeyboardInterrupt, 1011)])
def test_leaving_the_with_closes_by_1000_and_with_an_exception_by_1011(error, code):
    with ScriptedServer([[steps.accept(), steps.serve()]]) as server:
        def use():
            with wsengine.connect(server.url) as connection:
                assert connection.state == "ready"
                if error:
                    raise error
            assert connection.state == "stopped"

        if error is None:
            use()
        else:
            with pytest.raises(error):
                use()
        [record] = server.wait_ended(1)
    assert [one.payload for one in record.frames] == [code.to_bytes(2, "big")]


# -------------------------------------------------------------------------------------------- while nobody receives


def test_pings_go_out_and_are_answered_while_nobody_receives_and_latency_is_known():
    """Conformance item C62, as all of this part."""
    with Feed.payloads([], ping_interval=0.05) as feed, wsengine.connect(feed.url, keepalive=0.05) as connection:
        log = feed.wait(lambda log: len(log.connections[0].pings) >= 5 and len(log.connections[0].pongs) >= 5)
        assert log.connections[0].open
        until(lambda: connection.latency is not None)
        assert 0 < connection.latency < 10
        assert connection.ping().wait(10)


def test_a_ping_of_the_users_sets_the_latency_too():
    with served(steps.serve()) as (_, connection):
        assert connection.latency is None
        pong = connection.ping()
        assert pong.wait(10)
        until(lambda: connection.latency is not None)      # the pong is told first
        assert connection.latency == pytest.approx(pong.round_trip, abs=1e-8)


def test_a_full_queue_holds_the_server_back_bounds_memory_and_loses_nothing():
    with Feed.trades(size=4096, count=60_000) as feed:
        with wsengine.connect(feed.url, max_queue=100, max_queue_bytes=4 * MIB) as connection:
            until(lambda: connection.paused)
            before = psutil.Process().memory_info().rss
            stopped = None
            while stopped != (stopped := feed.log().messages):
                time.sleep(0.3)
            assert stopped < 60_000, "the server was not held back"
            assert connection.counts()["messages"] <= 100
            assert psutil.Process().memory_info().rss - before < 64 * MIB
            numbers = [read_sequence(connection.recv(20, decode=False)) for _ in range(60_000)]
    assert numbers == list(range(60_000))


@pytest.mark.parametrize(("limit", "most"), [({"max_queue": 1}, 1), ({"max_queue": 3}, 3), ({"max_queue": 1000}, 1000)])
def test_max_queue_messages_wait_at_the_most_and_all_pass(limit, most):
    with Feed.trades(count=5000) as feed, wsengine.connect(feed.url, **limit) as connection:
        until(lambda: connection.paused)
        time.sleep(0.05)
        assert connection.counts()["messages"] == most
        assert [read_sequence(connection.recv(20, decode=False)) for _ in range(5000)] == list(range(5000))


@pytest.mark.parametrize("most", [1, 4096, 100_000])
def test_max_queue_bytes_bounds_what_waits_and_one_message_always_passes(most):
    size = 96 if most == 1 else 1000
    with Feed.trades(size=max(size, 96), count=3000) as feed:
        options = {"max_size": min(most, 2**20), "max_queue_bytes": most}
        if most == 1:
            with wsengine.connect(feed.url, **options) as connection:
                assert ended(connection).__cause__.max_size == 1
            return
        with wsengine.connect(feed.url, **options) as connection:
            until(lambda: connection.paused)
            time.sleep(0.05)
            assert 0 < connection.counts()["bytes"] <= most + 2 * 65536
            assert [read_sequence(connection.recv(20, decode=False)) for _ in range(3000)] == list(range(3000))


# ---------------------------------------------------------------------------------------------------------------- options


def request_of(server):
    return server.wait_connections(1)[0]


REQUEST = {  # option: (value, what the server sees)
    "path": ("/feed?x=1", lambda seen: seen.request_line.split()[1] == "/feed?x=1"),
    "headers": ([("X-Key", "7")], lambda seen: seen.header("x-key") == "7"),
    "origin": ("https://example.com", lambda seen: seen.header("origin") == "https://example.com"),
    "subprotocols": (["a", "b"], lambda seen: seen.header("sec-websocket-protocol") == "a, b"),
    "user_agent_header": ("me/1", lambda seen: seen.header("user-agent") == "me/1"),
    "compression": ("deflate", lambda seen: "permessage-deflate" in (seen.header("sec-websocket-extensions") or "")),
}


@pytest.mark.parametrize("name", REQUEST)
def test_options_of_the_request_are_seen_by_the_server_and_only_where_they_are_given(name):
    value, seen = REQUEST[name]
    with served(steps.serve(), **{name: value}) as (server, _):
        assert seen(request_of(server))
    with served(steps.serve()) as (server, _):
        assert not seen(request_of(server))


def test_headers_may_be_a_callable_which_is_asked_once():
    asked = []
    with served(steps.serve(), headers=lambda: asked.append(1) or {"X-Key": "7"}) as (server, _):
        assert request_of(server).header("x-key") == "7"
    assert asked == [1]


def test_response_subprotocol_and_addresses_are_those_of_the_handshake():
    answer = steps.accept(headers=[("Sec-WebSocket-Protocol", "b"), ("X-Server", "here")])
    with served(steps.serve(), accept=answer, subprotocols=["a", "b"]) as (server, connection):
        assert connection.subprotocol == "b"
        assert (connection.response.status_code, dict(connection.response.headers)["X-Server"]) == (101, "here")
        assert connection.remote_address == ("127.0.0.1", server.port)
        assert connection.local_address[0] == "127.0.0.1"
        assert connection.deflate is None
        assert connection.is_ready
        assert server.url.rstrip("/") in repr(connection)


def test_messages_are_compressed_both_ways_where_that_was_agreed():
    script = [steps.compressed("grün " * 1000), steps.compressed(b"x" * 5000, 100), steps.receive(2), steps.serve()]
    with served(*script, accept=steps.accept_deflate(),
                compression=PerMessageDeflate(threshold=64)) as (server, connection):
        assert connection.deflate is not None
        assert [connection.recv(10), connection.recv(10)] == ["grün " * 1000, b"x" * 5000]
        assert connection.counts()["wire_bytes"] < 1000 < connection.counts()["bytes"]
        connection.send("y" * 5000)
        connection.send("y" * 5000)
        frames = server.wait(lambda records: len(records[0].frames) == 2)[0].frames
    assert all(one.rsv == 4 and len(one.payload) < 200 for one in frames)


def test_open_timeout_bounds_the_handshake_and_names_the_phase():
    with ScriptedServer([[steps.stall()]]) as server:
        with pytest.raises(TimeoutError, match="upgrade response"):
            wsengine.connect(server.url, open_timeout=0.3)


def test_close_timeout_bounds_a_send_that_finds_no_room_too():
    with served(steps.stall(), close_timeout=0.3, write_limit=1) as (_, connection):
        with pytest.raises(TimeoutError, match="the server does not read"):
            fill(connection)
        assert 0 < connection.queued_bytes <= 2 * MIB


def test_write_limit_is_what_may_wait_to_be_sent():
    with served(steps.stall(), close_timeout=0.3, write_limit=32 * MIB) as (_, connection):
        for _ in range(32):
            connection.send(b"x" * (MIB - 14), timeout=0)


def test_a_full_queue_and_a_server_that_does_not_read_are_both_named():
    flood = steps.send(build_server_frame(BINARY, b"y" * 1000) * 30_000)
    with served(flood, steps.stall(), max_queue=16, close_timeout=0.3, write_limit=1) as (_, connection):
        until(lambda: connection.paused)
        with pytest.raises(TimeoutError, match="paused while messages wait for recv"):
            fill(connection)


def test_a_logger_of_ones_own_gets_the_lines(caplog):
    caplog.set_level(logging.INFO)
    with served(steps.serve(), logger=logging.getLogger("mine")) as (_, _connection):
        pass
    until(lambda: len([one for one in caplog.records if one.name == "mine"]) == 2)
    assert not [one for one in caplog.records if one.name == "wsengine.connection"]


def test_a_logger_that_fails_costs_nothing_but_its_line(caplog):
    class Failing(logging.Logger):
        def log(self, *arguments, **options):
            raise LookupError("no log")

    with served(steps.serve(), logger=Failing("failing")) as (_, connection):
        connection.close()
        assert connection.close_code == 1000
    until(lambda: any(one.exc_info for one in caplog.records))
    with served(steps.serve(echo=True)) as (_, connection):
        connection.send("the hub still works")
        assert connection.recv(10) == "the hub still works"


def test_a_logger_that_fails_as_it_begins_leaves_nothing_behind():
    class Failing(logging.Logger):
        def info(self, *arguments, **options):
            raise LookupError("no log")

    with ScriptedServer([[steps.accept(), steps.serve()]]) as server:
        with pytest.raises(LookupError, match="no log"):
            wsengine.connect(server.url, logger=Failing("failing"))
        server.wait_ended(1)


def test_a_supplied_socket_and_its_options_are_used():
    with ScriptedServer([[steps.accept(), steps.text("hello"), steps.serve()]]) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        own = sock.getsockname()
        with wsengine.connect("ws://example.invalid/", sock=sock) as connection:
            assert connection.recv(10) == "hello"
            assert connection.local_address == own
        assert server.connections[0].header("host") == "example.invalid"
    with served(steps.serve(), socket_options=SocketOptions(nodelay=False)) as (_, connection):
        assert connection._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    with served(steps.serve()) as (_, connection):
        assert connection._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_a_unix_socket_is_connected_to(tmp_path):
    path = tmp_path / "server"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        refused = Started(wsengine.connect, "ws://localhost/", unix=path)
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(65536).startswith(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
            peer.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            assert isinstance(refused.join().error, InvalidStatus)


def test_a_proxy_is_asked_by_option_and_by_environment_and_not_with_none(monkeypatch):
    with ScriptedServer([[steps.respond(407)]]) as proxy, ScriptedServer([[steps.accept(), steps.serve()]]) as server:
        at = proxy.url.replace("ws://", "http://")
        with pytest.raises(ProxyError, match="407"):
            wsengine.connect(server.url, proxy=at)
        monkeypatch.setenv("ws_proxy", at)
        with pytest.raises(ProxyError, match="407"):
            wsengine.connect(server.url)
        wsengine.connect(server.url, proxy=None).close()
        assert len(proxy.connections) == 2
        assert len(server.connections) == 1
        assert proxy.connections[0].request_line.startswith("CONNECT ")


def test_an_https_proxy_is_verified_by_proxy_ssl(certificates):
    with ScriptedServer([[steps.respond(407)]], tls=certificates.server()) as proxy:
        at = proxy.url.replace("wss://", "https://")
        with pytest.raises(ssl.SSLCertVerificationError):
            wsengine.connect("ws://127.0.0.1:9/", proxy=at)
        with pytest.raises(ProxyError, match="407"):
            wsengine.connect("ws://127.0.0.1:9/", proxy=at, proxy_ssl=certificates.context())


def test_credentials_go_in_clear_to_other_machines_only_if_allowed():
    with ScriptedServer([[steps.respond(407)]]) as proxy:
        for allowed, refusal, asked in ((False, ConfigurationError, 0), (True, ProxyError, 1)):
            with pytest.raises(refusal) as caught:
                wsengine.connect("ws://me:secret@example.invalid/", allow_plaintext_credentials=allowed,
                                 proxy=proxy.url.replace("ws://", "http://"))
            assert "secret" not in str(caught.value)
            assert len(proxy.connections) == asked


WRONG = {
    "path": "no slash", "headers": 7, "origin": "a\nb", "subprotocols": "a", "user_agent_header": 7, "compression": "gzip",
    "ssl": "yes", "server_hostname": "x", "sock": 7, "unix": 7, "proxy": "gopher://x", "proxy_ssl": 7,
    "socket_options": {"x": 1},
    "allow_plaintext_credentials": 1, "open_timeout": 0, "close_timeout": None, "keepalive": -1, "pong_timeout": "1",
    "ws_timeout": float("nan"), "max_size": 0, "max_queue": 0, "max_queue_bytes": True, "overflow": "oldest",
    "write_limit": 0, "logger": "log",
}


def test_the_table_of_wrong_values_has_every_option():
    taken = [name for name, one in inspect.signature(wsengine.connect).parameters.items() if one.kind == one.KEYWORD_ONLY]
    assert set(taken) == set(WRONG) == set(client_module.OPTIONS)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_refused_by_name_before_anything_is_connected(name):
    with pytest.raises((ConfigurationError, InvalidURI), match=name):
        wsengine.connect("ws://127.0.0.1:9/", **{name: WRONG[name]})


@pytest.mark.parametrize(("options", "match"), [
    ({"additional_headers": []}, "use headers"), ({"ping_interval": 20}, "use keepalive"),
    ({"ping_timeout": 20}, "use pong_timeout"), ({"proxy_server_hostname": "x"}, "use proxy, with the name"),
    ({"source_address": ("", 0)}, "use sock"), ({"extensions": []}, "compression=PerMessageDeflate"),
    ({"retry": None}, "WebSocketProducer"), ({"create_connection": 1}, "what it returns is complete"),
    ({"max_queeu": 7}, "did you mean 'max_queue'"), ({"zzz": 7}, "the options are"),
    ({"pong_timeout": 1, "keepalive": None}, "set keepalive"), ({"max_size": 9, "max_queue_bytes": 8}, "max_queue_bytes=8"),
], ids=lambda one: next(iter(one)) if isinstance(one, dict) else "")
def test_unknown_and_renamed_options_and_those_that_do_not_fit_are_refused_with_the_remedy(options, match):
    with pytest.raises(ConfigurationError, match=match):
        wsengine.connect("ws://127.0.0.1:9/", **options)


@pytest.mark.parametrize(("url", "error"), [("http://x/", InvalidURI), ("ws://127.0.0.1:1/", ConnectionRefusedError)])
def test_what_cannot_be_connected_raises_and_leaves_nothing(url, error):
    with pytest.raises(error):
        wsengine.connect(url)


@pytest.mark.parametrize(("step", "error"), [(steps.respond(401), InvalidStatus), (steps.wrong_accept(), InvalidHandshake)])
def test_an_answer_that_is_no_101_raises_and_leaves_nothing(step, error):
    with ScriptedServer([[step]]) as server, pytest.raises(error):
        wsengine.connect(server.url)


def test_max_size_none_is_bounded_by_max_queue_bytes_and_by_what_a_message_may_be():
    with served(steps.binary(b"x" * 3 * MIB), steps.binary(b"x" * (5 * MIB)), steps.until_eof(), max_size=None,
                max_queue_bytes=4 * MIB) as (_, connection):
        assert len(connection.recv(10)) == 3 * MIB
        assert ended(connection).__cause__.max_size == 4 * MIB
    with served(steps.serve(), max_size=None, max_queue_bytes=2**39) as (_, connection):
        assert connection._settings.max_size == 2**32 - 1


# -------------------------------------------------------------------------------------------------------------------- TLS


def test_a_flood_over_either_path_of_tls_comes_in_order_and_echoes_come_back(path, certificates):
    with Feed.trades(size=300, count=5000, tls=certificates.server()) as feed:
        with wsengine.connect(feed.url, ssl=certificates.context(), max_queue=100) as connection:
            assert connection.tls_path == path
            assert (connection.tls_reason is None) == (path == "A")
            numbers = [read_sequence(connection.recv(20, decode=False)) for _ in range(5000)]
            connection.send("grün")
            assert connection.ping().wait(10)
        log = feed.wait(lambda log: not log.connections[0].open)
    assert numbers == list(range(5000))
    assert (log.connections[0].client_messages, log.connections[0].close_code) == (1, 1000)


def test_one_warning_tells_of_path_b_and_why(certificates, monkeypatch, caplog):
    monkeypatch.setattr(client_module, "_told_of_b", set())
    monkeypatch.setenv(engine_tls.FORCED, "B")
    for _ in range(2):
        with served(steps.serve(), tls=certificates.server(), ssl=certificates.context()) as (_, connection):
            assert connection.tls_path == "B"
    [told] = [one for one in caplog.records if "TLS path B" in one.getMessage()]
    assert told.levelno == logging.WARNING
    assert "WSENGINE_TLS_PATH=B" in told.getMessage()


@pytest.mark.parametrize("how", ["1000", "1011", "cut", "reset"])
def test_ends_over_either_path_of_tls_come_behind_all_messages(path, how, certificates):
    script, kind, code, _, _ = ENDS[how]
    with served(numbered(100), *script, steps.until_eof(), tls=certificates.server(),
                ssl=certificates.context()) as (server, connection):
        assert drained(connection) == [b"%d" % number for number in range(100)]
        error = ended(connection)
        assert (type(error), error.code) == (kind, code)
        [record] = server.wait_ended(1)
    if how in ("1000", "1011"):
        assert [one.opcode for one in record.frames] == [CLOSE], "the server's Close is answered"


def test_a_certificate_is_verified_for_the_name_that_is_given(certificates):
    with ScriptedServer([[steps.accept(), steps.serve()]], tls=certificates.server("example.com")) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            wsengine.connect(server.url, ssl=certificates.context())
        wsengine.connect(server.url, ssl=certificates.context(), server_hostname="example.com").close()
        with pytest.raises(ssl.SSLCertVerificationError):
            wsengine.connect(server.url, server_hostname="example.com")


# ---------------------------------------------------------------------------------------------------------------- figures


def test_the_figures_of_a_connection_stay_its_own_after_its_end_and_when_its_place_is_another_ones():
    script = [steps.accept(), numbered(7), steps.serve()]
    with ScriptedServer([script, [steps.accept(), numbered(11), steps.serve()]]) as server:
        keeper = wsengine.connect(server.url)          # so that the hub goes on
        first = wsengine.connect(server.url, keepalive=0.05)
        until(lambda: first.counts()["messages"] == 11 and first.latency is not None)
        first.close()
        counts, latency = first.counts(), first.latency
        assert counts["messages"] == 11
        assert counts["pings_sent"] >= 1
        second = wsengine.connect(server.url, keepalive=None)
        assert second.index == first.index, "the place was not used again, so that this proves nothing"
        until(lambda: second.counts()["messages"] == 11)
        assert second.counts()["pings_sent"] == 0
        assert second.latency is None
        assert second.ping().wait(10)
        assert (first.counts(), first.latency, first.queued_bytes, first.paused) == (counts, latency, 0, False)
        assert second.stats()["messages"] == 11
        second.close()
        keeper.close()


def test_a_closed_connection_is_garbage_and_its_messages_with_it():
    def use():
        with served(numbered(10), steps.serve()) as (_, connection):
            assert connection.recv(10) == b"0"
            return weakref.ref(connection), weakref.ref(connection._lifecycle)

    def collected():
        gc.collect()
        return all(one() is None for one in gone)

    gone = use()
    until(collected)


