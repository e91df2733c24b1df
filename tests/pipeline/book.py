"""An acknowledger that keeps a book: what was acknowledged, as what, and whether each message was once."""

import threading
from collections import Counter

from wsengine import Message

__all__ = ["Book"]


class Book:
    """An acknowledger that keeps every call; thread-safe. `calls` are (ref, data of the successful, data of the failed)."""

    def __init__(self):
        self.calls = []
        self.reasons = {}
        self.configured = []
        self.changed = threading.Condition()

    def ack(self, ack_ref, successful, failed):
        with self.changed:
            self.calls.append((ack_ref, [m.data for m in successful], [m.data for m in failed]))
            self.reasons.update({m.data: m.status for m in failed})
            self.changed.notify_all()

    def configure(self, ack_ref, ack_data, options):
        self.configured.append((ack_ref, ack_data, options))
        return {**(ack_data or {}), **options}

    def message(self, data, ref="ref"):
        return Message(data, acknowledger=(self, ref, None))

    def messages(self, datas, ref="ref"):
        return [self.message(data, ref) for data in datas]

    @property
    def ok(self):
        return [data for _, good, _ in list(self.calls) for data in good]

    @property
    def failed(self):
        return [data for _, _, bad in list(self.calls) for data in bad]

    @property
    def total(self):
        return len(self.ok) + len(self.failed)

    def wait(self, count, timeout=5.0):
        with self.changed:
            assert self.changed.wait_for(lambda: self.total >= count, timeout), f"{self.total} of {count} acknowledged"
        return self

    def assert_each_once(self, datas):
        """Exactly these were acknowledged, each once."""
        seen = Counter(self.ok + self.failed)
        assert seen == Counter(datas), {data: n for data, n in seen.items() if n != 1} or "not the messages expected"
