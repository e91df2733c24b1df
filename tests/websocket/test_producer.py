"""`WebSocketProducer`: every option is checked, and every option changes what happens, seen at real servers."""

from __future__ import annotations

import gc
import logging
import socket
import struct
import threading
import time

import psutil
import pytest

from wsengine import (
    Backoff,
    ConfigurationError,
    HeadersError,
    InvalidURI,
    Message,
    PayloadTooBig,
    ProtocolError,
    SocketOptions,
    WebSocketProducer,
    telemetry,
)
from wsengine.pipeline import seats
from wsengine.testing import Collector, Feed, ScriptedServer, build_server_frame, capture, steps
from wsengine.websocket import producer as producer_module

pytestmark = pytest.mark.usefixtures("no_leaks")

ID = "producer"
SUCCESS, FAILURE, TIMEOUT = (telemetry.connection_event(ID, name) for name in ("success", "failure", "timeout"))


def producer(url, **options):
    return WebSocketProducer(url, **{"telemetry_id": ID, "retry": Backoff(0.02, factor=1, jitter="none"), **options})


# ----------------------------------------------------------------------------------------- a start that comes to nothing


@pytest.mark.parametrize(("place", "part"), [(producer_module, "reader"), (producer_module, "supervisor"),
                                             (seats, "processor_0")], ids=lambda one: one if isinstance(one, str) else "")
def test_a_failed_start_leaves_no_descriptor_behind(monkeypatch, place, part):
    real = place.spawn

    def spawn(name, body, **how):
        if name.endswith(f":{part}"):
            raise RuntimeError("can't start new thread")
        return real(name, body, **how)

    process = psutil.Process()
    pipeline = Collector(producer(URL))
    monkeypatch.setattr(place, "spawn", spawn)
    files = []
    for _ in range(5):
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pipeline.start()
        gc.collect()
        files.append(process.num_fds())
    assert files == files[:1] * 5


# ----------------------------------------------------------------------------------------------------------- validation

URL = "ws://127.0.0.1:9"


@pytest.mark.parametrize(("options", "path", "remedy"), [
    ({"concurrency": 0}, "producer.concurrency", "from 1 to 1024"),
    ({"concurrency": True}, "producer.concurrency", "whole number"),
    ({"concurrency": 1025}, "producer.concurrency", "from 1 to 1024"),
    ({"keepalive": 0}, "producer.keepalive", "None to turn it off"),
    ({"keepalive": "20"}, "producer.keepalive", "seconds"),
    ({"ws_timeout": -1}, "producer.ws_timeout", "None to turn it off"),
    ({"ws_timeout": float("nan")}, "producer.ws_timeout", "seconds"),
    ({"pong_timeout": 0}, "producer.pong_timeout", "None to turn it off"),
    ({"pong_timeout": 1, "keepalive": None}, "producer.pong_timeout", "set keepalive, too"),
    ({"open_timeout": 0}, "producer.open_timeout", "None to turn it off"),
    ({"close_timeout": None}, "producer.close_timeout", "seconds"),
    ({"close_timeout": 0}, "producer.close_timeout", "above 0"),
    ({"max_size": 0}, "producer.max_size", "whole number"),
    ({"max_size": 2**32}, "producer.max_size", "whole number"),
    ({"max_size": 1.5}, "producer.max_size", "whole number"),
    ({"silence_pings": 1}, "producer.silence_pings", "True or False"),
    ({"telemetry_id": ""}, "producer.telemetry_id", "not empty"),
    ({"transformer": "json"}, "producer.transformer", "(data, metadata) -> Message"),
    ({"retry": 5}, "retry", "Backoff(...)"),
    ({"retry": Backoff}, "retry", "Backoff(...)"),
    ({"socket_options": {"nodelay": True}}, "producer.socket_options", "SocketOptions(...)"),
    ({"headers": "X: y"}, "headers", "pair"),
    ({"headers": [("X", 1)]}, "headers['X']", "str"),
    ({"headers": [("Bad Name", "x")]}, "headers[0]", ""),
    ({"headers": {"Upgrade": "h2c"}}, "headers['Upgrade']", ""),
    ({"subprotocols": ["a", "a"]}, "subprotocols[1]", "once"),
    ({"logger": "mine"}, "producer.logger", "logging.Logger"),
    ({"path": "feed"}, "path", "begin it with '/'"),
])
def test_a_wrong_option_is_one_error_with_path_value_and_remedy(options, path, remedy):
    with pytest.raises(ConfigurationError) as caught:
        WebSocketProducer(URL, **options)
    assert caught.value.path == path
    assert remedy in caught.value.remedy
    assert str(caught.value).startswith(f"{path}=")


