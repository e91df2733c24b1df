"""Behaviour of `wsengine.websocket.handshake`, on bytes alone: no sockets here."""

import base64
import contextlib
import hashlib
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsengine.errors import (
    ConfigurationError,
    HeadersError,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
)
from wsengine.websocket.handshake import Handshake
from wsengine.websocket.head import MAX_HEAD
from wsengine.websocket.headers import USER_AGENT, resolve_headers
from wsengine.websocket.response import MAX_BODY, Response
from wsengine.websocket.uri import parse_uri

URI = parse_uri("ws://example.com:8080/feed?token=s3cret")
FRAMES = b"\x81\x05hello\x82\x01\n\x81\x04\r\n\r\n"


def accept_value(request):
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", request)[1]
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()


def answer(handshake, *extra, status="HTTP/1.1 101 Switching Protocols", upgrade="Upgrade: websocket",
           connection="Connection: Upgrade", accept="Sec-WebSocket-Accept: {}"):
    lines = [status, upgrade, connection, accept and accept.format(accept_value(handshake.request())), *extra]
    return "".join(f"{line}\r\n" for line in [line for line in lines if line] + [""]).encode("iso-8859-1")


def headers_of(request):
    lines = request.decode("ascii").split("\r\n")
    assert lines[-2:] == ["", ""]
    return lines[0], [tuple(line.split(": ", 1)) for line in lines[1:-2]]


def feed_in_portions(handshake, data, size):
    for at in range(0, len(data), size):
        assert handshake.feed(data[at:at + size]) is None


# The request

def test_the_request_has_what_rfc_6455_asks_for():
    line, headers = headers_of(Handshake(URI).request())
    assert line == "GET /feed?token=s3cret HTTP/1.1"
    named = dict(headers)
    assert len(named) == len(headers)
    assert len(base64.b64decode(named.pop("Sec-WebSocket-Key"), validate=True)) == 16
    assert named == {"Host": "example.com:8080", "Upgrade": "websocket", "Connection": "Upgrade",
                     "Sec-WebSocket-Version": "13", "User-Agent": USER_AGENT}


def test_the_request_stays_the_same_and_each_handshake_has_a_key_of_its_own():
    handshake = Handshake(URI)
    assert handshake.request() == handshake.request()
    assert Handshake(URI).request() != handshake.request()


def test_options_become_headers():
    uri = parse_uri("ws://us%C3%A9r:p%3Ass@[::1]/")
    handshake = Handshake(uri, [("X-Key", " a b\t"), ("X-Key", "c")], user_agent_header=None, origin="https://me.example",
                          subprotocols=["v2", "v1"])
    _, headers = headers_of(handshake.request())
    assert [pair for pair in headers if pair[0] == "X-Key"] == [("X-Key", "a b"), ("X-Key", "c")]
    named = dict(headers)
    assert "User-Agent" not in named
    assert named["Host"] == "[::1]"
    assert named["Origin"] == "https://me.example"
    assert named["Sec-WebSocket-Protocol"] == "v2, v1"
    assert base64.b64decode(named["Authorization"].removeprefix("Basic ")).decode() == "usér:p:ss"


@pytest.mark.parametrize("host", ["a" * 58, "a" * 59, "a" * 63, "x." + "b" * 63 + ".c", "h.", "host.invalid",
                                  ".".join(["d" * 63] * 3 + ["e" * 61])])
@pytest.mark.parametrize("port", ["", ":8080", ":65535"])
def test_every_legal_host_is_sent_whatever_its_port(host, port):
    for handshake in (Handshake(parse_uri(f"ws://{host}{port}/x")),
                      Handshake(URI, resolve_headers([("Host", f"{host}{port}"), ("X", "Host: host.invalid")]))):
        line, headers = headers_of(handshake.request())
        assert headers[0] == ("Host", f"{host}{port}")
        assert len([name for name, _ in headers if name.lower() == "host"]) == 1
        assert line.endswith(" HTTP/1.1")


