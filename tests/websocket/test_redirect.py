"""Redirects: where they lead and what may go there, as a pure function; then through dials and a pipeline."""

from __future__ import annotations

import base64
import socket
import time

import pytest

from wsengine import Backoff, InvalidRedirect, InvalidStatus, WebSocketProducer
from wsengine.testing import Collector, ScriptedServer, steps
from wsengine.websocket.dial import dial
from wsengine.websocket.redirect import MOST, Redirects
from wsengine.websocket.response import Response
from wsengine.websocket.uri import parse_uri
from wsengine.websocket.way import Way

pytestmark = pytest.mark.usefixtures("no_leaks")

STATUSES = [301, 302, 303, 307, 308]


def answer(location, status=302):
    return Response(status, "Found", () if location is None else (("Location", location),))


def to(location, start="wss://user:pw@feed.example/a/b?c=1", headers=()):
    redirects = Redirects(parse_uri(start), headers)
    assert redirects.follow(answer(location))
    return redirects


# ------------------------------------------------------------------------------------------------------------- the rules


@pytest.mark.parametrize(("location", "url"), [
    ("wss://other.example/x", "wss://other.example/x"), ("https://other.example/x?y=1", "wss://other.example/x?y=1"),
    ("/x", "wss://feed.example/x"), ("x", "wss://feed.example/a/x"), ("?z=1", "wss://feed.example/a/b?z=1"),
    ("//other.example:8443/", "wss://other.example:8443/"), ("https://feed.example/a#part", "wss://feed.example/a"),
    ("HTTPS://feed.example/a", "wss://feed.example/a"),
])
def test_a_location_is_taken_relative_to_the_present_url(location, url):
    assert to(location).uri.url == url


def test_from_ws_a_redirect_may_lead_to_ws_and_to_wss():
    assert to("http://other.example/", "ws://feed.example/").uri.url == "ws://other.example/"
    assert to("https://feed.example/", "ws://feed.example/").uri.url == "wss://feed.example/"


@pytest.mark.parametrize("status", [101, 200, 300, 304, 305, 306, 400, 503])
def test_other_statuses_are_no_redirects(status):
    redirects = Redirects(parse_uri("ws://a/"), [])
    assert not redirects.follow(answer("/x", status))
    assert redirects.uri.url == "ws://a/"


@pytest.mark.parametrize(("location", "text"), [
    (None, "no Location"), ("", "not one URL"), ("ws://feed.example/x", "in clear"), ("http://feed.example/x", "in clear"),
    ("ftp://feed.example/", "not ws or wss"), ("wss://feed.example:99999/", "port"), ("wss://[::1/", "not usable"),
    ("wss://user:s3cret\x01@h/", "not usable"), ("wss://feed.example/a/b?c=1", "leads back to"),
])
def test_a_location_that_cannot_be_followed_is_told(location, text):
    with pytest.raises(InvalidRedirect) as caught:
        to(location)
    assert text in caught.value.problem
    assert "s3cret" not in str(caught.value)
    assert caught.value.response.status_code == 302


def test_two_locations_are_refused():
    response = Response(302, "", (("Location", "/a"), ("location", "/b")))
    with pytest.raises(InvalidRedirect, match="not one URL"):
        Redirects(parse_uri("ws://a/"), []).follow(response)


def test_after_ten_redirects_there_is_no_eleventh():
    redirects = Redirects(parse_uri("ws://a/"), [])
    for number in range(MOST):
        assert redirects.follow(answer(f"/{number}"))
    with pytest.raises(InvalidRedirect, match="more than 10"):
        redirects.follow(answer("/last"))


HARMLESS = [("Accept-Language", "en"), ("user-agent", "me"), ("Origin", "https://me.example"), ("Accept", "*/*")]
SENT = [("Authorization", "s3cret"), ("cookie", "s3cret"), ("Host", "x"), ("Proxy-Authorization", "s3cret"),
        ("X-Api-Key", "s3cret"), ("X-Auth-Token", "s3cret"), ("X-Session", "s3cret"), ("X-Mine", "perhaps s3cret"),
        *HARMLESS]


