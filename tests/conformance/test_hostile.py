"""Hostile servers: whatever a server does, memory stays bounded, the end is told once, and the next attempt is on schedule.

Each case runs against a server in a process of its own, or on raw sockets where the script of one cannot say it. The
second connection of a case meets a good server. What a case is held to is printed; docs/hostile.md is made of that.
"""

from __future__ import annotations

import contextlib
import gc
import socket
import ssl
import struct
import threading
import time
import zlib
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest

from wsengine import (
    Backoff,
    BootstrapError,
    ConnectionClosed,
    ConnectionClosedError,
    InvalidHandshake,
    InvalidMessage,
    PayloadTooBig,
    PerMessageDeflate,
    ProtocolError,
    WebSocketProducer,
    telemetry,
)
from wsengine.engine import tls as engine_tls
from wsengine.engine.inflate import HAVE_ZLIB
from wsengine.testing import Collector, ScriptedServer, build_server_frame, capture, steps

pytestmark = pytest.mark.usefixtures("no_leaks")

ID = "hostile"
SUCCESS, FAILURE, DISCONNECTED, TIMEOUT, STATUS = CONNECTION = tuple(
    telemetry.connection_event(ID, name) for name in ("success", "failure", "disconnected", "timeout", "status"))
ENDS = (FAILURE, DISCONNECTED, TIMEOUT)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MIB = 2**20
#: Bytes of growth that a case is held to, over what a good connection takes; the slabs of a reader are a quarter MiB each.
GROWTH = 8 * MIB
DELAY = 0.1
#: Seconds that an attempt may come behind its time: a busy machine, not a schedule.
LATE = 10.0
GOOD = [steps.accept(), steps.text("good"), steps.serve()]


@dataclass
class Case:
    """What a server does, and what must come of it."""

    script: list[Any]
    kind: str
    error: type[BaseException] | tuple[type[BaseException], ...]
    code: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    before: int = 0      # messages delivered before the end
    growth: int = GROWTH
    handshaken: bool = True


def head(opcode, size, *, fin=True, rsv=0):
    """The head of a frame with a length of eight bytes."""
    return struct.pack("!BBQ", fin << 7 | rsv << 4 | opcode, 127, size)


