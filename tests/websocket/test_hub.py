"""What all connections made by `connect()` share: one reader, one timer, one hub's thread; and that nothing of it is left
(conformance item C63).

The server is a process of its own. That the hub ends while others join it is provoked by many threads at random (seeded).
"""

from __future__ import annotations

import gc
import random
import threading

import psutil
import pytest

import wsengine
from tests.threads import Threads
from tests.waiting import until
from wsengine import ConnectionClosed, ConnectionClosedOK
from wsengine.errors import EngineError, EngineStopped
from wsengine.testing import Feed, ScriptedServer, build_server_frame, steps
from wsengine.websocket import hub as hub_module
from wsengine.websocket.hub import Hub

pytestmark = pytest.mark.usefixtures("no_leaks")

THREADS = {"wsengine:connect:hub", "wsengine:connect:reader", "wsengine:connect:timer"}


def threads_of_hubs():
    return sorted(one.name for one in threading.enumerate() if one.name.startswith("wsengine:connect"))


def gone():
    return not threads_of_hubs() and Hub._present is None


@pytest.fixture
def echo():
    with ScriptedServer([[steps.accept(), steps.serve(echo=True)]]) as server:
        yield server


def test_a_hundred_connections_share_three_threads_and_each_gets_its_own_messages(echo):
    connections = [wsengine.connect(echo.url, keepalive=0.2) for _ in range(100)]
    assert set(threads_of_hubs()) == THREADS
    assert len(threads_of_hubs()) == 3
    assert len({one._hub for one in connections}) == 1
    for number, one in enumerate(connections):
        one.send(b"%d" % number)
    for number, one in enumerate(connections):
        assert one.recv(20) == b"%d" % number
    until(lambda: all(one.latency is not None for one in connections))
    for one in connections:
        one.close()
    until(gone)


def test_the_hub_ends_with_the_last_connection_and_another_begins_with_the_next(echo):
    hubs = []
    for _ in range(10):
        with wsengine.connect(echo.url) as first, wsengine.connect(echo.url) as second:
            assert first._hub is second._hub
            hubs.append(first._hub)
            second.send("x")
            assert second.recv(10) == "x"
        until(gone)
    assert len(set(map(id, hubs))) == 10


def test_the_hub_lives_on_while_one_connection_does(echo):
    with wsengine.connect(echo.url) as kept:
        for _ in range(20):
            with wsengine.connect(echo.url) as other:
                assert other._hub is kept._hub
        kept.send("x")
        assert kept.recv(10) == "x"
        assert len(kept._hub._free) + len(kept._hub._live) <= 3, "places are used again"


def test_places_are_used_again_and_what_was_of_an_older_generation_does_not_reach_the_next(echo):
    with wsengine.connect(echo.url):
        for number in range(50):
            with wsengine.connect(echo.url) as one:
                epoch, place, sender = one.epoch, one._place, one._outgoing._sender
                one.send(b"%d" % number)
                assert one.recv(10) == b"%d" % number
            until(lambda place=place, hub=one._hub: place in hub._free)
            sender.send(2, b"left behind", epoch)     # as by a thread that had looked before the end
            with wsengine.connect(echo.url) as other:
                assert other._place is place
                other.send("own")
                assert other.recv(10) == "own"
                with pytest.raises(TimeoutError):
                    other.recv(0.001)


def test_a_place_is_let_go_of_before_another_connection_can_have_it(echo):
    """Else the engine would let go of what the next one reads into."""
    class Watched:
        def __init__(self, hub, seen):
            self.hub, self.receiver, self.seen = hub, hub.receiver, seen

        def __getattr__(self, name):
            return getattr(self.receiver, name)

        def forget(self, control):
            self.seen.append(any(place.control is control for place in self.hub._free) or not Hub._lock.locked())
            self.receiver.forget(control)

    seen = []
    with wsengine.connect(echo.url) as connection:
        connection._hub.receiver = Watched(connection._hub, seen)
    until(gone)
    assert seen == [False]


def test_two_hundred_connections_opened_used_and_closed_by_eight_threads_at_random(echo, seed):
    """Now and then none is left, so that hubs end while others join."""
    opened = []

    def work(number):
        chance = random.Random(f"{seed}:{number}")
        mine = []
        while len(opened) < 200:
            if not mine or (len(mine) < 4 and chance.random() < 0.5):
                opened.append(number)
                mine.append(wsengine.connect(echo.url, keepalive=chance.choice([None, 0.01]), max_queue=4))
            one = chance.choice(mine)
            text = str(chance.random())
            one.send(text)
            assert one.recv(20) == text
            if chance.random() < 0.5:
                mine.remove(one)
                one.close(chance.choice([1000, 4000]))
                with pytest.raises(ConnectionClosed):
                    one.recv()
        for one in mine:
            one.close()

    with Threads() as threads:
        for number in range(8):
            threads.start(work, number)
    until(gone)
    until(lambda: echo.live == 0)


