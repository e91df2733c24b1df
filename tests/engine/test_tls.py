"""TLS without the GIL: what comes and goes over a borrowed SSL object, however it is cut, and how it ends.

The peer is CPython's `ssl` at the other end of a TCP connection. Connecting and verifying are tests of the dial; messages,
sizes and cuts as such are tests of the stream.
"""

import ctypes
import errno
import random
import socket
import ssl
import struct
import threading
import time

import pytest

from tests.engine.line import Line
from tests.tls_pair import contexts, tls_pair
from tests.waiting import until
from wsengine.engine import tls
from wsengine.engine.control import ControlBlock
from wsengine.engine.stream import Stream
from wsengine.errors import EngineError
from wsengine.testing.wire import BINARY, CLOSE, PING, PONG, build_server_frame, close_payload

VERSIONS = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}

#: Bytes of a record's payload at the most (RFC 8446 §5.1).
RECORD = 16384
TOTAL_RENEGOTIATIONS = 12     # of SSL_ctrl(3)

pytestmark = pytest.mark.usefixtures("no_leaks")


class TLSLine(Line):
    """A line over TLS. `before`: what the peer sends so early that it waits inside the SSL object at the hand-over."""

    def __init__(self, version=ssl.TLSVersion.TLSv1_3, *, before=b"", **options):
        ours, peer = tls_pair(version)
        leftover = b""
        if before:
            peer.sendall(before)
            ours.setblocking(True)
            leftover = ours.recv(1)
            ours.setblocking(False)
            assert ours.pending()
        super().__init__((ours, peer), leftover=leftover, tls=ours, **options)


def message(payload):
    return build_server_frame(BINARY, payload)


def libssl(name):
    function = getattr(ctypes.PyDLL(tls._ssl.__file__), name)
    function.restype = ctypes.c_int
    return function


def ssl_of(sock):
    """The SSL* of a socket of the server's side, for what `ssl` has no call for."""
    place = id(sock._sslobj) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
    return ctypes.c_void_p(ctypes.c_void_p.from_address(place).value)


# ---------------------------------------------------------------------------------------------------- what comes and goes


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("record", [1, 17, 304, 4096, RECORD])
def test_messages_in_records_of_any_size_arrive_whole_and_in_order(version, record, seed):
    chance = random.Random(f"{seed}-{version}-{record}")
    longest = 200 if record == 1 else 20_000
    payloads = [chance.randbytes(chance.randint(0, longest)) for _ in range(100)]
    wire = b"".join(map(message, payloads))
    with TLSLine(VERSIONS[version]) as line:
        for at in range(0, len(wire), record):
            line.peer.sendall(wire[at:at + record])
        assert line.claim(len(payloads)) == payloads


def test_a_message_larger_than_any_buffer_arrives_whole():
    payload = random.Random(1).randbytes(5 * 2**20)
    with TLSLine() as line:
        line.peer.sendall(message(payload) + message(b"behind it"))
        assert line.claim(2) == [payload, b"behind it"]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_waits_inside_the_ssl_object_at_the_hand_over_is_read_without_waiting_for_more(version):
    payloads = [b"first", b"second" * 100, b"third"]
    with TLSLine(VERSIONS[version], before=b"".join(map(message, payloads))) as line:
        assert line.claim(3) == payloads


@pytest.mark.parametrize("size", [0, 125, 70_000])
def test_a_ping_is_answered_over_tls(size):
    payload = b"p" * min(size, 125)
    with TLSLine() as line:
        line.peer.sendall(build_server_frame(PING, payload))
        assert line.received(1) == [(PONG, payload)]


def test_a_full_pipeline_pauses_the_socket_and_loses_nothing_that_was_decrypted(seed):
    payloads = [b"%d" % number for number in range(3000)]
    with TLSLine(max_messages=16) as line:
        sender = threading.Thread(target=line.peer.sendall, args=(b"".join(map(message, payloads)),))
        sender.start()
        until(lambda: line.control.paused)
        chance, taken = random.Random(seed), []
        until(lambda: taken.extend(line.ring.claim(chance.randint(1, 16))) or len(taken) >= len(payloads))
        sender.join(10)
        assert taken == payloads


# ---------------------------------------------------------------------------------------------- keys that change meanwhile


@pytest.mark.parametrize("answer", [0, 1], ids=["not requested", "requested"])
def test_a_key_update_in_the_midst_of_a_feed_changes_nothing(answer):
    with TLSLine() as line:
        for number in range(50):
            line.peer.sendall(message(b"%d" % number))
            assert libssl("SSL_key_update")(ssl_of(line.peer), answer) == 1
        assert line.claim(50) == [b"%d" % number for number in range(50)]
        line.peer.sendall(build_server_frame(PING, b"new keys"))
        assert line.received(1) == [(PONG, b"new keys")]