def bomb(size):
    """`size` zero bytes, compressed as one message, in few bytes."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    chunk = bytes(MIB)
    data = b"".join(stream.compress(chunk) for _ in range(size // MIB)) + stream.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(b"\x00\x00\xff\xff")


FRAGMENT = build_server_frame(0, b"", fin=False)
SMALL = build_server_frame(0, b"abcdefgh", fin=False)
BEGUN = build_server_frame(TEXT, b"begun", fin=False)
OPEN = [steps.accept()]
RST = [steps.wait(0.1), steps.reset()]
LOST = (ConnectionClosedError, OSError)
FAILED = (InvalidMessage, OSError)
QUIET = {"ws_timeout": 0.4, "close_timeout": 0.3}
SHORT = {"open_timeout": 0.5}

CASES = {
    # ---- sizes
    "a frame of 2**62 bytes is announced": Case([*OPEN, steps.send(head(BINARY, 2**62)), steps.until_eof()], "failure",
                                                PayloadTooBig, 1009),
    "a frame of 2**63 bytes is announced": Case([*OPEN, steps.send(head(BINARY, 2**63)), steps.until_eof()], "failure",
                                                ProtocolError, 1002),
    "1,000 bytes, announced in a length of eight": Case([*OPEN, steps.send(head(BINARY, 1000)), steps.until_eof()],
                                                        "failure", ProtocolError, 1002),
    "max_size + 1 is announced": Case([*OPEN, steps.send(head(BINARY, MIB + 1)), steps.until_eof()], "failure",
                                      PayloadTooBig, 1009),
    "max_size is announced and no byte of it comes": Case(
        [*OPEN, steps.send(head(BINARY, 64 * MIB)), steps.stall()], "timeout", TimeoutError,
        options={**QUIET, "max_size": 64 * MIB}),
    "fragments beyond max_size": Case(
        [*OPEN, steps.send(BEGUN + build_server_frame(0, bytes(65536), fin=False) * 64), steps.until_eof()], "failure",
        PayloadTooBig, 1009),
    "empty fragments, 300,000 of them": Case([*OPEN, steps.send(BEGUN + FRAGMENT * 300_000), steps.cut()],
                                             "disconnected", LOST),
    "fragments of 8 bytes, 300,000 of them": Case([*OPEN, steps.send(BEGUN + SMALL * 300_000), steps.until_eof()], "failure",
                                                  PayloadTooBig, 1009),
    "a response head of 1 MiB": Case([steps.raw(b"HTTP/1.1 101 OK\r\n" + b"X: " + b"a" * MIB), steps.until_eof()], "failure",
                                     InvalidHandshake, handshaken=False),
    "a response of 40,000 headers": Case([steps.raw(b"HTTP/1.1 101 OK\r\n" + b"X-Header: some value here\r\n" * 40_000),
                                          steps.until_eof()], "failure", InvalidHandshake, handshaken=False),
    "a refusal with a body of 64 MiB": Case(
        [steps.raw(b"HTTP/1.1 503 Busy\r\nContent-Length: 67108864\r\n\r\n" + bytes(8 * MIB)), steps.until_eof()], "failure",
        InvalidHandshake, handshaken=False),
    "informational responses without an end": Case(
        [steps.raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000), steps.stall()], "failure", (InvalidHandshake, TimeoutError),
        options=SHORT, handshaken=False),
    # ---- slowness
    "the response head drips, a byte in 50 ms": Case([steps.accept(chunk=1, interval=0.05), steps.stall()], "failure",
                                                     TimeoutError, options=SHORT, handshaken=False),
    "no answer to the request": Case([steps.stall()], "failure", TimeoutError, options=SHORT, handshaken=False),
    "silence after the 101 (half-open, no FIN)": Case([*OPEN, steps.stall()], "timeout", TimeoutError, options=QUIET),
    "a frame drips, then stops": Case(
        [*OPEN, steps.drip(head(BINARY, 100_000) + b"abcdef", 1, 0.05), steps.stall()], "timeout", TimeoutError,
        options=QUIET),
    "pings are not answered (half-open, pong_timeout)": Case(
        [*OPEN, steps.drip(head(BINARY, 10**6) + bytes(10**6), 1, 0.05)], "timeout", TimeoutError,
        options={"keepalive": 0.1, "pong_timeout": 0.3, "close_timeout": 0.3}),
    # ---- floods
    "100,000 pongs nobody asked for": Case([*OPEN, steps.send(build_server_frame(PONG, b"x" * 125) * 100_000), steps.cut()],
                                           "disconnected", LOST),
    "100,000 pings and pongs, with telemetry of them": Case(
        [*OPEN, steps.send((build_server_frame(PONG, b"x" * 125) + build_server_frame(PING, b"")) * 100_000), steps.cut()],
        "disconnected", LOST, options={"silence_pings": False}),
    "20 MiB of garbage after Close": Case(
        [*OPEN, steps.close(1000), steps.send(b"\xff\x00garbage" * (20 * MIB // 9)), steps.until_eof()], "disconnected",
        ConnectionClosed, 1000),
    "a Close, and then neither an end nor a read": Case([*OPEN, steps.close(1001), steps.stall()], "disconnected",
                                                        ConnectionClosed, 1001, options=QUIET),
    # ---- ends, at every step
    "reset in the request": Case([steps.skip_request(), steps.reset()], "failure", FAILED, handshaken=False),
    "cut in place of the answer": Case([steps.cut()], "failure", FAILED, handshaken=False),
    "reset in the 101": Case([steps.raw(b"HTTP/1.1 101 Switching Pro"), *RST], "failure", FAILED, handshaken=False),
    "cut in the 101": Case([steps.raw(b"HTTP/1.1 101 Switching Pro"), steps.cut()], "failure", FAILED, handshaken=False),
    "reset in on_upgrade": Case([*OPEN, steps.receive(), steps.reset()], "failure",
                                LOST, options={"on_upgrade": "ask"}, handshaken=False),
    "cut in on_upgrade": Case([*OPEN, steps.receive(), steps.cut()], "failure",
                              LOST, options={"on_upgrade": "ask"}, handshaken=False),
    "a Close in on_upgrade": Case([*OPEN, steps.receive(), steps.close(1013), steps.until_eof()], "failure",
                                  ConnectionClosed, options={"on_upgrade": "ask"}, handshaken=False),
    "silence in on_upgrade": Case([*OPEN, steps.stall()], "failure", TimeoutError,
                                  options={"on_upgrade": "ask", **SHORT}, handshaken=False),
    "a flood in on_upgrade": Case(
        [*OPEN, steps.send(build_server_frame(PING, b"x" * 125) * 20_000), steps.stall()], "failure",
        TimeoutError, options={"on_upgrade": "ask", **SHORT}, handshaken=False),
    "empty messages without an end in on_upgrade": Case(
        [*OPEN, *[steps.send(build_server_frame(BINARY, b"") * 100_000)] * 30, steps.stall()], "failure", BootstrapError,
        options={"on_upgrade": "wait"}, handshaken=False, growth=40 * MIB),
    "empty fragments without an end in on_upgrade": Case(
        [*OPEN, steps.send(BEGUN), *[steps.send(FRAGMENT * 100_000)] * 30, steps.stall()], "failure", BootstrapError,
        options={"on_upgrade": "wait"}, handshaken=False, growth=40 * MIB),
    "reset right behind the 101": Case([*OPEN, *RST], "disconnected", LOST),
    "cut right behind the 101": Case([*OPEN, steps.cut()], "disconnected", LOST),
    "reset in the first frame": Case([*OPEN, steps.send(b"\x82\x7e\x10"), *RST], "disconnected", LOST),
    "cut in the first frame": Case([*OPEN, steps.send(b"\x82\x7e\x10"), steps.cut()], "disconnected", LOST),
    "reset between fragments": Case([*OPEN, steps.send(BEGUN), *RST], "disconnected", LOST),
    "cut between fragments": Case([*OPEN, steps.send(BEGUN), steps.cut()], "disconnected", LOST),
    "reset in Close": Case([*OPEN, steps.send(b"\x88\x10\x03"), *RST], "disconnected", LOST),
    "cut in Close": Case([*OPEN, steps.send(b"\x88\x10\x03"), steps.cut()], "disconnected", LOST),
    "reset behind a message": Case([*OPEN, steps.text("one"), *RST], "disconnected", LOST, before=1),
}
DEFLATED = {
    "a deflate bomb of 1 GiB in 1 MiB": Case(
        [steps.accept_deflate(), steps.send(build_server_frame(BINARY, bomb(1024 * MIB), rsv=4)), steps.until_eof()],
        "failure", PayloadTooBig, 1009, options={"compression": PerMessageDeflate()}),
    "deflate bombs below max_size, 200 of 1 MiB": Case(
        [steps.accept_deflate(), steps.send(build_server_frame(BINARY, bomb(MIB), rsv=4) * 200), steps.cut()],
        "disconnected", LOST, options={"compression": PerMessageDeflate()}, before=-1, growth=40 * MIB),
    "deflate bombs in on_upgrade, 1,000 of 1 MiB": Case(
        [steps.accept_deflate("server_no_context_takeover"), steps.send(build_server_frame(BINARY, bomb(MIB), rsv=4) * 1000),
         steps.stall()], "failure", BootstrapError, options={"compression": PerMessageDeflate(), "on_upgrade": "wait"},
        handshaken=False, growth=40 * MIB),
    "a deflate stream that is broken": Case(
        [steps.accept_deflate(), steps.send(build_server_frame(BINARY, b"\xff" * 1000, rsv=4)), steps.until_eof()],
        "failure", ProtocolError, 1007, options={"compression": PerMessageDeflate()}),
}
SECURE = ["a frame of 2**62 bytes is announced", "the response head drips, a byte in 50 ms", "a response head of 1 MiB",
          "silence after the 101 (half-open, no FIN)", "100,000 pongs nobody asked for", "20 MiB of garbage after Close",
          "a Close, and then neither an end nor a read", "reset in the 101", "cut in the 101", "reset in on_upgrade",
          "reset in the first frame", "cut in the first frame", "cut between fragments", "reset in Close",
          "empty fragments, 300,000 of them"]
PATHS = {"": None, "TLS": "A", "TLS path B": "B"}
ALL = [pytest.param(case, name, "", id=name) for name, case in {**CASES, **(DEFLATED if HAVE_ZLIB else {})}.items()]
ALL += [pytest.param(CASES[name], name, link, id=f"{name}, {link}") for link in ("TLS", "TLS path B") for name in SECURE]


class Rss:
    """The most that resident memory grows while it is looked at, in bytes."""

    def __enter__(self):
        gc.collect()
        self.process = psutil.Process()
        self.before = self.most = self.process.memory_info().rss
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def look(self):
        while not self.over.wait(0.002):
            self.most = max(self.most, self.process.memory_info().rss)

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    @property
    def growth(self):
        return self.most - self.before


def row(name, secure, end, seconds, off, rss, bound=GROWTH):
    """Print a line of docs/hostile.md."""
    print(f"| {name}{secure and ', '}{secure} | {end} | {'' if seconds is None else f'{seconds:.2f} s'} | "
          f"{'' if off is None else f'{off:+.2f} s'} | {rss.growth / MIB:.1f} of {bound / MIB:.0f} MiB |")


class Counting(Collector):
    """Keeps text messages, and counts the bytes of the others."""

    def __init__(self, producers, **options):
        super().__init__(producers, **options)
        self.bytes = 0

    def handle_messages(self, messages):
        self.bytes += sum(len(one.data) for one in messages if one.opcode == BINARY)
        super().handle_messages([one for one in messages if one.opcode == TEXT])


def ask(upgrade):
    """What on_upgrade does on the generation that is attacked: subscribe, and wait for the answer."""
    if upgrade.epoch == 1:
        upgrade.send("subscribe")
        upgrade.recv()


def wait(upgrade):
    """The same, for an answer that never comes."""
    if upgrade.epoch == 1:
        upgrade.wait_for(lambda payload: payload == b"subscribed")


def producer(url, **options):
    if "on_upgrade" in options:
        options["on_upgrade"] = {"ask": ask, "wait": wait}[options["on_upgrade"]]
    return WebSocketProducer(url, **{"telemetry_id": ID, "retry": Backoff(DELAY, factor=1, jitter="none"), "keepalive": None,
                                     "close_timeout": 1.0, **options})


def warm(certificates, secure):
    """What a first connection takes for good, such as arenas and a context, is there before memory is looked at."""
    options = {"tls": certificates.server()} if secure else {}
    with ScriptedServer([GOOD], **options) as server:
        with Counting(producer(server.url, ssl=certificates.context() if secure else None), max_queue_bytes=8 * MIB) as one:
            one.wait(1)


def check_ends(seen, case):
    """One end of the attacked generation, of the right kind, with a delay; and the next generation open."""
    ends = [one for one in seen.events if one.event in ENDS and one.metadata["epoch"] == 1]
    assert [one.event[2] for one in ends] == [case.kind], ends
    reason = ends[0].metadata["reason"]
    assert isinstance(reason, case.error), reason
    if isinstance(reason, ConnectionClosed) and case.code is not None:
        assert reason.code == case.code
    assert ends[0].measurements["delay"] == pytest.approx(DELAY)
    assert [one.event[2] for one in seen.events if one.metadata["epoch"] == 1 and one.event is not ends[0].event] == (
        ["success", "status", "status"] if case.handshaken else [])
    assert [one.metadata["epoch"] for one in seen.of(SUCCESS)][-1] == 2
    return reason


@pytest.fixture
def context(certificates, monkeypatch):
    """A client's context, which goes over the path that is asked for: context("TLS"), context("TLS path B")."""

    def over(secure):
        if secure == "TLS path B":
            monkeypatch.setenv(engine_tls.FORCED, "B")
        elif reason := engine_tls.why_not(ssl.create_default_context()):
            pytest.skip(f"no path A here: {reason}")
        return certificates.context()

    return over


