"""The ring against queue.SimpleQueue, through its Python face: both move 128-byte payloads, 20,480 in a round.

The ring copies each payload into a slab and builds a new bytes object out of it, as the engine does with what came from
the socket; SimpleQueue hands on a reference. What that costs belongs to the ring's figure.
"""

import queue
import threading
import time

import pytest

from wsengine.engine.ring import Account, Parker, Ring

PAYLOAD = b"x" * 128
MESSAGES = 20_480
BATCHES = [1, 16, 256]


class RingQueue:
    """push() and claim() as the two sides of a queue."""

    def __init__(self):
        self.ring = Ring(32_768, Account(32_768, 64 << 20), Parker())

    def put(self, batch):
        self.ring.push(batch)

    def get(self, most):
        return len(self.ring.claim(most))


class Simple:
    """put() and get() one by one, which is all that SimpleQueue has; taking never waits."""

    def __init__(self):
        self.queue = queue.SimpleQueue()

    def put(self, batch):
        put = self.queue.put
        for payload in batch:
            put(payload)

    def get(self, most):
        get = self.queue.get_nowait
        taken = 0
        try:
            while taken < most:
                get()
                taken += 1
        except queue.Empty:
            pass
        return taken


def produce(one, batch, size):
    for _ in range(MESSAGES // size):
        one.put(batch)


def take_all(one, size):
    taken = 0
    while taken < MESSAGES:
        got = one.get(size)
        taken += got
        if not got:
            time.sleep(0)  # lets the other thread have the GIL; both queues are treated alike
    return taken


def record(benchmark):
    if benchmark.stats:
        benchmark.extra_info["messages_per_second"] = MESSAGES / benchmark.stats.stats.median


@pytest.mark.parametrize("size", BATCHES, ids=lambda size: f"batch{size}")
@pytest.mark.parametrize("kind", [RingQueue, Simple])
def test_one_thread_puts_a_batch_and_takes_it(benchmark, kind, size):
    one, batch = kind(), [PAYLOAD] * size

    def move():
        taken = 0
        for _ in range(MESSAGES // size):
            one.put(batch)
            taken += one.get(size)
        return taken

    assert benchmark(move) == MESSAGES
    record(benchmark)


@pytest.mark.parametrize("size", BATCHES, ids=lambda size: f"batch{size}")
@pytest.mark.parametrize("kind", [RingQueue, Simple])
def test_one_thread_puts_and_another_takes(benchmark, kind, size):
    one, batch = kind(), [PAYLOAD] * size

    def move():
        producer = threading.Thread(target=produce, args=(one, batch, size))
        producer.start()
        taken = take_all(one, size)
        producer.join()
        return taken

    assert benchmark(move) == MESSAGES
    record(benchmark)
