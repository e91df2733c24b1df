"""The TLS pump: what goes in at one end comes out at the other, both ways, in order, bounded, and ends are told.

The layer is CPython's own SSLSocket; the server is one, too, in a thread of the test.
"""

import random
import select
import socket
import ssl
import threading
import time

import pytest

from tests.tls_pair import tls_pair
from wsengine.websocket.pump import CHUNK, Pump

pytestmark = pytest.mark.usefixtures("no_leaks")


class Pumped:
    """A pump between a reader's end, which the test has, and a server's."""

    def __init__(self):
        self.layer, self.server = tls_pair()
        self.pump = Pump("wsengine:test:tls_pump_0", self.layer)
        self.near = self.pump.near

    def __enter__(self):
        self.pump.start()
        return self

    def __exit__(self, *_):
        self.pump.stop()
        self.layer.close()
        self.server.close()

    def receive(self, count):
        """So many bytes at the reader's end, fewer if it ends before."""
        got, deadline = bytearray(), time.monotonic() + 20
        while len(got) < count:
            ready, _, _ = select.select([self.near], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{len(got)} of {count} bytes"
            data = self.near.recv(count - len(got))
            if not data:
                break
            got += data
        return bytes(got)


def test_bytes_of_the_server_come_to_the_reader_in_order_and_in_records_of_any_size(seed):
    chance = random.Random(seed)
    data = chance.randbytes(3 * CHUNK + 12345)
    with Pumped() as one:
        def send():
            at = 0
            while at < len(data):
                size = chance.choice([1, 100, 5000, 16384, 100_000])
                one.server.sendall(data[at:at + size])
                at += size

        sender = threading.Thread(target=send)
        sender.start()
        assert one.receive(len(data)) == data
        sender.join(10)


def test_bytes_of_the_reader_come_to_the_server_in_order(seed):
    data = random.Random(seed).randbytes(3 * CHUNK + 12345)
    with Pumped() as one:
        one.near.settimeout(20)
        sender = threading.Thread(target=one.near.sendall, args=(data,))
        sender.start()
        got = bytearray()
        while len(got) < len(data):
            got += one.server.recv(65536)
        sender.join(10)
        assert got == data


def test_a_reader_that_does_not_read_holds_the_server_back():
    with Pumped() as one:
        one.server.setblocking(False)
        sent, still = 0, time.monotonic()
        while time.monotonic() - still < 0.5:
            try:
                sent += one.server.send(b"x" * 16384)
                still = time.monotonic()
            except ssl.SSLWantWriteError:
                time.sleep(0.01)
            assert sent < 64 * 2**20, "nothing holds the server back"
        # what was taken comes out once the reader reads; the record that waits goes on, too
        assert one.receive(sent) == b"x" * sent


@pytest.mark.parametrize("how", ["close_notify", "end without close_notify"])
def test_the_servers_end_comes_behind_its_last_byte_and_is_no_error(how):
    with Pumped() as one:
        one.server.sendall(b"last")
        if how == "close_notify":
            one.server.settimeout(0.01)
            with pytest.raises(TimeoutError):
                one.server.unwrap()
        else:
            socket.socket.shutdown(one.server, socket.SHUT_WR)
        assert one.receive(100) == b"last"
        assert one.pump.error is None


def test_bytes_that_are_no_record_are_an_end_and_the_error_says_what_it_was():
    with Pumped() as one:
        with socket.socket(fileno=one.server.detach()) as raw:
            raw.sendall(b"this is not a TLS record at all")
            assert one.receive(1) == b""
        assert isinstance(one.pump.error, ssl.SSLError)


def test_the_readers_end_is_a_close_notify_behind_its_last_byte():
    with Pumped() as one:
        one.near.sendall(b"goodbye")
        one.near.shutdown(socket.SHUT_WR)
        assert one.server.recv(100) == b"goodbye"
        assert one.server.recv(100) == b""
        one.server.close()
        assert one.receive(1) == b""
        one.pump._thread.join(10)
        assert not one.pump._thread.is_alive()


def test_a_pump_that_waits_costs_nothing_and_stops_at_once():
    with Pumped() as one:
        one.server.sendall(b"awake")
        assert one.receive(5) == b"awake"
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.25
        begun = time.monotonic()
        one.pump.stop()
        assert time.monotonic() - begun < 5


def test_a_stop_ends_tls_properly_behind_what_was_sent():
    with Pumped() as one:
        one.near.sendall(b"the last")
        one.pump.stop()
        got = b""
        while data := one.server.recv(4096):     # an end without close_notify raises
            got += data
        assert got == b"the last"


def test_what_else_is_raised_is_an_end_with_a_cause_and_not_a_silence(monkeypatch):
    with Pumped() as one:
        monkeypatch.setattr(one.pump, "_send_layer", lambda: 1 // 0)
        one.near.sendall(b"x")
        assert one.receive(1) == b""
        assert isinstance(one.pump.error, ZeroDivisionError)


def test_a_reader_that_has_gone_ends_the_pump():
    with Pumped() as one:
        one.near.close()
        one.server.settimeout(10)
        assert one.server.recv(1) == b""
        one.server.sendall(b"into the void")
        one.server.close()
        one.pump._thread.join(10)
        assert not one.pump._thread.is_alive()
