"""The tree of errors: its shape, what each error holds and says, and that errors survive pickling."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from wsengine import errors
from wsengine.websocket.response import Response

LAST = ConnectionRefusedError(111, "Connection refused")

EXAMPLES = [
    (errors.ConnectionClosed(1006), "connection closed with 1006"),
    (errors.ConnectionClosedOK(1000, "bye"), "connection closed with 1000 (bye)"),
    (errors.ConnectionClosedError(1011), "connection closed with 1011"),
    (errors.InvalidURI("http://x", "scheme http"), "'http://x' is not a usable WebSocket URI: scheme http"),
    (errors.InvalidMessage("no status line"), "no status line"),
    (
        errors.InvalidRedirect(Response(302, "Found", ()), "it has no Location"),
        "server answered the upgrade with HTTP 302 Found, a redirect that cannot be followed: it has no Location",
    ),
    (
        errors.ProxyError("http://proxy:3128", "it answered HTTP 502", Response(502, "", ()), True),
        "the proxy http://proxy:3128 did not make the connection: it answered HTTP 502",
    ),
    (errors.RetriesExhausted(1, errors.InvalidUpgrade("no"), True), "gave up without another attempt: no"),
    (errors.InvalidUpgrade("no Upgrade header"), "no Upgrade header"),
    (errors.NegotiationError("subprotocol 'b'"), "subprotocol 'b'"),
    (errors.ProtocolError(1002, "reserved bit set"), "reserved bit set (closed with 1002)"),
    (
        errors.PayloadTooBig(2048, 1024),
        "a message of at least 2048 bytes is over max_size=1024 (closed with 1009); raise max_size to take it",
    ),
    (errors.URLCallableError("url(0) raised"), "url(0) raised"),
    (errors.HeadersError("headers() returned 5"), "headers() returned 5"),
    (errors.BootstrapError("on_upgrade returned int"), "on_upgrade returned int"),
    (errors.FrameHandlerError("gap"), "frame_handler failed the connection: gap"),
    (errors.FrameHandlerError({"a": 1}), "frame_handler failed the connection: for a reason of type dict"),
    (errors.ConfigurationError("max_queue", 0, "give more"), "max_queue=0: give more"),
    (errors.EngineStopped("stopped"), "stopped"),
    (
        errors.ForkedProcessError(),
        "this engine was made before a fork; create it after, in the child (post_fork, worker_process_init)",
    ),
    (errors.QueueOverflow("full"), "full"),
    (
        errors.RetriesExhausted(3, LAST),
        "gave up after 3 failed attempts; the last: [Errno 111] Connection refused",
    ),
]


def defined_errors() -> dict[str, type[BaseException]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == errors.__name__
    }


def drawn_parents() -> dict[str, str]:
    """Read the tree in the docstring of the module: each class with the class that it hangs from."""
    path: list[str] = []
    parents: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+)( |$)", line)
        if found:
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            if depth:
                parents[found[2]] = path[depth - 1]
    return parents


def test_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    classes = defined_errors()
    drawn = drawn_parents()
    assert set(drawn) | {"WebSocketException"} == set(classes)
    del classes["WebSocketException"]
    assert drawn == {name: one.__bases__[0].__name__ for name, one in classes.items()}


def test_every_error_is_exported_and_nothing_else() -> None:
    assert sorted(errors.__all__) == sorted(defined_errors())


def test_every_error_is_a_websocket_exception_and_none_is_a_timeout_or_network_fault() -> None:
    for one in defined_errors().values():
        assert issubclass(one, errors.WebSocketException)
        assert not issubclass(one, OSError)  # TimeoutError is one


@pytest.mark.parametrize("error", [errors.InvalidURI, errors.ConfigurationError])
def test_wrong_input_is_also_a_value_error(error: type[Exception]) -> None:
    assert issubclass(error, ValueError)


@pytest.mark.parametrize(("error", "text"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_error_says_what_happened(error: Exception, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(("error", "text"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_error_survives_pickling_and_copying(error: Exception, text: str) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == text
        assert {name: repr(value) for name, value in vars(other).items()} == {
            name: repr(value) for name, value in vars(error).items()
        }


def test_every_error_that_has_a_text_of_its_own_is_among_the_examples() -> None:
    own = {one for one in defined_errors().values() if "__str__" in vars(one)}
    shown = {base for error, _ in EXAMPLES for base in type(error).__mro__}
    assert own - shown == set()


class Mute(Exception):
    def __str__(self) -> str:
        raise LookupError("no text to be had")


def test_what_a_peer_says_is_shown_on_one_line_and_kept_as_it_is() -> None:
    said, shown = "bye\nCRITICAL root: fake line\x1b[2J\u2028\x9b \u202eü", (
        r"bye\nCRITICAL root: fake line\x1b[2J\u2028\x9b \u202eü")
    response = Response(302, said, ())
    for error in (errors.ConnectionClosedError(4000, said), errors.ProtocolError(1002, said),
                  errors.InvalidStatus(response), errors.InvalidRedirect(response, said),
                  errors.ProxyError("http://p", said), errors.FrameHandlerError(said),
                  errors.RetriesExhausted(1, OSError(said))):
        assert str(error).isprintable()
        assert shown in str(error)
    assert errors.ConnectionClosedError(4000, said).reason == said
    assert errors.ProtocolError(1002, said).problem == said


def test_a_last_error_without_a_text_is_told_by_its_type() -> None:
    assert str(errors.RetriesExhausted(2, Mute())) == "gave up after 2 failed attempts; the last: <Mute>"
    assert str(errors.RetriesExhausted(1, Mute(), True)) == "gave up without another attempt: <Mute>"


def test_errors_hold_their_facts() -> None:
    closed = errors.ConnectionClosedError(4000, "quota")
    assert (closed.code, closed.reason) == (4000, "quota")
    uri = errors.InvalidURI("ws://", "no host")
    assert (uri.uri, uri.problem) == ("ws://", "no host")
    protocol = errors.ProtocolError(1007, "not UTF-8")
    assert (protocol.code, protocol.problem) == (1007, "not UTF-8")
    big = errors.PayloadTooBig(5, 4)
    assert (big.size, big.max_size) == (5, 4)
    exhausted = errors.RetriesExhausted(2, LAST)
    assert (exhausted.attempts, exhausted.last) == (2, LAST)
    assert errors.RetriesExhausted(2, None).last is None


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("Service Unavailable", "server answered the upgrade with HTTP 503 Service Unavailable"),
        ("", "server answered the upgrade with HTTP 503"),
    ],
)
def test_status_other_than_101_is_told_with_its_response(phrase: str, text: str) -> None:
    response = Response(503, phrase, (("Retry-After", "5"),))
    error = errors.InvalidStatus(response)
    assert error.response is response
    assert str(error) == text
    assert isinstance(error, errors.InvalidHandshake)
    assert pickle.loads(pickle.dumps(error)).response == response


def test_a_reason_that_may_hold_a_payload_is_shown_by_neither_form_of_the_error() -> None:
    error = errors.FrameHandlerError({"frame": b"secret"})
    assert repr(error) == "FrameHandlerError(<dict>)"
    assert "secret" not in str(error)
    assert error.reason == {"frame": b"secret"}
    assert repr(errors.FrameHandlerError("gap")) == "FrameHandlerError('gap')"
