"""Batches into SQLite: a feed of trades, one transaction for each batch, tried again while the database is locked.

One batch processor, because SQLite takes one writer at a time; so one connection to the database is enough. The rows have
the trade's number as their key, so a batch that is written twice changes nothing.

    python examples/sqlite_sink.py DATABASE [TRADES]
"""

import json
import sqlite3
import sys
import time

from wsengine import Batcher, Pipeline, Processors, Retry, WebSocketProducer
from wsengine.testing import Feed

SCHEMA = "create table if not exists trades (number integer primary key, symbol text, price real, size integer)"


class Store(Pipeline):
    def __init__(self, producer, path, **options):
        super().__init__(producer, processors=Processors(concurrency=2), batchers={"trades": Batcher(
            batch_size=500, batch_timeout=0.5, retry=Retry(max_retries=20, initial=0.05, on=sqlite3.OperationalError))},
            **options)
        self.database = sqlite3.connect(path, timeout=0, check_same_thread=False)  # used by that one thread, closed below

    def handle_message(self, message):
        trade = json.loads(message.data)
        message.data = (trade["seq"], trade["sym"], trade["px"], trade["qty"])
        message.batcher = "trades"

    def handle_batch(self, messages, batch_info):
        with self.database:                   # commits, or rolls back what raises
            self.database.execute(SCHEMA)
            self.database.executemany("insert or ignore into trades values (?, ?, ?, ?)", [one.data for one in messages])


def main():
    path, wanted = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    with Feed.trades(count=wanted) as feed:
        pipeline = Store(WebSocketProducer(feed.url), path, name="store")
        with pipeline:
            deadline = time.monotonic() + 60
            while pipeline.stats().successful < wanted and time.monotonic() < deadline:
                time.sleep(0.05)              # what is sent may still be on its way; what is acknowledged is stored
            result = pipeline.stop()
        pipeline.database.close()
    print(f"{result.successful} trades stored in {pipeline.stats().batchers[0].batch_processors[0].batches} batches")
    return 0 if result.successful == wanted else 1


if __name__ == "__main__":
    sys.exit(main())
