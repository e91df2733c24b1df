"""What the tests of the pipeline share: a pipeline made of functions, a quiet producer, an acknowledger that keeps a book.

Only what several files need lives here; tests do not.
"""

from __future__ import annotations

import itertools
import textwrap
import threading
import time
from collections import Counter

import pytest

from wsengine import Message, Pipeline, Producer

HOOKS = ("handle_message", "handle_messages", "prepare_messages", "handle_failed")

_numbers = itertools.count()


class Quiet(Producer):
    """Brings nothing, and ends when the pipeline does."""

    def __init__(self):
        self._over = threading.Event()

    def attach(self, host):
        self._over.clear()
        super().attach(host)

    def run(self, inbox):
        self._over.wait()

    def drain(self):
        super().drain()
        self._over.set()


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


@pytest.fixture
def quiet():
    """The class of the producer that brings nothing."""
    return Quiet


@pytest.fixture
def book():
    return Book()


@pytest.fixture
def new_book():
    """The class, for tests that need several."""
    return Book


@pytest.fixture
def eventually():
    """Wait until a condition is true; fail after the time-out."""

    def wait(condition, timeout=5.0):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "the condition did not become true in time"
            time.sleep(0.002)

    return wait


@pytest.fixture
def gate():
    """An event that handlers wait for; it is set when the test ends, whatever came of it."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def build():
    """Make a pipeline of functions that take what the methods take after self; what still runs is stopped at the end."""
    made = []

    def make(handle_message=None, *, producers=None, **options):
        hooks = {name: options.pop(name) for name in HOOKS if name in options}
        if handle_message is not None:
            hooks["handle_message"] = handle_message
        elif "handle_messages" not in hooks:
            hooks["handle_message"] = lambda message: message
        methods = {name: (lambda self, given, function=function: function(given)) for name, function in hooks.items()}
        options.setdefault("name", f"test-{next(_numbers)}")
        options.setdefault("shutdown_timeout", 5.0)
        pipeline = type("Made", (Pipeline,), methods)(Quiet() if producers is None else producers, **options)
        made.append(pipeline)
        return pipeline

    yield make
    for pipeline in made:
        if pipeline.state in ("running", "stopping"):
            pipeline.stop(0)
    names = tuple(f"wsengine:{pipeline.name}:" for pipeline in made)
    deadline = time.monotonic() + 3
    while left := [one.name for one in threading.enumerate() if one.name.startswith(names)]:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.005)


@pytest.fixture
def launch(build):
    """The same, started."""

    def make(*args, **options):
        return build(*args, **options).start()

    return make


#: What the scripts begin with, behind what all begin with.
PREAMBLE = r"""
from wsengine import Message, Pipeline, Processors, Producer

class Quiet(Producer):
    def __init__(self):
        self.over = threading.Event()
    def run(self, inbox):
        self.over.wait()
    def drain(self):
        super().drain()
        self.over.set()

"""


@pytest.fixture
def child(child):
    """Start a script in a process of its own, with a quiet producer at hand."""
    return lambda script: child(PREAMBLE + textwrap.dedent(script))