@pytest.mark.parametrize("location", ["wss://other.example/", "wss://feed.example:444/", "wss://u:p@other.example/"])
def test_credentials_and_host_do_not_go_to_another_origin(location):
    redirects = to(location, headers=SENT)
    assert (redirects.uri.username, redirects.uri.password) == (None, None)
    assert redirects.headers == HARMLESS


def test_credentials_stay_within_the_origin():
    redirects = to("/x", headers=SENT)
    assert (redirects.uri.username, redirects.uri.password) == ("user", "pw")
    assert redirects.headers == SENT


def test_credentials_that_were_dropped_do_not_come_back():
    redirects = to("wss://other.example/", headers=SENT)
    assert redirects.follow(answer("wss://feed.example/back"))
    assert (redirects.uri.username, redirects.headers) == (None, HARMLESS)


# --------------------------------------------------------------------------------------------------------------- dialing


@pytest.mark.parametrize("status", STATUSES)
def test_a_dial_follows_a_redirect_to_another_server(status):
    with ScriptedServer([[steps.accept(), steps.serve()]]) as target:
        hop = steps.respond(status, [("Location", f"{target.url}/moved?a=1")])
        with ScriptedServer([[hop]]) as server:
            uri = parse_uri(f"ws://user:pw@127.0.0.1:{server.port}/feed")
            dialed = dial(uri, headers={"X-Api-Key": "1", "Cookie": "a=b", "Accept-Language": "en"}, origin="https://me.example")
            dialed.sock.close()
            [first], [second] = server.connections, target.connections
            assert dialed.remote_address == ("127.0.0.1", target.port)
    assert first.header("Authorization") == "Basic " + base64.b64encode(b"user:pw").decode()
    assert second.request_line == "GET /moved?a=1 HTTP/1.1"
    assert first.header("X-Api-Key") == "1"
    assert (second.header("Authorization"), second.header("Cookie"), second.header("X-Api-Key")) == (None, None, None)
    assert (second.header("Accept-Language"), second.header("Origin")) == ("en", "https://me.example")
    assert first.header("Sec-WebSocket-Key") != second.header("Sec-WebSocket-Key")


def test_a_redirect_from_ws_to_wss_is_verified(certificates, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certificates.ca_file)
    with ScriptedServer([[steps.accept(), steps.serve()]], tls=certificates.server()) as target:
        with ScriptedServer([[steps.respond(301, [("Location", target.url)])]]) as server:
            dialed = dial(parse_uri(server.url))
            dialed.layer.close()
            assert dialed.tls_path


def test_a_redirect_from_wss_to_ws_is_refused_before_anything_is_dialed(certificates):
    with ScriptedServer([[steps.accept()]]) as target:
        hop = steps.respond(301, [("Location", target.url)])
        with ScriptedServer([[hop]], tls=certificates.server()) as server:
            uri = parse_uri(server.url)
            with pytest.raises(InvalidRedirect, match="in clear"):
                dial(uri, Way(uri, ssl=certificates.context()))
        assert target.connections == []


def test_a_redirect_to_another_host_is_checked_against_that_host_and_not_server_hostname(certificates, monkeypatch):
    with ScriptedServer([[steps.accept(), steps.serve()]], tls=certificates.server("localhost")) as target:
        hop = steps.respond(302, [("Location", f"wss://localhost:{target.port}/")])
        with ScriptedServer([[hop]], tls=certificates.server("feed.example")) as server:
            uri = parse_uri(server.url)
            dial(uri, Way(uri, ssl=certificates.context(), server_hostname="feed.example")).layer.close()
            assert target.connections[0].tls["server_name"] == "localhost"


def test_a_loop_is_left_at_its_first_repetition():
    with ScriptedServer([[steps.respond(302, [("Location", "/b")])], [steps.respond(302, [("Location", "/a")])]]) as server:
        with pytest.raises(InvalidRedirect, match="leads back"):
            dial(parse_uri(f"{server.url}/a"))
        assert len(server.connections) == 2
        assert server.most_live == 1


def test_one_deadline_holds_for_all_hops():
    scripts = [[steps.wait(0.15), steps.respond(302, [("Location", f"/{number}")])] for number in range(9)]
    with ScriptedServer(scripts) as server:
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            dial(parse_uri(server.url), open_timeout=0.5)
        assert 0.5 <= time.monotonic() - start < 5
        assert len(server.connections) < 9


