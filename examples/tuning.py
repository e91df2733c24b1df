"""Three handlers as programs have them, to see what `wsengine tune` makes of each; docs/tuning.md shows what it made.

    wsengine tune examples.tuning:Averages                # parses, and computes in Python
    python examples/tuning.py serve 8099                  # the service that the next one asks, in another terminal
    wsengine tune examples.tuning:Enriches                # waits for an answer to each message
    wsengine tune examples.tuning:Signs --size 65536      # computes in C that lets go of the GIL

Run by itself it has each of them handle 200 messages, and says what they came to:

    python examples/tuning.py
"""

import hashlib
import hmac
import http.client
import http.server
import json
import subprocess
import sys
import threading
import time
from collections import defaultdict, deque

from wsengine import Pipeline, WebSocketProducer
from wsengine.testing import Feed

PORT = 8099
MESSAGES = 200


class Averages(Pipeline):
    """Keeps the mean of the last 50 prices of each symbol."""

    def __init__(self, producer, **options):
        super().__init__(producer, **options)
        self.lock = threading.Lock()
        self.prices = defaultdict(lambda: deque(maxlen=50))
        self.means = {}

    def handle_message(self, message):
        trade = json.loads(message.data)
        with self.lock:
            prices = self.prices[trade["sym"]]
            prices.append(float(trade["px"]))
            self.means[trade["sym"]] = sum(prices) / len(prices)


class Enriches(Pipeline):
    """Asks a service about each message, over connections that are used again."""

    def __init__(self, producer, port=PORT, **options):
        super().__init__(producer, **options)
        self.port = port
        self.idle = []

    def handle_message(self, message):
        try:
            connection = self.idle.pop()
        except IndexError:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/")
        if connection.getresponse().read() != b"known":
            message.fail("the service does not know it")
        self.idle.append(connection)


class Signs(Pipeline):
    """Signs each message. For more than 2 KiB, hashlib lets go of the GIL meanwhile."""

    def handle_message(self, message):
        message.data = hmac.digest(b"a secret", message.data, hashlib.sha256)


class Answer(http.server.BaseHTTPRequestHandler):
    """Takes 2 ms to answer."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(0.002)
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nknown")


def serve(port):
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Answer) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


def handle_some(pipeline, feed):
    with feed, pipeline(feed) as running:
        while running.stats().successful + running.stats().failed < MESSAGES:
            time.sleep(0.01)
        print(f"{running.name}: {running.stats().successful} messages, {running.stats().failed} failed")
    return running


def main():
    command = [sys.executable, __file__, "serve", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        port = int(service.stdout.readline())
        handle_some(lambda feed: Averages(WebSocketProducer(feed.url)), Feed.trades(count=MESSAGES))
        asked = handle_some(lambda feed: Enriches(WebSocketProducer(feed.url), port), Feed.trades(count=MESSAGES))
        for connection in asked.idle:
            connection.close()
        handle_some(lambda feed: Signs(WebSocketProducer(feed.url)), Feed.trades(size=65536, count=MESSAGES))
        service.terminate()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
    else:
        main()
