"""The callables for url and headers: which get the connection's index, when they are asked, what is said of wrong ones."""

from __future__ import annotations

import functools
import threading
from urllib.parse import urlsplit

import pytest

import wsengine
from wsengine import Backoff, ConfigurationError, InvalidURI, URLCallableError, WebSocketProducer, telemetry
from wsengine.testing import Collector, ScriptedServer, capture, steps
from wsengine.websocket.deadline import Cancellation, Cancelled
from wsengine.websocket.dial import dial
from wsengine.websocket.dialers import MOST
from wsengine.websocket.target import Target, positional_arguments
from wsengine.websocket.uri import parse_uri
from wsengine.websocket.way import Way

pytestmark = pytest.mark.usefixtures("no_leaks")

ID = "target"
SUCCESS, FAILURE = telemetry.connection_event(ID, "success"), telemetry.connection_event(ID, "failure")
STAYS = [steps.accept(), steps.text("x"), steps.serve()]


def producer(url, **options):
    return WebSocketProducer(url, **{"telemetry_id": ID, "retry": Backoff(0.02, factor=1, jitter="none"), **options})


def two(a, b):
    return a, b


def by_name(*, index):
    return index


class Bound:
    def headers(self, index):
        return {"X-Index": str(index)}

    def __call__(self):
        return {}


@pytest.mark.parametrize(("value", "required"), [
    (dict, 0), (lambda: {}, 0), (lambda index: {}, 1), (lambda index=0: {}, 0), (lambda *indices: {}, 0),
    (lambda **named: {}, 0), (Bound().headers, 1), (Bound(), 0), (functools.partial(two, 1), 1),
    (lambda index, more=0: {}, 1),
])
def test_what_a_callable_requires_decides_whether_it_gets_the_index(value, required):
    assert positional_arguments("headers", value, most=1) == required


@pytest.mark.parametrize("value", [two, by_name])
def test_a_headers_callable_that_requires_something_else_is_refused_at_construction(value):
    with pytest.raises(ConfigurationError, match="the connection's index") as caught:
        producer("ws://127.0.0.1:9", headers=value)
    assert caught.value.path == "producer.headers"


def test_connect_takes_headers_callables_without_arguments_only():
    with pytest.raises(ConfigurationError, match="requires no argument; it requires index") as caught:
        wsengine.connect("ws://127.0.0.1:9", headers=lambda index: {})
    assert caught.value.path == "connect.headers"
    with pytest.raises(InvalidURI, match="give a str"):
        wsengine.connect(lambda: "ws://127.0.0.1:9")


async def coroutine(index):
    return index


@pytest.mark.parametrize(("url", "remedy"), [(lambda: "ws://x", "(index) -> str"), (two, "(index) -> str"),
                                             (coroutine, "without async")])
def test_a_url_callable_that_cannot_be_asked_is_refused_at_construction(url, remedy):
    with pytest.raises(ConfigurationError) as caught:
        producer(url)
    assert caught.value.path == "producer.url"
    assert remedy in caught.value.remedy


def test_a_path_beside_a_url_callable_is_checked_at_construction():
    with pytest.raises(ConfigurationError, match="begin it with '/'"):
        producer(lambda index: "ws://x", path="feed")


@pytest.mark.parametrize(("answer", "problem"), [
    (None, "give a str"), (b"ws://x", "give a str"), ("http://x", "returned it for connection 3"), ("", "returned it"),
    ("ws://user:s3cret@host:0/?token=s3cret", "returned it"),
])
def test_an_answer_that_is_no_url_is_named_without_its_secrets(answer, problem):
    with pytest.raises(InvalidURI, match=problem) as caught:
        Target(lambda index: answer, None, None).uri_for(3)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(caught.value)


def test_a_coroutine_for_an_answer_is_refused_without_a_warning():
    with pytest.raises(InvalidURI, match="plain function"):
        Target(lambda index: coroutine(index), None, None).uri_for(0)


def test_url_and_headers_and_on_upgrade_get_the_index_of_their_connection_at_each_attempt():
    asked, upgraded = [], set()
    with ScriptedServer([[steps.respond(503)], STAYS]) as server:
        def url(index):
            asked.append(threading.current_thread().name)
            return f"{server.url}/shard/{index}?token=s3cret"

        def on_upgrade(upgrade):
            upgraded.add(upgrade.connection_index)

        feed = producer(url, concurrency=4, headers=lambda index: {"X-Index": str(index)}, on_upgrade=on_upgrade)
        assert feed.connections == ()
        with capture(SUCCESS, FAILURE) as seen, Collector(feed) as pipeline:
            pipeline.wait(4)
            records = server.connections
            urls = [one.url for one in feed.connections]
            figures = pipeline.stats().producers[0]["url"]
    pairs = sorted((one.request_line.split()[1], one.header("X-Index")) for one in records[1:])
    assert pairs == [(f"/shard/{index}?token=s3cret", str(index)) for index in range(4)]
    assert len(asked) == 5
    assert all(":dialer_" in name for name in asked)
    assert upgraded == {0, 1, 2, 3}
    assert [urlsplit(one).path for one in urls] == [f"/shard/{index}" for index in range(4)]
    assert not any("s3cret" in one for one in [*urls, figures, repr(feed), *(str(event.metadata) for event in seen.events)])
    assert all(urlsplit(one.metadata["url"]).path == f"/shard/{one.metadata['index']}" for one in seen.events)