@pytest.mark.parametrize(("case", "name", "secure"), ALL)
def test_memory_is_bounded_the_end_is_told_once_and_the_next_attempt_comes(case, name, secure, certificates, context):
    options = dict(case.options)
    if secure:
        options["ssl"] = context(secure)
    warm(certificates, secure)
    with ScriptedServer([case.script, GOOD], tls=certificates.server() if secure else None) as server:
        bounds = {"max_queue_bytes": max(8 * MIB, options.get("max_size", 0))}
        with capture(*CONNECTION) as seen, Rss() as rss, Counting(producer(server.url, **options), **bounds) as pipeline:
            last = pipeline.wait(max(case.before, 0) + 1, 30)[-1]
            assert pipeline._wsengine_producers[0].connections[0].tls_path == PATHS[secure]
            assert (last.epoch, last.data) == (2, b"good")
            told_why = case.kind == "failure" and case.code is not None
            records = server.wait_ended(1) if told_why else server.connections
            pipeline.stop()
    reason = check_ends(seen, case)
    if told_why:
        assert [one.payload[:2] for one in records[0].frames if one.opcode == CLOSE] == [struct.pack("!H", case.code)]
    ended = next(one.measurements.get("duration", 0) for one in seen.events if one.event in ENDS)
    later = (records[1].opened_ns - records[0].opened_ns) / 1e9
    code = "" if case.code is None else f" {case.code}"
    row(name, secure, f"{case.kind}: {type(reason).__name__}{code}", ended, later - ended - DELAY, rss, case.growth)
    assert rss.growth <= case.growth
    assert len(records) == 2
    assert DELAY - 0.05 <= later <= LATE + ended + DELAY
    if case.before >= 0:
        assert pipeline.bytes == 0


