"""What the tests of the pipeline share: a pipeline made of functions, a quiet producer, an acknowledger that keeps a book.

Only what several files need lives here; tests do not.
"""

from __future__ import annotations

import gc
import itertools
import textwrap
import threading
import time

import pytest

from tests.pipeline.book import Book
from tests.waiting import until
from wsengine import Pipeline, Producer

HOOKS = ("handle_message", "handle_messages", "prepare_messages", "handle_failed", "handle_batch")

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
    """Wait until a condition is true, as `until` does; fail after the time-out."""
    return until


@pytest.fixture
def gate():
    """An event that handlers wait for; it is set when the test ends, whatever came of it."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def uncollected():
    """No cyclic collection while an exception is thrown into another thread: it may be met in a callback of the collector,
    such as hypothesis has, and be lost there."""
    gc.disable()
    yield
    gc.enable()


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
        methods = {name: (lambda self, *given, function=function: function(*given)) for name, function in hooks.items()}
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