@pytest.mark.parametrize("url", ["http://example.com", "ws://", "ws://host:0/", "", 5, "ws://host/#fragment"])
def test_a_wrong_url_is_one_error(url):
    with pytest.raises((InvalidURI, ConfigurationError)):
        WebSocketProducer(url)


def test_a_path_in_two_places_is_refused():
    with pytest.raises(ConfigurationError, match="one place only"):
        WebSocketProducer("ws://example.com/a", path="/b")


@pytest.mark.parametrize(("former", "right"), [
    ("await_timeout", "open_timeout"), ("connect_timeout", "open_timeout"), ("headers_fn", "headers"),
    ("extra_headers", "headers"), ("additional_headers", "headers"), ("ws_retry_opts", "retry=Backoff"),
    ("ws_retry_fun", "retry"), ("gun_opts", "WebSocketProducer itself"), ("ping_interval", "keepalive"),
    ("ping_timeout", "pong_timeout"), ("idle_timeout", "ws_timeout"), ("max_msg_size", "max_size"), ("uri", "url"),
    ("min_demand", "Processors(min_demand"), ("max_queue", "Pipeline(max_queue"),
    ("ssl_context", "use ssl"), ("sslopt", "ssl.SSLContext"),
    ("keepalives", "did you mean 'keepalive'"), ("zebra", "the options are"),
])
def test_a_former_or_foreign_name_is_answered_with_the_right_one(former, right):
    with pytest.raises(ConfigurationError) as caught:
        WebSocketProducer(URL, **{former: 1})
    assert caught.value.path == f"producer.{former}"
    assert right in caught.value.remedy


def test_a_max_size_above_the_bound_of_the_pipeline_is_refused_where_they_meet():
    with pytest.raises(ConfigurationError, match=r"producer\.max_size=2097152: give at most the pipeline's max_queue_bytes"):
        Collector(WebSocketProducer(URL, max_size=2**21), max_queue_bytes=2**20)
    Collector(WebSocketProducer(URL, max_size=None), max_queue_bytes=2**20)


# ------------------------------------------------------------------------------------------------- the upgrade request


def test_the_request_carries_what_the_options_say():
    script = [steps.accept(headers=[("Sec-WebSocket-Protocol", "v2")]), steps.text("x"), steps.serve()]
    with ScriptedServer([script]) as server:
        one = producer(server.url, path="/feed?a=1", headers=[("X-ABC-APIKEY", "api-key")], origin="https://me.example",
                       subprotocols=["v1", "v2"], user_agent_header="mine/1")
        with Collector(one) as pipeline:
            pipeline.wait(1)
            assert one.connections[0].subprotocol == "v2"
            assert one.connections[0].response.status_code == 101
            assert one.connections[0].remote_address == ("127.0.0.1", server.port)
        [record] = server.connections
    assert record.request_line == "GET /feed?a=1 HTTP/1.1"
    assert record.header("X-ABC-APIKEY") == "api-key"
    assert record.header("Origin") == "https://me.example"
    assert record.header("Sec-WebSocket-Protocol") == "v1, v2"
    assert record.header("User-Agent") == "mine/1"
    assert record.header("Sec-WebSocket-Extensions") is None


def test_a_headers_callable_is_asked_at_each_attempt():
    asked = []

    def headers():
        asked.append(threading.current_thread().name)
        return {"X-Attempt": str(len(asked))}

    scripts = [[steps.respond(503)], [steps.accept(), steps.cut()], [steps.accept(), steps.text("x"), steps.serve()]]
    with ScriptedServer(scripts) as server, Collector(producer(server.url, headers=headers)) as pipeline:
        pipeline.wait(1)
        assert [one.header("X-Attempt") for one in server.connections] == ["1", "2", "3"]
    assert all(":dialer_" in name for name in asked)


@pytest.mark.parametrize("fault", [OSError, SystemExit, KeyboardInterrupt])
def test_a_headers_callable_that_fails_is_a_failed_attempt_and_is_asked_again(fault):
    answers = [fault, "nonsense", [("X", "good")]]

    def headers():
        answer = answers.pop(0)
        if answer is fault:
            raise fault("down")
        return answer

    with ScriptedServer([[steps.accept(), steps.text("x"), steps.serve()]]) as server, capture(SUCCESS, FAILURE) as seen:
        with Collector(producer(server.url, headers=headers)) as pipeline:
            pipeline.wait(1)
        assert [one.event for one in seen.events] == [FAILURE, FAILURE, SUCCESS]
        assert all(isinstance(one.metadata["reason"], HeadersError) for one in seen.of(FAILURE))
        assert len(server.connections) == 1


# -------------------------------------------------------------------------------------------------------------- messages


