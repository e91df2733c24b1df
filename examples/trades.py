"""A pipeline on a WebSocket feed: four threads parse trades and add them up by symbol.

The feed is the embedded one, so that this runs anywhere; for a real one, put its URL in the place of `feed.url`.

    python examples/trades.py
"""

import json
import threading
import time
from collections import Counter

from wsengine import Pipeline, Processors, WebSocketProducer
from wsengine.testing import Feed

TRADES = 20_000


class Trades(Pipeline):
    """`self` is the one object that all processor threads share, so what they change needs a lock."""

    def __init__(self, producer, **options):
        super().__init__(producer, **options)
        self.lock = threading.Lock()
        self.count = Counter()
        self.volume = Counter()

    def handle_message(self, message):
        trade = json.loads(message.data)
        with self.lock:
            self.count[trade["sym"]] += 1
            self.volume[trade["sym"]] += float(trade["qty"])


def main():
    with Feed.trades(count=TRADES, rate=50_000) as feed:
        pipeline = Trades(
            WebSocketProducer(feed.url, path="/trades", ws_timeout=15.0, keepalive=5.0),
            processors=Processors(concurrency=4, max_demand=100),
            name="trades",
        )
        with pipeline:  # a service would call pipeline.run(), which ends with Ctrl-C
            while pipeline.stats().successful < TRADES:
                time.sleep(0.01)

    for symbol, count in sorted(pipeline.count.items()):
        print(f"{symbol}: {count:,} trades, volume {pipeline.volume[symbol]:,.2f}")
    print(f"{sum(pipeline.count.values()):,} trades in all")


if __name__ == "__main__":
    main()
