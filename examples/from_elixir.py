"""OffBroadwayWebSocket's own example, line by line: what was Elixir is Python, and what it does is the same.

A pipeline with eight processors takes a WebSocket feed. A transformer gives each payload an acknowledger; the handler
decodes JSON, tells heartbeats from data, and logs what it cannot decode; telemetry handlers log the life of the connection.
Unlike the first version of the original, and like later ones, a payload that cannot be decoded is a failed message.

    python examples/from_elixir.py                    a feed of a few messages
    python examples/from_elixir.py RECORDING          a recorded one, JSON lines of [seconds, payload], gzipped
"""

import json
import logging
import sys
import threading

from wsengine import Message, Pipeline, Processors, WebSocketProducer, telemetry
from wsengine.testing import Feed, load_recording

TEXT = 1
SAMPLE = ['{"event":"heartbeat"}', '{"event":"trade","price":"1.25"}', "not JSON", '{"event":"trade","price":"1.5"}']

logger = logging.getLogger("my_app")
counts = {"heartbeats": 0, "data": 0, "undecoded": 0, "acknowledged": 0, "failed": 0}
counted = threading.Condition()


def count(name, number=1):
    with counted:
        counts[name] += number
        counted.notify_all()


class Acknowledger:                           # {__MODULE__, :ack_id, :ack_data}: any object that has `ack`
    def ack(self, ack_ref, successful, failed):
        count("acknowledged", len(successful))
        count("failed", len(failed))


ACKNOWLEDGER = Acknowledger()


def transform(data, metadata):                # transformer: {__MODULE__, :transform, []}
    return Message(data, metadata=metadata, acknowledger=(ACKNOWLEDGER, "ack_id", "ack_data"))


class MyBroadway(Pipeline):                   # use Broadway
    def handle_message(self, message):
        try:
            decoded = json.loads(message.data)
        except ValueError as error:           # {:error, reason}
            logger.error("Failed to decode message: %s", error)
            count("undecoded")
            return message.fail(error)
        if isinstance(decoded, dict) and decoded.get("event") == "heartbeat":
            logger.debug("Received heartbeat")
            count("heartbeats")
        else:
            logger.info("Received message: %.60s", message.text)
            count("data")
        return message


def handle_event(event, measurements, metadata, config):
    logger.info("%s: %s", " ".join(event), dict(measurements))


def main():
    logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s")
    logger.setLevel(logging.INFO)
    for name in ("success", "failure", "disconnected", "timeout", "status"):
        telemetry.attach(f"websocket-{name}", ("custom_telemetry_id", "connection", name), handle_event)

    if len(sys.argv) > 1:
        expected = len(load_recording(sys.argv[1]))
        feed = Feed.recording(sys.argv[1], speed=None)
    else:
        expected = len(SAMPLE)
        feed = Feed.payloads([(TEXT, text.encode()) for text in SAMPLE])
    with feed:
        pipeline = MyBroadway(
            WebSocketProducer(
                feed.url,                     # url: "wss://example.com"
                ws_timeout=15.0,              # ws_timeout: 15_000
                keepalive=10.0,               # ws_opts: %{keepalive: 10_000,
                silence_pings=False,          #            silence_pings: false}
                telemetry_id="custom_telemetry_id",
                headers=[("X-ABC-APIKEY", "api-key")],
                allow_plaintext_credentials=True,  # only as the example's server has no TLS: the header looks like a secret
                transformer=transform,
                concurrency=1,
            ),
            processors=Processors(min_demand=0, max_demand=100, concurrency=8),
            name="my_broadway",
        )
        with pipeline:                        # {MyApp.Broadway, []} in the supervision tree
            with counted:                     # what is sent may still be on its way; what is acknowledged is done
                counted.wait_for(lambda: counts["acknowledged"] + counts["failed"] >= expected, timeout=60)
            result = pipeline.stop()
    print(f"{result.successful} successful, {result.failed} failed;", ", ".join(f"{n} {what}" for what, n in counts.items()))


if __name__ == "__main__":
    main()
