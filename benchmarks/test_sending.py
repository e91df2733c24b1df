"""Sending as fast as `send` returns, by connect() and one thread, to a server that only reads. Figures are in extra_info.

What `send` returns for is queued, masked; where the queue is full it waits for the reader, so over a second the figure is
what has left. The server reads into one buffer and looks at nothing.
"""

import subprocess
import sys

import pytest

from benchmarks.runs import ROOT, drive

SIZES = {"16B": 16, "128B": 128, "4KiB": 4096, "64KiB": 65_536}


@pytest.fixture
def sink():
    """The url of a server that reads."""
    command = [sys.executable, "-m", "benchmarks.drivers.sink_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        yield f"ws://127.0.0.1:{int(server.stdout.readline())}/"
        server.terminate()


@pytest.mark.parametrize("kind", ["text", "bytes"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_messages_sent(benchmark, seconds, sink, size, kind):
    found = benchmark.pedantic(drive, args=("sending_client", sink, "--size", size, "--kind", kind, "--seconds", seconds),
                               rounds=1, iterations=1)
    benchmark.extra_info.update(found)
    assert found["messages"] > 0
