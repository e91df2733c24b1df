"""Counters as listeners: an EventCounter counts what a handler in Python is called for, whoever else listens."""

from __future__ import annotations

import contextlib
import threading

import pytest

from tests.waiting import until
from wsengine import Batcher, EventCounter, Processors, Retry, telemetry
from wsengine.testing import capture

EVENTS = (telemetry.MESSAGE_START, telemetry.MESSAGE_STOP, telemetry.MESSAGE_EXCEPTION)


@pytest.fixture(autouse=True)
def detached():
    """Whatever comes of a test, none of its counters listens to the next one's."""
    yield
    for one in telemetry.list_handlers():
        if isinstance(one.function, EventCounter):
            with contextlib.suppress(telemetry.HandlerNotFound):
                telemetry.detach(one.handler_id)


def attached(events):
    """A counter attached to each event."""
    made = {event: EventCounter() for event in events}
    for event, counter in made.items():
        telemetry.attach(event, event, counter)
    return made


@pytest.fixture
def counters():
    """A counter attached to each event of a message."""
    return attached(EVENTS)


def counted(counters):
    return [counters[event].value for event in EVENTS]


def handle_message(message):
    """A handler with every end."""
    if message.data == "bad":
        raise ValueError("bad")
    if message.data == "weak":
        message.fail("weak")
    if message.data == "returned":
        return message
    if message.data == "wrong":
        return "no message"
    return None


RETRY = Retry(3, 0.001)
SPANS = (telemetry.PROCESSOR_START, telemetry.PROCESSOR_STOP, telemetry.PROCESSOR_EXCEPTION, telemetry.BATCHER_START,
         telemetry.BATCHER_STOP, telemetry.BATCH_PROCESSOR_START, telemetry.BATCH_PROCESSOR_STOP,
         telemetry.BATCH_PROCESSOR_EXCEPTION)
DATA = ["good", "bad", "weak", "returned", "good", "wrong", "bad", "good"]


@pytest.mark.parametrize("watched", [False, True])
def test_counters_count_the_same_alone_and_beside_a_handler_that_is_called(launch, book, counters, watched):
    with capture(*(EVENTS if watched else (telemetry.TOPOLOGY_INIT,))) as seen:
        pipeline = launch(handle_message)
        pipeline.push_messages(book.messages(DATA))
        book.wait(len(DATA))
    assert counted(counters) == [8, 5, 3]
    if watched:
        assert [len(seen.of(event)) for event in EVENTS] == [8, 5, 3]


@pytest.mark.parametrize("watched", [False, True])
def test_a_message_that_is_tried_again_is_counted_once_by_how_it_ended(launch, book, counters, watched):
    tries = []

    def handle(message):
        tries.append(message.data)
        if message.data == "never" or tries.count(message.data) < 3:
            raise ValueError(message.data)

    with capture(*(EVENTS if watched else (telemetry.TOPOLOGY_INIT,))):
        pipeline = launch(handle, processors=Processors(retry=RETRY))
        pipeline.push_messages(book.messages(["late", "never"]))
        book.wait(2)
    assert counted(counters) == [2, 1, 1]
    assert (tries.count("late"), tries.count("never")) == (3, 4)


@pytest.mark.parametrize("watched", [False, True])
def test_a_batcher_that_there_is_not_is_an_exception_that_is_not_tried_again(launch, book, counters, watched):
    tries = []

    def handle(message):
        tries.append(message.data)
        message.batcher = "nowhere"

    with capture(*(EVENTS if watched else (telemetry.TOPOLOGY_INIT,))):
        pipeline = launch(handle, processors=Processors(retry=RETRY), batchers={"default": Batcher()},
                          handle_batch=lambda messages, batch_info: None)
        pipeline.push_messages(book.messages(["one"]))
        book.wait(1)
    assert counted(counters) == [1, 0, 1]
    assert tries == ["one"]
    assert book.failed == ["one"]


@pytest.mark.parametrize("watched", [False, True])
def test_chunks_and_batches_are_counted_the_same(launch, book, watched):
    def handle_batch(messages, batch_info):
        if messages[0].data == "bad":
            raise ValueError("bad")

    made = attached(SPANS)
    with capture(*(SPANS if watched else (telemetry.TOPOLOGY_INIT,))) as seen:
        pipeline = launch(handle_batch=handle_batch, batchers={"default": Batcher(batch_size=1)})
        for count, data in enumerate(("good", "bad", "good"), 1):
            pipeline.push_messages(book.messages([data]))
            book.wait(count)
        pipeline.stop()
    assert [made[event].value for event in SPANS] == [3, 3, 0, 3, 3, 3, 2, 1]
    if watched:
        assert [len(seen.of(event)) for event in SPANS] == [3, 3, 0, 3, 3, 3, 2, 1]