def test_given_headers_stand_before_options_and_credentials():
    given_headers = [("user-agent", "mine"), ("ORIGIN", "o"), ("authorization", "Bearer x"), ("host", "virtual:81")]
    _, headers = headers_of(Handshake(parse_uri("ws://u:p@h/"), given_headers, origin="other").request())
    lowered = [(name.lower(), value) for name, value in headers]
    for name, value in given_headers:
        assert [one for one in lowered if one[0] == name.lower()] == [(name.lower(), value)]


@pytest.mark.parametrize(("options", "path"), [
    ({"origin": "a\nb"}, "origin"), ({"origin": 1}, "origin"), ({"user_agent_header": "a\r\nb"}, "user_agent_header"),
    ({"subprotocols": "v1"}, "subprotocols"), ({"subprotocols": ["a", "a"]}, "subprotocols[1]"),
    ({"subprotocols": ["a b"]}, "subprotocols[0]"), ({"subprotocols": [""]}, "subprotocols[0]"),
    ({"subprotocols": {"a"}}, "subprotocols"), ({"subprotocols": [None]}, "subprotocols[0]"),
])
def test_a_wrong_option_is_named_with_its_path(options, path):
    with pytest.raises(ConfigurationError) as caught:
        Handshake(URI, **options)
    assert caught.value.path == path


# Extra headers

@pytest.mark.parametrize("headers", [
    {"X-A": "1", "X-B": "2"}, [("X-A", "1"), ("X-B", "2")], (["X-A", "1"], ["X-B", "2"]),
    lambda: {"X-A": "1", "X-B": "2"}, lambda: [("X-A", "1"), ("X-B", "2")],
])
def test_headers_come_as_mapping_pairs_or_callable(headers):
    assert resolve_headers(headers) == [("X-A", "1"), ("X-B", "2")]


def test_no_headers_are_no_headers():
    assert resolve_headers(None) == resolve_headers({}) == resolve_headers(lambda: None) == []


def test_a_callable_is_asked_each_time():
    tokens = iter("ab")
    headers = lambda: [("X-Token", next(tokens))]  # noqa: E731
    assert [resolve_headers(headers), resolve_headers(headers)] == [[("X-Token", "a")], [("X-Token", "b")]]


WRONG_HEADERS = [
    ("X: y", "give a mapping"), (b"X", "give a mapping"), (7, "give a mapping"), ({"X": "y"}.items(), "give a mapping"),
    (["X: s3cret"], "give a pair"), ([("X",)], "give a pair"), ([("X", "y", "z")], "give a pair"), ([7], "give a pair"),
    ([("X Y", "s3cret")], "not a header name"), ([("", "s3cret")], "not a header name"),
    ([(b"X", "s3cret")], "not a header name"), ([("X\r\n", "s3cret")], "not a header name"),
    ({"X-Key": "s3cret\n"}, "'X-Key'.*line end"), ({"X-Key": "a\r\nX-Evil: s3cret"}, "'X-Key'.*line end"),
    ({"X-Key": "s3cret\0"}, "'X-Key'"), ({"X-Key": "s3creté"}, "'X-Key'.*non-ASCII"), ({"X-Key": b"s3cret"}, "a str"),
    ({"X-Key": None}, "a str"), ({"Upgrade": "h2c"}, "remove it"), ({"connection": "close"}, "remove it"),
    ({"Sec-WebSocket-Key": "s3cret"}, "remove it"), ({"Sec-WebSocket-Version": "8"}, "remove it"),
    ({"Sec-WebSocket-Protocol": "a"}, "subprotocols="), ({"Sec-WebSocket-Extensions": "a"}, "compression"),
    ({"Content-Length": "1"}, "no body"), ({"Transfer-Encoding": "chunked"}, "no body"), ({"Host": "a b"}, "host:port"),
    ({"Host": "a..b"}, "host:port"), ({"Host": ""}, "host:port"), ([("Host", "a"), ("host", "b")], "once"),
]


@pytest.mark.parametrize(("headers", "remedy"), WRONG_HEADERS)
def test_wrong_headers_are_refused_without_showing_a_value(headers, remedy):
    with pytest.raises(ConfigurationError, match=remedy) as caught:
        resolve_headers(headers)
    assert caught.value.path.startswith("headers")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("headers", "remedy"), WRONG_HEADERS)
