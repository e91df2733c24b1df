"""The frame parser over a wire image, a buffer of many frames at a time.

FrameParser is only the parser's Python face: it builds a tuple and a bytes object for each frame, which the receive
path does not. So these figures are a lower bound of the parser's own.
"""

import pytest

from wsengine.engine.frames import FrameParser
from wsengine.testing import build_server_frame

#: Bytes of a feed, as of one recv.
BUFFER = 1 << 18
TEXT, BINARY = 1, 2


@pytest.mark.parametrize("size", [16, 128, 1024, 65_536, 1 << 20])
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_bytes_parsed(benchmark, opcode, size):
    frame = build_server_frame(opcode, b"x" * size)
    count = max(1, BUFFER // len(frame))
    image = frame * count
    parser = FrameParser(1 << 20)
    found = benchmark(parser.feed, image)
    assert len(found) == count
    seconds = benchmark.stats.stats.median if benchmark.stats else None
    if seconds:
        benchmark.extra_info |= {"bytes_per_second": len(image) / seconds, "messages_per_second": count / seconds}


def test_bytes_parsed_when_each_buffer_ends_inside_a_frame(benchmark):
    image = build_server_frame(TEXT, b"x" * 128) * 4000
    pieces = [image[at : at + 4093] for at in range(0, len(image), 4093)]
    parser = FrameParser(1 << 20)

    def feed():
        return sum(len(parser.feed(piece)) for piece in pieces)

    assert benchmark(feed) == 4000
    if benchmark.stats:
        benchmark.extra_info["bytes_per_second"] = len(image) / benchmark.stats.stats.median
