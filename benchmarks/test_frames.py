"""Building the frames that a client sends, with a masking key of its own for each and with one that is given.

`build_frame` is the Python face of what sending uses: it makes two objects a frame, where the sender writes into memory that
is sent. A round is 1,000 frames, or as many as make 16 MiB. What masking costs is seen by the large ones.
"""

import pytest

from wsengine.engine.frames import build_frame

BINARY = 2
FRAMES, BYTES = 1000, 16 << 20


@pytest.mark.parametrize("mask", [None, b"\x01\x02\x03\x04"], ids=["own key", "given key"])
@pytest.mark.parametrize("size", [16, 128, 1024, 65_536, 1 << 20], ids=lambda size: f"{size}B")
def test_frames_built(benchmark, size, mask):
    payload, count = bytes(size), min(FRAMES, BYTES // size)

    def build():
        for _ in range(count):
            build_frame(BINARY, payload, mask=mask)

    benchmark(build)
    if benchmark.stats:
        seconds = benchmark.stats.stats.median
        benchmark.extra_info |= {"messages_per_second": count / seconds, "payload_bytes_per_second": count * size / seconds}
