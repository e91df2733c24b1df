"""Servers that nobody here wrote: what goes to them comes back, and both sides see how connections end.

The servers, the paths they serve, and the matrix of links to them are in conftest.py. An ordinary run has each server over
one link without TLS and deflate and over one with both; WSENGINE_LONG=1 runs every combination.
"""

from __future__ import annotations

import itertools
import random

import pytest

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]

#: Both sides of each step of the length field (RFC 6455 §5.2), and more than any buffer on the way.
SIZES = (0, 1, 125, 126, 127, 65535, 65536, 1 << 20)
LARGEST = 16 << 20

#: Codes that both sides may send (RFC 6455 §7.4), with reasons up to the 123 bytes that fit.
ENDINGS = [(1000, ""), (1001, "going"), (1011, "naïve – ошибка"), (3000, "日本語 \U0001f600"), (4999, "€" * 41)]

SUBPROTOCOLS = ["feed.v1", "feed.v2"]  # the servers prefer feed.v2


def text_of(size: int) -> str:
    """`size` bytes of UTF-8 with characters of one to four bytes, which do not end where frames do."""
    unit = "aé€\U0001f600 and some words that deflate can find again; "
    text = (unit * (size // len(unit.encode()) + 1)).encode()[:size].decode(errors="ignore")
    return text + "x" * (size - len(text.encode()))


def bytes_of(size: int) -> bytes:
    """`size` bytes, half of them noise, half of them alike."""
    noise = random.Random(size).randbytes(size // 2)
    return noise + b"\0" * (size - len(noise))


@pytest.mark.parametrize("make", [text_of, bytes_of], ids=["text", "binary"])
def test_messages_of_all_lengths_come_back_as_they_went(link, make):
    with link.connection() as connection:
        for size in SIZES:
            message = make(size)
            connection.send(message)
            assert link.receive(connection) == message, size


@pytest.mark.parametrize("make", [text_of, bytes_of], ids=["text", "binary"])
def test_messages_in_a_row_come_back_in_order(link, make):
    with link.connection() as connection:
        messages = [make(size) for size in (*range(40), 125, 126, 0, 70_000, 3)]
        for message in messages:
            connection.send(message)
        assert [link.receive(connection) for _message in messages] == messages


@pytest.mark.parametrize("make", [text_of, bytes_of], ids=["text", "binary"])
def test_16_mib_come_back_as_they_went(link, make):
    message = make(LARGEST)
    with link.connection() as connection:
        connection.send(message)
        assert link.receive(connection) == message


def test_permessage_deflate_is_in_use_where_it_was_asked_for_and_nowhere_else(link):
    with link.connection() as connection:
        assert ("permessage-deflate" in link.header(connection, "Sec-WebSocket-Extensions")) == link.deflate
        connection.send("so that the extension is used")
        assert link.receive(connection) == "so that the extension is used"


@pytest.mark.parametrize("empty", [False, True], ids=["full", "with-empty-ones"])
@pytest.mark.parametrize("make", [text_of, bytes_of], ids=["text", "binary"])
def test_fragments_that_we_send_are_one_message_to_the_server(link, make, empty):
    whole = make(100_000)
    cuts = [0, 1, 126, 126, 70_000, 70_001, len(whole)] if empty else [0, 1, 126, 70_000, len(whole)]
    with link.connection() as connection:
        connection.send(whole[start:end] for start, end in itertools.pairwise(cuts))
        assert link.receive(connection) == whole
        connection.send([make(5)])
        assert link.receive(connection) == make(5)


@pytest.mark.parametrize("size", [1, 125, 1000])
@pytest.mark.parametrize("make", [text_of, bytes_of], ids=["text", "binary"])
def test_fragments_of_the_server_are_one_message_to_us(fragmenting_link, make, size):
    link, messages = fragmenting_link, [make(size * 300), make(size), make(0), make(size + 1)]
    with link.connection("/fragments", size=size) as connection:
        for message in messages:
            connection.send(message)
            assert link.receive(connection) == message


@pytest.mark.parametrize(("code", "reason"), ENDINGS, ids=[str(code) for code, _reason in ENDINGS])
def test_the_server_sees_our_close_code_and_reason(link, new_id, code, reason):
    with link.connection(id=new_id) as connection:
        connection.send("before the end")
        assert link.receive(connection) == "before the end"
        connection.close(code, reason)
    assert link.ending_seen(new_id) == {"code": code, "reason": reason}


@pytest.mark.parametrize(("code", "reason"), ENDINGS, ids=[str(code) for code, _reason in ENDINGS])
def test_we_see_the_close_code_and_reason_of_the_server(link, code, reason):
    error = link.errors.ConnectionClosedOK if code in (1000, 1001) else link.errors.ConnectionClosedError
    with link.connection("/close", code=code, reason=reason) as connection:
        with pytest.raises(error):
            link.receive(connection)
        assert (connection.close_code, connection.close_reason) == (code, reason)
        with pytest.raises(link.errors.ConnectionClosed):
            connection.send("too late")


@pytest.mark.parametrize("payload", ["", "p", "ping-" * 25], ids=["empty", "one", "longest"])
def test_a_ping_of_the_server_is_answered_with_its_payload(link, payload):
    with link.connection("/ping", payload=payload) as connection:
        assert link.receive(connection) == f"pong {payload}"


@pytest.mark.parametrize("payload", [b"", b"p", bytes(range(125))], ids=["empty", "one", "longest"])
def test_a_ping_of_ours_is_answered(link, payload):
    with link.connection() as connection:
        assert connection.ping(payload).wait(link.patience)
        connection.send("behind the ping")
        assert link.receive(connection) == "behind the ping"


def test_pings_among_messages_disturb_none_of_them(link):
    with link.connection() as connection:
        pongs = []
        for number in range(50):
            pongs.append(connection.ping(str(number)))
            connection.send(str(number) * 100)
        assert [link.receive(connection) for _number in range(50)] == [str(number) * 100 for number in range(50)]
        assert all(pong.wait(link.patience) for pong in pongs)


def test_the_subprotocol_that_the_server_chose_is_told(link):
    with link.connection(also={"subprotocols": SUBPROTOCOLS}) as connection:
        assert connection.subprotocol in SUBPROTOCOLS
        assert connection.subprotocol == link.header(connection, "Sec-WebSocket-Protocol")
    with link.connection() as connection:
        assert connection.subprotocol is None


def test_a_head_of_8000_bytes_is_taken_and_one_of_100000_refused(link):
    """nginx refuses the large one itself, with a 502, and one of 8,000 bytes, too; so the small one is smaller there."""
    room = 2048 if link.server == "nginx" else 8000
    with link.connection("/head", bytes=room) as connection:
        assert link.header(connection, "X-Padding") == "x" * room
    with pytest.raises(link.errors.InvalidHandshake), link.connection("/head", bytes=100_000):
        pass


def test_a_request_that_is_too_large_for_the_server_fails_by_name(link):
    """Each server has its own answer: a status from 400 to 431, or the end of the connection without one."""
    with pytest.raises((link.errors.WebSocketException, OSError)) as failure:
        with link.connection(also={link.headers_option: {"X-Padding": "x" * 200_000}}):
            pass
    assert str(failure.value)