@pytest.mark.parametrize("secure", ["", "TLS", "TLS path B"], ids=["plain", "TLS", "TLS path B"])
def test_a_flood_of_pings_from_a_server_that_does_not_read_keeps_a_bounded_number_of_pongs(secure, certificates, context):
    """100,000 pings of 125 bytes: the pongs would be 13 MB. What is not sent is replaced by newer ones (RFC 6455 §5.5.3)."""
    options = {"ssl": context(secure)} if secure else {}
    warm(certificates, secure)
    flood = b"".join(build_server_frame(PING, b"%0125d" % number) for number in range(100_000))
    script = [steps.accept(), steps.send(flood), steps.text("behind"), steps.serve(0.5), steps.cut()]
    with ScriptedServer([script, GOOD], tls=certificates.server() if secure else None) as server:
        with capture(*CONNECTION) as seen, Rss() as rss, Counting(producer(server.url, **options)) as pipeline:
            received = pipeline.wait(2, 60)
            heard = pipeline.stats().producers[0]["connections"][0]["pings_heard"]
            first = server.wait_ended(1)[0]
            pipeline.stop()
    pongs = [int(one.payload) for one in first.frames if one.opcode == PONG]
    row("100,000 pings from a server that does not read", secure, f"all heard, {len(pongs)} answered, the last, too", None,
        None, rss)
    assert [one.data for one in received] == [b"behind", b"good"]
    assert heard == 100_000
    assert pongs == sorted(set(pongs))
    assert pongs[-1] == 99_999
    assert rss.growth <= GROWTH
    assert len([one for one in seen.events if one.event in ENDS]) == 1


