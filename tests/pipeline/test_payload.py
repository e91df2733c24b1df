"""The bytes object of a payload is written again only where nobody can see it (wsengine/pipeline/payload.hpp).

The processor is fed through a real ring here, as only what comes through a ring is copied into bytes objects.
"""

from __future__ import annotations

import random
import sys
import threading
from types import SimpleNamespace

import pytest

from wsengine import telemetry
from wsengine.engine.ring import Account, Parker, Ring
from wsengine.pipeline.crew import Crew
from wsengine.pipeline.processor import Processor


def handle_all(payloads, handler, max_demand=20):
    """Have one processor handle the payloads; `handler` is given each message and the number of its payload."""
    parker, account = Parker(), Account(4096, 2**24)
    ring = Ring(4096, account, parker)
    numbers = iter(range(len(payloads)))
    done = threading.Event()
    errors = []

    def handle_message(message):
        number = next(numbers)
        try:
            handler(message, number)
        except BaseException as error:
            errors.append(error)
        if number == len(payloads) - 1:
            done.set()

    callbacks = SimpleNamespace(handle_message=handle_message, handle_messages=None, prepare_messages=None,
                                handle_failed=None, handle_batch=None)
    crew = Crew(callbacks, "payloads", parker, account, concurrency=1, min_demand=0, max_demand=max_demand, spin=0.0,
                log_failure=lambda what, error: errors.append(error))
    crew.add_ring(ring, None)
    thread = threading.Thread(target=Processor(crew, 0).run)
    thread.start()
    for first in range(0, len(payloads), 500):
        batch = payloads[first:first + 500]
        assert ring.push(batch) == len(batch)
    assert done.wait(30), errors
    crew.end()
    thread.join(10)
    assert errors == []
    assert (account.messages, account.bytes) == (0, 0)


def test_whatever_a_handler_keeps_of_a_payload_stays_as_it_was(seed):
    chance = random.Random(seed)
    payloads = [chance.randbytes(chance.choice([0, 1, 2, 3, 15, 16, 17, 100, 128, 130, 140, 511, 512, 513, 900]))
                for _ in range(3000)]
    kept, views, keys, messages, results = {}, {}, {}, {}, {}

    def handler(message, number):
        data = message.data
        assert data == payloads[number]
        assert type(data) is bytes
        assert len(data) == len(payloads[number])
        assert hash(data) == hash(bytes(bytearray(payloads[number])))
        way = chance.randrange(12)
        if way == 0:
            kept[number] = data
        elif way == 1:
            views[number] = memoryview(data)
        elif way == 2:
            keys[data] = number
        elif way == 3:
            messages[number] = message
        elif way == 4:
            results[number] = message.data = data.upper()
        elif way == 5:
            del data
            message.data = None                  # the payload is freed; what comes next may stand in its place
            message.data = chance.randbytes(chance.randrange(2, 20))
        elif way == 6:
            message.data = bytearray(data)

    handle_all(payloads, handler)
    assert all([kept, views, keys, messages, results])
    assert all(data == payloads[number] for number, data in kept.items())
    assert all(bytes(view) == payloads[number] for number, view in views.items())
    assert all(payloads[number] == data and keys[payloads[number]] == number for data, number in keys.items())
    assert all(message.data == payloads[number] for number, message in messages.items())
    assert all(data == payloads[number].upper() for number, data in results.items())


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(),
                    reason="without the GIL every payload has an object of its own, and no other case is left to show")
def test_small_payloads_that_nobody_keeps_share_their_objects():
    seen = set()
    handle_all([bytes(100)] * 400, lambda message, number: seen.add(id(message.data)), max_demand=10)
    assert len(seen) <= 10, "a chunk of ten needs ten objects"


def test_a_small_payload_does_not_take_the_room_of_a_much_larger_one():
    seen = {400: set(), 20: set()}
    handle_all([bytes(400), bytes(20)] * 40, lambda message, number: seen[len(message.data)].add(id(message.data)),
               max_demand=1)
    assert seen[400].isdisjoint(seen[20]), "kept by a handler, the small one would hold the memory of the large one"


def test_a_message_that_is_initialised_again_is_not_written_into():
    kept = []

    def handler(message, number):
        kept.append(b"%d" % number)
        message.__init__(kept[-1] if number % 2 else [number])

    handle_all([bytes(100)] * 200, handler)
    assert kept == [b"%d" % number for number in range(200)]


def test_processors_share_nothing(seed):
    """Several at once, each keeping what it likes; under a sanitizer or a free-threaded build this is where it shows."""
    chance = random.Random(seed)
    runs = [threading.Thread(target=handle_all, args=([chance.randbytes(64) for _ in range(1000)], lambda *_: None))
            for _ in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(30)
        assert not run.is_alive()


def test_what_telemetry_has_been_shown_and_keeps_stays_as_it_was():
    """A handler that keeps nothing has the messages used again; one that keeps some has these left alone."""
    calls = dict.fromkeys((telemetry.PROCESSOR_START, telemetry.PROCESSOR_STOP, telemetry.MESSAGE_START,
                           telemetry.MESSAGE_STOP), 0)
    kept = {event: [] for event in calls}
    lists = {telemetry.PROCESSOR_START: "messages", telemetry.PROCESSOR_STOP: "successful_messages_to_ack"}

    def keep_some(event, measurements, metadata, config):
        calls[event] += 1
        if calls[event] % 7 == 0:
            messages = metadata[lists[event]] if event in lists else [metadata["message"]]
            kept[event].append((messages, [message.data.decode() for message in messages]))

    telemetry.attach_many("keeper", tuple(calls), keep_some)
    try:
        handle_all([b"payload %d" % number for number in range(4000)], lambda message, number: None)
    finally:
        telemetry.detach("keeper")
    for event, pairs in kept.items():
        assert pairs, event
        assert all([message.data.decode() for message in messages] == texts for messages, texts in pairs), event
