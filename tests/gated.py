"""A pipeline whose handler a test can hold up, to see what goes on meanwhile. What is fed into it stands with the test."""

import threading

from wsengine.testing import Collector

__all__ = ["Gated"]


class Gated(Collector):
    """Keeps its messages; while `gate` is closed, its handler waits. `entered` is set from its first call on."""

    def __init__(self, producers, **options):
        super().__init__(producers, **options)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def handle_messages(self, messages):
        self.entered.set()
        self.gate.wait(30)
        super().handle_messages(messages)