def test_connections_that_end_by_the_server_while_others_begin_take_nothing_along(seed):
    """The last end and the next beginning meet: each connection gets its message and its end."""
    script = [steps.accept_glued(build_server_frame(1, b"only")), steps.close(1000), steps.until_eof()]
    with ScriptedServer([script]) as server:
        def work():
            for _ in range(25):
                connection = wsengine.connect(server.url)
                assert connection.recv(20) == "only"
                with pytest.raises(ConnectionClosedOK):
                    connection.recv(20)

        with Threads() as threads:
            for _ in range(4):
                threads.start(work)
    until(gone)


def test_a_connection_that_stops_being_received_leaves_the_others_alone(echo):
    with Feed.trades(size=2000) as feed, wsengine.connect(feed.url, max_queue=8) as full:
        until(lambda: full.paused)
        with wsengine.connect(echo.url) as other:
            for number in range(200):
                other.send(b"%d" % number)
                assert other.recv(20) == b"%d" % number
        assert full.paused


def test_many_full_connections_go_on_each_as_it_is_received():
    with Feed.trades(count=2000) as feed:
        connections = [wsengine.connect(feed.url, max_queue=10) for _ in range(10)]
        until(lambda: all(one.paused for one in connections))
        for one in reversed(connections):
            for _ in range(2000):
                one.recv(20)
        for one in connections:
            one.close()


# ---------------------------------------------------------------------------------------------- what cannot be begun


@pytest.mark.parametrize("missing", ["hub", "reader", "timer"])
def test_where_the_system_has_no_thread_to_give_connect_says_so_and_leaves_nothing(echo, monkeypatch, missing):
    start = threading.Thread.start

    def refuse(thread):
        if thread.name == f"wsengine:connect:{missing}":
            raise RuntimeError("can't start new thread")
        return start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        wsengine.connect(echo.url)
    assert Hub._present is None
    monkeypatch.undo()
    until(lambda: not threads_of_hubs())
    with wsengine.connect(echo.url) as connection:
        connection.send("x")
        assert connection.recv(10) == "x"


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("where", ["start", "join", "place", "add"])
def test_a_signal_in_connect_leaves_nothing_behind(echo, monkeypatch, where, others):
    """Whichever step has just been done when the handler raises."""
    name = "_start" if where == "start" else where
    step = getattr(Hub, name)

    def interrupted(*arguments):
        step(*arguments)
        raise KeyboardInterrupt

    beside = [wsengine.connect(echo.url) for _ in range(others)]
    with monkeypatch.context() as patch:
        patch.setattr(Hub, name, classmethod(lambda cls, one: interrupted(one)) if where == "join" else interrupted)
        with pytest.raises(KeyboardInterrupt):
            wsengine.connect(echo.url)
    for one in [*beside, wsengine.connect(echo.url)]:
        one.send("x")
        assert one.recv(10) == "x"
        one.close()
    del one, beside
    gc.collect()
    until(lambda: Hub._present is None and not threads_of_hubs())


@pytest.mark.parametrize("others", [0, 1])
def test_a_signal_while_a_connection_begins_leaves_neither_it_nor_the_hub(echo, monkeypatch, others):
    """Both before the reader has it, and right after."""
    kept = [wsengine.connect(echo.url) for _ in range(others)]
    add = Hub.add
    for before in (True, False):
        def interrupted(self, *arguments, before=before):
            if not before:
                add(self, *arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(Hub, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            wsengine.connect(echo.url)
        monkeypatch.undo()
        until(lambda: echo.live == others)
    for one in kept:
        one.send("x")
        assert one.recv(10) == "x"
        one.close()
    until(gone)


def test_there_is_a_limit_to_connections_at_a_time_which_is_named(echo, monkeypatch):
    monkeypatch.setattr(hub_module, "ROOM", 3)
    connections = [wsengine.connect(echo.url) for _ in range(3)]
    with pytest.raises(EngineError, match="3 connections at a time"):
        wsengine.connect(echo.url)
    connections.pop().close()
    until(lambda: len(connections[0]._hub._free) == 1)
    connections.append(wsengine.connect(echo.url))
    for one in connections:
        one.close()
    until(gone)


def test_once_the_interpreter_ends_no_connection_begins(echo, monkeypatch):
    with wsengine.connect(echo.url):
        monkeypatch.setattr(hub_module, "exiting", lambda: True)
        with pytest.raises(EngineStopped, match="interpreter is ending"):
            wsengine.connect(echo.url)
    until(gone)


def test_a_connection_that_has_joined_before_the_stop_and_is_not_with_the_reader_is_refused(echo, monkeypatch):
    """Else the reader, which is gone, would have it, and the interpreter would wait for its end for ever."""
    add = Hub.add

    def late(self, *arguments):
        self.stop_at_exit()
        return add(self, *arguments)

    monkeypatch.setattr(Hub, "add", late)
    with pytest.raises(EngineStopped):
        wsengine.connect(echo.url)
    until(gone)


def test_idle_connections_take_little_memory_each(echo):
    count = 200
    with wsengine.connect(echo.url):
        before = psutil.Process().memory_info().rss
        connections = [wsengine.connect(echo.url) for _ in range(count)]
        grown = psutil.Process().memory_info().rss - before
        for one in connections:
            one.close()
    assert grown < count * 128 * 1024, f"{grown // count} bytes each"
