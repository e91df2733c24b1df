"""The embedded feed: that its log is exact, that sequences run on over cuts, and that it is a proper WebSocket server.

The client is a plain socket with a few lines of framing, so that these tests stand without the engine.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import socket
import struct
import time
import zlib
from typing import TYPE_CHECKING

import pytest

from wsengine.errors import ConfigurationError
from wsengine.testing import Feed, stamp
from wsengine.testing.images import trade_image
from wsengine.testing.lane import FlatOut, Lane, Recorded, Steady
from wsengine.testing.wire import accept_response, apply_mask

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_leaks")

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Client:
    """A WebSocket client of a few lines: blocking, and keeping every frame of the server."""

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.sock = socket.socket()
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(10)
        self.sock.connect(("127.0.0.1", port))
        self.sock.sendall(
            f"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode())
        self.buffer = bytearray()
        self.taken = 0  # bytes read off the socket
        while b"\r\n\r\n" not in self.buffer:
            assert self.fill()
        head, _, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        assert head + b"\r\n\r\n" == accept_response(KEY)
        self.buffer = bytearray(rest)

    def fill(self, size: int = 1 << 18) -> bool:
        data = self.sock.recv(size)
        self.buffer += data
        self.taken += len(data)
        return bool(data)

    def frames(self) -> list[tuple[int, bytes]]:
        """Take the whole frames that are buffered."""
        frames, at, buffer = [], 0, self.buffer
        while len(buffer) - at >= 2:
            assert not buffer[at + 1] & 0x80, "a server never masks"
            assert buffer[at] & 0xF0 == 0x80
            size, start = buffer[at + 1], at + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                if len(buffer) < start + width:
                    break
                size, start = int.from_bytes(buffer[start:start + width], "big"), start + width
            if len(buffer) < start + size:
                break
            frames.append((buffer[at] & 15, bytes(buffer[start:start + size])))
            at = start + size
        del buffer[:at]
        return frames

    def read(self, count: int) -> list[tuple[int, bytes]]:
        """Read at least `count` frames."""
        frames = self.frames()
        while len(frames) < count:
            assert self.fill(), f"ended after {len(frames)} of {count} frames"
            frames += self.frames()
        return frames

    def read_to_end(self) -> list[tuple[int, bytes]]:
        frames = self.frames()
        while self.fill():
            frames += self.frames()
        return frames

    def send(self, opcode: int, payload: bytes = b"") -> None:
        assert len(payload) < 126
        self.sock.sendall(bytes((0x80 | opcode, 0x80 | len(payload))) + b"mask" + apply_mask(payload, b"mask"))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def sequences(frames: list[tuple[int, bytes]]) -> list[int]:
    return [stamp.read_sequence(payload) for opcode, payload in frames if opcode == 1]


@pytest.mark.parametrize("size", [96, 100, 128, 700, 70_000])
def test_trades_are_json_of_exactly_the_size_asked_for(size: int) -> None:
    before = time.monotonic_ns()
    with Feed.trades(size=size, count=20) as feed, Client(feed.port) as client:
        payloads = [payload for _, payload in client.read(20)]
    assert {len(payload) for payload in payloads} == {size}
    trades = [json.loads(payload) for payload in payloads]
    assert [trade["seq"] for trade in trades] == list(range(20))
    assert [stamp.read_stamp(payload) for payload in payloads] == [trade["ts"] for trade in trades]
    assert all(before < trade["ts"] < time.monotonic_ns() for trade in trades)
    assert all(10_000 <= trade["px"] < 100_000 and trade["sym"].endswith("-USD") for trade in trades)


def test_the_same_seed_gives_the_same_prices() -> None:
    def prices(seed: int) -> list[float]:
        with Feed.trades(count=50, seed=seed) as feed, Client(feed.port) as client:
            return [json.loads(payload)["px"] for _, payload in client.read(50)]

    assert prices(7) == prices(7) != prices(8)


def test_the_log_counts_exactly_what_was_sent() -> None:
    with Feed.trades(count=50_000) as feed, Client(feed.port) as client:
        frames = client.read(50_000)
        (log,) = feed.log().connections
    assert sequences(frames) == list(range(50_000))
    assert (log.messages, log.first_sequence, log.last_sequence) == (50_000, 0, 49_999)
    assert log.bytes_written == client.taken
    assert log.ended is None


def test_the_log_is_never_behind_what_a_client_has_read() -> None:
    with Feed.trades() as feed, Client(feed.port) as client:
        for _ in range(20):
            read = sequences(client.read(1))
            log = feed.log()
            assert log.last_sequence is not None
            assert read[-1] <= log.last_sequence
            assert client.taken <= log.bytes_written


def test_a_blocked_server_counts_whole_messages_only_and_its_waiting() -> None:
    with Feed.binary(1 << 20) as feed, Client(feed.port, receive_buffer=65_536) as client:
        log = feed.wait(lambda log: log.connections and log.connections[0].blocked_seconds > 0.2)
        assert feed.log().bytes_written == log.bytes_written, "it is blocked"
        in_flight = log.bytes_written - len(accept_response(KEY))
        assert log.messages == in_flight // ((1 << 20) + 10)
        assert log.idle_share > 0.5
        assert len(client.read(3)[0][1]) == 1 << 20


def test_every_sequence_arrives_exactly_once_over_cuts(seed: int) -> None:
    random_ = random.Random(seed)
    seen: list[int] = []
    with Feed.trades(size=1000, count=60_000) as feed:
        for _ in range(5):
            with Client(feed.port) as client:
                seen += sequences(client.read(random_.randrange(1, 8_000)))
                ended = len(feed.log().connections)
                with InBackground(feed.cut) as cut:
                    seen += sequences(client.read_to_end())
                    assert not client.buffer, "cut between two frames"
                    client.sock.close()
                assert cut.result == 1
            log = feed.log().connections[ended - 1]
            assert log.ended == "cut"
            assert seen[-1] == log.last_sequence
        with Client(feed.port) as client:
            while len(seen) < 60_000:
                seen += sequences(client.read(1))
            assert sum(one.messages for one in feed.log().connections) == 60_000
    assert seen == list(range(60_000))


class InBackground:
    """Run one call in a thread while the block runs; join it, and raise what it raised, at the end."""

    def __init__(self, function: object) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self.pool = ThreadPoolExecutor(1)
        self.future = self.pool.submit(function)
        self.result: object = None

    def __enter__(self) -> InBackground:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown()
        self.result = self.future.result()


def test_a_message_cut_in_the_middle_is_sent_first_on_the_next_connection() -> None:
    with Feed.trades(size=1 << 20, count=40) as feed:
        with Client(feed.port, receive_buffer=65_536) as client:
            feed.wait(lambda log: log.connections[0].blocked_seconds > 0.05)
            assert feed.reset() == 1
            with pytest.raises(ConnectionResetError):
                client.read_to_end()
        (first,) = feed.log().connections
        assert first.ended == "reset"
        assert (first.bytes_written - len(accept_response(KEY))) % ((1 << 20) + 10), "it was cut inside a message"
        with Client(feed.port) as client:
            following = sequences(client.read(1))[0]
        assert following == first.messages


def test_without_resume_each_connection_begins_at_the_first_message() -> None:
    with Feed.trades(count=100, resume=False) as feed:
        for _ in range(2):
            with Client(feed.port) as client:
                assert sequences(client.read(100)) == list(range(100))


def test_connections_at_the_same_time_are_lanes_of_their_own() -> None:
    with Feed.trades(count=100) as feed, Client(feed.port) as one, Client(feed.port) as other:
        assert sequences(one.read(100)) == sequences(other.read(100)) == list(range(100))
        assert sorted(str(log.lane) for log in feed.log().connections) == ["0", "1"]


def test_a_ping_is_answered_between_messages_of_a_flood() -> None:
    with Feed.trades() as feed, Client(feed.port) as client:
        client.read(1000)
        client.send(9, b"still there?")
        frames: list[tuple[int, bytes]] = []
        while (10, b"still there?") not in frames:
            frames = client.read(1)
        (ping,) = feed.log().connections[0].pings
        assert ping.payload == b"still there?"
        assert ping.at_ns < time.monotonic_ns()


def test_a_close_is_answered_and_logged() -> None:
    with Feed.trades() as feed:
        with Client(feed.port) as client:
            client.read(1)
            client.send(8, struct.pack("!H", 4003) + b"enough")
            assert client.read_to_end()[-1] == (8, struct.pack("!H", 4003) + b"enough")
        (log,) = feed.wait(lambda log: log.connections[0].ended).connections
    assert (log.ended, log.close_code, log.close_reason) == ("closed by client", 4003, "enough")


def test_a_client_that_just_goes_is_logged_as_such() -> None:
    with Feed.payloads([]) as feed:
        with Client(feed.port):
            assert feed.wait(lambda log: log.connections).messages == 0
        assert feed.wait(lambda log: log.connections[0].ended).connections[0].ended == "client ended without Close"


def test_pings_of_the_server_are_logged_with_the_delay_of_their_pongs() -> None:
    with Feed.trades(rate=200, ping_interval=0.05) as feed, Client(feed.port) as client:
        pings: list[bytes] = []
        while len(pings) < 3:
            pings += [payload for opcode, payload in client.read(1) if opcode == 9]
        time.sleep(0.02)
        client.send(10, pings[2])
        client.send(10, b"unasked for")
        answer, unasked = feed.wait(lambda log: len(log.connections[0].pongs) == 2).connections[0].pongs
    assert answer.delay is not None
    assert 0.02 <= answer.delay < 2
    assert unasked.delay is None


def test_a_rate_is_kept_and_the_waiting_counts_as_idle() -> None:
    with Feed.trades(rate=1000) as feed, Client(feed.port) as client:
        start = time.monotonic()
        client.read(500)
        elapsed = time.monotonic() - start
        log = feed.log()
    assert 0.4 < elapsed < 2.5
    assert log.connections[0].idle_seconds > 0.25
    assert 0.5 < log.idle_share <= 1


def test_payloads_of_all_sizes_arrive_as_given_and_in_order() -> None:
    sizes = (0, 1, 16, 125, 126, 65_535, 65_536, 1 << 20)
    payloads = [*((2, os.urandom(size)) for size in sizes), (1, "grüße".encode())]
    with Feed.payloads(payloads) as feed, Client(feed.port) as client:
        assert client.read(len(payloads)) == payloads
        assert feed.log().messages == len(payloads)


def test_payloads_without_their_opcode_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"payloads\[0\]=b'x': .*give an opcode, 1 or 2, and a payload"):
        Feed.payloads([b"x"])  # type: ignore[list-item]


def test_payloads_are_repeated_up_to_the_count() -> None:
    with Feed.payloads([(1, b"a"), (1, b"bc")], count=5) as feed, Client(feed.port) as client:
        assert [payload for _, payload in client.read(5)] == [b"a", b"bc", b"a", b"bc", b"a"]
        assert feed.log().connections[0].last_sequence == 4


def test_looped_payloads_go_on_over_the_end_of_the_prebuilt_block() -> None:
    payloads = [(2, bytes([index]) * 3_000) for index in range(7)]
    with Feed.payloads(payloads, loop=True) as feed, Client(feed.port) as client:
        frames = client.read(2_000)
    assert frames == [payloads[index % 7] for index in range(len(frames))]


def test_a_recording_is_played_at_a_multiple_of_its_own_pace(tmp_path: Path) -> None:
    path = tmp_path / "small.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps([index * 0.5, f"message {index}"]) + "\n" for index in range(41))
    with Feed.recording(path, speed=50) as feed, Client(feed.port) as client:
        frames = client.read(1)
        start = time.monotonic()
        frames += client.read(41 - len(frames))
        elapsed = time.monotonic() - start
    assert [payload.decode() for _, payload in frames] == [f"message {index}" for index in range(41)]
    assert 0.3 < elapsed < 2.5, "20 seconds, 50 times as fast"


@pytest.mark.recording
def test_an_exchange_recording_arrives_whole_when_played_flat_out_and_looped(recordings: Path) -> None:
    with gzip.open(recordings / "kraken.jsonl.gz", "rb") as file:
        expected = [(1, json.loads(line)[1].encode()) for line in file]
    with Feed.recording(recordings / "kraken.jsonl.gz", speed=None, loop=True) as feed, Client(feed.port) as client:
        frames = client.read(2 * len(expected))
    assert frames[: 2 * len(expected)] == expected * 2


@pytest.mark.recording
def test_an_exchange_recording_at_fifty_times_its_pace_takes_a_fiftieth_of_its_time(recordings: Path) -> None:
    with Feed.recording(recordings / "bitfinex.jsonl.gz", speed=50) as feed, Client(feed.port) as client:
        start = time.monotonic()
        client.read(1693)
        assert 0.45 < time.monotonic() - start < 3, "30.7 seconds, 50 times as fast"


def test_a_busy_port_is_refused_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port={port}: .*already in use.*give 0 for a free one"):
            Feed.trades(port=port).start()


def test_a_given_port_is_used_and_free_again_after_the_stop() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for _ in range(2):
        with Feed.trades(port=port) as feed, Client(port) as client:
            assert feed.url == f"ws://127.0.0.1:{port}"
            client.read(1)


def test_stopping_says_going_away_and_keeps_the_last_log() -> None:
    feed = Feed.trades(count=10).start()
    with Client(feed.port) as client:
        client.read(10)
        log = feed.stop()
        assert client.read_to_end()[-1][1][:2] == struct.pack("!H", 1001)
    assert feed.log() == feed.stop() == log
    assert (log.messages, log.connections[0].ended) == (10, "stopped")
    with pytest.raises(RuntimeError, match="not running"):
        _ = feed.port


def test_a_connection_that_has_not_sent_its_request_can_be_cut_and_stopped_as_well() -> None:
    with Feed.trades() as feed:
        with socket.create_connection(("127.0.0.1", feed.port), 5) as sock:
            feed.wait(lambda log: log.connections)
            assert feed.cut(timeout=2) == 1
            assert sock.recv(1) == b""
        with socket.create_connection(("127.0.0.1", feed.port), 5):
            feed.wait(lambda log: len(log.connections) == 2)
            assert [one.ended for one in feed.stop().connections] == ["cut", "stopped"]


def test_a_request_that_is_no_upgrade_gets_a_400() -> None:
    with Feed.trades() as feed:
        with socket.create_connection(("127.0.0.1", feed.port), 5) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert feed.wait(lambda log: log.connections[0].ended).connections[0].ended == "not an upgrade request"


def test_a_server_that_was_killed_is_reported_as_ended(capfd: pytest.CaptureFixture[str]) -> None:
    with Feed.trades() as feed:
        os.kill(feed.pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="feed_server ended by itself with status -9"):
            feed.log()


def test_ctrl_c_does_not_end_the_server_before_its_client() -> None:
    with Feed.trades(count=5) as feed:
        os.kill(feed.pid, signal.SIGINT)
        with Client(feed.port) as client:
            assert len(client.read(5)) == 5


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Feed.trades(size=95), "size=95: give a whole number from 96"),
    (lambda: Feed.trades(rate=0), "rate=0: give messages a second, above 0"),
    (lambda: Feed.trades(count=-1), "count=-1: give a whole number of at least 0"),
    (lambda: Feed.trades(port=70_000), "port=70000"),
    (lambda: Feed.trades(ping_interval=0), "ping_interval=0: give seconds above 0"),
    (lambda: Feed.payloads([(9, b"")]), r"payloads\[0\]=9: give 1 for text or 2 for binary"),
    (lambda: Feed.payloads([(1, "text")]), r"payloads\[0\]=.*give bytes"),
    (lambda: Feed.payloads([], count=3), "count=3: there is nothing to repeat"),
    (lambda: Feed.payloads([(1, b"")], count=3, loop=True), "loop=True: give count or loop, not both"),
    (lambda: Feed.recording("/nowhere.jsonl.gz"), "there is no such file"),
])
def test_a_wrong_option_is_refused_with_its_name_and_remedy(make: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()  # type: ignore[operator]


def test_stamps_count_up_over_every_carry() -> None:
    block = bytearray(60 * 1_200)
    stamp.stamp_block(block, 7, 60, 1_200, 99_900, 5)
    read = [stamp.read_sequence(bytes(block[at:at + 60])) for at in range(0, len(block), 60)]
    assert read == list(range(99_900, 101_100))
    assert stamp.read_stamp(bytes(block[-60:])) == 5


@pytest.mark.parametrize("arguments", [
    (0, 38, 1, 0, 0), (-1, 60, 1, 0, 0), (70, 60, 1, 0, 0), (7, 60, 3, 0, 0),
    (7, 60, 1, 10**14, 0), (0, 60, 2, 10**14 - 1, 0), (7, 60, 1, 0, 10**19),
])
def test_stamping_outside_the_buffer_or_the_field_is_refused(arguments: tuple[int, int, int, int, int]) -> None:
    block = bytearray(100)
    with pytest.raises(ValueError):
        stamp.stamp_block(block, *arguments)
    assert block == bytes(100)


@pytest.mark.parametrize("payload", [b"", b"{}", b"x" * 60, b'{"seq":' + b" " * 60])
def test_reading_a_sequence_from_something_else_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not a trade"):
        stamp.read_sequence(payload)


def test_a_lane_loses_and_repeats_nothing_however_its_bytes_are_taken(seed: int) -> None:
    random_ = random.Random(seed)
    lane = Lane(0, trade_image(96, 1), FlatOut(), 30_000)
    lane.begin(0)
    wire = bytearray()
    while data := lane.take(1):
        size = random_.randrange(1, len(data) + 1)
        wire += data[:size]
        lane.advance(size)
        assert (len(wire) // 98, len(wire) % 98) == (lane.sequence, lane.offset)
    assert [stamp.read_sequence(bytes(wire[at:at + 96])) for at in range(2, len(wire), 98)] == list(range(30_000))


def test_a_steady_pace_releases_each_message_when_it_is_due() -> None:
    pace = Steady(3.0)
    pace.begin(10, 1_000)
    for sequence in range(10, 200):
        assert pace.allowed(pace.due(sequence)) == sequence + 1
        assert pace.allowed(pace.due(sequence) - 1) <= max(sequence, 10)


def test_a_recorded_pace_goes_on_in_the_middle_and_in_the_next_round() -> None:
    pace = Recorded([5.0, 6.0, 8.0], speed=2.0)
    pace.begin(1, 0)
    assert [pace.due(sequence) for sequence in (1, 2, 3, 4)] == [0, 1_000_000_000, 1_500_000_000, 2_000_000_000]
    for sequence in range(1, 20):
        assert pace.allowed(pace.due(sequence)) == sequence + 1
        assert pace.allowed(pace.due(sequence) - 1) == sequence


# -- compression


def inflated(data: bytes, takeover: bool) -> list[bytes]:
    """The messages of compressed frames; what is cut at the end is left out."""
    stream, messages, at = zlib.decompressobj(-15), [], 0
    while len(data) - at >= 2:
        assert data[at] == 0xC1, "text, whole, RSV1"
        size, start = data[at + 1], at + 2
        assert size < 126
        if len(data) < start + size:
            break
        if not takeover:
            stream = zlib.decompressobj(-15)
        messages.append(stream.decompress(data[start:start + size] + b"\x00\x00\xff\xff"))
        at = start + size
    return messages


@pytest.mark.parametrize(("compression", "answer"), [
    ("no_context_takeover", "permessage-deflate; server_no_context_takeover"), ("context_takeover", "permessage-deflate")])
def test_a_compressed_feed_agrees_and_sends_what_can_be_inflated_also_when_it_repeats(compression: str, answer: str) -> None:
    payloads = [(1, b'{"price": %d}' % (price * 7919)) for price in range(20)]
    with Feed.payloads(payloads, count=100_000, compression=compression, resume=False) as feed:
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", feed.port), 10) as sock:
                sock.sendall(f"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {KEY}\r\n"
                             "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n".encode())
                data = b""
                while len(data) < 200_000:
                    data += sock.recv(65536)
                head, _, rest = data.partition(b"\r\n\r\n")
                assert head + b"\r\n\r\n" == accept_response(KEY, [("Sec-WebSocket-Extensions", answer)])
                messages = inflated(rest, compression == "context_takeover")
                assert len(messages) > 5000
                assert messages == [payloads[at % 20][1] for at in range(len(messages))]


def test_a_client_that_does_not_offer_compression_is_answered_400() -> None:
    with Feed.payloads([(1, b"x")], compression="no_context_takeover") as feed:
        with socket.create_connection(("127.0.0.1", feed.port), 10) as sock:
            sock.sendall(f"GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode())
            assert sock.recv(65536).startswith(b"HTTP/1.1 400 ")
        log = feed.wait(lambda log: log.connections and log.connections[0].ended)
        assert log.connections[0].ended == "permessage-deflate was not offered"


@pytest.mark.parametrize(("options", "path"), [
    ({"compression": "deflate"}, "compression"), ({"compression": True}, "compression"),
    ({"compression": "context_takeover"}, "resume"),
])
def test_a_compression_that_cannot_be_is_refused(options: dict[str, object], path: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Feed.payloads([(1, b"x")], **options)  # type: ignore[arg-type]
    assert caught.value.path == path