def test_the_scheme_may_differ_from_connection_to_connection(certificates):
    with ScriptedServer([STAYS]) as plain, ScriptedServer([STAYS], tls=certificates.server()) as secure:
        feed = producer(lambda index: (plain, secure)[index].url, concurrency=2, ssl=certificates.context(),
                        server_hostname="localhost")
        with Collector(feed) as pipeline:
            pipeline.wait(2)
            paths = [one.tls_path for one in feed.connections]
            assert secure.connections[0].tls["server_name"] == "localhost"
    assert paths[0] is None
    assert paths[1] in ("A", "B")


@pytest.mark.parametrize("fault", [OSError, SystemExit, KeyboardInterrupt])
def test_a_url_callable_that_raises_is_a_failed_attempt_and_is_asked_again(fault):
    with ScriptedServer([STAYS]) as server, capture(SUCCESS, FAILURE) as seen:
        answers = [fault("https://auth.example/?token=s3cret"), None]

        def url(index):
            answer = answers.pop(0)
            if answer is not None:
                raise answer
            return server.url

        with Collector(producer(url)) as pipeline:
            pipeline.wait(1)
    assert [one.event for one in seen.events] == [FAILURE, SUCCESS]
    [failure] = seen.of(FAILURE)
    reason = failure.metadata["reason"]
    assert isinstance(reason, URLCallableError)
    assert isinstance(reason.__cause__, fault)
    assert "s3cret" not in str(reason)
    assert failure.metadata["url"] == ""


@pytest.mark.parametrize("answer", [5, "nonsense", "ws://127.0.0.1:9/a"])
def test_a_url_callable_that_answers_nonsense_ends_the_connection_at_once(answer):
    with capture(FAILURE) as seen:
        pipeline = Collector(producer(lambda index: answer, path="/b"))
        pipeline.start()
        result = pipeline.join(10)
    assert result is not None
    assert result.error.fatal
    assert isinstance(result.error.last, (InvalidURI, ConfigurationError))
    assert len(seen.of(FAILURE)) == 1


def test_a_slow_url_callable_uses_up_open_timeout():
    gate = threading.Event()

    def url(index):
        gate.wait(0.3)
        return "ws://127.0.0.1:9"

    with capture(FAILURE) as seen, Collector(producer(url, open_timeout=0.1)):
        [failure, *_] = seen.wait(FAILURE)
        gate.set()
    assert isinstance(failure.metadata["reason"], TimeoutError)
    assert "the url callable" in str(failure.metadata["reason"])


def test_attempts_that_wait_for_a_dialer_ask_nobody_once_a_stop_has_begun():
    gate, asked, all_in = threading.Event(), [], threading.Barrier(MOST + 1)

    def url(index):
        asked.append(index)
        if not gate.is_set():
            all_in.wait(10)
            gate.wait(10)
        return "ws://127.0.0.1:9"

    feed = producer(url, concurrency=60)
    pipeline = Collector(feed)
    pipeline.start()
    all_in.wait(10)
    stopper = threading.Thread(target=pipeline.stop)
    stopper.start()
    while not feed._supervisor._cancellation.cancelled:
        stopper.join(0.01)
    gate.set()
    stopper.join(30)
    assert len(asked) == MOST


@pytest.mark.parametrize("option", ["headers", "sock"])
def test_a_cancelled_dial_asks_no_callable(option):
    asked = []
    uri = parse_uri("ws://127.0.0.1:9")
    headers = (lambda: asked.append(1)) if option == "headers" else None
    way = Way(uri, sock=(lambda: asked.append(1)) if option == "sock" else None)
    with Cancellation() as cancellation:
        cancellation.cancel()
        with pytest.raises(Cancelled):
            dial(uri, way, headers=headers, cancellation=cancellation)
    assert asked == []


def test_credentials_in_clear_are_refused_at_the_attempt():
    with capture(FAILURE) as seen:
        pipeline = Collector(producer(lambda index: "ws://user:s3cret@192.0.2.1:9", proxy=None))
        pipeline.start()
        result = pipeline.join(10)
    assert result is not None
    [failure] = seen.of(FAILURE)
    assert isinstance(failure.metadata["reason"], ConfigurationError)
    assert "s3cret" not in str(failure.metadata)
