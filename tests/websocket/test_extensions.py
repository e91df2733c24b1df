"""permessage-deflate in the handshake: what is offered, which answers are taken and which refused, and the option itself.

The end of this file shows, row by row, what wsproto would have offered or taken in our place.
"""

import zlib

import pytest
from wsproto.extensions import PerMessageDeflate as Theirs

from wsengine import (
    HAVE_ZLIB,
    Backoff,
    ConfigurationError,
    NegotiationError,
    PerMessageDeflate,
    WebSocketProducer,
    telemetry,
)
from wsengine.engine.inflate import DeflateParameters
from wsengine.testing import Collector, Feed, ScriptedServer, build_server_frame, capture, steps
from wsengine.testing.wire import BINARY, TEXT
from wsengine.websocket.extensions import agreed_deflate, check_compression, extension_headers
from wsengine.websocket.handshake import Handshake
from wsengine.websocket.uri import parse_uri

ID = "producer"
SUCCESS, FAILURE = (telemetry.connection_event(ID, name) for name in ("success", "failure"))
PLAIN = PerMessageDeflate()


def producer(url, **options):
    return WebSocketProducer(url, telemetry_id=ID, **{"retry": Backoff(0.02, factor=1, jitter="none"), **options})


# ----------------------------------------------------------------------------------------------------------- the option

@pytest.mark.parametrize(("options", "path", "remedy"), [
    ({"server_max_window_bits": 7}, "compression.server_max_window_bits", "from 8 to 15"),
    ({"server_max_window_bits": 16}, "compression.server_max_window_bits", "from 8 to 15"),
    ({"server_max_window_bits": "12"}, "compression.server_max_window_bits", "whole number"),
    ({"server_max_window_bits": True}, "compression.server_max_window_bits", "whole number"),
    ({"client_max_window_bits": 8}, "compression.client_max_window_bits", "from 9 to 15"),
    ({"client_max_window_bits": 16}, "compression.client_max_window_bits", "from 9 to 15"),
    ({"server_no_context_takeover": 1}, "compression.server_no_context_takeover", "True or False"),
    ({"client_no_context_takeover": None}, "compression.client_no_context_takeover", "True or False"),
    ({"level": -1}, "compression.level", "from 0 to 9"),
    ({"level": 10}, "compression.level", "from 0 to 9"),
    ({"memory_level": 0}, "compression.memory_level", "from 1 to 9"),
    ({"threshold": -1}, "compression.threshold", "from 0"),
    ({"memLevel": 5}, "compression.memLevel", "memory_level"),
    ({"wbits": -15}, "compression.wbits", "server_max_window_bits"),
    ({"compress_settings": {}}, "compression.compress_settings", "level"),
    ({"levle": 1}, "compression.levle", "did you mean 'level'"),
])
def test_a_wrong_option_is_one_error_with_path_value_and_remedy(options, path, remedy):
    with pytest.raises(ConfigurationError) as caught:
        PerMessageDeflate(**options)
    assert caught.value.path == path
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("wrong", [True, False, "", "gzip", "permessage-deflate", 6, {}, PerMessageDeflate])
def test_the_option_of_the_producer_takes_none_deflate_or_the_object(wrong):
    with pytest.raises(ConfigurationError, match=r"^producer\.compression=.*PerMessageDeflate\(\.\.\.\)"):
        WebSocketProducer("ws://127.0.0.1:9", compression=wrong)


def test_the_option_object_is_a_value_that_shows_itself():
    one = PerMessageDeflate(server_max_window_bits=10, threshold=1)
    assert one == PerMessageDeflate(server_max_window_bits=10, threshold=1) != PerMessageDeflate()
    assert "server_max_window_bits=10" in repr(one)
    with pytest.raises(AttributeError):
        one.level = 1
    assert check_compression("x", "deflate") == PerMessageDeflate()
    assert check_compression("x", one) is one
    assert check_compression("x", None) is None
    assert HAVE_ZLIB


def test_a_build_without_zlib_refuses_compression_in_one_error_and_nothing_else(monkeypatch):
    """The flag is what such a build says of itself; .ci/no_zlib makes one, and runs the other tests on it."""
    monkeypatch.setattr("wsengine.websocket.extensions.HAVE_ZLIB", False)
    for make, path in ((PerMessageDeflate, "compression"),
                       (lambda: WebSocketProducer("ws://127.0.0.1:9", compression="deflate"), "producer.compression")):
        with pytest.raises(ConfigurationError, match="this build of wsengine has no zlib; install zlib's headers") as caught:
            make()
        assert caught.value.path == path
    assert WebSocketProducer("ws://127.0.0.1:9").compression is None