def test_a_renegotiation_in_the_midst_of_a_feed_changes_nothing():
    with TLSLine(ssl.TLSVersion.TLSv1_2) as line:
        for number in range(5):
            line.peer.sendall(message(b"%d" % number))
            assert libssl("SSL_renegotiate")(ssl_of(line.peer)) == 1
            line.peer.do_handshake()             # sends the request
            line.peer.settimeout(0.05)
            deadline = time.monotonic() + 10
            while libssl("SSL_renegotiate_pending")(ssl_of(line.peer)):
                assert time.monotonic() < deadline, "the client does not renegotiate"
                with pytest.raises(TimeoutError):
                    line.peer.recv(1)            # the handshake goes on while it waits for data, of which there is none
            line.peer.settimeout(10)
        assert libssl("SSL_ctrl")(ssl_of(line.peer), TOTAL_RENEGOTIATIONS, 0, None) == 5
        assert line.claim(5) == [b"%d" % number for number in range(5)]
        line.peer.sendall(build_server_frame(PING, b"new keys"))
        assert line.received(1) == [(PONG, b"new keys")]


# ------------------------------------------------------------------------------------------------------------- how it ends


@pytest.mark.parametrize("version", VERSIONS)
def test_a_closing_handshake_ends_with_close_notify_both_ways(version):
    with TLSLine(VERSIONS[version]) as line:
        line.peer.sendall(build_server_frame(CLOSE, close_payload(4000, "enough")))
        assert line.received(1) == [(CLOSE, close_payload(4000, ""))]
        assert line.peer.recv(1) == b"", "no close_notify came"
        line.peer.unwrap().close()
        note = line.ended()
        assert (note.cause, note.code, note.text) == ("closed", 4000, b"enough")


def test_a_close_notify_without_a_close_is_an_end_of_stream_though_the_socket_stays_open():
    with TLSLine() as line:
        line.peer.sendall(message(b"last"))
        assert libssl("SSL_shutdown")(ssl_of(line.peer)) == 0
        assert line.ended().cause == "eof"
        assert line.claim(1) == [b"last"]


def test_an_end_without_close_notify_is_an_end_of_stream():
    with TLSLine() as line:
        line.peer.sendall(message(b"last"))
        socket.socket.shutdown(line.peer, socket.SHUT_WR)
        assert line.ended().cause == "eof"
        assert line.claim(1) == [b"last"]


def test_a_reset_behind_the_last_message_keeps_its_error():
    with TLSLine() as line:
        line.peer.sendall(message(b"last"))
        assert line.claim(1) == [b"last"]
        with socket.socket(fileno=line.peer.detach()) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        note = line.ended()
        assert (note.cause, note.error) == ("error", errno.ECONNRESET)


def test_bytes_that_are_no_record_end_the_connection_with_what_libssl_says():
    with TLSLine() as line:
        line.peer.sendall(message(b"last"))
        with socket.socket(fileno=line.peer.detach()) as raw:
            raw.sendall(b"this is not a TLS record at all, and long enough")
            note = line.ended()
        assert note.cause == "tls"
        assert note.text, "no reason was given"
        assert line.claim(1) == [b"last"]


# -------------------------------------------------------------------------------------------------------------- the guards


def test_path_b_can_be_forced_and_the_reason_says_so(monkeypatch):
    ours, _ = contexts()
    monkeypatch.setenv(tls.FORCED, "B")
    assert tls.FORCED in tls.why_not(ours)
    monkeypatch.delenv(tls.FORCED)
    assert tls.why_not(ours) is None


def test_a_context_that_calls_back_into_python_is_refused(tmp_path):
    ours, _ = contexts()
    ours.keylog_filename = str(tmp_path / "keys")
    assert "key log" in tls.why_not(ours)
    ours, _ = contexts()
    ours._msg_callback = lambda *_: None
    assert "callback" in tls.why_not(ours)


def test_a_socket_that_is_not_what_it_should_be_is_refused_with_a_reason():
    client, server = tls_pair()
    try:
        assert tls.check(client) is None
        with socket.socket() as plain:
            assert "SSLSocket" in tls.check(plain)
        client.setblocking(True)
        with pytest.raises(EngineError, match="blocking"):
            Stream(client.fileno(), ControlBlock(), 0, 1, 1000, tls=client)
        client.setblocking(False)
    finally:
        client.close()
        server.close()
    assert tls.check(client) is not None         # closed: it has no SSL object any more
    with pytest.raises(EngineError, match="without the GIL"):
        Stream(0, ControlBlock(), 0, 1, 1000, tls=client)
