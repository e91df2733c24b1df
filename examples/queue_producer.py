"""A producer of your own, with acknowledgements: a `queue.Queue` that any part of a program puts work into.

The pipeline takes from the queue only what its processors ask for, so the queue's own bound is what slows the program down.
Each item is `task_done` when it has been acknowledged, whatever came of it, so `queue.join()` waits for the pipeline.

    python examples/queue_producer.py
"""

import queue
import threading
import time

from wsengine import Message, Pipeline, Processors, Producer

END = object()  # put it to end the pipeline


class QueueProducer(Producer):
    """Brings the items of a queue, as they are, into a pipeline."""

    def __init__(self, items):
        self.items = items

    def run(self, inbox):
        while inbox.wait_demand():            # 0 when the pipeline stops
            try:
                item = self.items.get(timeout=0.1)
            except queue.Empty:
                continue
            if item is END:
                self.items.task_done()
                return                        # nothing more will come: the pipeline handles what it has, and stops
            inbox.push(Message(item, acknowledger=(self, "items", None)))

    def ack(self, ack_ref, successful, failed):
        for _ in successful + failed:
            self.items.task_done()


class Squares(Pipeline):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.lock = threading.Lock()
        self.total = 0
        self.refused = []

    def handle_message(self, message):
        if message.data < 0:
            raise ValueError(f"no square is wanted of {message.data}")
        time.sleep(0.001)                     # as if it took a while
        with self.lock:
            self.total += message.data ** 2

    def handle_failed(self, messages):
        with self.lock:
            self.refused += [message.data for message in messages]


def main():
    items = queue.Queue(maxsize=100)
    pipeline = Squares(QueueProducer(items), processors=Processors(concurrency=4, max_demand=10), name="squares")
    with pipeline:
        for number in range(1000):
            items.put(number)
        items.put(-1)
        items.join()                          # every item has been acknowledged
        items.put(END)
        result = pipeline.join()
    print(f"{result.successful} squares add up to {pipeline.total}; refused: {pipeline.refused}")


if __name__ == "__main__":
    main()
