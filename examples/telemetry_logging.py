"""Telemetry into the log: what happens to a connection, and how long the handlers take for a chunk.

A telemetry handler runs in the thread that has something to tell, so it must be short. Here the server ends the
connection once, which shows as `disconnected`, `status` 0, and a little later `success` and `status` 1.

    python examples/telemetry_logging.py
"""

import logging
import threading

from wsengine import Backoff, Pipeline, WebSocketProducer, telemetry
from wsengine.testing import Feed

FEED = "prices"  # the telemetry_id of the producer: the first part of the names of its events
CONNECTION = [telemetry.connection_event(FEED, name) for name in ("success", "failure", "disconnected", "timeout", "status")]

log = logging.getLogger("prices")


class Prices(Pipeline):
    def handle_messages(self, messages):
        """One call for each chunk; what is not marked with `message.fail(...)` is successful."""


class Chunks:
    """Adds up what the processors tell."""

    def __init__(self):
        self.lock = threading.Lock()
        self.chunks = self.messages = self.nanoseconds = 0

    def add(self, event, measurements, metadata, config):
        with self.lock:
            self.chunks += 1
            self.messages += len(metadata["successful_messages_to_ack"])
            self.nanoseconds += measurements["duration"]


def log_connection(event, measurements, metadata, config):
    log.info("%s %s %s", event[-1], dict(measurements), metadata.get("reason", ""))


def main():
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    logging.getLogger("wsengine").setLevel(logging.ERROR)  # it logs the same events by itself
    reopened = threading.Semaphore(0)
    chunks = Chunks()
    telemetry.attach_many("log the connection", CONNECTION, log_connection)
    telemetry.attach("add up chunks", telemetry.PROCESSOR_STOP, chunks.add)
    telemetry.attach("count openings", telemetry.connection_event(FEED, "success"), lambda *event: reopened.release())

    with Feed.trades(rate=10_000) as feed:
        producer = WebSocketProducer(feed.url, telemetry_id=FEED, retry=Backoff(initial=0.1))
        with Prices(producer, name="prices"):
            reopened.acquire(timeout=10)
            feed.wait(lambda log: log.messages > 1_000)
            feed.cut()
            reopened.acquire(timeout=10)

    log.info("%d messages in %d chunks, %.1f µs a chunk", chunks.messages, chunks.chunks,
             chunks.nanoseconds / max(chunks.chunks, 1) / 1e3)


if __name__ == "__main__":
    main()
