"""Batches into PostgreSQL by COPY: four batch processors with a connection each, and the trades of a symbol in order.

COPY is the fastest way in, and all or nothing: a batch that holds a bad row fails as a whole. Here such rows never get so
far, because `handle_message` has checked them.

    pip install 'psycopg[binary]'
    python examples/postgres_sink.py "dbname=test" [TRADES]
"""

import json
import sys
import threading
import time

import psycopg

from wsengine import Batcher, Pipeline, Processors, Retry, WebSocketProducer
from wsengine.testing import Feed

SCHEMA = """create table if not exists trades (
    id bigserial primary key, number bigint, symbol text, price double precision, size integer)"""


class Store(Pipeline):
    def __init__(self, producer, address, **options):
        super().__init__(producer, processors=Processors(concurrency=1), batchers={"trades": Batcher(
            concurrency=4, batch_size=1000, batch_timeout=0.5, retry=Retry(max_retries=5, on=psycopg.OperationalError))},
            **options)
        self.address = address
        self.local = threading.local()        # each thread's own
        self.connections = []

    def handle_message(self, message):
        trade = json.loads(message.data)
        message.data = (int(trade["seq"]), str(trade["sym"]), float(trade["px"]), int(trade["qty"]))
        message.batcher = "trades"
        message.batch_key = trade["sym"]      # batches of a key are handled one after the other

    def handle_batch(self, messages, batch_info):
        if getattr(self.local, "database", None) is None or self.local.database.closed:
            self.local.database = psycopg.connect(self.address)
            self.connections.append(self.local.database)
        with self.local.database.transaction(), self.local.database.cursor() as cursor:
            with cursor.copy("copy trades (number, symbol, price, size) from stdin") as copy:
                for message in messages:
                    copy.write_row(message.data)


def main():
    address, wanted = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    with psycopg.connect(address) as database:
        database.execute(SCHEMA)
    with Feed.trades(count=wanted) as feed:
        pipeline = Store(WebSocketProducer(feed.url), address, name="store")
        with pipeline:
            deadline = time.monotonic() + 60
            while pipeline.stats().successful < wanted and time.monotonic() < deadline:
                time.sleep(0.05)              # what is sent may still be on its way; what is acknowledged is stored
            result = pipeline.stop()
        for database in pipeline.connections:
            database.close()
    print(f"{result.successful} trades stored")
    return 0 if result.successful == wanted else 1


if __name__ == "__main__":
    sys.exit(main())
