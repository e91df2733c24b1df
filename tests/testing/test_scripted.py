"""The scripted server: that each step does on the wire what it says, seen by a plain socket."""

from __future__ import annotations

import socket
import struct
import time
import zlib

import pytest

from wsengine.errors import ConfigurationError
from wsengine.testing import ScriptedServer, build_server_frame, steps
from wsengine.testing.wire import ClientFrames, accept_response, apply_mask

pytestmark = pytest.mark.usefixtures("no_leaks")

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
REQUEST = f"GET /feed HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: {KEY}\r\nX-Api-Key: first\r\n\r\n".encode()


class Visit:
    """A server that plays one script, and one client that has sent its request."""

    def __init__(self, *script: steps.Step, request: bytes = REQUEST) -> None:
        self.server = ScriptedServer([script])
        self.request = request

    def __enter__(self) -> Visit:
        self.server.start()
        self.sock = socket.create_connection(("127.0.0.1", self.server.port), 10)
        self.sock.sendall(self.request)
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        self.server.stop()

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := self.sock.recv(size - len(data))):
            data += more
        return data

    def accepted(self) -> Visit:
        assert self.read(len(accept_response(KEY))) == accept_response(KEY)
        return self

    def send(self, opcode: int, payload: bytes = b"", mask: bytes | None = b"abcd") -> None:
        self.sock.sendall(client_frame(opcode, payload, mask))

    def read_to_end(self) -> bytes:
        data = b""
        while more := self.sock.recv(65536):
            data += more
        return data

    def ended(self) -> str | None:
        return self.server.wait_ended(1)[0].ended


def client_frame(opcode: int, payload: bytes, mask: bytes | None) -> bytes:
    assert len(payload) < 126
    if mask is None:
        return bytes((0x80 | opcode, len(payload))) + payload
    return bytes((0x80 | opcode, 0x80 | len(payload))) + mask + apply_mask(payload, mask)