def test_wrong_headers_from_a_callable_are_a_headers_error(headers, remedy):
    with pytest.raises(HeadersError, match=remedy) as caught:
        resolve_headers(lambda: headers)
    assert isinstance(caught.value.__cause__, ConfigurationError)
    assert "s3cret" not in str(caught.value)


def test_a_raising_callable_is_a_headers_error_with_its_cause_and_without_its_text():
    def broken():
        raise LookupError("GET https://auth/?key=s3cret")

    with pytest.raises(HeadersError, match="raised LookupError") as caught:
        resolve_headers(broken)
    assert isinstance(caught.value.__cause__, LookupError)
    assert "s3cret" not in str(caught.value)


def test_a_coroutine_function_is_a_headers_error_and_nothing_warns():
    async def headers():
        return {}

    with pytest.raises(HeadersError, match="plain function"):
        resolve_headers(headers)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_callable_cannot_end_a_worker_thread(kind):
    def broken():
        raise kind

    seen = []

    def work():
        try:
            resolve_headers(broken)
        except BaseException as error:
            seen.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert isinstance(seen[0], HeadersError)


def test_the_user_can_interrupt_a_callable_in_the_main_thread():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resolve_headers(interrupted)


# An accepted upgrade

def test_a_101_is_accepted_with_its_response():
    handshake = Handshake(URI)
    accepted = handshake.feed(answer(handshake, "Server:  x  ", "Set-Cookie: a=s3cret"))
    assert (accepted.subprotocol, accepted.leftover) == (None, b"")
    assert (accepted.response.status_code, accepted.response.reason_phrase) == (101, "Switching Protocols")
    assert accepted.response.header("server") == "x"
    assert accepted.response.header("absent") is None
    assert "s3cret" not in repr(accepted)


def test_frames_behind_the_head_are_left_over_in_every_split_of_the_bytes():
    length = len(answer(Handshake(URI)) + FRAMES)
    for cut in range(length + 1):
        handshake = Handshake(URI)
        whole = answer(handshake) + FRAMES
        assert len(whole) == length
        accepted, rest = handshake.feed(whole[:cut]), whole[cut:]
        if accepted is None:
            accepted, rest = handshake.feed(rest), b""
        assert accepted.leftover + rest == FRAMES


def test_bytes_may_come_one_by_one():
    handshake = Handshake(URI)
    head = answer(handshake)
    for at in range(len(head) - 1):
        assert handshake.feed(head[at:at + 1]) is None
    assert handshake.feed(head[-1:] + FRAMES).leftover == FRAMES


@pytest.mark.parametrize("parts", [
    {"upgrade": "UPGRADE: WebSocket"}, {"connection": "connection: keep-alive, UPGRADE"},
    {"connection": "Connection: Upgrade\r\nConnection: keep-alive"}, {"status": "HTTP/1.1 101"},
    {"connection": "Connection: keep-alive,\r\n Upgrade"}, {"status": "HTTP/1.1 101 "},
    {"upgrade": "Sec-WebSocket-Extensions:\r\nUpgrade: websocket"}, {"accept": "Sec-WebSocket-Accept:{}  "},
    {"accept": "X-Latin: \xe9\r\nSec-WebSocket-Accept: {}"},
])
def test_an_unusual_but_valid_101_is_accepted(parts):
    handshake = Handshake(URI)
    assert handshake.feed(answer(handshake, **parts)).response.status_code == 101


def test_informational_responses_before_the_101_are_skipped():
    handshake = Handshake(URI)
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    accepted = handshake.feed(early + answer(handshake) + FRAMES)
    assert accepted.leftover == FRAMES
    assert accepted.response.header("Link") is None


TOKEN = "base64url.bearer.authorization.s3cret"