def test_a_message_tells_where_it_comes_from():
    script = [steps.accept(), steps.text("grüße"), steps.binary(b"\x00\xff"), steps.cut()]
    begin = time.monotonic_ns()
    with ScriptedServer([script, [steps.accept(), steps.text("again"), steps.serve()]]) as server:
        one = producer(server.url, path="/feed?token=hidden")
        with Collector(one) as pipeline:
            text, binary, again = pipeline.wait(3)
        shown = f"ws://127.0.0.1:{server.port}/feed"
    end = time.monotonic_ns()
    assert (text.data, text.text, text.opcode) == ("grüße".encode(), "grüße", 1)
    assert (binary.data, binary.opcode) == (b"\x00\xff", 2)
    assert [(m.epoch, m.seq, m.connection_index) for m in (text, binary, again)] == [(1, 0, 0), (1, 1, 0), (2, 0, 0)]
    assert begin < text.received_ns <= binary.received_ns < again.received_ns < end
    assert abs(text.received_at - time.time()) < 30
    assert text.connection is again.connection is one.connections[0]
    assert text.metadata["url"].startswith(shown)
    assert "hidden" not in text.metadata["url"]
    assert {key: binary.metadata[key] for key in ("connection_index", "epoch", "seq", "opcode", "received_ns")} == {
        "connection_index": 0, "epoch": 1, "seq": 1, "opcode": 2, "received_ns": binary.received_ns}


def test_each_of_several_connections_numbers_its_own_messages():
    with Feed.trades(count=50) as feed:
        one = producer(feed.url, concurrency=3)
        with Collector(one) as pipeline:
            messages = pipeline.wait(150)
        assert len(feed.log().connections) == 3
    for index in range(3):
        mine = [m for m in messages if m.connection_index == index]
        assert [m.seq for m in mine] == list(range(50))
        assert {id(m.connection) for m in mine} == {id(one.connections[index])}


def test_a_transformer_makes_the_message_and_fails_only_the_one_it_cannot():
    def transformer(data, metadata):
        return Message(int(data), metadata={"from": metadata["seq"]})

    failed = []

    class Numbers(Collector):
        def handle_failed(self, messages):
            failed.extend(messages)

    with ScriptedServer([[steps.accept(), *map(steps.text, ["1", "two", "3"]), steps.serve()]]) as server:
        with Numbers(producer(server.url, transformer=transformer)) as pipeline:
            messages = pipeline.wait(2)
            result = pipeline.stop()
    assert [(m.data, m.metadata) for m in messages] == [(1, {"from": 0}), (3, {"from": 2})]
    assert (result.successful, result.failed) == (2, 1)
    assert isinstance(failed[0].status.exception, ValueError)


# ---------------------------------------------------------------------------------------------------- limits and timing


def test_a_message_of_max_size_is_taken_and_a_larger_one_fails_the_connection_with_1009():
    scripts = [[steps.accept(), steps.binary(bytes(1000)), steps.binary(bytes(1001)), steps.until_eof()],
               [steps.accept(), steps.binary(b"on"), steps.serve()]]
    with ScriptedServer(scripts) as server, capture(FAILURE) as seen:
        with Collector(producer(server.url, max_size=1000)) as pipeline:
            assert [len(m.data) for m in pipeline.wait(2)] == [1000, 2]
        [failure] = seen.events
        first, *_ = server.connections
    error = failure.metadata["reason"]
    assert isinstance(error, PayloadTooBig)
    assert (error.size, error.max_size) == (1001, 1000)
    assert first.frames[-1].payload[:2] == struct.pack("!H", 1009)


def test_open_timeout_bounds_an_attempt():
    with ScriptedServer([[steps.stall()]]) as server, capture(FAILURE) as seen:
        with Collector(producer(server.url, open_timeout=0.2, retry=Backoff(30, jitter="none"))):
            [failure] = seen.wait(FAILURE)
    assert isinstance(failure.metadata["reason"], TimeoutError)
    assert 0.19 <= failure.measurements["duration"] < 1


def test_keepalive_is_the_period_of_the_pings_and_none_sends_none():
    with Feed.payloads([]) as feed:
        for period, least, most in [(0.1, 4, 6), (None, 0, 0)]:
            with Collector(producer(feed.url, keepalive=period)):
                feed.wait(lambda log: log.connections and log.connections[-1].open)
                time.sleep(0.55)
                assert least <= len(feed.log().connections[-1].pings) <= most


def test_without_ws_timeout_silence_is_not_a_loss():
    with ScriptedServer([[steps.accept(), steps.stall()]]) as server, capture(SUCCESS, TIMEOUT) as seen:
        options = {"keepalive": None, "close_timeout": 0.1, "retry": Backoff(30, jitter="none")}
        for limit, timeouts in [(0.1, 1), (None, 0)]:
            seen.clear()
            with Collector(producer(server.url, ws_timeout=limit, **options)):
                seen.wait(SUCCESS)
                time.sleep(0.35)
            assert len(seen.of(TIMEOUT)) == timeouts


