"""`on_upgrade`: what it is given, sends and waits for, and that whatever goes wrong in it is one failed attempt."""

from __future__ import annotations

import gc
import struct
import threading
import time

import pytest

from wsengine import (
    Backoff,
    BootstrapError,
    ConfigurationError,
    ConnectionClosedError,
    ConnectionClosedOK,
    EngineError,
    Fail,
    PayloadTooBig,
    ProtocolError,
    RetriesExhausted,
    WebSocketProducer,
    telemetry,
)
from wsengine.testing import Collector, Feed, ScriptedServer, build_server_frame, capture, steps

pytestmark = pytest.mark.usefixtures("no_leaks")

ID = "bootstrap"
SUCCESS, FAILURE, DISCONNECTED, STATUS = EVENTS = tuple(
    telemetry.connection_event(ID, name) for name in ("success", "failure", "disconnected", "status"))
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
SERVE = steps.serve()


def producer(url, hook, **options):
    return WebSocketProducer(url, on_upgrade=hook, **{
        "telemetry_id": ID, "retry": Backoff(0.02, factor=1, jitter="none"), "keepalive": None, **options})


def text(payload):
    return build_server_frame(TEXT, payload)


def data_of(record):
    """The data frames of the client."""
    return [(frame.opcode, frame.payload) for frame in record.frames if frame.opcode < CLOSE]


def failed_attempt(script, hook, pipeline=None, **options):
    """Run one attempt that fails; the failure event's reason, and the server's record of it."""
    with ScriptedServer([script]) as server, capture(*EVENTS) as seen:
        pipeline = Collector(producer(server.url, hook, retry=Backoff(0.02, max_retries=0), **options), **(pipeline or {}))
        pipeline.start()
        result = pipeline.join(15)
        assert result is not None, "the pipeline did not end"
        assert [one.event for one in seen.events] == [FAILURE], "a failed attempt was never up, so it is never down"
        [failure] = seen.of(FAILURE)
        assert isinstance(result.error, RetriesExhausted)
        assert result.error.last is failure.metadata["reason"]
        assert pipeline.received == []
        [record] = server.wait_ended(1)
    return failure.metadata["reason"], record


# ------------------------------------------------------------------------------------------------------------ the facts


def test_the_hook_is_told_which_connection_it_is_and_what_the_server_answered():
    given = []

    def hook(upgrade):
        given.append((upgrade.connection_index, upgrade.epoch, upgrade.url, upgrade.subprotocol,
                      upgrade.response.status_code, dict(upgrade.response.headers)["X-Session"], repr(upgrade),
                      threading.current_thread().name))

    accept = steps.accept(headers=[("X-Session", "5"), ("Sec-WebSocket-Protocol", "v2")])
    with ScriptedServer([[accept, steps.cut()], [accept, steps.cut()], [accept, SERVE]]) as server:
        url = server.url.replace("ws://", "ws://user:secret@") + "?token=secret"
        with capture(*EVENTS) as seen, Collector(producer(url, hook, subprotocols=["v2"], concurrency=2)) as pipeline:
            seen.wait(SUCCESS, 4)
        assert {index for index, *_ in given} == {0, 1}
        assert sorted(epoch for index, epoch, *_ in given if index == 0) in ([1, 2], [1, 2, 3], [1])
        for index, epoch, shown, subprotocol, status, session, rendered, thread in given:
            assert (subprotocol, status, session) == ("v2", 101, "5")
            assert shown.startswith(server.url)
            assert "secret" not in shown
            assert rendered == f"<Upgrade of connection {index} to {shown}, generation {epoch}>"
            assert thread.startswith(f"wsengine:{pipeline.name}:producer_0:dialer_")