@pytest.mark.parametrize("secure", ["", "TLS", "TLS path B"], ids=["plain", "TLS", "TLS path B"])
def test_a_server_that_accepts_and_never_reads_costs_a_sender_its_time_out_and_no_more(secure, certificates, context):
    options = {"ssl": context(secure)} if secure else {}
    warm(certificates, secure)
    message, timeouts = bytes(64 * 1024), []
    script = [steps.accept(), steps.text("open"), steps.stall()]
    with ScriptedServer([script, GOOD], tls=certificates.server() if secure else None) as server:
        feed = producer(server.url, write_limit=MIB, **{**QUIET, "ws_timeout": 3.0}, **options)
        with capture(*CONNECTION) as seen, Rss() as rss, Counting(feed) as pipeline:
            pipeline.wait(1)
            connection = feed.connections[0]
            begun = time.monotonic()
            for _ in range(1000):
                try:
                    connection.send(message, epoch=1, timeout=0.2)
                except TimeoutError as error:
                    timeouts.append(str(error))
                    if len(timeouts) == 2:
                        break
            queued = connection.queued_bytes
            spent = time.monotonic() - begun
            received = pipeline.wait(2, 30)
            pipeline.stop()
    row("never reads while we send", secure, f"2 sends: TimeoutError; {queued / MIB:.2f} of 1 MiB of write_limit waited; "
        "then timeout: TimeoutError", spent, None, rss)
    assert len(timeouts) == 2
    assert all("does not read" in one for one in timeouts)
    assert queued <= MIB + 2 * len(message)
    assert rss.growth <= GROWTH
    assert [one.data for one in received] == [b"open", b"good"]
    [end] = [one for one in seen.events if one.event in ENDS]
    assert end.event == TIMEOUT