# ------------------------------------------------------------------------------------------------------------ the offer

@pytest.mark.parametrize(("options", "offer"), [
    ({}, "permessage-deflate; client_max_window_bits"),
    ({"level": 1, "memory_level": 9, "threshold": 0}, "permessage-deflate; client_max_window_bits"),
    ({"client_max_window_bits": 9}, "permessage-deflate; client_max_window_bits=9"),
    ({"server_max_window_bits": 15}, "permessage-deflate; server_max_window_bits=15; client_max_window_bits"),
    ({"server_no_context_takeover": True}, "permessage-deflate; server_no_context_takeover; client_max_window_bits"),
    ({"client_no_context_takeover": True}, "permessage-deflate; client_no_context_takeover; client_max_window_bits"),
    ({"server_no_context_takeover": True, "client_no_context_takeover": True, "server_max_window_bits": 8,
      "client_max_window_bits": 15}, "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
                                     "server_max_window_bits=8; client_max_window_bits=15"),
])
def test_nothing_is_offered_but_what_is_asked_for(options, offer):
    """C40."""
    one = PerMessageDeflate(**options)
    assert one.offer == offer
    assert extension_headers(one) == [(b"Sec-WebSocket-Extensions", offer.encode())]
    request = Handshake(parse_uri("ws://example.com"), compression=one).request()
    assert f"\r\nSec-WebSocket-Extensions: {offer}\r\n".encode() in request
    assert request.lower().count(b"sec-websocket-extensions") == 1


def test_off_offers_nothing():
    assert extension_headers(None) == []
    assert b"xtensions" not in Handshake(parse_uri("ws://example.com")).request()


# ----------------------------------------------------------------------------------------------------------- the answer

NONE = DeflateParameters()


@pytest.mark.parametrize(("options", "values", "agreed"), [
    ({}, [], None),
    ({}, [""], None),
    ({}, [" , ,\t"], None),
    ({}, ["permessage-deflate"], NONE),
    ({}, ["  permessage-deflate\t"], NONE),
    ({}, [", permessage-deflate ,,"], NONE),
    ({}, ["", "permessage-deflate"], NONE),
    ({}, ["permessage-deflate; client_max_window_bits=15"], NONE),
    ({}, ["permessage-deflate;client_max_window_bits=9"], DeflateParameters(client_max_window_bits=9)),
    ({}, ["permessage-deflate ; client_max_window_bits = 10 "], DeflateParameters(client_max_window_bits=10)),
    ({}, ['permessage-deflate; client_max_window_bits="10"'], DeflateParameters(client_max_window_bits=10)),
    ({}, ['permessage-deflate; client_max_window_bits="1\\2"'], DeflateParameters(client_max_window_bits=12)),
    ({}, ["permessage-deflate; client_max_window_bits=8"], DeflateParameters(client_max_window_bits=8)),
    ({}, ["permessage-deflate; server_max_window_bits=8"], DeflateParameters(server_max_window_bits=8)),
    ({}, ["permessage-deflate; server_max_window_bits=15"], NONE),
    ({}, ["permessage-deflate; server_no_context_takeover"], DeflateParameters(server_no_context_takeover=True)),
    ({}, ["permessage-deflate; client_no_context_takeover"], DeflateParameters(client_no_context_takeover=True)),
    ({}, ["permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10; "
          "client_max_window_bits=11"], DeflateParameters(True, True, 10, 11)),
    ({"client_max_window_bits": 10}, ["permessage-deflate"], DeflateParameters(client_max_window_bits=10)),
    ({"client_max_window_bits": 10}, ["permessage-deflate; client_max_window_bits=9"],
     DeflateParameters(client_max_window_bits=9)),
    ({"client_no_context_takeover": True}, ["permessage-deflate"], DeflateParameters(client_no_context_takeover=True)),
    ({"server_no_context_takeover": True}, ["permessage-deflate; server_no_context_takeover"],
     DeflateParameters(server_no_context_takeover=True)),
    ({"server_max_window_bits": 10}, ["permessage-deflate; server_max_window_bits=10"],
     DeflateParameters(server_max_window_bits=10)),
    ({"server_max_window_bits": 10}, ["permessage-deflate; server_max_window_bits=8"],
     DeflateParameters(server_max_window_bits=8)),
    ({"server_max_window_bits": 10, "server_no_context_takeover": True, "client_no_context_takeover": True}, [], None),
])
def test_an_answer_that_the_offer_allows_is_taken(options, values, agreed):
    assert agreed_deflate(values, PerMessageDeflate(**options)) == agreed