@pytest.mark.parametrize("how", ["returned", "sent one by one", "sent at once", "both"])
def test_frames_are_sent_in_order_before_ready(how):
    frames = ["subscribe", b"\x00\x01", "€", b""]

    def hook(upgrade):
        if how == "sent one by one":
            for frame in frames:
                upgrade.send(frame)
        elif how == "sent at once":
            upgrade.send(iter(frames))
        elif how == "both":
            upgrade.send(frames[:2])
            return frames[2:]
        time.sleep(0.05)
        returned.append(time.monotonic())
        return frames if how == "returned" else None

    returned, ready = [], []
    telemetry.attach("ready", SUCCESS, lambda *_: ready.append(time.monotonic()))
    try:
        with ScriptedServer([[steps.accept(), steps.receive(4), steps.text("go"), SERVE]]) as server:
            with Collector(producer(server.url, hook)) as pipeline:
                assert [one.data for one in pipeline.wait(1)] == [b"go"]
            [record] = server.connections
    finally:
        telemetry.detach("ready")
    assert data_of(record) == [(TEXT, b"subscribe"), (BINARY, b"\x00\x01"), (TEXT, "€".encode()), (BINARY, b"")]
    assert all(frame.masked for frame in record.frames)
    assert all(ready[0] > at for at in returned)


def test_a_large_frame_is_sent_whole_to_a_server_that_reads_slowly():
    large = bytes(range(256)) * 40_000
    with ScriptedServer([[steps.accept(), steps.stall(0.2), steps.receive(1), steps.text("go"), SERVE]]) as server:
        with Collector(producer(server.url, lambda upgrade: [large])) as pipeline:
            pipeline.wait(1)
        [record] = server.connections
    assert data_of(record) == [(BINARY, large)]


# ------------------------------------------------------------------------------------------------------ acknowledgements


def test_an_acknowledgement_is_taken_and_everything_else_goes_to_the_pipeline_in_order():
    def hook(upgrade):
        upgrade.send("subscribe")
        assert upgrade.wait_for(lambda payload: payload.startswith(b"ack")) == b"ack 1"

    script = [steps.accept(), steps.receive(1), steps.text("early"), steps.binary(b"data"), steps.text("ack 1"),
              steps.text("later"), SERVE]
    with ScriptedServer([script]) as server, Collector(producer(server.url, hook)) as pipeline:
        messages = pipeline.wait(3)
    assert [(m.seq, m.opcode, m.data) for m in messages] == [(0, TEXT, b"early"), (1, BINARY, b"data"), (3, TEXT, b"later")]


def test_acknowledgements_may_come_in_any_order_be_kept_and_be_taken_as_they_come():
    taken = []

    def hook(upgrade):
        for wanted in (b"b", b"a"):
            taken.append(upgrade.wait_for(lambda payload, wanted=wanted: payload == wanted))
        taken.append(upgrade.wait_for(lambda payload: payload == b"c", keep=True))
        taken.append(upgrade.recv())
        taken.append(upgrade.recv(timeout=5))

    wire = b"".join(text(payload) for payload in (b"x", b"a", b"c", b"b", b"y", b"z"))
    with ScriptedServer([[steps.accept(), steps.send(wire), SERVE]]) as server:
        with Collector(producer(server.url, hook)) as pipeline:
            messages = pipeline.wait(2)
            assert taken == [b"b", b"a", b"c", b"x", b"y"]
    assert [(m.seq, m.data) for m in messages] == [(2, b"c"), (5, b"z")]


#: Text and binary, in one frame and in several with a ping between, empty, long; "ack" is the fifth message.
PAYLOADS = [b"one", b"", b"in parts", b"x" * 300, b"ack", b"y" * 70_000, b"last"]
WIRE = b"".join([
    text(PAYLOADS[0]), build_server_frame(BINARY, PAYLOADS[1]),
    build_server_frame(TEXT, b"in ", fin=False), build_server_frame(PING, b"?"), build_server_frame(0, b"parts"),
    text(PAYLOADS[3]), build_server_frame(PONG, b"unasked"), text(PAYLOADS[4]), text(PAYLOADS[5]), text(PAYLOADS[6]),
])


