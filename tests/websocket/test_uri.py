"""Behaviour of `wsengine.websocket.uri`: what is taken, what is refused with which words, and what is never shown."""

import ipaddress
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wsengine.errors import ConfigurationError, InvalidURI
from wsengine.websocket.uri import WebSocketURI, parse_uri


@pytest.mark.parametrize(("uri", "parts"), [
    ("ws://example.com", (False, "example.com", 80, "/")),
    ("wss://example.com", (True, "example.com", 443, "/")),
    ("ws://example.com:8080/a/b?x=1&y=2", (False, "example.com", 8080, "/a/b?x=1&y=2")),
    ("WSS://EXAMPLE.com:443/A", (True, "example.com", 443, "/A")),
    ("ws://example.com?x=/y", (False, "example.com", 80, "/?x=/y")),
    ("ws://example.com:/", (False, "example.com", 80, "/")),
    ("ws://127.0.0.1:1/", (False, "127.0.0.1", 1, "/")),
    ("ws://[::1]/", (False, "::1", 80, "/")),
    ("ws://[0:0::0:1]:65535/", (False, "::1", 65535, "/")),
    ("ws://[fe80::1%25eth0]:90/", (False, "fe80::1%eth0", 90, "/")),
    ("ws://my_host.internal./", (False, "my_host.internal.", 80, "/")),
    ("ws://bücher.example/", (False, "xn--bcher-kva.example", 80, "/")),
])
def test_a_uri_is_taken_apart(uri, parts):
    parsed = parse_uri(uri)
    assert (parsed.secure, parsed.host, parsed.port, parsed.resource) == parts
    assert (parsed.username, parsed.password) == (None, None)


@pytest.mark.parametrize(("uri", "host_header"), [
    ("ws://example.com", "example.com"),
    ("ws://example.com:80", "example.com"),
    ("ws://example.com:443", "example.com:443"),
    ("wss://example.com:443", "example.com"),
    ("wss://example.com:80", "example.com:80"),
    ("ws://[::1]:8080", "[::1]:8080"),
    ("ws://[fe80::1%25eth0]/", "[fe80::1]"),
])
def test_the_host_header_leaves_out_the_default_port_and_the_zone(uri, host_header):
    assert parse_uri(uri).host_header == host_header


def test_the_authority_always_names_the_port():
    assert parse_uri("ws://example.com").authority == "example.com:80"
    assert parse_uri("wss://[::1]").authority == "[::1]:443"


def test_space_and_non_ascii_characters_are_percent_encoded_and_the_rest_is_kept():
    assert parse_uri("ws://h/a b/ü?q={x}|%20[1]&s=é").resource == "/a%20b/%C3%BC?q={x}|%20[1]&s=%C3%A9"


@pytest.mark.parametrize(("uri", "username", "password"), [
    ("ws://user:secret@h/", "user", "secret"),
    ("ws://us%65r:p%40ss%3A%2F@h/", "user", "p@ss:/"),
    ("ws://user@h/", "user", None),
    ("ws://user:@h/", "user", ""),
    ("ws://a@b:c:d@h/", "a@b", "c:d"),
    ("ws://@h/", None, None),
])
def test_credentials_are_percent_decoded(uri, username, password):
    parsed = parse_uri(uri)
    assert (parsed.host, parsed.username, parsed.password) == ("h", username, password)


def test_path_may_be_given_apart():
    assert parse_uri("ws://h", path="/feed?x=1").resource == "/feed?x=1"
    assert parse_uri("ws://h/", path="/feed ü").resource == "/feed%20%C3%BC"
    assert parse_uri("ws://h:81/", path="/").url == "ws://h:81/"


@pytest.mark.parametrize("uri", ["ws://h/x", "ws://h/?a=b", "ws://h?a=b"])
def test_a_uri_with_a_path_and_path_contradict_each_other(uri):
    with pytest.raises(ConfigurationError, match="in one place") as caught:
        parse_uri(uri, path="/feed?token=s3cret")
    assert caught.value.path == "path"
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("path", "remedy"), [
    ("feed", "begin it with '/'"), ("", "begin it with '/'"), ("/a#b", "fragment"), ("/a\r\nX: y", "control"),
    ("/a\x00", "control"), ("/a\x85", "control"), (b"/a", "give a str"), (7, "give a str"),
])
def test_a_wrong_path_is_refused_with_a_remedy(path, remedy):
    with pytest.raises(ConfigurationError, match=remedy):
        parse_uri("ws://h", path=path)


