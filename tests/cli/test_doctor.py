"""`wsengine doctor` as a user runs it, on servers each of which has one thing wrong, and on some that have nothing."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import trustme

from wsengine.testing import Feed, ScriptedServer, ServerTLS, steps

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items()
       if not name.lower().endswith("_proxy") and name not in ("WSENGINE_TLS_PATH", "SSL_CERT_FILE")},
    "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8",
}
COMMAND = [sys.executable, "-m", "wsengine", "doctor"]
STEPS = ["URL", "proxy", "DNS", "TCP", "tunnel", "TLS", "certificate", "path", "upgrade", "deflate", "clock", "round trip",
         "server pings", "closing"]


def run(*arguments, environment=None):
    return subprocess.run([*COMMAND, *arguments], env={**ENVIRONMENT, **(environment or {})}, encoding="utf-8", timeout=90,
                          stdin=subprocess.DEVNULL, capture_output=True)


def doctor(*arguments, environment=None, listen="0.2"):
    """What it finds, by steps; of several findings of a step the last, and all of them behind "all"."""
    done = run(*arguments, "--json", "--listen", listen, environment=environment)
    assert done.stderr == ""
    told = json.loads(done.stdout)
    found = {one["step"]: one for one in told["steps"]}
    assert list(found) == STEPS
    failed = [one["step"] for one in told["steps"] if one["status"] == "failed"]
    assert told["ok"] == (not failed)
    assert done.returncode == (1 if failed else 0)
    return {**found, "url": told["url"], "all": told["steps"], "failed": failed}


def status(found, *names):
    return [found[name]["status"] for name in names]


def good(*between, headers=(), tls=None):
    return ScriptedServer([[steps.accept(headers=headers), *between, steps.serve()]], tls=tls)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class OwnProxy:
    """An HTTP proxy that notes what it is asked, and connects, or answers with a status."""

    def __init__(self, answer=None):
        self.asked = []
        self._answer = answer
        self._socks = []
        self._threads = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self):
        self._run(self._accept)
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        for sock in self._socks:
            sock.close()

    def _run(self, body, *arguments):
        thread = threading.Thread(target=body, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._socks.append(sock)
                self._run(self._serve, sock)

    def _serve(self, sock):
        with contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := sock.recv(4096)):
                    return
                head += data
            self.asked.append(head.decode())
            if self._answer is not None:
                sock.sendall(self._answer)
                sock.shutdown(socket.SHUT_WR)
                return
            host, _, port = head.split()[1].decode().rpartition(":")
            server = socket.create_connection((host, int(port)))
            self._socks.append(server)
            sock.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            self._run(self._pump, sock, server)
            self._pump(server, sock)

    def _pump(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


# ---------------------------------------------------------------------------------------------------------- all is well

def test_all_is_well_with_a_server_that_has_everything(certificates):
    script = [steps.accept_deflate(), steps.ping(b"x"), steps.serve()]
    with ScriptedServer([script], tls=certificates.server()) as server:
        url = server.url
        found = doctor(f"{url}/feed?token=geheim", "--ca", certificates.ca_file)
    assert found["failed"] == []
    assert found["url"] == f"{url}/feed?***"
    assert status(found, "tunnel", "clock") == ["skipped", "skipped"]
    assert {one["status"] for one in found["all"] if one["step"] not in ("tunnel", "clock")} == {"ok"}
    assert found["TLS"]["facts"]["version"] == "TLSv1.3"
    assert found["TLS"]["facts"]["alpn"] == "http/1.1"
    assert set(found["certificate"]["facts"]["names"]) == {"127.0.0.1", "::1", "localhost"}
    assert found["path"]["facts"] == {"path": "A", "reason": None}
    assert found["upgrade"]["facts"]["http_status"] == 101
    assert found["deflate"]["facts"]["offered"] == "permessage-deflate; client_max_window_bits"
    assert found["deflate"]["facts"]["agreed"]["server_max_window_bits"] == 15
    assert len(found["round trip"]["facts"]["seconds"]) == 5
    assert 0 < found["round trip"]["facts"]["min"] <= found["round trip"]["facts"]["median"]
    assert found["server pings"]["facts"]["pings"] == 1
    assert found["closing"]["facts"] == {"code": 1000}


def test_it_prints_a_line_for_each_step_and_a_verdict():
    with good() as server:
        done = run(server.url, "--listen", "0.1")
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert [line[9:23].strip() for line in lines[:-2] if not line.startswith(" ")] == STEPS
    assert {line.split()[0] for line in lines[:-2] if not line.startswith(" ")} == {"ok", "note", "skipped"}
    assert lines[-2:] == ["", "All is well."]
    assert "\x1b" not in done.stdout


def test_it_prints_the_remedy_below_a_failure_and_names_the_step_in_the_verdict():
    done = run(f"ws://127.0.0.1:{free_port()}/")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("failed   TCP"))
    assert "Connection refused" in lines[at]
    assert lines[at + 1].strip().startswith("→ nothing listens on this port there")
    assert lines[-1] == "Not well: TCP failed."


def test_what_the_server_is_asked_with_are_the_options(certificates):
    with good(headers=[("Sec-WebSocket-Protocol", "v2")]) as server:
        found = doctor(server.url, "--header", "X-Key: geheim", "--origin", "https://here.example", "--subprotocol", "v2")
        record = next(one for one in server.connections if one.request_line)
    assert found["failed"] == []
    assert record.header("X-Key") == "geheim"
    assert record.header("Origin") == "https://here.example"
    assert found["upgrade"]["facts"]["subprotocol"] == "v2"
    assert "geheim" not in json.dumps(found["all"])


def test_no_secret_is_printed():
    headers = [("Set-Cookie", "geheim"), ("Location", "/?token=geheim")]
    with good(headers=headers) as server:
        url = server.url.replace("//", "//user:geheim@")
        done = run(f"{url}/feed?token=geheim", "--header", "Cookie: geheim", "--listen", "0.1")
    assert done.returncode == 0, done.stdout
    assert "geheim" not in done.stdout + done.stderr
    assert "Set-Cookie: (hidden)" in done.stdout


# ---------------------------------------------------------------------------------------------------------- the way there

def test_a_wrong_url():
    found = doctor("http://u:geheim@example.com/")
    assert found["failed"] == ["URL"]
    assert "write ws://" in found["URL"]["text"]
    assert "geheim" not in json.dumps(found["all"])
    assert set(status(found, *STEPS[1:])) == {"skipped"}


def test_an_unknown_host():
    found = doctor("wss://nobody.invalid/")
    assert found["failed"] == ["DNS"]
    assert "cannot look up nobody.invalid:443" in found["DNS"]["text"]
    assert "is the host spelt right?" in found["DNS"]["remedy"]
    assert status(found, "URL", "proxy") == ["ok", "ok"]
    assert set(status(found, *STEPS[3:])) == {"skipped"}


def test_a_closed_port():
    found = doctor(f"wss://127.0.0.1:{free_port()}/")
    assert found["failed"] == ["TCP"]
    assert "Connection refused" in found["TCP"]["text"]
    assert "does the server run?" in found["TCP"]["remedy"]
    assert set(status(found, *STEPS[4:])) == {"skipped"}


def test_a_name_is_looked_up():
    with good() as server:
        found = doctor(f"ws://localhost:{server.port}/")
    assert "127.0.0.1" in found["DNS"]["facts"]["addresses"]
    assert found["DNS"]["text"].startswith("IPv4 127.0.0.1; IPv6 ")
    assert found["DNS"]["facts"]["seconds"] > 0
    assert found["failed"] == []


# -------------------------------------------------------------------------------------------------------------- proxies

def test_a_proxy_of_the_option_is_gone_through():
    with OwnProxy() as proxy, good() as server:
        port = server.port
        found = doctor(server.url, "--proxy", f"http://user:geheim@127.0.0.1:{proxy.port}")
    assert found["failed"] == []
    assert found["proxy"]["text"] == f"http://127.0.0.1:{proxy.port}, named by --proxy"
    assert found["tunnel"]["status"] == "ok"
    assert {asked.splitlines()[0] for asked in proxy.asked} == {f"CONNECT 127.0.0.1:{port} HTTP/1.1"}
    assert "geheim" not in json.dumps(found["all"])


def test_tls_goes_through_a_proxy(certificates):
    with OwnProxy() as proxy, good(tls=certificates.server()) as server:
        found = doctor(server.url, "--ca", certificates.ca_file, "--proxy", f"http://127.0.0.1:{proxy.port}")
    assert found["failed"] == []
    assert status(found, "tunnel", "TLS", "certificate") == ["ok", "ok", "ok"]


def test_a_proxy_that_refuses():
    with OwnProxy(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n") as proxy:
        found = doctor("wss://example.com/", "--proxy", f"http://127.0.0.1:{proxy.port}")
    assert found["failed"] == ["tunnel"]
    assert "HTTP 407" in found["tunnel"]["text"]
    assert "--proxy scheme://user:password@host:port" in found["tunnel"]["remedy"]
    assert status(found, "DNS", "TCP") == ["ok", "ok"]
    assert set(status(found, *STEPS[5:])) == {"skipped"}


def test_a_proxy_that_is_not_there():
    port = free_port()
    found = doctor("wss://example.com/", "--proxy", f"http://127.0.0.1:{port}")
    assert found["failed"] == ["TCP"]
    assert f"127.0.0.1:{port}" in found["TCP"]["text"]


@pytest.mark.parametrize(("environment", "arguments", "expected"), [
    ({}, [], "none: the environment names none"),
    ({"http_proxy": "http://127.0.0.1:1", "no_proxy": "127.0.0.1"}, [],
     "none: no_proxy exempts 127.0.0.1 (the environment has http_proxy)"),
    ({"http_proxy": "http://127.0.0.1:1"}, ["--proxy", "none"], "none, as --proxy says"),
])
def test_why_there_is_no_proxy(environment, arguments, expected):
    with good() as server:
        found = doctor(server.url, *arguments, environment=environment)
    assert found["proxy"]["text"] == expected
    assert found["failed"] == []


@pytest.mark.parametrize(("environment", "expected"), [
    ({"https_proxy": "http://u:geheim@127.0.0.1:1"}, "http://127.0.0.1:1, named by the environment's https_proxy"),
    ({"https_proxy": "http://127.0.0.1:1", "no_proxy": "nobody.invalid"},
     "none: no_proxy exempts nobody.invalid (the environment has https_proxy)"),
    ({"http_proxy": "http://127.0.0.1:1"}, "none: what the environment has (http_proxy) is not for wss://"),
])
def test_which_proxy_the_environment_names_for_a_server_elsewhere(environment, expected):
    found = doctor("wss://nobody.invalid/", environment=environment)
    assert found["proxy"]["text"] == expected
    assert found["failed"] in (["DNS"], ["TCP"])


def test_a_wrong_proxy_of_the_environment_is_a_finding():
    found = doctor("wss://nobody.invalid/", environment={"https_proxy": "ftp://u:geheim@127.0.0.1"})
    assert found["failed"] == ["proxy"]
    assert "https_proxy" in found["proxy"]["text"]
    assert "schemes" in found["proxy"]["remedy"]
    assert "geheim" not in json.dumps(found["all"])


# ------------------------------------------------------------------------------------------------------------------ TLS

@pytest.mark.parametrize("answers", [True, False])
def test_a_plain_server_on_wss(answers):
    script = [steps.skip_request(), *([steps.respond(400)] if answers else []), steps.until_eof(30)]
    with ScriptedServer([script]) as server:
        found = doctor(f"wss://127.0.0.1:{server.port}/", "--timeout", "10" if answers else "2")
    assert found["failed"] == ["TLS"]
    assert "plain port, for ws://?" in found["TLS"]["text"] + found["TLS"]["remedy"]
    assert ("timed out" in found["TLS"]["text"]) == (not answers)
    assert set(status(found, *STEPS[6:])) == {"skipped"}


def refused(certificates, tls, *arguments, **options):
    """The findings on a server whose certificate is not accepted: nothing is sent to it."""
    with good(tls=tls) as server:
        found = doctor(server.url, *arguments, **options)
        assert [one.request_line for one in server.connections if one.request_line] == []
    assert found["failed"] == ["certificate"]
    assert found["TLS"]["status"] == "ok"
    assert found["TLS"]["facts"]["version"] == "TLSv1.3"
    assert set(status(found, *STEPS[7:])) == {"skipped"}
    assert found["upgrade"]["text"] == "the certificate is not accepted, and nothing is sent without verification"
    return found["certificate"]


def test_an_expired_certificate(certificates):
    ended = datetime.now(UTC) - timedelta(days=3, hours=1)
    tls = ServerTLS(certificates.issue("127.0.0.1", not_before=ended - timedelta(days=90), not_after=ended))
    found = refused(certificates, tls, "--ca", certificates.ca_file)
    assert "certificate has expired" in found["text"]
    assert f"it ended on {ended:%Y-%m-%d}, 3 days ago" in found["text"]
    assert "the server must renew it" in found["remedy"]
    assert found["facts"]["days_left"] == pytest.approx(-3, abs=0.2)


def test_a_certificate_that_is_not_valid_yet(certificates):
    begins = datetime.now(UTC) + timedelta(days=3)
    tls = ServerTLS(certificates.issue("127.0.0.1", not_before=begins, not_after=begins + timedelta(days=90)))
    found = refused(certificates, tls, "--ca", certificates.ca_file)
    assert "clock of this machine" in found["remedy"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_for_another_host(certificates, host):
    with good(tls=ServerTLS(certificates.issue("elsewhere.example", "192.0.2.7"))) as server:
        found = doctor(f"wss://{host}:{server.port}/", "--ca", certificates.ca_file)
    assert found["failed"] == ["certificate"]
    assert f"not accepted for {host}" in found["certificate"]["text"]
    assert found["certificate"]["remedy"] == "connect by a name that stands in it: elsewhere.example, 192.0.2.7"


def test_a_certificate_of_an_unknown_ca(certificates):
    found = refused(certificates, certificates.server())
    assert "unable to get local issuer certificate" in found["text"]
    assert "--ca FILE" in found["remedy"]
    assert "SSL_CERT_FILE" in found["remedy"]


def test_a_self_signed_certificate(certificates, tmp_path):
    own = trustme.CA()
    path = tmp_path / "own.pem"
    path.write_bytes(own.private_key_pem.bytes() + own.cert_pem.bytes())
    found = refused(certificates, ServerTLS(path))
    assert "self-signed" in found["text"]
    assert "by itself" in found["text"]
    assert "--ca FILE" in found["remedy"]


def test_a_certificate_that_ends_soon_is_a_note(certificates):
    ends = datetime.now(UTC) + timedelta(days=5)
    tls = ServerTLS(certificates.issue("127.0.0.1", not_after=ends))
    with good(tls=tls) as server:
        found = doctor(server.url, "--ca", certificates.ca_file)
    assert found["failed"] == []
    assert found["certificate"]["status"] == "note"
    assert "renew" in found["certificate"]["remedy"]


def test_path_b_is_a_note_with_its_reason(certificates):
    with good(tls=certificates.server()) as server:
        found = doctor(server.url, "--ca", certificates.ca_file, environment={"WSENGINE_TLS_PATH": "B"})
    assert found["failed"] == []
    assert found["path"]["status"] == "note"
    assert found["path"]["facts"] == {"path": "B", "reason": "WSENGINE_TLS_PATH=B"}
    assert found["path"]["remedy"] == "unset it"
    assert found["certificate"]["facts"]["names"]
    assert found["TLS"]["facts"]["cipher"]


def test_a_server_that_asks_for_a_client_certificate(certificates):
    with good(tls=certificates.server(client_ca=certificates.ca_file)) as server:
        shown = doctor(server.url, "--ca", certificates.ca_file, "--cert", certificates.issue("me@example.com"))
        without = doctor(server.url, "--ca", certificates.ca_file)
    assert shown["failed"] == []
    [failed] = without["failed"]
    assert "client certificate: give it by --cert FILE and --key FILE" in without[failed]["text"]


def test_a_server_that_hangs_in_the_tls_handshake(certificates):
    with ScriptedServer([[steps.skip_tls(), steps.stall()]], tls=certificates.server()) as server:
        found = doctor(server.url, "--ca", certificates.ca_file, "--timeout", "2")
    assert found["failed"] == ["TLS"]
    assert "timed out during the TLS handshake" in found["TLS"]["text"]


# ---------------------------------------------------------------------------------------------------------- the upgrade

def test_a_refusal_with_a_body():
    body = b"<h1>No\x1b[31m key</h1>\n" + b"x" * 1000
    with ScriptedServer([[steps.respond(403, [("WWW-Authenticate", "Key"), ("Set-Cookie", "geheim")], body, "Forbidden")]]
                        ) as server:
        found = doctor(server.url)
        assert len([one for one in server.connections if one.request_line]) == 1
    assert found["failed"] == ["upgrade"]
    assert "HTTP 403 Forbidden" in found["upgrade"]["text"]
    assert "body: <h1>No\\x1b[31m key</h1> xxx" in found["upgrade"]["text"]
    assert found["upgrade"]["text"].endswith("…")
    assert "WWW-Authenticate: 'Key'" in found["upgrade"]["text"]
    assert "Set-Cookie: (hidden)" in found["upgrade"]["text"]
    assert "are key, --header and --origin right" in found["upgrade"]["remedy"]
    assert found["upgrade"]["facts"]["http_status"] == 403
    assert set(status(found, *STEPS[9:])) == {"skipped"}


@pytest.mark.parametrize(("number", "words"), [
    (401, "--header 'Authorization: ...'"), (404, "is the path of the URL right?"), (200, "an ordinary page"),
    (429, "Retry-After"), (503, "try later"),
])
def test_other_refusals_have_a_remedy(number, words):
    with ScriptedServer([[steps.respond(number)]]) as server:
        found = doctor(server.url)
    assert found["failed"] == ["upgrade"]
    assert words in found["upgrade"]["remedy"]


def test_a_wrong_accept():
    with ScriptedServer([[steps.wrong_accept(), steps.serve()]]) as server:
        found = doctor(server.url)
    assert found["failed"] == ["upgrade"]
    assert "does not answer our key" in found["upgrade"]["text"]
    assert "no WebSocket server" in found["upgrade"]["remedy"]


def test_a_server_that_is_not_http():
    with ScriptedServer([[steps.raw(b"220 mail ready\r\n"), steps.until_eof()]]) as server:
        found = doctor(server.url)
    assert found["failed"] == ["upgrade"]


def test_a_server_that_never_answers_the_upgrade():
    with ScriptedServer([[steps.stall()]]) as server:
        found = doctor(server.url, "--timeout", "2")
    assert found["failed"] == ["upgrade"]
    assert "timed out during the wait for the upgrade response" in found["upgrade"]["text"]
    assert "says nothing" in found["upgrade"]["remedy"]


def test_a_subprotocol_that_is_not_taken_is_a_note():
    with good() as server:
        found = doctor(server.url, "--subprotocol", "v9")
    assert found["failed"] == []
    assert found["upgrade"]["status"] == "note"
    assert "took none of the subprotocols" in found["upgrade"]["remedy"]


def test_credentials_over_ws_to_another_machine_are_not_sent():
    with OwnProxy(b"HTTP/1.1 200 Connected\r\n\r\n") as proxy:  # so nothing leaves this machine
        found = doctor("ws://nobody.invalid/", "--header", "Authorization: geheim", "--proxy",
                       f"http://127.0.0.1:{proxy.port}")
    assert found["failed"] == ["upgrade"]
    assert "give --allow-plaintext-credentials" in found["upgrade"]["remedy"]
    assert len(proxy.asked) == 1  # of the step "tunnel"
    assert "geheim" not in json.dumps(found["all"])


# ---------------------------------------------------------------------------------------------------------- the deflate

def test_no_deflate_is_a_note():
    with good() as server:
        found = doctor(server.url)
    assert found["failed"] == []
    assert found["deflate"]["status"] == "note"
    assert found["deflate"]["facts"]["agreed"] is None


def test_a_server_that_refuses_the_offer_of_deflate_is_asked_without():
    with ScriptedServer([[steps.skip_request(), steps.stall()], [steps.respond(400)],
                         [steps.accept(), steps.serve()]]) as server:
        found = doctor(server.url)
        asked = [one.header("Sec-WebSocket-Extensions") for one in server.connections if one.request_line]
    assert found["failed"] == ["deflate"]
    assert found["upgrade"]["status"] == "ok"
    assert "HTTP 400" in found["deflate"]["text"]
    assert "leave compression off" in found["deflate"]["remedy"]
    assert status(found, "round trip", "closing") == ["ok", "ok"]
    assert asked == ["permessage-deflate; client_max_window_bits", None]


# ------------------------------------------------------------------------------------------------------------ the clock

@pytest.mark.parametrize(("seconds", "expected"), [(0, "ok"), (120, "note"), (-120, "note")])
def test_the_clock_is_compared_with_the_date_of_the_server(seconds, expected):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
    with good(headers=[("Date", date)]) as server:
        found = doctor(server.url)
    assert found["failed"] == []
    if seconds:
        assert found["clock"]["status"] == expected
        assert found["clock"]["facts"]["skew"] == pytest.approx(-seconds, abs=30)
        assert ("behind" if seconds > 0 else "ahead of") in found["clock"]["text"]
    else:
        assert abs(found["clock"]["facts"]["skew"]) < 30


def test_the_clock_is_compared_with_a_refusal_as_well():
    date = format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)
    with ScriptedServer([[steps.respond(401, [("Date", date)])]]) as server:
        found = doctor(server.url)
    assert found["failed"] == ["upgrade"]
    assert found["clock"]["status"] == "note"
    assert "NTP" in found["clock"]["remedy"]


@pytest.mark.parametrize("date", ["tomorrow", "Mon, 99999999999999999999 Jan 2024 00:00:00 GMT",
                                  "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"])
def test_a_date_that_is_none_is_skipped(date):
    with good(headers=[("Date", date)]) as server:
        found = doctor(server.url)
    assert found["clock"]["status"] == "skipped"


# -------------------------------------------------------------------------------------------------- the open connection

def test_a_server_that_never_answers_a_ping():
    with ScriptedServer([[steps.accept(), steps.wait(60)]]) as server:
        found = doctor(server.url, "--timeout", "2")
    assert found["failed"] == ["round trip"]
    assert "ping 1 of 5 was not answered within 2 s" in found["round trip"]["text"]
    assert "pong_timeout" in found["round trip"]["remedy"]
    assert status(found, "server pings", "closing") == ["ok", "note"]


def test_a_server_that_ends_the_connection_at_once():
    with ScriptedServer([[steps.accept(), steps.cut()]]) as server:
        found = doctor(server.url)
    assert found["failed"] == ["round trip"]
    assert "without a Close frame" in found["round trip"]["text"]
    assert status(found, "server pings", "closing") == ["skipped", "skipped"]


def test_a_server_that_closes_because_it_wants_a_login():
    script = [steps.accept(), steps.serve(1.0), steps.close(4401, "log in"), steps.until_eof()]
    with ScriptedServer([script]) as server:
        found = doctor(server.url, listen="30")
    [failed] = found["failed"]
    assert failed == "server pings"
    assert "closed the connection by itself with 4401 (log in)" in found[failed]["text"]
    assert "login" in found[failed]["remedy"]
    assert found["closing"]["status"] == "skipped"


def test_a_server_that_breaks_the_protocol():
    with ScriptedServer([[steps.accept(), steps.frame(3, b"x"), steps.until_eof()]]) as server:
        found = doctor(server.url)
    assert found["failed"] == ["round trip"]
    assert "broke RFC 6455" in found["round trip"]["text"]


def test_it_sends_one_close_and_nothing_behind_it():
    script = [steps.accept(), steps.read_until_close(), steps.ping(b"late"), steps.close(1000), steps.until_eof()]
    with ScriptedServer([script]) as server:
        found = doctor(server.url, "--timeout", "2")
        [*_, record] = server.wait(lambda records: records and records[-1].frames and not any(one.open for one in records))
    assert "server answers our Close with 1000" in found["closing"]["text"]
    assert [(frame.opcode, frame.payload) for frame in record.frames if frame.opcode != 9] == [(8, b"\x03\xe8")]


def test_it_answers_the_close_of_the_server_once():
    with ScriptedServer([[steps.accept(), steps.serve(0.5), steps.close(4401), steps.until_eof()]]) as server:
        doctor(server.url, listen="30")
        [*_, record] = server.wait(lambda records: records and records[-1].frames and not any(one.open for one in records))
    assert [frame.payload for frame in record.frames if frame.opcode == 8] == [(4401).to_bytes(2, "big")]


def test_a_feed_that_never_pauses_is_measured_as_well():
    with Feed.trades(rate=None) as feed:
        found = doctor(feed.url)
    assert found["failed"] == []
    assert found["server pings"]["facts"]["messages"] > 0


# -------------------------------------------------------------------------------------------------- the command

@pytest.mark.parametrize(("arguments", "expected"), [
    ([], "the following arguments are required: URL"),
    (["ws://127.0.0.1/", "--timeout", "soon"], "--timeout: 'soon' is not a number"),
    (["ws://127.0.0.1/", "--header", "geheim"], "give it as 'Name: value'"),
    (["ws://127.0.0.1/", "--header", "Upgrade: geheim"], "--header Upgrade (hidden): remove it"),
    (["ws://127.0.0.1/", "--proxy", "ftp://u:geheim@x"], "--proxy (hidden): give a URL"),
    (["ws://127.0.0.1/", "--proxy", "u:geheim@proxy:8080"], "--proxy (hidden): "),
    (["ws://127.0.0.1/", "--ca", "x.pem"], "--ca: the URL is ws://, which has no TLS"),
    (["wss://127.0.0.1/", "--ca", "/nowhere/x.pem"], "the file cannot be read"),
    (["ws://127.0.0.1/", "--subprotocol", "a b"], "--subprotocol <str>: give a name"),
    (["wss://127.0.0.1/", "--insecure"], "unrecognized arguments: --insecure"),
])
def test_wrong_usage_is_one_line_and_2(arguments, expected):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert "geheim" not in done.stderr


@pytest.mark.parametrize("plain", [False, True])
def test_a_terminal_gets_colours_where_rich_is_there(plain, tmp_path):
    environment = {"TERM": "xterm-256color", **ENVIRONMENT}
    if plain:
        (tmp_path / "rich.py").write_text("raise ModuleNotFoundError('No module named rich', name='rich')\n")
        environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{ROOT}"
    master, slave = pty.openpty()
    with good() as server:
        process = subprocess.Popen([*COMMAND, server.url, "--listen", "0.1"], env=environment, stdin=slave, stdout=slave,
                                   stderr=slave)
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):  # Linux: the process has closed the other side
            while data := os.read(master, 65536):
                shown += data
        os.close(master)
        assert process.wait(60) == 0, shown
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    assert (b"\x1b[32mok" in shown) == (not plain)
    assert (text == shown.decode()) == plain
    assert text.replace("\r\n", "\n").endswith("\nAll is well.\n")
    assert re.search(r"^ok       URL           ws://127", text, re.MULTILINE)


def test_ctrl_c_ends_it():
    with ScriptedServer([[steps.stall()]]) as server:
        process = subprocess.Popen([*COMMAND, server.url, "--timeout", "60"], env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        server.wait(lambda records: any(one.request_line for one in records), 60)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error == "wsengine doctor: ended at once, before all steps were done\n"
    assert re.search(r"^ok       TCP ", out, re.MULTILINE)


def test_a_reader_that_goes_away_ends_it_quietly():
    with ScriptedServer([[steps.accept(), steps.wait(60)]]) as server:
        process = subprocess.Popen([*COMMAND, server.url, "--timeout", "2"], env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout.readline().startswith(b"ok       URL")
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait(60) == 141