@pytest.mark.parametrize("reads", [True, False], ids=["waits", "only sends"])
@pytest.mark.parametrize("how", ["glued to the 101", "byte by byte", "in one segment"])
def test_c20_nothing_that_arrives_during_the_bootstrap_is_lost_doubled_or_out_of_order(how, reads):
    def hook(upgrade):
        if reads:
            assert upgrade.wait_for(lambda payload: payload == b"ack") == b"ack"

    first = {"glued to the 101": [steps.accept_glued(WIRE)],
             "byte by byte": [steps.accept(), steps.drip(WIRE[:420], 1, 0.0002), steps.send(WIRE[420:])],
             "in one segment": [steps.accept(), steps.send(WIRE)]}[how]
    with ScriptedServer([[*first, SERVE]]) as server, Collector(producer(server.url, hook)) as pipeline:
        messages = pipeline.wait(len(PAYLOADS) - reads)
        [record] = server.wait(lambda records: any(frame.opcode == PONG for frame in records[0].frames))
        pipeline.stop()
        [record] = server.connections
    assert [(m.seq, m.data) for m in messages] == [
        (seq, data) for seq, data in enumerate(PAYLOADS) if not (reads and data == b"ack")]
    assert [frame.payload for frame in record.frames if frame.opcode == PONG] == [b"?"], "answered once"


def test_a_bootstrap_over_tls_hands_everything_on(path, certificates):
    """What TLS has decrypted and the hook has not asked for travels with the connection."""
    payloads = [b"%d" % number * 300 for number in range(300)]
    wire = b"".join(text(payload) for payload in [*payloads[:5], b"ack", *payloads[5:]])

    def hook(upgrade):
        upgrade.send("subscribe")
        upgrade.wait_for(lambda payload: payload == b"ack")

    script = [steps.accept(glued=wire[:700]), steps.receive(1), steps.send(wire[700:]), SERVE]
    with ScriptedServer([script], tls=certificates.server()) as server:
        with Collector(producer(server.url, hook, ssl=certificates.context())) as pipeline:
            messages = pipeline.wait(300)
            assert pipeline._wsengine_producers[0].connections[0].tls_path == path
    assert [m.data for m in messages] == payloads
    assert [m.seq for m in messages] == [*range(5), *range(6, 301)]


@pytest.mark.parametrize("fragment", [None, 3], ids=["in one frame", "in fragments"])
def test_a_bootstrap_of_compressed_messages_leaves_the_reader_all_that_later_ones_refer_to(fragment):
    """With context takeover a message may refer back to the acknowledgement, which the pipeline does not get."""
    words = [f"the same words again and again, for the {number}. time" for number in range(20)]

    def hook(upgrade):
        assert upgrade.wait_for(lambda payload: payload.endswith(b" 3. time")) == words[3].encode()
        assert upgrade.recv() == words[0].encode()

    script = [steps.accept_deflate(), *(steps.compressed(one, fragment) for one in words[:10]), steps.text("plain"),
              *(steps.compressed(one, fragment) for one in words[10:]), SERVE]
    with ScriptedServer([script]) as server:
        with Collector(producer(server.url, hook, compression="deflate")) as pipeline:
            messages = pipeline.wait(19)
    expected = [*enumerate(words[:10]), (10, "plain"), *enumerate(words[10:], 11)]
    assert [(m.seq, m.text) for m in messages] == [one for one in expected if one[0] not in (0, 3)]


def test_a_compressed_message_that_would_become_too_large_is_not_inflated_further_in_the_bootstrap():
    script = [steps.accept_deflate(), steps.compressed(bytes(2**20)), SERVE]
    reason, _ = failed_attempt(script, lambda upgrade: upgrade.recv() and None, max_size=10_000, compression="deflate")
    assert type(reason) is PayloadTooBig
    assert "over max_size=10000" in str(reason)