# ------------------------------------------------------------------------------------- what a script cannot say: raw sockets


class RawServer:
    """Hands each connection that is accepted to `act`, in a thread; for what happens before, or within, TLS."""

    def __init__(self, act, backlog=16):
        self.act = act
        self.accepted = []
        self.threads = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)

    def serve(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.accepted.append(time.monotonic())
            self.threads.append(threading.Thread(target=self.serve_one, args=(sock,)))
            self.threads[-1].start()

    def serve_one(self, sock):
        with sock, contextlib.suppress(OSError):  # the client went first
            self.act(sock)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in (self.thread, *self.threads):
            thread.join(10)
            assert not thread.is_alive()


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_some_and(act):
    def then(sock):
        sock.recv(100)
        act(sock)
    return then


def drip(sock):
    """A TLS record that is begun, a byte in 50 ms."""
    for byte in b"\x16\x03\x03\x40\x00\x02" + bytes(1000):
        sock.sendall(bytes([byte]))
        time.sleep(0.05)


def giant(sock):
    sock.sendall(b"\x16\x03\x03\xff\xff" + bytes(65535))
    sock.recv(1)


WITHIN_TLS = {
    "reset before anything is read": (reset, OSError),
    "reset in the TLS handshake": (read_some_and(reset), OSError),
    "cut in the TLS handshake": (read_some_and(lambda sock: None), OSError),
    "a TLS handshake that drips": (drip, TimeoutError),
    "a TLS record beyond the limit": (giant, ssl.SSLError),
    "silence in the TLS handshake": (lambda sock: all(iter(lambda: sock.recv(65536), b"")), TimeoutError),
}


@pytest.mark.parametrize("how", WITHIN_TLS)
def test_an_end_before_or_in_the_tls_handshake_is_one_failure_an_attempt_and_the_next_comes_on_schedule(how, certificates):
    act, kind = WITHIN_TLS[how]
    with RawServer(act) as server, capture(*CONNECTION) as seen, Rss() as rss:
        feed = producer(f"wss://127.0.0.1:{server.port}", ssl=certificates.context(), open_timeout=0.4,
                        retry=Backoff(DELAY, factor=2, jitter="none", max_retries=2), process_exception=lambda error: None)
        pipeline = Counting(feed)
        pipeline.start()
        assert pipeline.join(30) is not None
    failures = seen.of(FAILURE)
    gaps = [b - a for a, b in zip(server.accepted, server.accepted[1:], strict=False)]
    taken = failures[0].measurements["duration"]
    row(how, "TLS", f"3 failures: {type(failures[0].metadata['reason']).__name__}", taken, gaps[0] - taken - DELAY, rss)
    assert {one.event for one in seen.events} == {FAILURE}
    assert [one.measurements["delay"] for one in failures] == [DELAY, 2 * DELAY, None]
    assert [one.metadata["epoch"] for one in failures] == [1, 2, 3]
    assert all(isinstance(one.metadata["reason"], kind) for one in failures), failures
    assert rss.growth <= GROWTH
    assert len(gaps) == 2
    assert gaps[0] >= DELAY - 0.05
    assert gaps[1] >= 2 * DELAY - 0.05


def test_a_listener_that_never_accepts_costs_open_timeout_and_no_more(certificates):
    """The kernel takes the connection, nobody answers: before accept, as the client sees it."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener, capture(*CONNECTION) as seen, Rss() as rss:
        feed = producer(f"ws://127.0.0.1:{listener.getsockname()[1]}", open_timeout=0.3,
                        retry=Backoff(DELAY, factor=2, jitter="none", max_retries=1))
        pipeline = Counting(feed)
        pipeline.start()
        assert pipeline.join(30) is not None
    failures = seen.of(FAILURE)
    row("never accepts", "", "2 failures: TimeoutError", failures[0].measurements["duration"], None, rss)
    assert [one.measurements["delay"] for one in failures] == [DELAY, None]
    assert all(isinstance(one.metadata["reason"], TimeoutError) for one in failures)
    assert {one.event for one in seen.events} == {FAILURE}
    assert rss.growth <= GROWTH
