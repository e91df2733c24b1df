"""Channel ids that mean something only within a session: `on_upgrade` subscribes, `frame_handler` looks the ids up.

An exchange answers a subscription with a number, and sends updates under that number; after a reconnect the numbers are
others. The handler sees all messages of a connection in order, with a state that begins anew at each reconnect, and hands on
updates under names that last. Four processors share the work behind it.

The server is embedded and cuts the connection once, so that this runs anywhere. With a recorded feed instead:

    python examples/channels.py
    python examples/channels.py kraken path/to/kraken.jsonl.gz
    python examples/channels.py bitfinex path/to/bitfinex.jsonl.gz
"""

import json
import sys
import threading
import time
from collections import Counter

from wsengine import Emit, Fail, Pipeline, Processors, Skip, WebSocketProducer
from wsengine.testing import Feed, ScriptedServer, load_recording, steps

SUBSCRIBE = json.dumps({"event": "subscribe", "pair": ["XBT/EUR", "ETH/EUR"], "subscription": {"name": "book"}})


def subscribe(upgrade):
    """The first message greets; after it subscriptions are taken. What comes meanwhile goes to the handler below."""
    upgrade.wait_for(lambda payload: json.loads(payload)["event"] in ("systemStatus", "info"), timeout=5)
    return [SUBSCRIBE]


def kraken(payload, channels):
    """`channels` is this session's: channel id -> pair."""
    data = json.loads(payload)
    if isinstance(data, list):
        if data[0] not in channels:
            return Fail(f"an update of channel {data[0]}, which this session has not introduced")
        return Emit([(channels[data[0]], update) for update in data[1:-2]], channels)
    if data["event"] == "subscriptionStatus":
        return Skip(channels | {data["channelID"]: data["pair"]})
    if data["event"] == "ping":
        return Skip(channels, [json.dumps({"event": "pong"})])  # a reply on the same connection
    return Skip(channels)


def bitfinex(payload, channels):
    """The same for another exchange. A heartbeat may come before its channel is introduced."""
    data = json.loads(payload)
    if isinstance(data, list) and data[1] == "hb":
        return Skip(channels)
    if isinstance(data, list):
        if data[0] not in channels:
            return Fail(f"an update of channel {data[0]}, which this session has not introduced")
        return Emit([(channels[data[0]], data[1:-1])], channels)
    if data["event"] == "subscribed":
        return Skip(channels | {data["chanId"]: f"{data['channel']} {data['symbol']}"})
    return Skip(channels)


class Updates(Pipeline):
    """Counts updates by name; `self` is shared by all processors."""

    def __init__(self, producer, **options):
        super().__init__(producer, **options)
        self.lock = threading.Lock()
        self.count = Counter()

    def handle_message(self, message):
        name, _update = message.data
        with self.lock:
            self.count[name] += 1


def session(ids, updates):
    """One session of the embedded server, which gives the pairs these channel ids."""
    def text(value):
        return steps.text(json.dumps(value))

    pairs = dict(zip(("XBT/EUR", "ETH/EUR"), ids, strict=True))
    return [
        steps.accept(), text({"event": "systemStatus", "status": "online"}), steps.receive(1),
        *(text({"event": "subscriptionStatus", "channelID": number, "pair": pair}) for pair, number in pairs.items()),
        text({"event": "ping"}), steps.receive(1),
        *(text([number, {"b": [[str(price), "1.0"]]}, "book", pair])
          for price in range(updates) for pair, number in pairs.items()),
    ]


def main():
    if len(sys.argv) == 1:
        handler, expected = kraken, 400
        server = ScriptedServer([[*session((336, 560), 100), steps.cut()], [*session((560, 336), 100), steps.serve()]])
    else:
        handler = {"kraken": kraken, "bitfinex": bitfinex}[sys.argv[1]]
        expected = None
        server = Feed.recording(sys.argv[2], speed=None)
    with server:
        producer = WebSocketProducer(server.url, on_upgrade=subscribe, frame_handler=handler, frame_handler_state=dict)
        pipeline = Updates(producer, processors=Processors(concurrency=4))
        with pipeline:
            if expected is None:  # all but the greeting, which `subscribe` takes
                frames = len(load_recording(sys.argv[2])) - 1
                while pipeline.stats().producers[0]["frame_handler"]["taken"] < frames:
                    time.sleep(0.01)
            else:
                while pipeline.stats().successful < expected:
                    time.sleep(0.01)
    for name, count in sorted(pipeline.count.items()):
        print(f"{name}: {count:,} updates")
    print(f"{sum(pipeline.count.values()):,} updates in all, {producer.connections[0].opened} sessions")


if __name__ == "__main__":
    main()
