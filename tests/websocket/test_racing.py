"""The race between addresses (RFC 8305) and Unix sockets, against real listeners of ::1 and 127.0.0.1.

A dead host is a listener whose backlog is full: the kernel drops every further SYN. The resolver alone is replaced.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
import time

import pytest

from wsengine.errors import ConfigurationError
from wsengine.websocket.addresses import interleaved, resolve
from wsengine.websocket.attempt import Attempt
from wsengine.websocket.deadline import Cancellation, Cancelled
from wsengine.websocket.racing import ATTEMPT_DELAY, connect, connect_unix
from wsengine.websocket.socket_options import SocketOptions
from wsengine.websocket.supplied import check_unix

pytestmark = pytest.mark.usefixtures("no_leaks")

V4, V6 = socket.AF_INET, socket.AF_INET6
OPTIONS = SocketOptions()


def has_ipv6():
    try:
        with socket.socket(V6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")


def attempt(open_timeout=10.0, cancellation=None):
    return Attempt("two.example:80", open_timeout, cancellation)


def address(family, port):
    return (family, 6, ("127.0.0.1", port) if family == V4 else ("::1", port, 0, 0))


@contextlib.contextmanager
def listening(family=V4, backlog=16):
    with socket.socket(family) as sock:
        sock.bind(("127.0.0.1" if family == V4 else "::1", 0))
        sock.listen(backlog)
        yield sock


def port(sock):
    return sock.getsockname()[1]


@contextlib.contextmanager
def dead_host(family=V4):
    """An address that answers no SYN."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening(family, 0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket(family))
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        probe = stack.enter_context(socket.socket(family))
        probe.settimeout(0.1)
        with contextlib.suppress(TimeoutError):
            probe.connect(listener.getsockname())
        yield address(family, port(listener))


@contextlib.contextmanager
def nobody(family=V4):
    """An address that refuses."""
    with socket.socket(family) as sock:
        sock.bind(("127.0.0.1" if family == V4 else "::1", 0))
        yield address(family, port(sock))


def accepted(listener, patience=0.0):
    """How many connections a listener has got."""
    count = 0
    while select.select([listener], [], [], patience)[0]:
        listener.accept()[0].close()
        count += 1
    return count


def test_families_take_turns_and_the_first_one_leads():
    a, b, c = (V6, 6, ("a",)), (V6, 6, ("b",)), (V6, 6, ("c",))
    x, y = (V4, 6, ("x",)), (V4, 6, ("y",))
    assert interleaved([a, b, c, x, y]) == [a, x, b, y, c]
    assert interleaved([x, y, a]) == [x, a, y]
    assert interleaved([x, y]) == [x, y]
    assert interleaved([]) == []


@needs_ipv6
def test_a_first_address_that_answers_wins_and_no_other_is_tried():
    with listening(V6) as six, listening(V4) as four:
        sock, where = connect(attempt(), [address(V6, port(six)), address(V4, port(four))], OPTIONS)
        with sock:
            assert where == ("::1", port(six), 0, 0)
            assert sock.getblocking() is False
            assert accepted(four, 2 * ATTEMPT_DELAY) == 0


@needs_ipv6
def test_a_dead_ipv6_gives_way_to_ipv4_after_the_attempt_delay_and_is_closed():
    with dead_host(V6) as six, listening(V4) as four:
        one = attempt()
        sock, where = connect(one, [six, address(V4, port(four))], OPTIONS)
        with sock:
            assert where == ("127.0.0.1", port(four))
            assert one.timings["tcp"] >= ATTEMPT_DELAY
    assert one.notes == []


@needs_ipv6
def test_a_refusal_starts_the_next_address_at_once():
    with nobody(V6) as six, listening(V4) as four:
        one = attempt()
        sock, where = connect(one, [six, address(V4, port(four))], OPTIONS)
        sock.close()
        assert where == ("127.0.0.1", port(four))
        assert one.notes == ["::1: Connection refused"]