@pytest.mark.parametrize(("option", "path", "value"), [
    (TOKEN, "subprotocols", "<str>"), (TOKEN.encode(), "subprotocols", "<bytes>"), ({TOKEN}, "subprotocols", "<set>"),
    (["a", f"{TOKEN} x"], "subprotocols[1]", "<str>"), ([TOKEN, TOKEN], "subprotocols[1]", "<str>"),
    ([TOKEN.encode()], "subprotocols[0]", "<bytes>"),
])
def test_a_token_given_as_a_wrong_subprotocol_is_not_shown(option, path, value):
    with pytest.raises(ConfigurationError) as caught:
        Handshake(URI, subprotocols=option)
    assert (caught.value.path, caught.value.value) == (path, value)
    assert "s3cret" not in f"{caught.value} {caught.value!r}"


def test_a_token_that_was_offered_as_a_subprotocol_is_not_in_the_error():
    handshake = Handshake(URI, subprotocols=["v1", TOKEN])
    with pytest.raises(NegotiationError, match="none of the 2 offered") as caught:
        handshake.feed(answer(handshake, f"Sec-WebSocket-Protocol: {TOKEN}x"))
    assert "s3cret" not in str(caught.value)
    assert "'base64ur...'" in str(caught.value)


def test_an_offered_subprotocol_is_agreed():
    handshake = Handshake(URI, subprotocols=["v2", "v1"])
    assert handshake.feed(answer(handshake, "Sec-WebSocket-Protocol: v1")).subprotocol == "v1"


# A refused upgrade

