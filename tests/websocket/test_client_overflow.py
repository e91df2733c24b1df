"""What `connect()` does with messages for which there is no room: every policy, counted to the message.

That of pipelines is in tests/pipeline/test_overflow.py, and that "block" holds the server back in test_client.py.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest

import wsengine
from tests.waiting import until
from wsengine import ConfigurationError, ConnectionClosedError, ConnectionClosedOK, QueueOverflow
from wsengine.testing import Feed, ScriptedServer, build_server_frame, steps

pytestmark = pytest.mark.usefixtures("no_leaks")

BINARY = 2
POLICIES = ["drop_oldest", "drop_newest"]


@contextmanager
def flooded(count, **options):
    """A connection that has read so many messages, and of which nobody has taken one."""
    with Feed.payloads([(BINARY, b"%d" % number) for number in range(count)]) as feed:
        with wsengine.connect(feed.url, keepalive=None, **options) as connection:
            until(lambda: connection.counts()["messages"] == count)
            assert not connection.paused
            yield connection


def taken(connection):
    """The numbers of all that waits."""
    numbers = []
    while True:
        try:
            numbers.append(int(connection.recv(0)))
        except TimeoutError:
            return numbers


@pytest.mark.parametrize("max_queue", [1, 2, 16, 100, 1024])
def test_drop_oldest_keeps_the_last_and_drop_newest_the_first(max_queue):
    count = 5000
    with flooded(count, overflow="drop_newest", max_queue=max_queue) as connection:
        assert taken(connection) == list(range(max_queue))
        assert connection.counts()["dropped"] == count - max_queue
    with flooded(count, overflow="drop_oldest", max_queue=max_queue) as connection:
        kept = taken(connection)
        assert kept == list(range(count - len(kept), count))
        assert max_queue - max(max_queue // 16, 1) < len(kept) <= max_queue
        assert connection.counts()["dropped"] == count - len(kept)


def test_of_a_queue_of_one_the_newest_is_received_whatever_was_received_before():
    with ScriptedServer([[steps.accept(), *map(steps.text, "abc"), steps.receive(), *map(steps.text, "def"),
                          steps.serve()]]) as server:
        with wsengine.connect(server.url, overflow="drop_oldest", max_queue=1) as connection:
            until(lambda: connection.counts()["messages"] == 3)
            assert connection.recv() == "c"
            connection.send("more")
            until(lambda: connection.counts()["messages"] == 6)
            assert connection.recv() == "f"
            assert connection.counts()["dropped"] == 4


@pytest.mark.parametrize("overflow", POLICIES)
def test_while_somebody_receives_each_message_is_received_in_order_or_counted(overflow):
    count = 50_000
    with Feed.payloads([(BINARY, b"%d" % number) for number in range(count)]) as feed:
        with wsengine.connect(feed.url, keepalive=None, overflow=overflow, max_queue=32) as connection:
            got = []
            until(lambda: connection.counts()["dropped"] > 0)
            while connection.counts()["messages"] < count:
                got += taken(connection)
            got += taken(connection)
            assert got == sorted(set(got))
            assert len(got) + connection.counts()["dropped"] == count


@pytest.mark.parametrize("overflow", POLICIES)
def test_the_bound_in_bytes_drops_as_well(overflow):
    count, size = 300, 100_000
    with Feed.payloads([(BINARY, number.to_bytes(4, "big") * (size // 4)) for number in range(count)]) as feed:
        with wsengine.connect(feed.url, overflow=overflow, max_queue_bytes=2**21) as connection:
            until(lambda: connection.counts()["messages"] == count)
            assert connection._ring.account.bytes <= 2**21 + 2**20      # and one message under way
            dropped = connection.counts()["dropped"]
            got = [connection.recv(10) for _ in range(count - dropped)]
            assert dropped > count // 2
            assert all(one == one[:4] * (size // 4) for one in got)
            numbers = [int.from_bytes(one[:4], "big") for one in got]
            assert numbers == sorted(set(numbers))
            assert (0 in numbers) == (overflow == "drop_newest")
            assert (count - 1 in numbers) == (overflow == "drop_oldest")


def test_error_ends_the_connection_once_what_came_before_has_been_received():
    wire = b"".join(build_server_frame(BINARY, b"%d" % number) for number in range(1000))
    with ScriptedServer([[steps.accept(), steps.send(wire), steps.echo_close(), steps.until_eof()]]) as server:
        with wsengine.connect(server.url, overflow="error", max_queue=64) as connection:
            until(lambda: connection.state == "stopped")
            assert [int(connection.recv()) for _ in range(64)] == list(range(64))
            with pytest.raises(ConnectionClosedError) as caught:
                connection.recv()
            assert isinstance(caught.value.__cause__, QueueOverflow)
            assert connection.close_code == 1006
            assert server.wait_ended(1)[0].frames[-1].payload == (1008).to_bytes(2, "big") + b"queue overflow"


@pytest.mark.parametrize("overflow", POLICIES)
def test_a_connection_that_drops_lives_beside_one_that_waits(overflow):
    """They share a reader: the one is paused, the other is read on."""
    count = 20_000
    payloads = [(BINARY, b"%d" % number) for number in range(count)]
    with Feed.payloads(payloads) as feed, Feed.payloads(payloads) as other:
        with (wsengine.connect(feed.url, max_queue=16, max_queue_bytes=2**15, max_size=1000) as waits,
              wsengine.connect(other.url, max_queue=16, overflow=overflow) as drops):
            until(lambda: drops.counts()["messages"] == count and waits.paused)
            assert len(taken(drops)) + drops.counts()["dropped"] == count
            assert [int(waits.recv(10)) for _ in range(count)] == list(range(count))
            assert waits.counts()["dropped"] == 0


def test_a_thread_that_waits_in_recv_is_woken_by_a_message_that_drops_another():
    with ScriptedServer([[steps.accept(), steps.receive(), *map(steps.text, "ab"), steps.close(1000)]]) as server:
        with wsengine.connect(server.url, overflow="drop_oldest", max_queue=1) as connection:
            got = []

            def receive():
                got.extend(connection)

            thread = threading.Thread(target=receive)
            thread.start()
            connection.send("go")
            thread.join(10)
            assert not thread.is_alive()
            assert got in (["b"], ["a", "b"])
            assert len(got) + connection.counts()["dropped"] == 2
            with pytest.raises(ConnectionClosedOK):
                connection.recv()


@pytest.mark.parametrize("overflow", [*POLICIES, "error"])
def test_what_is_no_message_needs_no_room(overflow):
    """A queue that is just full loses nothing to a ping, a fragment or a Close."""
    script = [*map(steps.text, "abcd"), steps.ping(b"still there?"), steps.frame(1, b"beg", fin=False), steps.receive(),
              steps.wait(0.2), steps.close(1000)]
    with ScriptedServer([[steps.accept(), *script]]) as server:
        with wsengine.connect(server.url, overflow=overflow, max_queue=4) as connection:
            connection.send("hello")
            assert list(connection) == ["a", "b", "c", "d"]
            assert (connection.close_code, connection.counts()["dropped"], connection.counts()["discarded"]) == (1000, 0, 0)
            assert b"still there?" in [one.payload for one in server.connections[0].frames]


@pytest.mark.parametrize("value", ["oldest", None, 1, "BLOCK"])
def test_another_policy_is_refused(value):
    with pytest.raises(ConfigurationError) as caught:
        wsengine.connect("ws://localhost/", overflow=value)
    assert (caught.value.args[0], caught.value.args[1]) == ("connect.overflow", value)
    assert "'drop_oldest'" in str(caught.value)