def test_an_address_that_answers_late_may_still_win():
    """The backlog gets room while the race goes on; the kernel's second SYN, after a second, is answered."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening(V4, 0))
        fillers = [stack.enter_context(socket.socket()) for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        dead = stack.enter_context(dead_host())
        timer = threading.Timer(0.5, lambda: accepted(listener, 2.5))
        timer.start()
        sock, where = connect(attempt(30), [address(V4, port(listener)), dead], OPTIONS)
        sock.close()
        timer.join()
        assert where == ("127.0.0.1", port(listener))


def test_all_that_failed_are_in_the_error():
    with nobody() as one, nobody() as other:
        with pytest.raises(ConnectionRefusedError) as caught:
            connect(attempt(), [one, other], OPTIONS)
    assert str(caught.value) == ("[Errno 111] cannot connect to two.example:80 "
                                 "(127.0.0.1: Connection refused; 127.0.0.1: Connection refused)")


def test_no_address_at_all_is_an_error():
    with pytest.raises(OSError, match="it has no address") as caught:
        connect(attempt(), [], OPTIONS)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_family_that_the_machine_does_not_have_is_one_failure_among_others():
    with listening() as four:
        one = attempt()
        sock, _ = connect(one, [(12345, 6, ("strange", 1)), address(V4, port(four))], OPTIONS)
        sock.close()
        assert len(one.notes) == 1


def test_one_deadline_holds_for_all_addresses():
    with dead_host() as one, dead_host() as other, nobody() as third:
        start = time.monotonic()
        with pytest.raises(TimeoutError, match=r"before: 127\.0\.0\.1: Connection refused"):
            connect(attempt(1.0), [third, one, other], OPTIONS)
        assert 1.0 <= time.monotonic() - start < 5


def test_a_cancellation_ends_the_race_and_closes_all_of_it():
    with dead_host() as one, dead_host() as other, Cancellation() as cancellation:
        timer = threading.Timer(0.6, cancellation.cancel)
        timer.start()
        with pytest.raises(Cancelled):
            connect(attempt(None, cancellation), [one, other], OPTIONS)
        timer.join()


def test_localhost_has_addresses_and_a_family_can_be_asked_for():
    found = resolve(attempt(), "localhost", 80, V4)
    assert {one[0] for one in found} == {V4}


# ----------------------------------------------------------------------------------------------------------- Unix sockets


def test_a_unix_socket_is_connected_to(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with connect_unix(attempt(), path, SocketOptions(keepalive_idle=5)) as sock:
            assert sock.getpeername() == path
            assert sock.getblocking() is False


def test_a_unix_socket_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot connect to two\.example"):
        connect_unix(attempt(), str(tmp_path / "none"), OPTIONS)


def test_a_unix_socket_with_a_full_backlog_is_waited_for_up_to_the_deadline(tmp_path):
    path = str(tmp_path / "s")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        full = False
        while not full:
            filler = stack.enter_context(socket.socket(socket.AF_UNIX))
            filler.setblocking(False)
            full = filler.connect_ex(path) == errno.EAGAIN
        with pytest.raises(TimeoutError, match="the connect"):
            connect_unix(attempt(0.3), path, OPTIONS)
        timer = threading.Timer(0.2, lambda: accepted(listener, 0.1))
        timer.start()
        connect_unix(attempt(20), path, OPTIONS).close()
        timer.join()


@pytest.mark.parametrize("value", ["", 5, b"bytes", "/x" * 60, "a\0b"])
def test_a_wrong_path_is_named(value):
    with pytest.raises(ConfigurationError) as caught:
        check_unix("unix", value)
    assert caught.value.path == "unix"


def test_paths_are_taken_as_text_or_path_or_abstract_name(tmp_path):
    assert check_unix("unix", tmp_path) == str(tmp_path)
    assert check_unix("unix", "\0name") == "\0name"
    assert check_unix("unix", None) is None