REFUSED = [
    # extensions
    ({}, ["permessage-bzip2"], "'permessage-bzip2'; offered: permessage-deflate"),
    ({}, ["x-webkit-deflate-frame"], "'x-webkit-deflate-frame'"),
    ({}, ["Permessage-Deflate"], "'Permessage-Deflate'"),
    ({}, ["permessage-deflate, permessage-deflate"], "chose permessage-deflate twice"),
    ({}, ["permessage-deflate", "permessage-deflate"], "chose permessage-deflate twice"),
    ({}, ["permessage-deflate", "x-other"], "'x-other'"),
    ({}, ["x-other, permessage-deflate"], "'x-other'"),
    # parameters
    ({}, ["permessage-deflate; max_window_bits=15"], "unknown parameter 'max_window_bits'"),
    ({}, ["permessage-deflate; client_no_context_takeovers"], "unknown parameter 'client_no_context_takeovers'"),
    ({}, ["permessage-deflate; Server_No_Context_Takeover"], "unknown parameter 'Server_No_Context_Takeover'"),
    ({}, ["permessage-deflate; server_no_context_takeover; server_no_context_takeover"], "server_no_context_takeover twice"),
    ({}, ["permessage-deflate; client_max_window_bits=9; client_max_window_bits=9"], "client_max_window_bits twice"),
    ({}, ["permessage-deflate; server_no_context_takeover=1"], "server_no_context_takeover, which takes none: '1'"),
    ({}, ["permessage-deflate; client_no_context_takeover=true"], "client_no_context_takeover, which takes none: 'true'"),
    ({}, ["permessage-deflate; client_max_window_bits"], "client_max_window_bits without a value"),
    ({}, ["permessage-deflate; server_max_window_bits"], "server_max_window_bits without a value"),
    *(({}, [f"permessage-deflate; {name}_max_window_bits={bits}"], f"{name}_max_window_bits='{bits}'; it takes 8 to 15")
      for name in ("server", "client") for bits in ("7", "16", "0", "-9", "+9", "09", "1e1", "9.0", "151", "0x9", "many")),
    # above, or without, what was asked for
    ({"server_max_window_bits": 10}, ["permessage-deflate; server_max_window_bits=11"], "above the 10 that was offered"),
    ({"client_max_window_bits": 10}, ["permessage-deflate; client_max_window_bits=11"], "above the 10 that was offered"),
    ({"server_max_window_bits": 10}, ["permessage-deflate"], "without server_max_window_bits, which was asked for"),
    ({"server_no_context_takeover": True}, ["permessage-deflate"],
     "without server_no_context_takeover, which was asked for"),
    # form
    ({}, ["permessage-deflate;"], "ill-formed"),
    ({}, ["permessage-deflate; ; client_max_window_bits=9"], "ill-formed"),
    ({}, ["; permessage-deflate"], "ill-formed"),
    ({}, ["permessage-deflate client_max_window_bits=9"], "ill-formed at 'client_max_window_bits=9'"),
    ({}, ["permessage-deflate=1"], "'permessage-deflate' has a value"),
    ({}, ["permessage-deflate; client_max_window_bits="], "ill-formed"),
    ({}, ["permessage-deflate; =9"], "ill-formed"),
    ({}, ['permessage-deflate; client_max_window_bits="9'], "ill-formed"),
    ({}, ['permessage-deflate; client_max_window_bits="9 "'], "the value '9 ' of client_max_window_bits is no token"),
    ({}, ['permessage-deflate; client_max_window_bits=""'], "is no token"),
    ({}, ["permessage-deflate; client_max_window_bits=9 9"], "ill-formed at '9'"),
    ({}, ["permessage-\xe9"], "ill-formed"),
    ({}, ['"permessage-deflate"'], "ill-formed"),
    ({}, ["permessage-deflate; client_max_window_bits=9", "; server_max_window_bits=9"], "ill-formed"),
    ({}, ["permessage-deflate; " + "x" * 5000], "unknown parameter 'xxx"),
]


