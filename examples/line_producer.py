"""A producer of your own: lines of a file, or of standard input, into a pipeline.

`inbox.push` blocks while the pipeline is full, so a file of any size needs no more memory than the pipeline's bound.
When the lines are at an end, the pipeline handles what it has and stops; so it does on SIGINT and SIGTERM, also while
standard input is silent, because nothing here waits for it longer than a moment.

    python examples/line_producer.py < some.log
    python examples/line_producer.py some.log
"""

import os
import select
import sys
import threading

from wsengine import Message, Pipeline, Processors, Producer


class Lines(Producer):
    def __init__(self, file):
        self.file = file

    def run(self, inbox):
        for number, line in enumerate(self.lines(inbox), 1):
            inbox.push(Message(line, metadata={"line": number}))

    def lines(self, inbox):
        rest = b""
        while not inbox.closed:  # the pipeline stops: a read that blocked would not let it
            if not select.select([self.file], [], [], 0.1)[0]:
                continue  # nothing yet
            data = os.read(self.file.fileno(), 65536)
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
            if not data:  # the end, perhaps without a line feed
                yield from [rest] if rest else []
                return


class WordCount(Pipeline):
    def __init__(self, producer, **options):
        super().__init__(producer, **options)
        self.lock = threading.Lock()
        self.words = 0
        self.bad_lines = []

    def handle_message(self, message):
        if b"\0" in message.data:
            raise ValueError("this is not text")  # fails this message, and nothing else
        with self.lock:
            self.words += len(message.data.decode().split())

    def handle_failed(self, messages):
        with self.lock:
            self.bad_lines += [message.metadata["line"] for message in messages]
        return messages


def main():
    with open(sys.argv[1]) if len(sys.argv) > 1 else sys.stdin as file:
        pipeline = WordCount(Lines(file), processors=Processors(concurrency=2), max_queue=1024)
        result = pipeline.run()
    print(f"{result.successful} lines, {pipeline.words} words")
    if pipeline.bad_lines:
        print(f"not text: line {', '.join(map(str, sorted(pipeline.bad_lines)))}")
    return 0 if result.error is None else 1


if __name__ == "__main__":
    sys.exit(main())
