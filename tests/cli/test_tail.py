"""`wsengine tail` as a user runs it: a process of its own, real servers, pipes and signals."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from wsengine.cli.output import Output
from wsengine.cli.server import Server
from wsengine.cli.tail import LARGEST, Options, Tail
from wsengine.cli.trace import Trace
from wsengine.testing import Feed, ScriptedServer, ServerTLS, steps

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items()
       if not name.lower().endswith("_proxy") and name != "WSENGINE_TLS_PATH"},
    "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8",
}
COMMAND = [sys.executable, "-m", "wsengine", "tail"]
WAIT = 60


def tail(*arguments, environment=None, binary=False):
    return subprocess.run([*COMMAND, *arguments], env={**ENVIRONMENT, **(environment or {})}, text=not binary,
                          encoding=None if binary else "utf-8", timeout=WAIT, stdin=subprocess.DEVNULL, capture_output=True)


def start(*arguments, **options):
    return subprocess.Popen([*COMMAND, *arguments], env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})


def script(*between, **options):
    """A server that accepts, does this, and is a proper one from then on."""
    return ScriptedServer([[steps.accept(), *between, steps.serve()]], **options)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# ------------------------------------------------------------------------------------------------------------ messages

def test_text_comes_as_it_is_and_binary_as_length_and_hexadecimal_digits():
    messages = [steps.text("grüße, 世界"), *map(steps.binary, (b"\x00\xff\x10", b"\x01", b""))]
    with script(*messages) as server:
        done = tail(server.url, "--count", "4")
    assert done.stdout == "grüße, 世界\n[3 bytes] 00ff10\n[1 byte] 01\n[0 bytes] \n"
    assert done.stderr == ""
    assert done.returncode == 0


def test_control_characters_cannot_command_the_terminal():
    with script(steps.text("\x1b]0;title\x07 \x9b31m\r\x7f\u202eevil"), steps.text("one\ttwo\nthree")) as server:
        done = tail(server.url, "--count", "2")
    assert done.stdout == "\\x1b]0;title\\x07 \\x9b31m\\x0d\\x7f\\u202eevil\none\ttwo\nthree\n"


def test_an_output_that_is_not_utf8_gets_escapes():
    with script(steps.text("世")) as server:
        done = tail(server.url, "--count", "1", environment={"PYTHONIOENCODING": "ascii"})
    assert done.stdout == "\\u4e16\n"


def test_raw_writes_payloads_as_they_are():
    with script(steps.text("\x1b[1mü"), steps.binary(b"\x00\xff\r\n")) as server:
        done = tail(server.url, "--count", "2", "--raw", binary=True)
    assert done.stdout == "\x1b[1mü\n".encode() + b"\x00\xff\r\n\n"


def test_it_shows_every_message_of_a_fast_feed_in_order():
    payloads = [b"%d" % number for number in range(5000)]
    with Feed.payloads([(1, payload) for payload in payloads]) as feed:
        done = tail(feed.url, "--count", "5000")
    assert done.stdout.split() == [payload.decode() for payload in payloads]
    assert done.returncode == 0


def test_messages_are_written_when_they_come_and_not_when_a_buffer_is_full():
    with script(steps.text("first"), steps.receive(1, 30), steps.text("second")) as server:
        process = start(server.url)
        assert process.stdout.readline() == b"first\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT) == 130
        process.communicate()


# ----------------------------------------------------------------------------------------------------- what is sent

def test_headers_origin_and_subprotocol_reach_the_server_and_what_is_sent_in_order():
    accept = steps.accept(headers=[("Sec-WebSocket-Protocol", "v2")])
    with ScriptedServer([[accept, steps.receive(2), steps.text("thanks"), steps.serve()]]) as server:
        done = tail(server.url, "--header", "X-Key: abc: def", "--header", "X-Other:1", "--origin", "https://here.example",
                    "--subprotocol", "v2", "--subprotocol", "v1", "--send", "login", "--send", "subscribe", "--count", "1")
        [record] = server.wait_ended(1)
    assert (done.returncode, done.stdout) == (0, "thanks\n")
    assert record.header("X-Key") == "abc: def"
    assert record.header("X-Other") == "1"
    assert record.header("Origin") == "https://here.example"
    assert record.header("Sec-WebSocket-Protocol") == "v2, v1"
    assert [frame.payload for frame in record.frames if frame.opcode == 1] == [b"login", b"subscribe"]
    assert [frame.payload for frame in record.frames if frame.opcode == 8] == [b"\x03\xe8"]


def test_compression_is_offered_where_it_is_asked_for_and_not_otherwise():
    with ScriptedServer([[steps.accept_deflate(), steps.compressed("small " * 50), steps.serve()],
                         [steps.accept(), steps.text("plain"), steps.serve()]]) as server:
        done = tail(server.url, "--compression", "--count", "1", "--trace")
        plain = tail(server.url, "--count", "1")
        first, second = server.connections
    assert done.stdout == "small " * 50 + "\n"
    assert "compression permessage-deflate" in done.stderr
    assert plain.stdout == "plain\n"
    assert first.header("Sec-WebSocket-Extensions") == "permessage-deflate; client_max_window_bits"
    assert second.header("Sec-WebSocket-Extensions") is None


def test_a_message_above_the_bound_ends_it_with_the_option_named():
    with script(steps.text("x" * 101)) as server:
        done = tail(server.url, "--max-size", "100")
    assert done.returncode == 1
    assert "--max-size" in done.stderr
    assert done.stderr.count("\n") == 1


# ----------------------------------------------------------------------------------------------------------- the end

def test_timeout_ends_it_well_without_a_count():
    with script(steps.text("one")) as server:
        done = tail(server.url, "--timeout", "1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\n", "")


def test_a_count_that_is_not_reached_in_time_is_a_failure():
    with script(steps.text("one")) as server:
        done = tail(server.url, "--timeout", "1", "--count", "3")
    assert (done.returncode, done.stdout) == (1, "one\n")
    assert done.stderr == "wsengine tail: 1 of 3 messages came within 1 s\n"


def test_a_server_that_closes_well_ends_it_well():
    with ScriptedServer([[steps.accept(), steps.text("one"), steps.close(1001, "go\x1b[m"), steps.until_eof()]]) as server:
        done = tail(server.url)
        counted = tail(server.url, "--count", "2")
    assert (done.returncode, done.stdout) == (0, "one\n")
    assert done.stderr == "wsengine tail: the server closed the connection with 1001 (go\\x1b[m)\n"
    assert counted.returncode == 1
    assert counted.stderr.endswith("wsengine tail: 1 of 2 messages came before\n")


@pytest.mark.parametrize(("end", "words"), [
    (steps.close(1011, "broken"), "connection closed with 1011 (broken)"),
    (steps.cut(), "connection closed with 1006"),
    (steps.frame(3, b"x"), "1002"),
])
def test_another_end_is_one_line_and_1(end, words):
    with ScriptedServer([[steps.accept(), steps.text("one"), end, steps.until_eof()]]) as server:
        done = tail(server.url)
    assert (done.returncode, done.stdout) == (1, "one\n")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_closes_the_connection_and_tells_the_code(number, status):
    with script(steps.text("one")) as server:
        process = start(server.url)
        assert process.stdout.readline() == b"one\n"
        process.send_signal(number)
        out, error = process.communicate(timeout=WAIT)
        [record] = server.wait_ended(1)
    assert process.returncode == status
    assert out == b""
    assert error.decode() == f"wsengine tail: ended by {signal.Signals(number).name}; closed with 1000\n"
    assert [frame.payload for frame in record.frames if frame.opcode == 8] == [b"\x03\xe8"]


def test_a_signal_ends_it_soon_if_the_server_does_not_answer_the_close():
    with ScriptedServer([[steps.accept(), steps.text("one"), steps.stall()]]) as server:
        process = start(server.url)
        assert process.stdout.readline() == b"one\n"
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=WAIT)
    assert process.returncode == 130
    assert time.monotonic() - begun < 5  # without the bound, it would wait for half a minute and more
    assert b"closed with 1006 (the server did not answer the Close in time)" in error


def test_a_signal_ends_it_while_it_connects():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        process = start(f"ws://127.0.0.1:{silent.getsockname()[1]}/", "--open-timeout", "60")
        accepted, _ = silent.accept()
        with accepted:
            assert accepted.recv(4096).startswith(b"GET / HTTP/1.1")
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error == b"wsengine tail: ended by SIGINT, without a connection\n"


def test_a_server_that_does_not_answer_is_one_line_in_the_words_of_the_command():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = tail(f"ws://127.0.0.1:{silent.getsockname()[1]}/", "--open-timeout", "0.3")
    assert done.returncode == 1
    assert "timed out during the wait for the upgrade response" in done.stderr
    assert "open_timeout" not in done.stderr


def test_a_signal_ends_it_while_nobody_takes_what_it_writes():
    with Feed.payloads([(1, b"x" * 10_000)] * 5000) as feed:
        process = start(feed.url)
        assert process.stdout.read(1) == b"x"
        feed.wait(lambda log: log.messages > 100)  # more than a pipe holds
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT) == 130
        process.communicate()


def test_a_reader_that_goes_away_ends_it_quietly():
    with Feed.payloads([(1, b"line")] * 100_000) as feed:
        process = start(feed.url)
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait(WAIT) == 141


def test_a_reader_that_goes_away_is_noticed_where_nothing_more_comes():
    with script(steps.text("one")) as server:
        process = start(server.url)
        assert process.stdout.readline() == b"one\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait(WAIT) == 141
        [record] = server.wait_ended(1)
    assert any(frame.opcode == 8 for frame in record.frames)  # and the server is told


def test_an_output_that_cannot_be_written_is_one_line_and_1():
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with script(steps.text("one")) as server, open("/dev/full", "wb") as full:
        process = start(server.url, stdout=full)
        _, error = process.communicate(timeout=WAIT)
    assert process.returncode == 1
    assert b"No space left on device" in error
    assert error.count(b"\n") == 1


def test_in_a_terminal_it_works_as_well():
    master, slave = pty.openpty()
    with script(steps.text("one\x1b[31m")) as server:
        process = start(server.url, "--count", "1", stdout=slave)
        os.close(slave)
        try:
            assert os.read(master, 100) == b"one\\x1b[31m\r\n"
            assert process.wait(WAIT) == 0
        finally:
            os.close(master)
            process.communicate()


# ------------------------------------------------------------------------------------------------------ connecting

def test_a_closed_port_is_one_line_and_1():
    port = free_port()
    done = tail(f"ws://127.0.0.1:{port}/")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (f"wsengine tail: cannot connect to 127.0.0.1:{port} (127.0.0.1: Connection refused)\n")


def test_an_unknown_host_is_one_line_and_1():
    done = tail("wss://nobody.invalid/feed?token=secret")
    assert done.returncode == 1
    assert done.stderr.startswith("wsengine tail: cannot look up nobody.invalid:443: ")
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


def test_a_refusal_is_one_line_and_1():
    with ScriptedServer([[steps.respond(403, reason="Forbidden")]]) as server:
        done = tail(server.url)
    assert done.returncode == 1
    assert done.stderr == "wsengine tail: server answered the upgrade with HTTP 403 Forbidden\n"


def test_reconnect_goes_on_after_the_end_of_a_connection():
    with ScriptedServer([[steps.accept(), steps.text("one"), steps.cut()],
                         [steps.accept(), steps.text("two"), steps.serve()]]) as server:
        done = tail(server.url, "--reconnect", "--count", "2")
    assert (done.returncode, done.stdout) == (0, "one\ntwo\n")
    assert re.fullmatch(r"wsengine tail: connection closed with 1006[^\n]*; next attempt in \d+\.\d s\n", done.stderr)


def test_reconnect_gives_up_where_another_attempt_is_not_worth_it():
    with ScriptedServer([[steps.respond(404, reason="Not Found")]]) as server:
        done = tail(server.url, "--reconnect")
        assert len(server.connections) == 1
    assert done.returncode == 1
    assert done.stderr == "wsengine tail: server answered the upgrade with HTTP 404 Not Found\n"


def test_a_message_that_finds_no_room_leaves_no_connection_behind(monkeypatch, tmp_path, no_leaks):
    monkeypatch.setattr("wsengine.cli.tail.SEND_TIMEOUT", 0.3)
    options = Options(send=("x" * 2**20,) * 64, count=1, timeout=2.0, open_timeout=30.0, keepalive=20.0, max_size=LARGEST,
                      compression=None, reconnect=True)
    with ScriptedServer([[steps.accept(), steps.stall()]]) as server, (tmp_path / "out").open("w") as out:
        # In this process: at its end, a process closes everything.
        assert Tail(Server(server.url), options, Output(out, raw=False), Trace(on=False)).run() == 1
        server.wait_connections(1)
        mine = [one for one in psutil.Process().net_connections() if one.raddr and one.raddr.port == server.port]
    assert mine == []  # the server cannot tell: it does not read, and the end stands behind what it has not read


# --------------------------------------------------------------------------------------------------------------- TLS

def test_a_certificate_of_an_unknown_ca_is_not_accepted_and_the_remedy_is_an_option(certificates):
    with script(tls=certificates.server()) as server:
        done = tail(server.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not accepted" in done.stderr
    assert "--ca FILE" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_ca_of_the_user_is_trusted(certificates):
    with script(steps.text("one"), tls=certificates.server()) as server:
        done = tail(server.url, "--ca", certificates.ca_file, "--count", "1")
        [record] = server.wait_ended(1)
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\n", "")
    assert record.tls["alpn"] == "http/1.1"


def test_a_client_certificate_is_shown_to_the_server(certificates):
    tls = certificates.server(client_ca=certificates.ca_file)
    both = certificates.issue("me@example.com")
    cert, key = certificates.path("cert"), certificates.path("key")
    text = Path(both).read_text()
    begin = text.index("-----BEGIN CERTIFICATE-----")
    Path(cert).write_text(text[begin:])
    Path(key).write_text(text[:begin])
    with script(steps.text("one"), tls=tls) as server:
        in_one = tail(server.url, "--ca", certificates.ca_file, "--cert", both, "--count", "1")
        in_two = tail(server.url, "--ca", certificates.ca_file, "--cert", cert, "--key", key, "--count", "1")
        without = tail(server.url, "--ca", certificates.ca_file, "--count", "1")
    assert (in_one.returncode, in_one.stdout, in_one.stderr) == (0, "one\n", "")
    assert (in_two.returncode, in_two.stdout, in_two.stderr) == (0, "one\n", "")
    assert without.returncode == 1
    assert "client certificate: give it by --cert FILE and --key FILE" in without.stderr
    assert "load_cert_chain" not in without.stderr
    assert without.stderr.count("\n") == 1


def test_what_is_wrong_with_a_client_certificate_is_one_line_and_2(certificates, tmp_path):
    first, second = (Path(certificates.issue("a@example.com")).read_text() for _ in range(2))
    from cryptography.hazmat.primitives import serialization  # trustme, which made them, brings it

    begin = first.index("-----BEGIN CERTIFICATE-----")
    cert, key, other = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "other.pem"
    cert.write_text(first[begin:])
    key.write_text(first[:begin])
    other.write_text(second[: second.index("-----BEGIN CERTIFICATE-----")])
    encrypted = tmp_path / "encrypted.pem"
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    encrypted.write_bytes(loaded.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                               serialization.BestAvailableEncryption(b"geheim")))
    for arguments, expected in (
        ((cert,), f"--cert {cert}: it holds no private key in PEM; give the file that does by --key"),
        ((cert, key.parent), f"--key {tmp_path}: the file cannot be read (Is a directory)"),
        ((tmp_path / "none",), f"--cert {tmp_path / 'none'}: the file cannot be read (No such file or directory)"),
        ((key, key), f"--cert {key}: it holds no certificate in PEM"),
        ((cert, cert), f"--key {cert}: it holds no private key in PEM"),
        ((cert, other), f"--key {other}: it is not the key of the certificate in {cert}"),
        ((cert, encrypted), f"--key {encrypted}: the key is encrypted"),
    ):
        given = [word for name, path in zip(("--cert", "--key"), arguments, strict=False) for word in (name, str(path))]
        done = tail("wss://127.0.0.1:1/", *given)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"wsengine tail: {expected}"), done.stderr
        assert done.stderr.count("\n") == 1


def test_insecure_takes_any_certificate_and_warns(certificates):
    with script(steps.text("one"), tls=ServerTLS(certificates.issue("elsewhere.example"))) as server:
        done = tail(server.url, "--insecure", "--count", "1")
        verified = tail(server.url, "--ca", certificates.ca_file, "--count", "1")
    assert (done.returncode, done.stdout) == (0, "one\n")
    assert "WARNING: certificates are not verified" in done.stderr
    assert verified.returncode == 1
    assert "is not accepted for '127.0.0.1'" in verified.stderr


# -------------------------------------------------------------------------------------------------------------- trace

class ConnectProxy:
    """An HTTP proxy that notes the first line of each CONNECT, and connects."""

    def __init__(self):
        self.asked = []
        self._socks = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stop(self):
        for sock in (self._listener, *self._socks):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WAIT)
        for sock in (self._listener, *self._socks):
            sock.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                head = b""
                while b"\r\n\r\n" not in head:
                    head += sock.recv(4096)
                self.asked.append(head.decode().splitlines()[0])
                host, _, port = head.split()[1].decode().rpartition(":")
                server = socket.create_connection((host, int(port)))
                self._socks += [sock, server]
                sock.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                for pair in ((sock, server), (server, sock)):
                    self._threads.append(threading.Thread(target=self._copy, args=pair))
                    self._threads[-1].start()

    def _copy(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def connect_proxy():
    proxy = ConnectProxy()
    yield proxy
    proxy.stop()


def test_trace_tells_each_event_with_its_time_and_no_secret():
    accept = steps.accept(headers=[("Set-Cookie", "session=geheim"), ("Server", "scripted")])
    with ScriptedServer([[accept, steps.ping(b"x"), steps.text("payload"), steps.serve()]]) as server:
        url = server.url.replace("ws://", "ws://user:geheim@")
        done = tail(f"{url}/feed?token=geheim", "--header", "Authorization: Bearer geheim", "--send", "geheim",
                    "--keepalive", "0.2", "--timeout", "2", "--trace")
    assert done.returncode == 0
    assert "geheim" not in done.stdout + done.stderr
    assert done.stdout == "payload\n"
    told = done.stderr.splitlines()
    assert all(re.match(r" *\d+\.\d{3} s  ", line) for line in told)
    for expected in (r"connecting to ws://127\.0\.0\.1:\d+/feed\?\*\*\*$", r"> Authorization: \(hidden\)$",
                     r"open after .*: HTTP 101 from 127\.0\.0\.1:\d+, no TLS, subprotocol none, compression none$",
                     r"< Set-Cookie: \(hidden\)$", r"< Server: 'scripted'$", r"> frame text, FIN, masked, 6 bytes$",
                     r"< frame ping, FIN, 1 byte$", r"> frame pong, FIN, masked, 1 byte$", r"< frame text, FIN, 7 bytes$",
                     r"> frame ping, FIN, masked, \d+ bytes$", r"< frame pong, FIN, \d+ bytes$",
                     r"round trip \d+\.\d\d ms, of our last ping$", r"> frame close, FIN, masked, 2 bytes: 1000$",
                     r"< frame close, FIN, 2 bytes: 1000$",
                     r"closed by us with 1000; received 1 message, 7 bytes, in \d+ frames of \d+ bytes on the wire$"):
        assert any(re.search(expected, line) for line in told), (expected, told)


def frames(done, *directions):
    """The frames of a trace, without their times; of one direction or both."""
    found = re.findall(r"^ *\d+\.\d{3} s  ([<>]) frame (.*)$", done.stderr, re.MULTILINE)
    return [f"{way} {words}" for way, words in found if way in (directions or "<>")]


FRAGMENTS = (steps.pong(b"beat"), steps.frame(1, b"one ", fin=False), steps.frame(0, b"two ", fin=False),
             steps.ping(b"still?"), steps.frame(0, b"three"), steps.close(1001, "bye"), steps.until_eof())
FRAMES_OF_THE_SERVER = [
    "< pong, FIN, 4 bytes", "< text, no FIN, 4 bytes", "< continuation, no FIN, 4 bytes", "< ping, FIN, 6 bytes",
    "< continuation, FIN, 5 bytes", "< close, FIN, 5 bytes: 1001 'bye'",
]
FRAMES_OF_OURS = ["> text, FIN, masked, 5 bytes", "> pong, FIN, masked, 6 bytes", "> close, FIN, masked, 2 bytes: 1001"]


def is_whole(done):
    """Whether the trace has told each frame of `FRAGMENTS` and the answers to them, both sides in order."""
    assert (done.returncode, done.stdout) == (0, "one two three\n")
    assert frames(done, "<") == FRAMES_OF_THE_SERVER
    assert frames(done, ">") == FRAMES_OF_OURS
    order = frames(done)
    assert order.index(FRAMES_OF_THE_SERVER[3]) < order.index(FRAMES_OF_OURS[1])
    assert order.index(FRAMES_OF_THE_SERVER[5]) < order.index(FRAMES_OF_OURS[2])
    assert "ended with 1001 (bye)" in done.stderr.splitlines()[-2]
    return True


@pytest.mark.parametrize("glued", [False, True])
def test_trace_tells_each_frame_of_both_directions(glued):
    received = steps.receive(1)
    script = [steps.accept(), received, *FRAGMENTS]
    if glued:  # behind the head of the answer, in the same segment
        script = [steps.accept(glued=b"\x8a\x04beat\x01\x04one "), received, *FRAGMENTS[2:]]
    with ScriptedServer([script]) as server:
        assert is_whole(tail(server.url, "--send", "hello", "--trace"))


@pytest.mark.parametrize("path", ["A", "B"])
def test_trace_tells_the_frames_within_tls(certificates, path):
    script = [steps.accept(), steps.receive(1), *FRAGMENTS]
    environment = {"WSENGINE_TLS_PATH": "B"} if path == "B" else {}
    with ScriptedServer([script], tls=certificates.server()) as server:
        done = tail(server.url, "--ca", certificates.ca_file, "--send", "hello", "--trace", environment=environment)
        assert is_whole(done)


@pytest.mark.parametrize("secure", [False, True])
def test_trace_tells_the_frames_behind_a_proxy(certificates, connect_proxy, secure):
    script = [steps.accept(), steps.receive(1), *FRAGMENTS]
    with ScriptedServer([script], tls=certificates.server() if secure else None) as server:
        trust = ["--ca", certificates.ca_file] if secure else []
        assert is_whole(tail(server.url, *trust, "--proxy", f"http://user:geheim@127.0.0.1:{connect_proxy.port}", "--send",
                             "hello", "--trace"))
        assert connect_proxy.asked == [f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"]


def test_trace_tells_the_frames_of_each_connection():
    with ScriptedServer([[steps.accept(), steps.text("one"), steps.cut()],
                         [steps.accept(), steps.text("three"), steps.serve()]]) as server:
        done = tail(server.url, "--reconnect", "--count", "2", "--trace")
    assert (done.returncode, done.stdout) == (0, "one\nthree\n")
    assert frames(done, "<") == ["< text, FIN, 3 bytes", "< text, FIN, 5 bytes", "< close, FIN, 2 bytes: 1000"]
    assert frames(done, ">")[-1] == "> close, FIN, masked, 2 bytes: 1000"


def test_trace_tells_compressed_frames_and_payloads_only_where_asked():
    script = [steps.accept_deflate(), steps.compressed("secret " * 50, fragment=6), steps.text("grüße\x1b[m" + "x" * 200),
              steps.binary(b"\x00\xff"), steps.frame(1, "ü".encode()[:1], fin=False),
              steps.frame(0, "ü".encode()[1:] + b"b"), steps.serve()]
    with ScriptedServer([script]) as server:
        silent = tail(server.url, "--compression", "--count", "4", "--trace", "--send", "login")
        shown = tail(server.url, "--compression", "--count", "4", "--trace-payloads", "--send", "login")
    assert silent.returncode == shown.returncode == 0
    assert frames(silent, "<")[0] == "< text, no FIN, RSV1 (compressed), 6 bytes"
    assert not [line for line in frames(silent) if ":" in line and "close" not in line]
    first, *others = frames(shown, "<")
    assert re.fullmatch(r"< text, no FIN, RSV1 \(compressed\), 6 bytes: [0-9a-f]{12}", first)
    assert re.fullmatch(r"< continuation, (no )?FIN, \d bytes?: [0-9a-f]+", others[0])
    assert others[-5:-1] == [f"< text, FIN, 210 bytes: 'grüße\\x1b[m{'x' * 56}'…", "< binary, FIN, 2 bytes: 00ff",
                             "< text, no FIN, 1 byte", "< continuation, FIN, 2 bytes: '\ufffdb'"]
    assert "> text, FIN, masked, 5 bytes: 'login'" in frames(shown)


@pytest.mark.parametrize(("wrong", "words"), [
    (steps.frame(3, b"x"), "< of unknown opcode 3, FIN, 1 byte"),
    (steps.frame(2, b"abc", masked=True), "< binary, FIN, masked, 3 bytes"),
    (steps.frame(2, b"abc", rsv=7), "< binary, FIN, RSV1 (compressed), RSV2, RSV3, 3 bytes"),
    (steps.frame(9, b"", fin=False), "< ping, no FIN, 0 bytes"),
    (steps.frame(8, b"\x03"), "< close, FIN, 1 byte"),
])
def test_trace_tells_a_wrong_frame_as_it_is(wrong, words):
    with ScriptedServer([[steps.accept(), wrong, steps.until_eof()]]) as server:
        done = tail(server.url, "--trace")
    assert done.returncode == 1
    assert frames(done, "<") == [words]
    assert re.match(r"> close, FIN, masked, \d+ bytes: 1002 '", frames(done, ">")[0])


@pytest.mark.parametrize(("begun", "words"), [
    (b"\x82\x7e\x01\x00abc", "frame binary, FIN, 256 bytes, cut off after 3 bytes"),
    (b"\x82\x7e\x01", "frame cut off within its head, after 3 bytes"),
])
def test_trace_tells_a_frame_that_is_cut_off(begun, words):
    with ScriptedServer([[steps.accept(), steps.send(begun), steps.cut()]]) as server:
        done = tail(server.url, "--trace")
    assert f"  < {words}\n" in done.stderr


def test_a_connection_fails_with_a_trace_as_it_does_without():
    with ScriptedServer([[steps.accept(), steps.text("one"), steps.receive(1), steps.reset()]]) as server:
        traced = tail(server.url, "--send", "x", "--trace")
        plain = tail(server.url, "--send", "x")
    assert traced.returncode == plain.returncode == 1
    assert "Connection reset by peer" in plain.stderr
    assert traced.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]


def test_a_trace_does_not_take_a_fast_feed_out_of_order():
    payloads = [b"%d" % number for number in range(5000)]
    with Feed.payloads([(1, payload) for payload in payloads]) as feed:
        done = tail(feed.url, "--count", "5000", "--trace-payloads")
    assert done.stdout.split() == [payload.decode() for payload in payloads]
    told = [line.rpartition(" ")[2] for line in frames(done, "<") if line.startswith("< text")]
    assert told[:5000] == [f"'{payload.decode()}'" for payload in payloads]


def test_a_trace_that_nobody_reads_any_more_ends_it():
    with Feed.payloads([(1, b"line")] * 100_000) as feed:
        process = start(feed.url, "--trace")
        process.stderr.readline()
        process.stderr.close()
        while process.stdout.read(65536):
            pass
        process.stdout.close()
        assert process.wait(WAIT) == 141


def test_trace_tells_of_the_close_of_the_server_and_of_an_attempt_that_fails():
    with ScriptedServer([[steps.accept(), steps.close(1011, "broken"), steps.until_eof()]]) as server:
        done = tail(server.url, "--trace")
    assert "ended with 1011 (broken)" in done.stderr
    failed = tail(f"ws://127.0.0.1:{free_port()}/", "--trace")
    assert re.search(r"failed after \d+\.\d\d ms\n", failed.stderr)


def test_trace_tells_the_path_of_tls(certificates):
    with script(steps.text("one"), tls=certificates.server()) as server:
        done = tail(server.url, "--ca", certificates.ca_file, "--count", "1", "--trace",
                    environment={"WSENGINE_TLS_PATH": "B"})
    assert "TLS path B (WSENGINE_TLS_PATH=B)" in done.stderr


# --------------------------------------------------------------------------------------------------------- wrong usage

@pytest.mark.parametrize(("arguments", "expected"), [
    ([], "the following arguments are required: URL"),
    (["http://example.com"], "http:// is not a WebSocket scheme; write ws://"),
    (["ws://u:geheim@[x/"], "not a usable WebSocket URI"),
    (["ws://127.0.0.1/", "--count", "0"], "--count 0: give a whole number of at least 1"),
    (["ws://127.0.0.1/", "--timeout", "0"], "give seconds above 0"),
    (["ws://127.0.0.1/", "--max-size", "0"], "--max-size 0: give a whole number from 1"),
    (["ws://127.0.0.1/", "--header", "geheim"], "argument --header: give it as 'Name: value'"),
    (["ws://127.0.0.1/", "--header", "Upgrade: geheim"], "--header Upgrade (hidden): remove it"),
    (["ws://127.0.0.1/", "--header", "X-Key: ge\nheim geheim"], "--header X-Key (hidden): its value has a line end"),
    (["ws://127.0.0.1/", "--subprotocol", "a b"], "--subprotocol <str>: give a name of letters"),
    (["ws://127.0.0.1/", "--proxy", "ftp://u:geheim@x"], "--proxy (hidden): give a URL with one of the schemes"),
    (["ws://127.0.0.1/", "--proxy", "u:geheim@proxy:8080"], "--proxy (hidden): "),
    (["ws://127.0.0.1/", "--proxy=u:geheim"], "--proxy (hidden): "),
    (["ws://127.0.0.1/", "--proxy", "http://u:geheim@[x"], "--proxy (hidden): "),
    (["ws://127.0.0.1/", "--prxoy=http://u:geheim@x"], "unrecognized arguments: --prxoy"),
    (["ws://127.0.0.1/", "-Hgeheim"], "unrecognized arguments: -H"),
    (["ws://127.0.0.1/", "--send", "geheim \udcff"], "argument --send: it is not text"),
    (["ws://127.0.0.1/", "--insecure"], "--insecure: the URL is ws://, which has no TLS"),
    (["ws://127.0.0.1/", "--ca", "x.pem"], "--ca: the URL is ws://, which has no TLS"),
    (["ws://127.0.0.1/", "--cert", "x.pem"], "--cert: the URL is ws://, which has no TLS"),
    (["wss://127.0.0.1/", "--key", "x.pem"], "--key: it belongs to a certificate; give that by --cert FILE"),
    (["wss://127.0.0.1/", "--cert", ""], "--cert: the file cannot be read"),
    (["wss://127.0.0.1/", "--ca", ""], "--ca: the file cannot be read"),
    (["wss://127.0.0.1/", "--ca", "/nowhere/x.pem"],
     "--ca /nowhere/x.pem: the file cannot be read (No such file or directory)"),
    (["wss://127.0.0.1/", "--ca", __file__], "it holds no certificates in PEM"),
    (["wss://127.0.0.1/", "--ca", __file__, "--insecure"], "--insecure: nothing is verified then"),
    (["ws://192.0.2.1/", "--header", "Authorization: geheim"],
     "--header Authorization (hidden): it would cross the network in clear: use wss://, or, where the network is trusted, "
     "give --allow-plaintext-credentials"),
    (["ws://u:geheim@192.0.2.1/"], "give --allow-plaintext-credentials"),
    (["ws://127.0.0.1/", "--cuont", "1"], "unrecognized arguments: --cuont"),
    (["ws://127.0.0.1/", "--haeder", "Authorization: geheim"], "unrecognized arguments: --haeder"),
    (["ws://127.0.0.1/", "--haeder=Authorization: geheim"], "unrecognized arguments: --haeder"),
    (["ws://127.0.0.1/", "ws://u:geheim@127.0.0.1/"], "1 argument too many (see wsengine tail --help)"),
])
def test_wrong_usage_is_one_line_and_2_without_secrets(arguments, expected):
    done = tail(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(("wsengine tail: ", "wsengine: "))
    assert "geheim" not in done.stderr


def test_help_names_each_option():
    done = tail("--help")
    assert done.returncode == 0
    for option in ("--header", "--subprotocol", "--origin", "--send", "--count", "--timeout", "--insecure", "--ca", "--cert",
                   "--key", "--proxy", "--compression", "--trace", "--trace-payloads", "--raw", "--reconnect", "--keepalive",
                   "--open-timeout", "--max-size", "--allow-plaintext-credentials"):
        assert option in done.stdout