@pytest.mark.parametrize(("parts", "problem"), [
    ({"upgrade": ""}, "Upgrade: websocket"), ({"upgrade": "Upgrade: h2c"}, "one Upgrade"),
    ({"upgrade": "Upgrade: websocket\r\nUpgrade: websocket"}, "one Upgrade"),
    ({"upgrade": "Upgrade: websocket, h2c"}, "one Upgrade"), ({"connection": ""}, "Connection: Upgrade"),
    ({"connection": "Connection: close"}, "Connection: Upgrade"), ({"accept": ""}, "0 Sec-WebSocket-Accept"),
    ({"accept": "Sec-WebSocket-Accept: {0}\r\nSec-WebSocket-Accept: {0}"}, "2 Sec-WebSocket-Accept"),
    ({"accept": "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}, "does not answer"),
    ({"accept": "Sec-WebSocket-Accept:"}, "does not answer"), ({"accept": "Sec-WebSocket-Accept: \xe9"}, "not answer"),
    ({"status": "HTTP/1.0 101 Switching Protocols"}, "HTTP/1.0"),
])
def test_a_101_that_does_not_accept_our_request_is_an_invalid_upgrade(parts, problem):
    handshake = Handshake(URI)
    with pytest.raises(InvalidUpgrade, match=problem):
        handshake.feed(answer(handshake, **parts))


def test_an_accept_value_in_other_case_is_an_invalid_upgrade():
    handshake = Handshake(URI)
    wrong = accept_value(handshake.request()).swapcase()
    with pytest.raises(InvalidUpgrade, match="does not answer"):
        handshake.feed(answer(handshake, accept=f"Sec-WebSocket-Accept: {wrong}"))


@pytest.mark.parametrize(("offered", "header", "problem"), [
    (None, "Sec-WebSocket-Protocol: v1", "'v1'; none was offered"), (["v1"], "Sec-WebSocket-Protocol: v2", "'v2'"),
    (["v1"], "Sec-WebSocket-Protocol: V1", "'V1'"), (["v1", "v2"], "Sec-WebSocket-Protocol: v1, v2", "'v1, v2'"),
    (["v1"], "Sec-WebSocket-Protocol: v1\r\nSec-WebSocket-Protocol: v1", "2 subprotocols"),
    (["v1"], "Sec-WebSocket-Protocol:", "''"), (["v1"], "Sec-WebSocket-Protocol: \xe9", "of the 1 offered"),
    (None, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99", "permessage-deflate"),
    (None, "Sec-WebSocket-Extensions: x-\xe9", "extension"),
])
def test_what_was_not_offered_is_a_negotiation_error(offered, header, problem):
    handshake = Handshake(URI, subprotocols=offered)
    with pytest.raises(NegotiationError, match=problem):
        handshake.feed(answer(handshake, header))


@pytest.mark.parametrize("status", ["200 OK", "302 Found", "401 Unauthorized", "503 Busy", "499", "999 ?"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_status_other_than_101_is_an_invalid_status_with_its_response(status, version):
    head = f"HTTP/{version} {status}\r\nRetry-After: 120\r\nLocation: /?t=s3cret\r\nSet-Cookie: s3cret\r\n\r\n".encode()
    with pytest.raises(InvalidStatus) as caught:
        Handshake(URI).feed(head + b"try later" + bytes(2 * MAX_BODY))
    response = caught.value.response
    code, _, reason = status.partition(" ")
    assert (response.status_code, response.reason_phrase) == (int(code), reason)
    assert response.retry_after == 120
    assert response.body == (b"try later" + bytes(2 * MAX_BODY))[:MAX_BODY]
    assert response.header("location") == "/?t=s3cret"
    assert code in str(caught.value)
    for shown in (str(caught.value), repr(caught.value), repr(response)):
        assert "s3cret" not in shown


def feed_in_steps(handshake, data, step):
    for at in range(0, len(data), step):
        assert handshake.feed(data[at:at + step]) is None


@pytest.mark.parametrize(("framing", "wire", "body"), [
    ("Content-Length: 5", b"later and more", b"later"),
    ("Content-Length: 0", b"", b""),
    ("Transfer-Encoding: chunked", b"3\r\nlat\r\n2;x=y\r\ner\r\n0\r\nTrailer: x\r\n\r\n", b"later"),
    ("Transfer-Encoding: chunked", b"10000\r\n" + b"x" * 0x10000, b"x" * MAX_BODY),
    ("Content-Length: 9999999", b"x" * 9000, b"x" * MAX_BODY),
    ("Transfer-Encoding: chunked", b"nonsense\r\n", b""),
    ("Transfer-Encoding: gzip", b"later", b"later"),
    ("Content-Length: five", b"later", b"later"),
])
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_the_body_of_a_refusal_ends_where_http_says_however_it_is_cut(framing, wire, body, step):
    handshake = Handshake(URI)
    data = f"HTTP/1.1 503 Busy\r\n{framing}\r\n\r\n".encode() + wire
    with pytest.raises(InvalidStatus) as caught:
        feed_in_steps(handshake, data, step)
    assert body.startswith(caught.value.response.body[:len(body)])
    if step == 100_000:
        assert caught.value.response.body == body
    assert not handshake.refused


def test_a_refusal_without_a_length_goes_on_to_the_end_of_the_connection():
    handshake = Handshake(URI)
    assert handshake.feed(b"HTTP/1.1 403 No\r\n\r\nbec") is None
    assert handshake.refused
    assert handshake.feed(b"ause") is None
    error = handshake.eof()
    assert isinstance(error, InvalidStatus)
    assert error.response.body == b"because"


def test_a_reason_phrase_cannot_carry_control_characters_into_an_error():
    with pytest.raises(InvalidStatus) as caught:
        Handshake(URI).feed(b"HTTP/1.1 500 \x1b[31mred\x07" + b"x" * 500 + b"\r\nContent-Length: 0\r\n\r\n")
    assert str(caught.value).endswith("HTTP 500 ?[31mred?" + "x" * 91)


@pytest.mark.parametrize(("headers", "seconds"), [
    ([], None), ([("Retry-After", "0")], 0), ([("retry-after", " 5 ")], 5), ([("Retry-After", "-5")], None),
    ([("Retry-After", "soon")], None), ([("Retry-After", "1.5")], None), ([("Retry-After", "٣")], None),
    ([("Retry-After", "Wed, 21 Oct 2026 07:28:30 GMT"), ("Date", "Wed, 21 Oct 2026 07:28:00 GMT")], 30),
    ([("Retry-After", "Wed, 21 Oct 2026 07:27:00 GMT"), ("Date", "Wed, 21 Oct 2026 07:28:00 GMT")], 0),
    ([("Retry-After", "Wed, 21 Oct 2026 07:28:30 -0000"), ("Date", "Wed, 21 Oct 2026 07:28:00 GMT")], 30),
    ([("Retry-After", "Wed, 21 Oct 2026 09:28:30 +0200"), ("Date", "Wed, 21 Oct 2026 07:28:00 GMT")], 30),
    ([("Retry-After", "1"), ("Retry-After", "2")], None),
])
def test_retry_after_is_read_as_seconds_or_as_a_date_relative_to_date(headers, seconds):
    assert Response(503, "", tuple(headers)).retry_after == seconds


@pytest.mark.parametrize("date", [[], [("Date", "soon")], [("Date", "Mon, 99999999999999999999 Jan 2024 00:00:00 GMT")]])
def test_a_retry_after_without_a_date_to_compare_with_is_counted_from_our_clock(date):
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    wait = Response(503, "", (("Retry-After", later), *date)).retry_after
    assert 3000 < wait <= 3600
    assert Response(503, "", (("Retry-After", "Wed, 21 Oct 2020 07:28:30 GMT"), *date)).retry_after == 0


@pytest.mark.parametrize("text", [
    "Mon, 99999999999999999999 Jan 2024 00:00:00 GMT", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
    "Mon, 01 Jan 2024 99999999999999999999:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 +99999999999999999999",
    "Fri, 31 Dec 9999 23:59:59 -2300", "Mon, 01 Jan 2024 00:00:00 -9999",
    "Mon, 32 Foo 2024", ",", "Mon,", "0 0 0 0 0 0", "Mon, " + "9" * 5000 + " Jan 2024 00:00:00 GMT", "\xa0\x85", "(" * 2000,
])
def test_a_date_that_is_none_is_no_retry_after_whatever_its_parsing_raises(text):
    assert Response(503, "", (("Retry-After", text),)).retry_after is None
    headers = (("Retry-After", "Wed, 21 Oct 2020 07:28:30 GMT"), ("Date", text))
    assert Response(503, "", headers).retry_after == 0


def test_the_repr_of_a_response_shows_no_secret():
    names = ("Set-Cookie", "AUTHORIZATION", "Proxy-Authenticate", "proxy-authorization", "Cookie", "X-Api-Key",
             "X-Auth-Token", "x-amz-security-token", "Session-Id", "Client-Secret", "X-Credential")
    response = Response(200, "OK", (*((name, "s3cret") for name in names), ("X", "shown"), ("Location", "ws://u:s3cret@h"),
                                    ("WWW-Authenticate", "Basic realm=feed")), b"s3cret")
    assert "s3cret" not in repr(response)
    assert "realm=feed" in repr(response)
    assert "shown" in repr(response)
    assert "6 bytes" in repr(response)


# Not HTTP, or too much of it

@pytest.mark.parametrize("garbage", [
    b"SSH-2.0-OpenSSH_9.6\r\n", b"\x81\x05hello", b"GET /feed?token=s3cret HTTP/1.1\r\n", b"\r\nHTTP/1.1 101 X\r\n",
    b"HTTP/2 101\r\n", b"HTTP/1.1 1O1 X\r\n", b"HTTP/1.1 099 X\r\n", b"HTTP/1.1 1011 X\r\n", b"HTTP/1.12 101 X\r\n",
    b"HTTP/1.1 101 X\n", b"HTTP/1.1  101 X\r\n", b"HTTP/1.1101\r\n", b"HTTP/1.1 101 X\rY\r\n", b"\0", b"\n", b"h",
])
def test_what_is_not_http_is_refused_at_once(garbage):
    with pytest.raises(InvalidMessage) as caught:
        Handshake(URI).feed(garbage)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(InvalidMessage):
        feed_in_portions(Handshake(URI), garbage, 1)


@pytest.mark.parametrize("line", [
    b"no colon s3cret\r\n", b": s3cret\r\n", b"Na me: s3cret\r\n", b"Name : s3cret\r\n", b"Name: s3cret\n",
    b"Name: a\0s3cret\r\n", b"Name: a\rs3cret\r\n", b"\xe9: s3cret\r\n", b" folded: s3cret\r\n",
])
def test_a_wrong_header_line_is_refused_when_it_ends_and_not_shown(line):
    with pytest.raises(InvalidMessage, match="line 1") as caught:
        Handshake(URI).feed(b"HTTP/1.1 101 X\r\n" + line)
    assert "s3cret" not in str(caught.value)


def test_an_answer_in_tls_says_so():
    with pytest.raises(InvalidMessage, match="wss://"):
        Handshake(URI).feed(b"\x15\x03\x01\x00\x02\x02\x46")


@pytest.mark.parametrize("padding", ["one long line", "many lines", "many informational responses"])
def test_a_head_above_the_limit_is_refused_in_any_portions(padding):
    def fill(size):
        handshake = Handshake(URI)
        rest = answer(handshake)
        room = size - len(rest)
        if padding == "one long line":
            return handshake, rest[:-2] + b"X: " + b"y" * (room - 5) + b"\r\n\r\n"
        unit = b"X: y\r\n" if padding == "many lines" else b"HTTP/1.1 102 X\r\n\r\n"
        count, odd = divmod(room - 20, len(unit))
        last = b"X: " + b"y" * (15 + odd) + b"\r\n"
        filler = unit * count
        return handshake, (filler + rest[:-2] if filler[:1] == b"H" else rest[:-2] + filler) + last + b"\r\n"

    handshake, head = fill(MAX_HEAD)
    assert len(head) == MAX_HEAD
    assert handshake.feed(head + FRAMES).leftover == FRAMES
    for portion in (1000, MAX_HEAD + 1, 10**6):
        handshake, head = fill(MAX_HEAD + 1)
        with pytest.raises(InvalidMessage, match=f"larger than {MAX_HEAD}"):
            feed_in_portions(handshake, head, portion)


def test_a_head_with_several_large_cookies_is_taken():
    handshake = Handshake(URI)
    cookies = [f"Set-Cookie: c{number}={'x' * 7000}\r\n" for number in range(8)]
    accepted = handshake.feed(answer(handshake)[:-2] + "".join(cookies).encode() + b"\r\n")
    assert len(accepted.response.all("Set-Cookie")) == 8


@pytest.mark.parametrize("line", [b"a: b" + b" " * 60_000 + b"c", b"a" * 60_000 + b"\xff: b", b"a:" + b"b \t" * 20_000])
def test_a_header_of_white_space_takes_no_seconds(line):
    before = time.process_time()
    with contextlib.suppress(InvalidMessage):
        Handshake(URI).feed(b"HTTP/1.1 101 X\r\n" + line + b"\r\n")
    assert time.process_time() - before < 2


def test_an_endless_line_is_refused_at_the_limit():
    handshake = Handshake(URI)
    assert handshake.feed(b"HTTP/1.1 200 " + b"x" * (MAX_HEAD - 13)) is None
    with pytest.raises(InvalidMessage, match="larger"):
        handshake.feed(b"x")


def test_end_of_file_tells_how_far_the_response_came():
    handshake = Handshake(URI)
    assert "without answering" in str(handshake.eof())
    handshake.feed(b"HTTP/1.1 1")
    assert "after 10 bytes" in str(handshake.eof())


def test_feeding_a_decided_handshake_is_a_bug_of_the_caller():
    handshake = Handshake(URI)
    handshake.feed(answer(handshake))
    refused = Handshake(URI)
    with pytest.raises(InvalidMessage):
        refused.feed(b"x")
    for decided in (handshake, refused):
        with pytest.raises(RuntimeError, match="decided"):
            decided.feed(b"y")


PIECES = st.sampled_from([
    b"HTTP/1.1 101 X\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 C\r\n\r\n", b"\r\n", b"\n", b"\r",
    b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n", b"Sec-WebSocket-Accept: x\r\n",
    b"Sec-WebSocket-Extensions: a=\"\r\n", b"Transfer-Encoding: gzip\r\n", b"Content-Length: -1\r\n",
])


@given(st.lists(PIECES | st.binary(max_size=20), max_size=12), st.integers(1, 50))
def test_whatever_a_server_sends_only_handshake_errors_come_out_and_portions_make_no_difference(pieces, portion):
    data = b"".join(pieces)

    def outcome(step):
        try:
            feed_in_portions(Handshake(URI), data, step)
        except InvalidHandshake as error:
            return type(error)
        return None

    assert outcome(portion) is outcome(len(data) + 1)