def test_the_next_attempt_begins_at_the_configured_url_again():
    with ScriptedServer([[steps.accept(), steps.cut()]]) as target:
        hop = [steps.respond(302, [("Location", f"{target.url}/x")])]
        with ScriptedServer([hop, hop, [steps.accept(), steps.text("x"), steps.serve()]]) as server:
            one = WebSocketProducer(f"{server.url}/feed", retry=Backoff(0.02, factor=1, jitter="none"))
            with Collector(one) as pipeline:
                pipeline.wait(1)
                assert one.uri.url == f"{server.url}/feed"
            assert [record.request_line for record in server.connections] == ["GET /feed HTTP/1.1"] * 3
        assert len(target.connections) == 2


# ------------------------------------------------------------------------------------------------- the body of a refusal


@pytest.mark.parametrize("script", [
    [steps.raw(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\n"), steps.wait(0.05), steps.raw(b"not today")],
    [steps.raw(b"HTTP/1.1 403 No\r\n\r\nnot "), steps.wait(0.05), steps.raw(b"today")],
    [steps.raw(b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n"),
     steps.drip(b"4\r\nnot \r\n5\r\ntoday\r\n0\r\n\r\n")],
    [steps.raw(b"HTTP/1.1 403 No\r\nContent-Length: 99\r\n\r\nnot today"), steps.stall(1), steps.reset()],
    [steps.raw(b"HTTP/1.1 403 No\r\nContent-Length: 99\r\n\r\nnot today"), steps.stall()],
], ids=["a length", "the end", "chunks", "a reset", "silence"])
def test_what_arrives_of_the_body_after_the_head_is_in_the_error(script):
    with ScriptedServer([script]) as server:
        with pytest.raises(InvalidStatus) as caught:
            dial(parse_uri(server.url), open_timeout=3)
        assert caught.value.response.body == b"not today"


def test_a_body_without_end_does_not_hold_up_the_refusal_to_the_deadline():
    endless = steps.drip(b"x" * 100_000, 1, 0.01)
    with ScriptedServer([[steps.raw(b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\n\r\n"), endless]]) as server:
        start = time.monotonic()
        with pytest.raises(InvalidStatus) as caught:
            dial(parse_uri(server.url), open_timeout=60)
        assert time.monotonic() - start < 30
        assert caught.value.response.retry_after == 5
        assert caught.value.response.body.startswith(b"xx")


def test_a_deadline_within_the_body_does_not_hide_the_refusal():
    with ScriptedServer([[steps.raw(b"HTTP/1.1 401 No\r\n\r\nwho"), steps.stall()]]) as server:
        with pytest.raises(InvalidStatus) as caught:
            dial(parse_uri(server.url), open_timeout=0.4)
        assert caught.value.response.body == b"who"


def test_no_socket_is_left_by_a_redirect_that_leads_nowhere():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        hop = steps.respond(302, [("Location", f"ws://127.0.0.1:{free.getsockname()[1]}/")])
        with ScriptedServer([[hop]]) as server:
            with pytest.raises(ConnectionRefusedError) as caught:
                dial(parse_uri(server.url))
            there = f"127.0.0.1:{free.getsockname()[1]} (redirected from 127.0.0.1:{server.port})"
            assert f"cannot connect to {there} (127.0.0.1: Connection refused)" in str(caught.value)


@pytest.mark.parametrize(("step", "kind", "text"), [
    (steps.stall(), TimeoutError, "response to"), (steps.reset(), ConnectionResetError, "response to"),
])
def test_an_error_of_a_hop_says_from_where_it_was_redirected(step, kind, text):
    with ScriptedServer([[step]]) as target:  # behind the request: a reset ahead of it may be one of the connecting
        with ScriptedServer([[steps.respond(302, [("Location", target.url)])]]) as server:
            with pytest.raises(kind) as caught:
                dial(parse_uri(server.url), open_timeout=3)
            assert f"{text} 127.0.0.1:{target.port} (redirected from 127.0.0.1:{server.port})" in str(caught.value)


def test_a_redirect_within_the_host_is_not_told():
    assert to("/x").peer == "feed.example:443"
    assert to("wss://other.example/x").peer == "other.example:443 (redirected from feed.example:443)"