def test_a_ping_is_answered_while_the_hook_waits():
    with ScriptedServer([[steps.accept(), steps.ping(b"now"), steps.serve(0.3), steps.text("ack"), SERVE]]) as server:
        with Collector(producer(server.url, lambda upgrade: upgrade.recv() and None)), capture(*EVENTS):
            [record] = server.wait(lambda records: records and any(f.opcode == PONG for f in records[0].frames))
            pong = next(frame for frame in record.frames if frame.opcode == PONG)
            assert pong.payload == b"now"


def test_a_wait_of_the_hook_may_time_out_and_the_hook_go_on():
    tried = []

    def hook(upgrade):
        try:
            upgrade.wait_for(lambda payload: payload == b"never", timeout=0.05)
        except TimeoutError as error:
            tried.append(str(error))
        upgrade.send("again")

    script = [steps.accept(), steps.text("data"), steps.receive(1), SERVE]
    with ScriptedServer([script]) as server, Collector(producer(server.url, hook)) as pipeline:
        assert [m.data for m in pipeline.wait(1)] == [b"data"]
    assert tried == ["no such message within 0.05 s"]


def test_a_wait_of_the_hook_may_time_out_on_a_feed_that_never_pauses_and_all_of_it_goes_on_in_order():
    told = []

    def hook(upgrade):
        # slower than the feed, so that there is always something to read
        with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
            upgrade.wait_for(lambda payload: time.sleep(0.001), timeout=0.2)
        told.append(upgrade.recv())

    with Feed.trades(size=1000) as feed:
        with Collector(producer(feed.url, hook, open_timeout=5), max_queue_bytes=2**30) as pipeline:
            messages = list(pipeline.wait(5000, 30))
    assert len(told) == 1
    assert [m.seq for m in messages] == list(range(1, len(messages) + 1))


def test_a_wait_of_no_time_looks_at_what_has_arrived():
    def hook(upgrade):
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                found.append(upgrade.wait_for(lambda payload: payload == b"ack", timeout=0))
                return
            except TimeoutError:
                time.sleep(0.01)

    found = []
    with ScriptedServer([[steps.accept(), steps.text("data"), steps.wait(0.1), steps.text("ack"), SERVE]]) as server:
        with Collector(producer(server.url, hook, open_timeout=30)) as pipeline:
            assert [m.data for m in pipeline.wait(1)] == [b"data"]
    assert found == [b"ack"]


def test_taking_many_messages_does_not_look_at_those_taken_before():
    """Told by what it looks at, not by the time that it takes."""
    looks = []

    class Watched(list):
        def __getitem__(self, at):
            looks.extend(range(*at.indices(len(self))) if isinstance(at, slice) else [at])
            return super().__getitem__(at)

    def hook(upgrade):
        upgrade._exchange.messages = Watched()
        for number in range(2000):
            assert upgrade.recv() == b"%d" % number

    wire = steps.send(b"".join(text(b"%d" % number) for number in range(2001)))
    with ScriptedServer([[steps.accept(), wire, SERVE]]) as server, Collector(producer(server.url, hook)) as pipeline:
        assert [m.data for m in pipeline.wait(1)] == [b"2000"]
    assert len(looks) < 4 * 2000


def test_after_the_hook_its_argument_is_of_no_use():
    kept = []
    with ScriptedServer([[steps.accept(), steps.text("x"), SERVE]]) as server:
        with Collector(producer(server.url, lambda upgrade: kept.append(upgrade))) as pipeline:
            pipeline.wait(1)
            for use in (lambda: kept[0].send("x"), kept[0].recv):
                with pytest.raises(EngineError, match="on_upgrade is over"):
                    use()


# ------------------------------------------------------------------------------------------- what is wrong with the hook

SECRET = "s3cret"


class Odd(BaseException):
    """Of no known kind."""


def raises(error):
    def hook(upgrade):
        upgrade.send(SECRET)
        raise error
    return hook