@pytest.mark.parametrize(("options", "values", "problem"), REFUSED)
def test_an_answer_that_the_offer_does_not_allow_is_refused_by_name(options, values, problem):
    """C40."""
    with pytest.raises(NegotiationError) as caught:
        agreed_deflate(values, PerMessageDeflate(**options))
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("values", [["permessage-deflate"], ["x"], ["permessage-deflate; nonsense=\"a"], [";"]])
def test_without_an_offer_no_extension_is_taken(values):
    """C40."""
    with pytest.raises(NegotiationError):
        agreed_deflate(values, None)
    assert agreed_deflate(["", " ,"], None) is None


def test_what_is_sent_is_compressed_as_agreed_and_not_at_all_where_that_cannot_be():
    options = PerMessageDeflate(level=1, memory_level=2, threshold=3)
    one = options.deflater(DeflateParameters(client_no_context_takeover=True, client_max_window_bits=11))
    assert (one.window_bits, one.takeover, one.level, one.memory_level, one.threshold) == (11, False, 1, 2, 3)
    assert options.deflater(DeflateParameters(client_max_window_bits=8)) is None


# ------------------------------------------------------------------------------------------- what wsproto does with these

def test_wsproto_offers_parameters_that_servers_refuse():
    assert Theirs().offer() == "client_max_window_bits=15; server_max_window_bits=15"


#: Answers of REFUSED that wsproto takes without a word, for an offer without arguments.
TAKEN_BY_WSPROTO = [
    "permessage-deflate; max_window_bits=15",
    "permessage-deflate; client_no_context_takeovers",
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; client_max_window_bits=9; client_max_window_bits=9",
    "permessage-deflate; server_no_context_takeover=1",
    "permessage-deflate; client_no_context_takeover=true",
    "permessage-deflate; server_max_window_bits=+9",
    "permessage-deflate; server_max_window_bits=09",
    "permessage-deflate;",
    "permessage-deflate; ; client_max_window_bits=9",
    "permessage-deflate client_max_window_bits=9",
    "permessage-deflate=1",
]


@pytest.mark.parametrize("answer", TAKEN_BY_WSPROTO)
def test_answers_that_wsproto_takes_are_refused_here(answer):
    theirs = Theirs()
    theirs.finalize(answer)
    assert theirs.enabled()
    assert ({}, [answer]) in [row[:2] for row in REFUSED]


@pytest.mark.parametrize("answer", ["permessage-deflate; server_max_window_bits=8",
                                    'permessage-deflate; client_max_window_bits="10"'])
def test_answers_that_wsproto_fails_on_are_taken_here(answer):
    with pytest.raises(ValueError):
        Theirs().finalize(answer)
    assert agreed_deflate([answer], PLAIN) is not None


# ------------------------------------------------------------------------------------------------------- at real servers

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.mark.parametrize(("options", "parameters", "server"), [
    ({}, "", {}),
    ({}, "server_no_context_takeover", {"takeover": False}),
    ({"server_no_context_takeover": True}, "server_no_context_takeover", {"takeover": False}),
    ({"server_max_window_bits": 9}, "server_max_window_bits=9; client_max_window_bits=12", {"window_bits": 9}),
    ({}, "server_max_window_bits=8", {"window_bits": 9}),
])
def test_compressed_messages_reach_the_handler(options, parameters, server):
    texts = [f'{{"number": {at}, "text": "grün €"}}' for at in range(50)]
    script = [steps.accept_deflate(parameters, **server), *map(steps.compressed, texts), steps.text("plain"),
              steps.compressed(bytes(100_000), 7), steps.serve()]
    with ScriptedServer([script]) as peer:
        one = producer(peer.url, compression=PerMessageDeflate(**options))
        with Collector(one) as pipeline:
            pipeline.wait(52)
            assert [message.data for message in pipeline.received] == [*(text.encode() for text in texts), b"plain",
                                                                       bytes(100_000)]
            assert {message.opcode for message in pipeline.received[:-1]} == {TEXT}
            assert pipeline.received[-1].opcode == BINARY
            [connection] = one.connections
            assert connection.deflate.server_no_context_takeover is ("takeover" in server)
            counts = connection.counts()
            assert counts["wire_bytes"] < counts["bytes"]
        assert peer.connections[0].header("Sec-WebSocket-Extensions") == PerMessageDeflate(**options).offer


def test_a_server_that_does_not_compress_is_as_good():
    with ScriptedServer([[steps.accept(), steps.text("plain"), steps.serve()]]) as server:
        one = producer(server.url, compression="deflate")
        with Collector(one) as pipeline:
            pipeline.wait(1)
            assert one.connections[0].deflate is None
        assert server.connections[0].header("Sec-WebSocket-Extensions") == "permessage-deflate; client_max_window_bits"


