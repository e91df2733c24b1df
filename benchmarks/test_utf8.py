"""Checking UTF-8, beside Python's decoder, which also builds the text. The engine's check is the one that the parser makes
of every text message, through its Python face: a check by itself, and a new Validator for each message. A round is 1,000
messages."""

import pytest

from wsengine.engine.utf8 import Utf8Validator, is_utf8

MESSAGES = 1000
SIZES = [128, 4096]
LETTERS = {"ascii": "x", "two": "ж", "three": "市", "four": "😀", "mixed": '{"symbol":"BTC","note":"жест 市"}'}


def text(letters, size):
    """So many bytes, filled up with spaces."""
    data = letters.encode()
    return (data * (size // len(data))).ljust(size)


def record(benchmark, size):
    if benchmark.stats:
        benchmark.extra_info["bytes_per_second"] = size * MESSAGES / benchmark.stats.stats.median


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size}B")
@pytest.mark.parametrize("letters", LETTERS.values(), ids=LETTERS)
def test_a_message_checked_by_the_engine(benchmark, letters, size):
    data = text(letters, size)

    def check():
        for _ in range(MESSAGES):
            assert is_utf8(data)

    benchmark(check)
    record(benchmark, size)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size}B")
@pytest.mark.parametrize("letters", LETTERS.values(), ids=LETTERS)
def test_a_message_decoded_by_python(benchmark, letters, size):
    data = text(letters, size)

    def decode():
        for _ in range(MESSAGES):
            data.decode()

    benchmark(decode)
    record(benchmark, size)


@pytest.mark.parametrize("letters", LETTERS.values(), ids=LETTERS)
def test_a_message_in_pieces_checked_by_the_engine(benchmark, letters):
    data = text(letters, 4096)
    pieces = [data[at : at + 1021] for at in range(0, len(data), 1021)]

    def check():
        for _ in range(MESSAGES):
            feed = Utf8Validator().feed
            for piece in pieces:
                assert feed(piece)

    benchmark(check)
    record(benchmark, len(data))