@pytest.mark.parametrize(("uri", "problem"), [
    ("", "no scheme"),
    ("example.com/feed", "no scheme"),
    ("ws:example.com", "no scheme"),
    ("http://example.com", "write ws://"),
    ("https://example.com", "write wss://"),
    ("ftp://example.com", "begin it with ws:// or wss://"),
    ("ws://", "no host"),
    ("ws:///path", "no host"),
    ("ws://:80/", "no host"),
    ("ws://h/#part", "fragment"),
    ("ws://h/#", "fragment"),
    ("ws://h:0/", "port"),
    ("ws://h:65536/", "port"),
    ("ws://h:-1/", "port"),
    ("ws://h:8x/", "port"),
    ("ws://h:٨٠/", "port"),
    ("ws://h:000080/", "port"),
    ("ws://::1/", "brackets"),
    ("ws://[::1/", "brackets"),
    ("ws://[::1]x/", "brackets"),
    ("ws://[::g]/", "IPv6"),
    ("ws://[127.0.0.1]/", "IPv6"),
    ("ws://[fe80::1%25a b]/", "zone"),
    ("ws://a b/", "host"),
    ("ws://a..b/", "host"),
    ("ws://-a/", "host"),
    ("ws://%65xample.com/", "host"),
    ("ws://a\\b/", "host"),
    ("ws://" + "a" * 64 + "/", "host"),
    ("ws://" + "a." * 127 + "a/", "host"),
    (" ws://h/", "white space"),
    ("ws://h/ ", "white space"),
    ("ws://h/\r\nX: y", "control"),
    ("ws://h\t/", "control"),
    ("ws://h/\x9f", "control"),
    ("ws://a%3Ab:c@h/", "colon"),
    ("ws://a:b%0Ac@h/", "control"),
    ("ws://h/\ud800", "surrogate"),
    (None, "give a str"),
    (b"ws://h/", "give a str"),
])
def test_an_unusable_uri_is_refused_and_the_problem_named(uri, problem):
    with pytest.raises(InvalidURI, match=problem) as caught:
        parse_uri(uri)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("uri", [
    "http://user:s3cret@h/", "user:s3cret@h/", "ws://user:s3cret@h:x/", "ws://user:s3cret@h/#f", "ws://h/?t=s3cret#f",
    "ws://h/?t=x@s3cret#f", "ws://h:x/?t=s3cret", "ws://u:a/s3cret@h/#f", "ws://u:a?s3cret@h/", "ws://u:a#s3cret@h/",
    " ws://u:s3cret@h/", "h/?u=ws://s3cret", "ws://u:s3cret@h/\n", "ws://h/#s3cret", "ws://s3cret:@b@ö" + "x" * 300,
    "ws://u:a@b/s3cret@h/#f",
])
def test_no_secret_gets_into_an_error(uri):
    with pytest.raises(InvalidURI) as caught:
        parse_uri(uri)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(caught.value)
    assert caught.value.__suppress_context__


def test_no_secret_gets_into_the_redacted_form_or_a_repr():
    parsed = parse_uri("wss://user:s3cret@example.com:8443/feed?token=s3cret")
    assert parsed.redacted == "wss://example.com:8443/feed?***"
    for shown in (repr(parsed), str(parsed), f"{parsed}"):
        assert "s3cret" not in shown
        assert "user" not in shown
    assert parsed.url == "wss://example.com:8443/feed?token=s3cret"
    assert parse_uri("ws://[fe80::1%25eth0]/").redacted == "ws://[fe80::1%25eth0]/"


HOSTS = st.one_of(
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z0-9]{1,20}){0,3}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).filter(lambda address: address.scope_id is None).map(lambda address: f"[{address}]"),
)
RESOURCES = st.text(string.ascii_letters + string.digits + "/?=&-._~:@!$'()*+,;%", max_size=40).map("/".__add__)


@given(scheme=st.sampled_from(["ws", "wss"]), host=HOSTS, port=st.none() | st.integers(1, 65535), resource=RESOURCES)
def test_what_is_put_together_comes_apart_again(scheme, host, port, resource):
    parsed = parse_uri(f"{scheme}://{host}{'' if port is None else f':{port}'}{resource}")
    assert parsed.secure is (scheme == "wss")
    assert parsed.resource == resource
    assert parsed.port == (port or (443 if scheme == "wss" else 80))
    assert parse_uri(parsed.url) == parsed
    if host.startswith("["):
        assert ipaddress.ip_address(parsed.host) == ipaddress.ip_address(host[1:-1])
    else:
        assert parsed.host == host


@given(st.text(max_size=60) | st.text("ws:/[]@?#%.1a \\ü\n", max_size=30).map("ws://".__add__))
def test_any_text_gives_a_sendable_uri_or_an_invalid_uri(text):
    try:
        parsed = parse_uri(text)
    except InvalidURI:
        return
    assert isinstance(parsed, WebSocketURI)
    assert 1 <= parsed.port <= 65535
    assert parsed.host
    assert parsed.resource.startswith("/")
    for sent in (parsed.resource, parsed.host_header):
        assert all("!" <= one <= "~" for one in sent)


@given(secret=st.text(string.ascii_letters + string.digits + "@?#/:. %[]", min_size=1), tail=st.text(max_size=10))
def test_a_password_never_shows_whatever_characters_it_has(secret, tail):
    marked = f"QQ{secret}QQ"
    assume("QQ" not in tail)
    uri = f"ws://user:{marked}@host/{tail}"
    try:
        shown = parse_uri(uri, path=None).redacted
    except InvalidURI as error:
        shown = str(error)
    else:
        # A password with an unescaped delimiter can make another valid URI, whose path it then is.
        assume(not set("?/#") & set(secret))
    assert "QQ" not in shown


@pytest.mark.parametrize("uri", ["ws://\ud800:x@h/", "ws://x:\udfff@h/", "ws://h\ud800/", "ws://h/\ud800", "ws://h/?\ud800"])
def test_a_lone_surrogate_anywhere_is_one_invalid_uri(uri):
    with pytest.raises(InvalidURI):
        parse_uri(uri)