@pytest.mark.parametrize("nodelay", [True, False])
def test_socket_options_reach_the_socket(nodelay):
    with Feed.payloads([(1, b"x")]) as feed:
        one = producer(feed.url, socket_options=SocketOptions(nodelay=nodelay))
        with Collector(one) as pipeline:
            pipeline.wait(1)
            option = one.connections[0]._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert bool(option) is nodelay


def test_the_figures_of_a_producer_are_those_of_its_connections():
    with Feed.trades(size=128, count=100) as feed:
        one = producer(feed.url, logger=logging.getLogger("quiet"))
        with Collector(one) as pipeline:
            pipeline.wait(100)
            stats = pipeline.stats().producers[0]
            assert pipeline.producer_names() == ["wsengine:Collector:producer_0"]
            names = {thread.name for thread in threading.enumerate()}
            assert {f"wsengine:Collector:producer_0:{part}" for part in ("reader", "timer", "supervisor")} <= names
        assert (stats["name"], stats["url"], stats["depth"]) == ("WebSocketProducer", f"{feed.url}/", 0)
    [connection] = stats["connections"]
    assert (connection["messages"], connection["bytes"], connection["state"]) == (100, 12_800, "ready")
    assert (connection["epoch"], connection["reconnects"], connection["discarded"]) == (1, 0, 0)


def test_a_stopped_pipeline_gives_its_descriptors_back_at_once():
    """Not only when the garbage collector comes by: a program that starts and stops many must not run out of them."""
    process = psutil.Process()
    with Feed.trades(count=1) as feed:
        gc.collect()
        before = process.num_fds()
        gc.disable()
        try:
            with Collector(producer(feed.url)) as pipeline:
                pipeline.wait(1)
            assert process.num_fds() == before
        finally:
            gc.enable()


# ------------------------------------------------------------------------------------------------ bad input, one of each

BAD = {
    "a reserved opcode": (build_server_frame(3, b"x"), 1002),
    "a reserved control opcode": (build_server_frame(0xB, b""), 1002),
    "RSV1 without an extension": (build_server_frame(1, b"x", rsv=4), 1002),
    "RSV3": (build_server_frame(2, b"x", rsv=1), 1002),
    "a masked frame": (build_server_frame(1, b"x", mask=b"abcd"), 1002),
    "a ping of 126 bytes": (build_server_frame(9, bytes(126)), 1002),
    "a fragmented ping": (build_server_frame(9, b"x", fin=False), 1002),
    "a continuation of nothing": (build_server_frame(0, b"x"), 1002),
    "a new message within a fragmented one": (build_server_frame(1, b"a", fin=False) + build_server_frame(1, b"b"), 1002),
    "a length that is not minimal": (b"\x82\x7e\x00\x05hello", 1002),
    "a length with its top bit set": (b"\x82\x7f" + b"\xff" * 8, 1002),
    "a Close of one byte": (build_server_frame(8, b"\x03"), 1002),
    "a Close with a code that must not be sent": (build_server_frame(8, struct.pack("!H", 1005)), 1002),
    "text that is not UTF-8": (build_server_frame(1, b"caf\xe9"), 1007),
    "text that ends within a character": (build_server_frame(1, b"caf\xc3"), 1007),
    "fragments that are not UTF-8": (build_server_frame(1, b"\xe2\x82", fin=False) + build_server_frame(0, b"("), 1007),
    "a message over max_size": (build_server_frame(2, bytes(5001)), 1009),
    "fragments over max_size": (build_server_frame(2, bytes(3000), fin=False) + build_server_frame(0, bytes(3000)), 1009),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_clear_error_and_the_rest_goes_on(what):
    data, code = BAD[what]
    scripts = [[steps.accept(), steps.send(build_server_frame(1, b"before") + data + build_server_frame(1, b"behind")),
                steps.until_eof()], [steps.accept(), steps.text("after"), steps.serve()]]
    with ScriptedServer(scripts) as server, capture(SUCCESS, FAILURE) as seen:
        with Collector(producer(server.url, max_size=5000)) as pipeline:
            messages = pipeline.wait(2)
        assert [(m.epoch, m.seq, m.data) for m in messages] == [(1, 0, b"before"), (2, 0, b"after")]
        assert [one.event for one in seen.events] == [SUCCESS, FAILURE, SUCCESS]
        error = seen.of(FAILURE)[0].metadata["reason"]
        assert isinstance(error, PayloadTooBig if code == 1009 else ProtocolError)
        assert str(code) in str(error)
        first, _ = server.connections
    assert [(frame.opcode, frame.payload[:2]) for frame in first.frames] == [(8, struct.pack("!H", code))]