def test_each_generation_agrees_anew_and_begins_with_an_empty_window():
    first = [steps.accept_deflate(), steps.compressed("Hello Hello Hello"), steps.cut()]
    second = [steps.accept(), steps.text("plain"), steps.cut()]
    third = [steps.accept_deflate("server_no_context_takeover", takeover=False), steps.compressed("Hello Hello Hello"),
             steps.compressed("Hello Hello Hello"), steps.serve()]
    with ScriptedServer([first, second, third]) as server:
        one = producer(server.url, compression="deflate")
        with Collector(one) as pipeline:
            pipeline.wait(4)
            assert [message.data for message in pipeline.received] == [b"Hello Hello Hello", b"plain",
                                                                       *[b"Hello Hello Hello"] * 2]
            assert one.connections[0].deflate.server_no_context_takeover


def test_a_wrong_answer_is_a_failure_told_by_name_and_is_tried_again_where_the_user_says_so():
    scripts = [[steps.accept_deflate("server_max_window_bits=16")],
               [steps.accept(headers=[("Sec-WebSocket-Extensions", "permessage-deflate"),
                                      ("Sec-WebSocket-Extensions", "permessage-deflate")])],
               [steps.accept_deflate(), steps.compressed("good"), steps.serve()]]
    with ScriptedServer(scripts) as server, capture(SUCCESS, FAILURE) as seen:
        again = producer(server.url, compression="deflate", process_exception=lambda error: None)
        with Collector(again) as pipeline:
            pipeline.wait(1)
        assert [one.event for one in seen.events] == [FAILURE, FAILURE, SUCCESS]
        reasons = [one.metadata["reason"] for one in seen.of(FAILURE)]
        assert all(isinstance(reason, NegotiationError) for reason in reasons)
        assert "server_max_window_bits='16'" in str(reasons[0])
        assert "twice" in str(reasons[1])


@pytest.mark.parametrize(("broken", "reason"), [
    (build_server_frame(TEXT, b"\xff\xff", rsv=4), "compressed message that is not DEFLATE data (closed with 1007)"),
    (build_server_frame(TEXT, bytes(50_000), rsv=4),
     "a message of at least 50000 bytes is over max_size=1000 (closed with 1009)"),
])
def test_a_broken_message_fails_the_connection_and_the_next_one_goes_on(broken, reason):
    with ScriptedServer([[steps.accept_deflate(), steps.send(broken), steps.until_eof()],
                         [steps.accept_deflate(), steps.compressed("good"), steps.serve()]]) as server:
        with capture(SUCCESS, FAILURE) as seen:
            with Collector(producer(server.url, compression="deflate", max_size=1000)) as pipeline:
                pipeline.wait(1)
                assert [message.data for message in pipeline.received] == [b"good"]
        assert reason in str(seen.of(FAILURE)[0].metadata["reason"])


def test_without_the_option_a_compressed_message_breaks_the_protocol():
    with ScriptedServer([[steps.accept(), steps.frame(TEXT, b"\x00", rsv=4), steps.until_eof()],
                         [steps.accept(), steps.text("good"), steps.serve()]]) as server:
        with capture(FAILURE) as seen, Collector(producer(server.url)) as pipeline:
            pipeline.wait(1)
        assert "closed with 1002" in str(seen.of(FAILURE)[0].metadata["reason"])


@pytest.mark.parametrize("compression", ["no_context_takeover", "context_takeover"])
def test_a_compressed_feed_arrives_whole_and_in_order(compression):
    messages = [(TEXT, b'{"sequence": %d, "price": "%d.00"}' % (at, 40_000 + at)) for at in range(500)]
    with Feed.payloads(messages, count=20_000, compression=compression, resume=False) as feed:
        with Collector(producer(feed.url, compression="deflate")) as pipeline:
            pipeline.wait(20_000, timeout=60)
            assert [message.data for message in pipeline.received] == [payload for _, payload in messages] * 40


# ------------------------------------------------------------------------------------------------------- what is sent


def frames_of(server):
    return [(one.opcode, one.rsv, one.fin, one.payload) for one in server.connections[0].frames if one.opcode < 8]