def test_accept_sends_the_101_of_the_rfc_and_the_request_head_is_recorded() -> None:
    with Visit(steps.accept()) as visit:
        assert visit.read_to_end() == (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
        visit.sock.close()
        (record,) = visit.server.wait_ended(1)
    assert record.request_line == "GET /feed HTTP/1.1"
    assert record.header("x-api-key") == "first"
    assert record.header("cookie") is None
    assert record.ended == "script done"
    assert record.ended_ns is not None
    assert record.opened_ns < record.ended_ns < time.monotonic_ns()


def test_accept_takes_further_headers_and_leaves_out_required_ones() -> None:
    with Visit(steps.accept(headers=[("Sec-WebSocket-Protocol", "v2")], without=["upgrade"])) as visit:
        head = visit.read_to_end()
    assert b"\r\nSec-WebSocket-Protocol: v2\r\n" in head
    assert b"Upgrade: websocket" not in head


def test_accept_in_chunks_arrives_slowly() -> None:
    with Visit(steps.accept(chunk=20, interval=0.02)) as visit:
        start = time.monotonic()
        assert visit.read_to_end() == accept_response(KEY)
        assert time.monotonic() - start > 0.1


def test_glued_bytes_come_in_the_same_segment_as_the_101() -> None:
    frame = build_server_frame(1, b"glued")
    with Visit(steps.accept_glued(frame), steps.stall(1)) as visit:
        assert visit.sock.recv(65536) == accept_response(KEY) + frame


def test_wrong_accept_is_a_101_for_another_key() -> None:
    with Visit(steps.wrong_accept()) as visit:
        head = visit.read_to_end()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: " in head
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" not in head


def test_respond_sends_status_headers_and_body() -> None:
    with Visit(steps.respond(503, [("Retry-After", "7")], b"later", "Busy")) as visit:
        assert visit.read_to_end() == b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 5\r\n\r\nlater"


def test_garbage_can_come_before_the_request_is_read() -> None:
    with Visit(steps.skip_request(), steps.raw(b"\x00\xff garbage"), request=b"") as visit:
        assert visit.read_to_end() == b"\x00\xff garbage"
        visit.sock.close()
        assert visit.server.wait_ended(1)[0].request_line is None


def test_drip_sends_chunk_by_chunk() -> None:
    with Visit(steps.drip(b"abcdef", chunk=2, interval=0.1)) as visit:
        arrivals = []
        while data := visit.sock.recv(100):
            arrivals.append(data)
    assert arrivals == [b"ab", b"cd", b"ef"]


@pytest.mark.parametrize(("step", "wire"), [
    (steps.text("grüße"), b"\x81\x07gr\xc3\xbc\xc3\x9fe"),
    (steps.binary(b"\x00" * 126), b"\x82\x7e\x00\x7e" + b"\x00" * 126),
    (steps.binary(b"\x01" * 65_536), b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + b"\x01" * 65_536),
    (steps.frame(0, b"more", fin=False), b"\x00\x04more"),
    (steps.frame(3, rsv=5), b"\xd3\x00"),
    (steps.frame(1, b"\x00\x00\x00\x00\x00", masked=True), b"\x81\x85\x124Vx\x124Vx\x12"),
    (steps.ping(b"p"), b"\x89\x01p"),
    (steps.pong(b"q"), b"\x8a\x01q"),
    (steps.close(1012, "restart"), b"\x88\x09\x03\xf4restart"),
    (steps.close(0), b"\x88\x02\x00\x00"),
    (steps.close(None), b"\x88\x00"),
    (steps.send(b"any bytes"), b"any bytes"),
])
def test_a_frame_step_sends_exactly_its_bytes(step: steps.Step, wire: bytes) -> None:
    with Visit(steps.accept(), step) as visit:
        assert visit.accepted().read_to_end() == wire


def test_received_frames_are_recorded_with_mask_and_time() -> None:
    with Visit(steps.accept(), steps.receive(2), steps.text("go"), steps.cut(1)) as visit:
        visit.accepted()
        before = time.monotonic_ns()
        visit.send(1, b"subscribe")
        visit.send(9, b"ping")
        visit.send(2, b"unmasked", mask=None)
        assert visit.read(6 + 4) == b"\x8a\x04ping" + b"\x81\x02go"
        first, ping, last = visit.server.connections[0].frames
    assert (first.opcode, first.payload, first.mask, first.masked) == (1, b"subscribe", b"abcd", True)
    assert (ping.opcode, ping.payload) == (9, b"ping")
    assert (last.opcode, last.payload, last.mask, last.masked) == (2, b"unmasked", None, False)
    assert before < first.at_ns <= last.at_ns < time.monotonic_ns()


def test_receive_gives_up_after_its_timeout() -> None:
    with Visit(steps.accept(), steps.receive(1, timeout=0.05), steps.text("never")) as visit:
        assert visit.accepted().read_to_end() == b""
        assert visit.ended() == "receive timed out"


def test_wait_reads_and_answers_nothing() -> None:
    with Visit(steps.accept(), steps.wait(0.2), steps.text("done")) as visit:
        visit.accepted().send(9, b"anyone?")
        assert visit.read(6) == b"\x81\x04done"
        assert [frame.payload for frame in visit.server.connections[0].frames] == [b"anyone?"]


def test_serve_answers_pings_and_echoes_if_told_and_then_goes_on() -> None:
    with Visit(steps.accept(), steps.serve(0.3, echo=True), steps.text("done")) as visit:
        visit.accepted().send(9, b"a")
        visit.send(2, b"b")
        assert visit.read(6) == b"\x8a\x01a\x82\x01b"
        assert visit.read(6) == b"\x81\x04done"


def test_serve_answers_a_close_and_ends() -> None:
    with Visit(steps.accept(), steps.serve(), steps.text("never")) as visit:
        visit.accepted().send(8, struct.pack("!H", 1000))
        assert visit.read_to_end() == b"\x88\x02\x03\xe8"
        visit.sock.close()
        assert visit.ended() == "closed by client"


def test_echo_close_waits_for_the_close_and_answers_it() -> None:
    with Visit(steps.accept(), steps.echo_close()) as visit:
        visit.accepted().send(1, b"not yet")
        visit.send(8, struct.pack("!H", 1001) + b"bye")
        assert visit.read_to_end() == b"\x88\x05\x03\xe9bye"


def test_read_until_close_does_not_answer_it() -> None:
    with Visit(steps.accept(), steps.read_until_close(), steps.text("unanswered")) as visit:
        visit.accepted().send(8)
        assert visit.read(12) == b"\x81\x0aunanswered"
        assert visit.server.connections[0].frames[-1].opcode == 8


def test_waiting_for_a_close_that_does_not_come_ends_the_connection() -> None:
    with Visit(steps.accept(), steps.read_until_close(timeout=0.05)) as visit:
        assert visit.accepted().read_to_end() == b""
        assert visit.ended() == "no Close in time"


def test_until_eof_reads_to_the_end_of_the_client() -> None:
    with Visit(steps.accept(), steps.until_eof(), steps.text("never")) as visit:
        visit.accepted().send(1, b"last words")
        visit.sock.shutdown(socket.SHUT_WR)
        assert visit.read_to_end() == b""
        (record,) = visit.server.wait_ended(1)
    assert record.ended == "ended by client"
    assert record.frames[0].payload == b"last words"


def test_until_eof_gives_up_after_its_timeout() -> None:
    with Visit(steps.accept(), steps.until_eof(timeout=0.05)) as visit:
        assert visit.accepted().read_to_end() == b""
        assert visit.ended() == "no EOF in time"


def test_stall_neither_reads_nor_writes_until_the_client_goes() -> None:
    with Visit(steps.accept(), steps.stall()) as visit:
        visit.accepted().send(9, b"anyone?")
        visit.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            visit.sock.recv(1)
        (record,) = visit.server.connections
        assert (record.open, record.step, record.frames) == (True, "stall", ())
        visit.sock.close()
        assert visit.ended() == "ended by client"


def test_stall_for_a_time_goes_on_after_it() -> None:
    with Visit(steps.accept(), steps.stall(0.1), steps.text("awake")) as visit:
        assert visit.accepted().read(7) == b"\x81\x05awake"


def test_cut_ends_by_fin_after_all_that_was_sent() -> None:
    with Visit(steps.accept(), steps.binary(bytes(500_000)), steps.cut()) as visit:
        visit.accepted().send(1, b"unread by any step")
        assert len(visit.read_to_end()) == 500_010
        visit.sock.close()
        assert visit.ended() == "cut"


def test_reset_ends_by_rst() -> None:
    with Visit(steps.accept(), steps.receive(), steps.reset()) as visit:
        visit.accepted().send(1, b"now")
        with pytest.raises(ConnectionResetError):
            visit.sock.recv(1)
        assert visit.ended() == "reset"


def test_a_client_that_resets_is_recorded() -> None:
    with Visit(steps.accept(), steps.until_eof()) as visit:
        visit.accepted()
        visit.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        visit.sock.close()
        assert str(visit.ended()).startswith("connection lost (")


def test_a_request_without_a_key_cannot_be_accepted() -> None:
    with Visit(steps.accept(), request=b"GET / HTTP/1.1\r\n\r\n") as visit:
        assert visit.read_to_end() == b""
        assert visit.ended() == "no Sec-WebSocket-Key to accept"


def test_each_connection_has_its_script_and_the_last_one_repeats() -> None:
    with ScriptedServer([[steps.respond(401)], [steps.respond(503)]]) as server:
        statuses = []
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
                sock.sendall(REQUEST)
                statuses.append(sock.recv(1000)[9:12])
        assert statuses == [b"401", b"503", b"503"]
        assert [record.index for record in server.wait_connections(3)] == [0, 1, 2]


def test_open_connections_are_counted_now_and_at_most() -> None:
    with ScriptedServer([[steps.until_eof()]]) as server:
        for count in range(1, 30):
            with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
                sock.sendall(REQUEST)
                server.wait_connections(count)
                assert server.live == 1
        assert (server.live, server.most_live) == (0, 1), "one after the other, however quickly"
        with (
            socket.create_connection(("127.0.0.1", server.port), 10),
            socket.create_connection(("127.0.0.1", server.port), 10),
        ):
            server.wait_connections(31)
            assert (server.live, server.most_live) == (2, 2)


def test_waiting_for_a_connection_that_does_not_come_says_so() -> None:
    with ScriptedServer([[]]) as server, pytest.raises(TimeoutError, match=r"not within 0\.05 seconds; .*: \[\]"):
        server.wait_connections(1, timeout=0.05)


def test_the_records_stay_after_the_stop() -> None:
    with Visit(steps.accept(), steps.cut(0)) as visit:
        visit.accepted().read_to_end()
        visit.server.wait_ended(1)
        visit.server.stop()
        assert visit.server.connections[0].ended == "cut"
        with pytest.raises(RuntimeError, match="not running"):
            _ = visit.server.port


def test_a_busy_port_is_refused_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port={port}: .*give 0 for a free one"):
            ScriptedServer([[]], port=port).start()


@pytest.mark.parametrize(("scripts", "message"), [
    ([], "give at least one script"),
    ([steps.accept()], r"scripts\[0\]=.*give a list of steps"),
    ([5], r"scripts\[0\]=5: .*give a list of steps"),
    ([["accept"]], r"scripts\[0\]=.*give a list of steps"),
])
def test_something_that_is_no_script_is_refused(scripts: list[object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ScriptedServer(scripts)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [(16, b""), (-1, b""), (1, b"", True, 8), (1, b"", True, 0, b"abc")])
def test_a_frame_whose_fields_do_not_fit_is_refused(arguments: tuple[int, bytes]) -> None:
    with pytest.raises(ValueError, match="give"):
        build_server_frame(*arguments)


def test_client_frames_are_the_same_however_their_bytes_are_cut() -> None:
    payloads = [b"", b"x" * 125, b"y" * 126, b"z" * 65_536]
    wire = b"".join(build_server_frame(2, payload, mask=b"wxyz") for payload in payloads)
    for chunk in (1, 7, 4096, len(wire)):
        parser = ClientFrames()
        frames = [frame for at in range(0, len(wire), chunk) for frame in parser.feed(wire[at:at + chunk])]
        assert [frame.payload for frame in frames] == payloads
        assert {frame.mask for frame in frames} == {b"wxyz"}


# -- compression ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("takeover", [True, False])
def test_compressed_messages_can_be_inflated_as_agreed(takeover: bool) -> None:
    answer = accept_response(KEY, [("Sec-WebSocket-Extensions", "permessage-deflate; server_max_window_bits=10")])
    script = [steps.accept_deflate("server_max_window_bits=10", takeover=takeover, window_bits=10),
              steps.compressed("Hello, hello, hello"), steps.compressed(b"Hello, hello, hello", 2), steps.compressed("")]
    with Visit(*script) as visit:
        assert visit.read(len(answer)) == answer
        frames = ClientFrames().feed(visit.read_to_end())
        stream, messages, payload, opcode = zlib.decompressobj(-10), [], b"", 0
        for frame in frames:
            assert frame.rsv == (4 if frame.opcode else 0)
            payload, opcode = payload + frame.payload, frame.opcode or opcode
            if frame.fin:
                if not takeover:
                    stream = zlib.decompressobj(-10)
                messages.append((opcode, stream.decompress(payload + b"\x00\x00\xff\xff")))
                payload = b""
    assert messages == [(1, b"Hello, hello, hello"), (2, b"Hello, hello, hello"), (1, b"")]
    assert len(frames) > 3


def test_compressed_needs_accept_deflate() -> None:
    with Visit(steps.accept(), steps.compressed("x")) as visit:
        visit.accepted()
        assert visit.ended() == "compressed without accept_deflate"