MISTAKES = {
    "an exception": (raises(ValueError(SECRET)), "raised ValueError in hook (test_bootstrap.py, line", ValueError),
    "SystemExit": (raises(SystemExit(SECRET)), "raised SystemExit", SystemExit),
    "KeyboardInterrupt": (raises(KeyboardInterrupt()), "raised KeyboardInterrupt", KeyboardInterrupt),
    "a BaseException": (raises(Odd(SECRET)), "raised Odd", Odd),
    "a str": (lambda upgrade: SECRET, "returned str; return None", None),
    "bytes": (lambda upgrade: SECRET.encode(), "returned bytes; return None", None),
    "a tuple": (lambda upgrade: (SECRET,), "returned tuple; return None", None),
    "a number": (lambda upgrade: 5, "returned int", None),
    "False": (lambda upgrade: False, "returned bool", None),
    "a list with a dict": (lambda upgrade: ["x", {SECRET: 1}], "a list with dict in it", None),
    "a wrong send": (lambda upgrade: upgrade.send({SECRET: 1}.values()), "raised TypeError", TypeError),
    "a Fail": (lambda upgrade: Fail("no quota"), "failed the attempt: no quota", None),
    "a Fail with an object": (lambda upgrade: Fail({SECRET: 1}), "on_upgrade failed the attempt", None),
    "a predicate that raises": (lambda upgrade: upgrade.wait_for(lambda payload: 1 / 0), "raised ZeroDivisionError",
                                ZeroDivisionError),
    "a time-out of its own": (lambda upgrade: upgrade.wait_for(lambda payload: False, 0.01), "raised TimeoutError",
                              TimeoutError),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_hook_that_fails_is_a_failed_attempt_that_names_the_fault_and_no_frame(mistake, caplog):
    hook, shown, cause = MISTAKES[mistake]
    reason, record = failed_attempt([steps.accept(), steps.text(SECRET), SERVE], hook)
    assert type(reason) is BootstrapError
    assert shown in str(reason)
    assert type(reason.__cause__) is (cause or type(None))
    assert SECRET not in str(reason)
    assert SECRET not in caplog.text
    assert [frame.payload for frame in record.frames if frame.opcode == CLOSE] == [struct.pack(">H", 1011)]


def test_c21_a_failing_bootstrap_makes_the_delays_grow_and_uses_up_the_budget():
    """Reference W-15: the 101 alone resets nothing."""
    with ScriptedServer([[steps.accept(), SERVE]]) as server, capture(*EVENTS) as seen:
        retry = Backoff(0.02, factor=2, jitter="none", max_retries=3)
        pipeline = Collector(producer(server.url, raises(ValueError("no")), retry=retry)).start()
        result = pipeline.join(15)
        assert [one.measurements["delay"] for one in seen.of(FAILURE)] == [0.02, 0.04, 0.08, None]
        assert {one.event for one in seen.events} == {FAILURE}
        assert isinstance(result.error.last, BootstrapError)
        assert server.most_live == 1


def test_a_retry_callable_is_told_the_failure():
    told = []

    def retry(state):
        told.append(type(state.last_error))
        return None if len(told) == 2 else 0.01

    with ScriptedServer([[steps.accept(), SERVE]]) as server:
        Collector(producer(server.url, lambda upgrade: 5, retry=retry)).start().join(15)
    assert told == [BootstrapError, BootstrapError]


# ---------------------------------------------------------------------------------------------- what fails meanwhile

WAIT = {"waits": lambda upgrade: upgrade.recv() and None}


def stubborn(upgrade):
    """Goes on whatever it is told."""
    for _ in range(3):
        try:
            upgrade.recv()
        except BaseException:
            continue
    return ["still here"]


ENDINGS = {
    "a Close": ([steps.close(4003, "banned")], ConnectionClosedError, "connection closed with 4003 (banned)", b"\x0f\xa3"),
    "Close 1000": ([steps.close(1000)], ConnectionClosedOK, "1000", b"\x03\xe8"),
    "a Close without a code": ([steps.close(None)], ConnectionClosedOK, "1005", b""),
    "a broken frame": ([steps.frame(TEXT, b"x", masked=True)], ProtocolError, "masked frame", b"\x03\xea"),
    "text that is not UTF-8": ([steps.frame(TEXT, b"\xff")], ProtocolError, "1007", b"\x03\xef"),
    "what is not DEFLATE": ([steps.frame(BINARY, b"\xff\xff\xff", rsv=4)], ProtocolError, "not DEFLATE", b"\x03\xef"),
    "a large message": ([steps.binary(bytes(2000))], PayloadTooBig, "over max_size=1000", b"\x03\xf1"),
    "an end": ([steps.cut()], ConnectionClosedError, "1006", None),
    "a reset": ([steps.reset()], OSError, "during the on_upgrade hook", None),
}


@pytest.mark.parametrize("hook", [lambda upgrade: upgrade.recv() and None, stubborn], ids=["lets it through", "goes on"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_connection_that_ends_in_the_bootstrap_fails_the_attempt_with_its_own_cause(ending, hook):
    script, kind, shown, answer = ENDINGS[ending]
    accept = steps.accept_deflate() if "DEFLATE" in ending else steps.accept()
    options = {"compression": "deflate"} if "DEFLATE" in ending else {}
    reason, record = failed_attempt([accept, *script, SERVE], hook, max_size=1000, **options)
    assert type(reason) is kind or issubclass(type(reason), kind)
    assert shown in str(reason)
    closes = [frame.payload for frame in record.frames if frame.opcode == CLOSE]
    if answer is not None and record.frames:
        assert len(closes) == 1
        assert closes[0][:2] == answer


def test_open_timeout_covers_the_bootstrap_of_a_silent_server():
    began = time.monotonic()
    reason, _ = failed_attempt([steps.accept(), SERVE], lambda upgrade: upgrade.recv() and None, open_timeout=0.3)
    assert type(reason) is TimeoutError
    assert "during the on_upgrade hook" in str(reason)
    assert time.monotonic() - began >= 0.3


def test_a_hook_that_takes_too_long_by_itself_is_a_time_out_behind_it():
    reason, _ = failed_attempt([steps.accept(), SERVE], lambda upgrade: time.sleep(0.3), open_timeout=0.2)
    assert type(reason) is TimeoutError
    assert "during the on_upgrade hook" in str(reason)


def test_what_arrives_while_the_hook_waits_is_bounded():
    def hook(upgrade):
        upgrade.wait_for(lambda payload: payload == b"never")

    flood = steps.send(build_server_frame(BINARY, bytes(1000)) * 300)
    with ScriptedServer([[steps.accept(), flood, SERVE]]) as server, capture(*EVENTS) as seen:
        pipeline = Collector(producer(server.url, hook, max_size=2000), max_queue_bytes=100_000).start()
        [failure] = seen.wait(FAILURE)[:1]
        pipeline.stop(0)
    assert "more than 100000 bytes arrived while on_upgrade waited" in str(failure.metadata["reason"])


@pytest.mark.parametrize("how", ["whole", "in parts", "compressed"])
def test_one_message_within_max_size_is_always_allowed(how):
    payload = bytes(range(250)) * 4
    wire = {"whole": build_server_frame(BINARY, payload),
            "in parts": build_server_frame(BINARY, payload[:400], fin=False) + build_server_frame(0, payload[400:])}
    script = [steps.accept_deflate(), steps.compressed(payload)] if how == "compressed" else [
        steps.accept(), steps.send(wire[how])]
    options = {"compression": "deflate"} if how == "compressed" else {}
    seen = []

    def hook(upgrade):
        seen.append(upgrade.wait_for(lambda payload: True, keep=True))

    with ScriptedServer([[*script, SERVE]]) as server:
        with Collector(producer(server.url, hook, max_size=1000, **options), max_queue_bytes=1024) as pipeline:
            assert [m.data for m in pipeline.wait(1)] == [payload]
    assert seen == [payload]


def test_a_second_message_above_the_bound_is_not_allowed():
    reason, _ = failed_attempt([steps.accept(), steps.send(build_server_frame(BINARY, bytes(1000)) * 2), SERVE],
                               lambda upgrade: upgrade.wait_for(lambda payload: False) and None, max_size=1000,
                               pipeline={"max_queue_bytes": 1024})
    assert "more than 1024 bytes arrived" in str(reason)


# -------------------------------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("end", ["stop", "open_timeout", "held", "open_timeout behind the hook"])
def test_an_accepted_connection_that_is_ended_in_the_hook_is_sent_a_close(end):
    waiting = threading.Event()

    def hook(upgrade):
        waiting.set()
        if end == "open_timeout behind the hook":
            time.sleep(0.6)
        else:
            upgrade.wait_for(lambda payload: False)

    flood = [steps.send(build_server_frame(BINARY, bytes(1000)) * 3)] if end == "held" else []
    options = {"open_timeout": 0.5 if end.startswith("open") else 30, "retry": Backoff(0.02, max_retries=0)}
    with ScriptedServer([[steps.accept(), *flood, SERVE]]) as server:
        pipeline = Collector(producer(server.url, hook, max_size=1000, **options), max_queue_bytes=1024).start()
        assert waiting.wait(10)
        if end == "stop":
            pipeline.stop(5)
        [record] = server.wait_ended(1)
        pipeline.stop(5)
    closes = [frame.payload for frame in record.frames if frame.opcode == CLOSE]
    assert closes == [struct.pack(">H", {"stop": 1001, "held": 1008}.get(end, 1011))]


def test_a_stop_ends_a_hook_that_waits():
    waiting = threading.Event()

    def hook(upgrade):
        waiting.set()
        upgrade.recv()

    with ScriptedServer([[steps.accept(), SERVE]]) as server, capture(*EVENTS) as seen:
        pipeline = Collector(producer(server.url, hook, open_timeout=None)).start()
        assert waiting.wait(10)
        result = pipeline.stop(5)
        assert result.threads_alive == ()
        assert result.seconds < 5
        assert seen.events == []


def test_a_hook_that_never_returns_holds_up_its_own_connection_and_no_stop():
    release = threading.Event()

    def hook(upgrade):
        if upgrade.connection_index == 1:
            release.wait(30)

    try:
        with ScriptedServer([[steps.accept(), steps.text("x"), SERVE]]) as server:
            pipeline = Collector(producer(server.url, hook, concurrency=2)).start()
            pipeline.wait(1)
            result = pipeline.stop(0.5)
            [blocked] = result.threads_alive
            assert blocked.startswith(f"wsengine:{pipeline.name}:producer_0:dialer_")
            assert result.seconds < 10
    finally:
        release.set()


def test_a_stop_from_within_the_hook_only_requests_it():
    answers = []
    with ScriptedServer([[steps.accept(), SERVE]]) as server:
        pipeline = Collector(producer(server.url, lambda upgrade: answers.append(pipeline.stop())))
        pipeline.start()
        assert pipeline.join(10) is not None
    assert answers == [None]


async def coroutine(upgrade):
    """No hook."""


def test_a_hook_that_returns_a_coroutine_is_told_to_be_a_plain_function():
    reason, _ = failed_attempt([steps.accept(), SERVE], lambda upgrade: coroutine(upgrade))
    gc.collect()  # a coroutine that nobody has awaited warns, which is an error here
    assert type(reason) is BootstrapError
    assert str(reason).startswith("on_upgrade returned a coroutine; make it a plain function, without async")


@pytest.mark.parametrize("wrong", ["send", 5, ["subscribe"], coroutine])
def test_what_is_no_function_is_refused(wrong):
    with pytest.raises(ConfigurationError, match=r"producer\.on_upgrade"):
        WebSocketProducer("ws://127.0.0.1:1", on_upgrade=wrong)