def sent(messages, parameters="", **options):
    """The frames that a server gets of messages sent by a handler; the server echoes none of them."""
    with ScriptedServer([[steps.accept_deflate(parameters), steps.text("go"), steps.receive(len(messages)),
                          steps.serve()]]) as server:
        one = producer(server.url, compression=PerMessageDeflate(**options))
        with Collector(one) as pipeline:
            pipeline.wait(1)
            for message in messages:
                one.connections[0].send(message)
            server.wait(lambda records: len([f for f in records[0].frames if f.opcode < 8]) >= len(messages))
        return frames_of(server)


def inflated(frames, bits=15, takeover=True):
    stream = zlib.decompressobj(-bits)
    out = []
    for opcode, rsv, fin, payload in frames:
        assert (rsv, fin) == (4, True)
        if not takeover:
            stream = zlib.decompressobj(-bits)
        out.append((opcode, stream.decompress(payload + b"\x00\x00\xff\xff")))
    return out


SUBSCRIBE = '{"type":"subscribe","product_ids":["BTC-USD","ETH-USD"],"channels":["ticker","heartbeat"]}' * 4
MESSAGES = [SUBSCRIBE, SUBSCRIBE.encode(), "", "grün €", SUBSCRIBE]


@pytest.mark.parametrize(("parameters", "options", "bits", "takeover"), [
    ("", {}, 15, True),
    ("client_no_context_takeover", {}, 15, False),
    ("", {"client_no_context_takeover": True}, 15, False),
    ("client_max_window_bits=9", {}, 9, True),
    ("", {"client_max_window_bits": 10}, 10, True),
    ("", {"level": 9, "memory_level": 1}, 15, True),
])
def test_messages_go_out_compressed_as_agreed(parameters, options, bits, takeover):
    """C45."""
    frames = sent(MESSAGES, parameters, threshold=0, **options)
    expected = [(BINARY, one) if isinstance(one, bytes) else (TEXT, one.encode()) for one in MESSAGES]
    assert inflated(frames, bits, takeover) == expected
    sizes = [len(payload) for *_, payload in frames]
    assert sizes[0] < len(SUBSCRIBE) / 2
    assert (sizes[4] < 20) is takeover, "the same message again is next to nothing, with its context"


def test_the_level_changes_what_is_sent():
    sizes = [len(sent([SUBSCRIBE], threshold=0, level=level)[0][3]) for level in (0, 9)]
    assert sizes[0] > len(SUBSCRIBE) > 2 * sizes[1]


def test_what_is_below_the_threshold_goes_as_it_is():
    """C45."""
    frames = sent(["short", SUBSCRIBE, "short"], threshold=100)
    assert frames[0] == frames[2] == (TEXT, 0, True, b"short")
    assert inflated(frames[1:2]) == [(TEXT, SUBSCRIBE.encode())]


def test_where_the_server_wants_a_window_of_8_bits_nothing_is_compressed():
    """C45."""
    assert sent([SUBSCRIBE], "client_max_window_bits=8", threshold=0) == [(TEXT, 0, True, SUBSCRIBE.encode())]


def test_messages_in_fragments_are_not_compressed():
    with ScriptedServer([[steps.accept_deflate(), steps.text("go"), steps.receive(2), steps.serve()]]) as server:
        one = producer(server.url, compression="deflate")
        with Collector(one) as pipeline:
            pipeline.wait(1)
            one.connections[0].send([SUBSCRIBE, SUBSCRIBE])
            server.wait(lambda records: len(records[0].frames) >= 2)
        assert frames_of(server) == [(TEXT, 0, False, SUBSCRIBE.encode()), (0, 0, True, SUBSCRIBE.encode())]


def test_a_new_generation_begins_with_a_context_of_its_own():
    """C45."""
    scripts = [[steps.accept_deflate(), steps.text("go"), steps.receive(1), steps.cut()],
               [steps.accept(), steps.text("go"), steps.receive(1), steps.cut()],
               [steps.accept_deflate(), steps.text("go"), steps.receive(1), steps.serve()]]
    with ScriptedServer(scripts) as server:
        one = producer(server.url, compression="deflate")
        with Collector(one) as pipeline:
            for number in range(3):
                message = pipeline.wait(number + 1)[number]
                one.connections[0].send(SUBSCRIBE, epoch=message.epoch)
            server.wait(lambda records: len(records) == 3 and any(f.opcode < 8 for f in records[2].frames))
        first, second, third = [[(f.opcode, f.rsv, f.fin, f.payload) for f in record.frames if f.opcode < 8]
                                for record in server.connections]
    assert inflated(first) == inflated(third) == [(TEXT, SUBSCRIBE.encode())]
    assert second == [(TEXT, 0, True, SUBSCRIBE.encode())]