def test_a_handler_of_chunks_that_raises_is_counted_as_an_exception(launch, book):
    def handle_messages(messages):
        raise ValueError("bad")

    made = attached(SPANS[:3])
    pipeline = launch(handle_message=None, handle_messages=handle_messages)
    pipeline.push_messages(book.messages([1]))
    book.wait(1)
    pipeline.stop()
    assert [counter.value for counter in made.values()] == [1, 0, 1]


@pytest.mark.parametrize("watched", [False, True])
def test_batches_that_a_function_sizes_or_time_completes_are_counted_the_same(launch, book, watched):
    made = attached(SPANS)
    with capture(*(SPANS if watched else (telemetry.TOPOLOGY_INIT,))) as seen:
        sized = Batcher(batch_size=(0, lambda message, count: ("emit", 0)), max_demand=10)
        pipeline = launch(lambda message: setattr(message, "batcher", message.data),
                          handle_batch=lambda messages, info: None,
                          batchers={"sized": sized, "timed": Batcher(batch_size=1000, batch_timeout=0.01)})
        for count, data in enumerate(("sized", "timed"), 1):
            pipeline.push_messages(book.messages([data]))
            book.wait(count)
        pipeline.stop()
    assert [made[event].value for event in SPANS] == [2, 2, 0, 3, 3, 2, 2, 0]  # the time-out is one of the batcher's
    if watched:
        assert [len(seen.of(event)) for event in SPANS] == [2, 2, 0, 3, 3, 2, 2, 0]


def test_a_counter_of_one_event_beside_a_function_of_another(launch, book, counters):
    telemetry.detach(telemetry.MESSAGE_STOP)
    with capture(telemetry.MESSAGE_STOP) as seen:
        pipeline = launch(handle_message)
        pipeline.push_messages(book.messages(DATA))
        book.wait(len(DATA))
        pipeline.stop()
    assert counted(counters) == [8, 0, 3]
    assert len(seen.of(telemetry.MESSAGE_STOP)) == 5


def test_a_handler_attached_later_sees_the_next_chunk_and_counters_go_on(launch, book, counters):
    pipeline = launch()
    pipeline.push_messages(book.messages(["first"]))
    until(lambda: counted(counters) == [1, 1, 0])
    with capture(telemetry.MESSAGE_STOP) as seen:
        pipeline.push_messages(book.messages(["second"]))
        [stop] = seen.wait(telemetry.MESSAGE_STOP)
        assert stop.metadata["message"].data == "second"
    pipeline.push_messages(book.messages(["third"]))
    until(lambda: counted(counters) == [3, 3, 0])


def test_counters_of_eight_processors_lose_nothing(launch, book, counters):
    pipeline = launch(lambda message: None, processors=Processors(concurrency=8))
    for _ in range(50):
        pipeline.push_messages(book.messages(range(200)))
    book.wait(10_000, 30)
    assert counted(counters) == [10_000, 10_000, 0]


def test_a_counter_is_called_as_any_handler_and_counts_across_threads_and_resets():
    counter = EventCounter()
    told = []

    def execute():
        for number in range(5000):
            telemetry.execute(("tests", "counted"))
            if number % 100 == 0:
                told.append(counter.reset())

    telemetry.attach("counter", ("tests", "counted"), counter)
    try:
        threads = [threading.Thread(target=execute) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    finally:
        telemetry.detach("counter")
    assert sum(told) + counter.value == 20_000
    assert repr(counter) == f"<EventCounter {counter.value}>"
    counter.reset()
    assert (counter.value, counter.reset()) == (0, 0)


def test_functions_are_those_that_would_be_called_in_that_order():
    event = ("tests", "functions")
    assert telemetry.functions(event) == ((),)
    first, second = EventCounter(), EventCounter()
    telemetry.attach("first", event, first)
    telemetry.attach("second", event, second)
    assert telemetry.functions(event, ("tests", "others")) == ((first, second), ())
    telemetry.detach("first")
    telemetry.detach("second")
    assert telemetry.functions(event) == ((),)
