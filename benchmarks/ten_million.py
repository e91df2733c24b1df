"""Ten million messages through eight processors and two batchers with two batch processors each, one in a hundred failed at
random: every count is exact, and memory stays flat.

    python -m benchmarks.ten_million [--messages N] [--seed N]

Prints the resident memory as it goes. Exits with 1 if a message is missing or counted twice, or if memory has grown by more
than 16 MiB behind the first fifth.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time

import psutil

from wsengine import Batcher, Pipeline, Processors, WebSocketProducer
from wsengine.testing import Feed

MIB = 2**20


class Ledger:
    """Counts what is acknowledged. Every message is of one group, so it is called once a chunk or batch."""

    def __init__(self):
        self.lock = threading.Lock()
        self.successful = self.failed = self.calls = 0

    def ack(self, ack_ref, successful, failed):
        with self.lock:
            self.successful += len(successful)
            self.failed += len(failed)
            self.calls += 1


class Counted(Pipeline):
    """Fails half of the unlucky in the processor, the others in the batch, and counts them on the way."""

    def __init__(self, *args, seed, **options):
        super().__init__(*args, **options)
        self.local = threading.local()
        self.seed = seed
        self.lock = threading.Lock()
        self.in_handler = self.in_batch = self.handled = self.batched = 0
        self.sequences = 0

    def random(self):
        if not hasattr(self.local, "random"):
            self.local.random = random.Random(f"{self.seed} {threading.current_thread().name}")
        return self.local.random.random()

    def handle_messages(self, messages):
        failed = sequences = 0
        for message in messages:
            sequences += message.seq
            message.batcher = "even" if message.seq % 2 == 0 else "odd"
            if self.random() < 0.005:
                message.fail("unlucky")
                failed += 1
        with self.lock:
            self.handled += len(messages)
            self.in_handler += failed
            self.sequences += sequences

    def handle_batch(self, messages, batch_info):
        unlucky = [message.fail("unlucky") for message in messages if self.random() < 0.005]
        with self.lock:
            self.batched += len(messages)
            self.in_batch += len(unlucky)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    wanted, process, resident = options.messages, psutil.Process(), []
    print(f"--seed={options.seed}")
    batchers = {name: Batcher(concurrency=2, batch_size=200, batch_timeout=0.1) for name in ("even", "odd")}
    with Feed.trades(count=wanted) as feed:
        pipeline = Counted(WebSocketProducer(feed.url), processors=Processors(concurrency=8), batchers=batchers,
                           name="ten-million", seed=options.seed)
        begun = time.monotonic()
        with pipeline:
            while (stats := pipeline.stats()).successful + stats.failed < wanted:
                resident.append(process.memory_info().rss)
                if len(resident) % 20 == 0:
                    print(f"{stats.successful + stats.failed:>12,} messages, {resident[-1] / MIB:.1f} MiB", flush=True)
                time.sleep(0.1)
            elapsed = time.monotonic() - begun
            result = pipeline.stop()
    failed = pipeline.in_handler + pipeline.in_batch
    grown = (max(resident) - max(resident[:max(len(resident) // 5, 1)])) / MIB
    print(f"{result.successful:,} successful and {result.failed:,} failed of {wanted:,}, {failed:,} by the handlers' own "
          f"count; {wanted / elapsed / 1e6:.2f} M/s; memory grew by {grown:.1f} MiB behind the first fifth")
    exact = (result.successful + result.failed, result.failed, pipeline.handled, pipeline.batched, pipeline.sequences) == (
        wanted, failed, wanted, wanted - pipeline.in_handler, wanted * (wanted - 1) // 2)
    return 0 if exact and result.drained and grown <= 16 else 1


if __name__ == "__main__":
    sys.exit(main())
