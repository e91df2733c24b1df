"""P5: `partition_by`: messages of one key go to one processor, in order, whatever comes between (reference B-6, B-21)."""

from __future__ import annotations

import ctypes
import itertools
import json
import random
import threading
import time
from collections import Counter, defaultdict

import pytest

from tests.waiting import until
from wsengine import (
    Backoff,
    Batcher,
    ByteSlice,
    ConfigurationError,
    Emit,
    JSONField,
    Message,
    Processors,
    Producer,
    QueueOverflow,
    RateLimiting,
    WebSocketProducer,
    telemetry,
)
from wsengine.testing import Feed, capture

COUNT = 20_000
#: Where a trade of the feed has its symbol.
WAYS = {
    "compiled": JSONField("sym"),
    "str": lambda message: json.loads(message.data)["sym"],
    "bytes": lambda message: json.loads(message.data)["sym"].encode(),
    "int": lambda message: sum(json.loads(message.data)["sym"].encode()),
}


class Log:
    """A handler that keeps which key came in which order to which thread."""

    def __init__(self):
        self.lock = threading.Lock()
        self.order = defaultdict(list)
        self.threads = defaultdict(set)

    def handle_message(self, message):
        trade = json.loads(message.data)
        with self.lock:
            self.order[trade["sym"]].append(trade["seq"])
            self.threads[trade["sym"]].add(threading.current_thread().name.rpartition(":")[2])

    @property
    def total(self):
        with self.lock:
            return sum(map(len, self.order.values()))

    def assert_in_order(self, count):
        assert sorted(itertools.chain(*self.order.values())) == list(range(count))
        for key, numbers in self.order.items():
            assert numbers == sorted(numbers), key


@pytest.fixture
def log():
    return Log()


def first_letter(message):
    return message.data[0]


# --------------------------------------------------------------------------------------------------------- keys and order


@pytest.mark.parametrize("way", WAYS)
def test_p5_messages_of_a_key_go_to_one_processor_in_the_order_of_the_wire(launch, log, way):
    with Feed.trades(count=COUNT) as feed:
        pipeline = launch(log.handle_message, producers=WebSocketProducer(feed.url), processors=Processors(concurrency=4),
                          partition_by=WAYS[way])
        until(lambda: pipeline.stats().successful == COUNT, 60)
        pipeline.stop()
    log.assert_in_order(COUNT)
    assert len(log.threads) == 8
    assert all(len(names) == 1 for names in log.threads.values())
    assert len(set().union(*log.threads.values())) > 1, "and not all to the same"


def test_a_slice_of_the_payload_may_be_the_key(launch, book):
    seen = defaultdict(list)
    pipeline = launch(lambda message: seen[threading.current_thread().name].append(message.data),
                      processors=Processors(concurrency=3), partition_by=ByteSlice(0, 1))
    datas = [f"{random.choice('abcdef')}{number}".encode() for number in range(500)]
    pipeline.push_messages(book.messages(datas))
    book.wait(500)
    for key in b"abcdef":
        assert [name for name in seen if any(data[0] == key for data in seen[name])] == [
            name for name in seen if [data for data in seen[name] if data[0] == key] == [d for d in datas if d[0] == key]]
    book.assert_each_once(datas)


@pytest.mark.parametrize("key", [0, 7, 2**70, "key", b"key"])
def test_each_kind_of_key_is_taken(launch, book, key):
    names = set()
    pipeline = launch(lambda message: names.add(threading.current_thread().name), processors=Processors(concurrency=5),
                      partition_by=lambda message: key)
    pipeline.push_messages(book.messages(range(50)))
    book.wait(50)
    assert len(names) == 1
    if isinstance(key, int):
        assert names.pop().endswith(f":processor_{key % 5}"), "a number stands for itself"


def test_several_sources_share_the_partitions(launch, log):
    """A feed, another one, and messages by hand: each keeps its own order."""
    with Feed.trades(count=3000) as one, Feed.trades(count=3000) as other:
        seen = defaultdict(list)

        def handle_message(message):
            trade = json.loads(message.data)
            seen[trade["sym"], message.epoch and message.connection.url].append(trade["seq"])
            log.handle_message(message)

        pipeline = launch(handle_message, producers=[WebSocketProducer(one.url), WebSocketProducer(other.url)],
                          processors=Processors(concurrency=4), partition_by=JSONField("sym"))
        pipeline.push_messages(Message(json.dumps({"sym": "BTC", "seq": number}).encode()) for number in range(1000))
        until(lambda: pipeline.stats().successful == 7000, 60)
    assert sum(map(len, seen.values())) == 7000
    assert all(numbers == sorted(numbers) for numbers in seen.values())
    assert all(len(names) == 1 for names in log.threads.values())


def test_a_processors_own_partition_by_wins(launch, book):
    names = set()
    pipeline = launch(lambda message: names.add(threading.current_thread().name), partition_by=lambda message: 1,
                      processors=Processors(concurrency=3, partition_by=lambda message: 2))
    pipeline.push_messages(book.messages(range(20)))
    book.wait(20)
    assert [name.rpartition("_")[2] for name in names] == ["2"]


@pytest.mark.parametrize("by", [JSONField("sym"), lambda message: message.data["sym"]], ids=["compiled", "callable"])
def test_a_callable_sees_what_the_transformer_made_and_an_extractor_what_was_received(launch, by):
    def transform(data, metadata):
        assert threading.current_thread().name.rpartition(":")[2].partition("_")[0] == (
            "processor" if isinstance(by, JSONField) else "partitioner")
        return Message(json.loads(data), metadata=metadata)

    seen = defaultdict(list)
    with Feed.trades(count=2000) as feed:
        pipeline = launch(lambda message: seen[message.data["sym"]].append(message.data["seq"]),
                          producers=WebSocketProducer(feed.url, transformer=transform), processors=Processors(concurrency=4),
                          partition_by=by)
        until(lambda: pipeline.stats().successful == 2000, 60)
        assert pipeline.stats().failed == 0
    assert all(numbers == sorted(numbers) for numbers in seen.values())


def test_what_a_frame_handler_emits_is_partitioned(launch, log):
    def frame_handler(payload, state):
        return Emit([payload], state)

    with Feed.trades(count=3000) as feed:
        pipeline = launch(log.handle_message, producers=WebSocketProducer(feed.url, frame_handler=frame_handler),
                          processors=Processors(concurrency=4), partition_by=JSONField("sym"))
        until(lambda: pipeline.stats().successful == 3000, 60)
    log.assert_in_order(3000)
    assert all(len(names) == 1 for names in log.threads.values())


# ---------------------------------------------------------------------------------------------------- messages without a key


@pytest.mark.parametrize("answer", [None, -1, True, 1.5, [], KeyError("no key"), SystemExit()], ids=repr)
def test_b6_a_message_whose_partition_cannot_be_told_fails_alone(launch, book, caplog, answer):
    """B-6: it does not end the producer, and loses nothing."""
    def partition_by(message):
        if message.data != 3:
            return 1
        if isinstance(answer, BaseException):
            raise answer
        return answer

    failed = []
    pipeline = launch(processors=Processors(concurrency=2), partition_by=partition_by,
                      handle_failed=lambda messages: failed.extend(messages))
    pipeline.push_messages(book.messages(range(10)))
    book.wait(10)
    assert (sorted(book.ok), book.failed) == ([0, 1, 2, 4, 5, 6, 7, 8, 9], [3])
    assert [message.data for message in failed] == [3]
    assert "partition_by" in caplog.text
    assert pipeline.stats().failed == 1


@pytest.mark.parametrize("rest", ["not JSON", '{"symbol": "other"}', '{"sym": null}', '{"sym": {}}'])
def test_b6_a_payload_without_the_field_fails_alone(launch, book, rest):
    """B-6, as a compiled extractor has it."""
    texts = ['{"sym": "a", "seq": 1}', rest, '{"sym": "b", "seq": 2}']
    failed, done = [], []
    with Feed.payloads([(1, text.encode()) for text in texts]) as feed:
        pipeline = launch(lambda message: done.append(message.text), producers=WebSocketProducer(feed.url),
                          processors=Processors(concurrency=2), partition_by=JSONField("sym"),
                          handle_failed=lambda messages: failed.extend((m.text, m.status.reason, m.seq) for m in messages))
        until(lambda: pipeline.stats().successful + pipeline.stats().failed == 3)
        assert (pipeline.stats().successful, pipeline.stats().failed) == (2, 1)
    assert sorted(done) == sorted([texts[0], texts[2]])
    assert failed == [(rest, "partition_by found no key in the payload", 1)]


def test_whoever_pushes_faster_than_keys_are_found_holds_up_nobody_else(launch, book, new_book):
    """Another producer, a test's message, a resize: each has its turn."""
    other, over = new_book(), threading.Event()

    class Flood(Producer):
        def run(self, inbox):
            while not over.is_set():
                inbox.push(book.messages(range(50)))

    class Few(Producer):
        def run(self, inbox):
            inbox.push(other.messages(range(10)))
            over.wait(60)

    def partition_by(message):
        time.sleep(0.0002)
        return message.data

    pipeline = launch(producers=[Flood(), Few()], processors=Processors(concurrency=2), partition_by=partition_by,
                      max_queue=256)
    try:
        other.wait(10, 20)
        assert pipeline.test_message(1).wait(20) is not None
        pipeline.resize(3)
        until(lambda: len(pipeline.stats().partitions) == 3)
    finally:
        over.set()


# -------------------------------------------------------------------------------------------------------------- a slow one


def held_key(key, gate, counts, lock=None):
    """A handler that waits with the messages of one key."""
    lock = threading.Lock() if lock is None else lock

    def handle_message(message):
        mine = json.loads(message.data)["sym"]
        if mine == key:
            gate.wait(60)
        with lock:
            counts[mine] += 1

    return handle_message


def trade(sym, seq):
    return (1, json.dumps({"sym": sym, "seq": seq}).encode())


def alone(partitions, others=()):
    """A key whose partition is that of no other one."""
    field = JSONField("sym")
    taken = {field.key(trade(other, 0)[1]) % partitions for other in others}
    return next(name for name in map("slow{}".format, itertools.count())
                if field.key(trade(name, 0)[1]) % partitions not in taken)


@pytest.mark.parametrize("way", ["compiled", "str"])
def test_b21_the_others_go_on_until_a_slow_partition_reaches_its_own_bound(launch, gate, way):
    """B-21: and then the event says so, and to wait means that all wait."""
    counts, others = Counter(), ["k0", "k1", "k2"]
    slow = alone(4, others)
    payloads = [trade(slow if number % 10 == 0 else others[number % 3], number) for number in range(40_000)]
    full = JSONField("sym").key(payloads[0][1]) % 4
    with Feed.payloads(payloads) as feed, capture(telemetry.PARTITION_HIGH, telemetry.PARTITION_LOW) as seen:
        pipeline = launch(held_key(slow, gate, counts), producers=WebSocketProducer(feed.url), partition_by=WAYS[way],
                          processors=Processors(concurrency=4, max_demand=10), max_queue=8192)

        def told(event):
            return [one for one in seen.of(event) if one.metadata["partition"] == full]

        until(lambda: told(telemetry.PARTITION_HIGH))
        until(lambda: counts.total() == 2048 * 9)   # those ahead of the message that found no room
        one = pipeline.stats().partitions[full]
        assert (one.index, one.messages, one.max_messages, one.stalls) == (full, 2048, 2048, 1)
        [high] = told(telemetry.PARTITION_HIGH)
        assert high.metadata == {"topology_name": pipeline.name, "partition": full, "overflow": "block"}
        assert (high.measurements["messages"], high.measurements["max_messages"]) == (2048, 2048)
        assert told(telemetry.PARTITION_LOW) == []
        gate.set()
        until(lambda: told(telemetry.PARTITION_LOW))
        until(lambda: pipeline.stats().successful == 40_000, 60)
        assert pipeline.stop().drained
    assert (counts[slow], counts.total()) == (4000, 40_000)


@pytest.mark.parametrize("way", ["compiled", "str"])
@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_b21_the_policy_decides_what_a_full_partition_loses_and_the_others_lose_nothing(launch, gate, way, overflow):
    """B-21: counted exactly, and told. The feed leaves time for the others, which a busy machine may need."""
    count, counts, handled = 24_000, Counter(), []
    slow = alone(2, ["fast"])
    payloads = [trade(("fast", slow)[number % 2], number) for number in range(count)]

    def handle_message(message):
        mine = json.loads(message.data)
        if mine["sym"] == slow:
            gate.wait(60)
            handled.append(mine["seq"])
        counts[mine["sym"]] += 1

    def settled():
        dropped = sum(one.dropped for one in pipeline.stats().partitions)
        return dropped and counts.total() + dropped == count and pipeline.stats().held_messages == 0

    with Feed.payloads(payloads, rate=8000) as feed, capture(telemetry.PARTITION_DROP) as seen:
        pipeline = launch(handle_message, producers=WebSocketProducer(feed.url), partition_by=WAYS[way],
                          processors=Processors(concurrency=2, max_demand=1), max_queue=16384, overflow=overflow)
        until(lambda: counts["fast"] == count // 2, 60)
        gate.set()
        until(settled, 60)
        [full] = [one for one in pipeline.stats().partitions if one.dropped]
        stats, result = pipeline.stats(), pipeline.stop()
    assert sum(one.measurements["count"] for one in seen.events) == full.dropped
    assert {one.metadata["overflow"] for one in seen.events} == {overflow}
    assert handled == sorted(handled)
    assert len(handled) == count // 2 - full.dropped >= 8192 - 64, "dropped some at a time"
    assert (handled[-1] == count - 1) if overflow == "drop_oldest" else handled[:8192] == list(range(1, 2 * 8192, 2))
    refused = 0 if way == "compiled" else full.dropped   # what is an object has an acknowledger, and fails
    assert (stats.successful, stats.failed) == (count - full.dropped, refused)
    assert (result.successful, result.failed, result.left) == (count - full.dropped, refused, 0)


@pytest.mark.parametrize("way", ["compiled", "int"])
def test_b21_error_fails_the_connection_that_brought_the_message(launch, gate, way):
    """B-21."""
    counts, event = Counter(), telemetry.connection_event("feed", "failure")
    payloads = [trade("slow", number) for number in range(5000)]
    with Feed.payloads(payloads) as feed, capture(event, telemetry.PARTITION_DROP) as seen:
        pipeline = launch(held_key("slow", gate, counts), partition_by=WAYS[way], processors=Processors(concurrency=2),
                          producers=WebSocketProducer(feed.url, telemetry_id="feed", retry=Backoff(30)), max_queue=256,
                          overflow="error")
        [failure] = seen.wait(event, timeout=20)
        assert isinstance(failure.metadata["reason"], QueueOverflow)
        gate.set()
        until(lambda: pipeline.stats().held_messages == 0)
        dropped = sum(one.dropped for one in pipeline.stats().partitions)
        assert dropped > 0
        pipeline.stop()
    assert sum(one.measurements["count"] for one in seen.of(telemetry.PARTITION_DROP)) == dropped


@pytest.mark.parametrize("overflow", ["block", "drop_oldest"])
def test_whoever_pushes_waits_for_a_full_pipeline_whatever_the_policy(launch, book, gate, overflow):
    """Nobody else could tell the pusher; what is in the pipeline fails if its partition must make room."""
    pipeline = launch(lambda message: gate.wait(60) and None, processors=Processors(concurrency=2, max_demand=1),
                      max_queue=64, partition_by=lambda message: 0, overflow=overflow)
    accepted = pipeline.push_messages(book.messages(range(200)), timeout=0.5)
    until(lambda: pipeline.stats().partitions[0].stalls > 0)
    gate.set()
    accepted += pipeline.push_messages(book.messages(range(accepted, 200)), timeout=20)
    assert accepted == 200
    book.wait(200)
    book.assert_each_once(range(200))
    if overflow == "block":
        assert book.failed == []
    else:
        assert {status.reason for status in book.reasons.values()} == {"partition 0 was full"}
        assert len(book.failed) == pipeline.stats().failed == pipeline.stats().partitions[0].dropped


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "error"])
def test_b21_handle_failed_sees_what_a_full_partition_refused(launch, book, gate, overflow):
    """It may replace it, and what it raises harms nobody."""
    seen = []

    def handle_failed(messages):
        [message] = messages
        seen.append((message.data, message.status.reason, threading.current_thread().name.rpartition(":")[2]))
        if message.data == 150:
            raise LookupError("isolated")
        return [Message(-message.data, acknowledger=message.acknowledger)]

    pipeline = launch(lambda message: gate.wait(60) and None, processors=Processors(concurrency=2, max_demand=1),
                      max_queue=8, partition_by=lambda message: 0, overflow=overflow, handle_failed=handle_failed)
    pipeline.push_messages(book.messages(range(1, 201)))
    until(lambda: pipeline.stats().failed == 196 and pipeline.stats().held_messages == 4)
    gate.set()
    result = pipeline.stop()
    assert (result.successful, result.failed, result.drained) == (4, 196, True)
    assert {(reason, thread) for _, reason, thread in seen} == {("partition 0 was full", "partitioner")}
    assert sorted(book.failed) == sorted(data if data == 150 else -data for data, _, _ in seen)
    assert len(book.ok) == 4
    assert Counter(map(abs, book.ok + book.failed)) == Counter(range(1, 201))


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_p17_a_refused_message_is_left_at_the_deadline_where_handle_failed_does_not_return(launch, book, gate, overflow):
    begun = threading.Event()

    def handle_failed(messages):
        begun.set()
        gate.wait(60)

    pipeline = launch(processors=Processors(concurrency=2, max_demand=1), max_queue=8, partition_by=lambda message: 0,
                      overflow=overflow, handle_failed=handle_failed)
    pipeline.pause()
    accepted = pipeline.push_messages(book.messages(range(20)), timeout=0.3)
    assert begun.wait(20)
    result = pipeline.stop(0.3)
    assert not result.drained
    assert result.successful + result.failed == accepted
    assert result.left >= 1
    book.assert_each_once(range(accepted))
    assert pipeline.stats().held_messages == 0
    gate.set()
    until(lambda: not any(one.name == f"wsengine:{pipeline.name}:partitioner" for one in threading.enumerate()))
    book.assert_each_once(range(accepted))
    assert pipeline.stats().failed == result.failed, "counted once"


# ------------------------------------------------------------------------------------------------------------------ resize


@pytest.mark.parametrize("way", ["compiled", "str"])
@pytest.mark.parametrize("batching", [False, True], ids=["alone", "with a batcher"])
def test_p35_resize_drains_and_maps_anew_and_each_key_keeps_its_order(launch, way, batching):
    """P35, B-16: also through the batchers, which inherit the partition."""
    order, lock = defaultdict(list), threading.Lock()

    def take(messages):
        with lock:
            for message in messages:
                found = json.loads(message.data)
                order[found["sym"]].append(found["seq"])

    def handle_batch(messages, info):
        assert info.partition in range(3)
        take(messages)

    def handle_message(message):
        if batching:
            message.batch_key = json.loads(message.data)["seq"] % 2     # the order holds within each
        else:
            take([message])

    options = {"batchers": {"default": Batcher(3, 20, 0.01)}, "handle_batch": handle_batch} if batching else {}
    with Feed.trades(count=40_000, rate=20_000) as feed:
        pipeline = launch(handle_message, producers=WebSocketProducer(feed.url), processors=Processors(concurrency=4),
                          partition_by=WAYS[way], **options)
        for concurrency in itertools.cycle([1, 6, 2, 3]):
            pipeline.resize(concurrency)
            until(lambda concurrency=concurrency: len(pipeline.stats().partitions) == concurrency)
            assert pipeline.topology()["processors"][0]["concurrency"] == concurrency
            if pipeline.stats().successful > 30_000:
                break
        until(lambda: pipeline.stats().successful == 40_000, 60)
        result = pipeline.stop()
    assert (result.successful, result.failed, result.drained) == (40_000, 0, True)
    assert sorted(itertools.chain(*order.values())) == list(range(40_000))
    for numbers in order.values():
        for half in ([n for n in numbers if n % 2 == 0], [n for n in numbers if n % 2]) if batching else (numbers,):
            assert half == sorted(half)


def test_a_handler_may_resize(launch, book):
    def handle_message(message):
        if message.data == 10:
            pipeline.resize(3)

    pipeline = launch(handle_message, processors=Processors(concurrency=2), partition_by=lambda message: message.data)
    pipeline.push_messages(book.messages(range(100)))
    book.wait(100)
    until(lambda: len(pipeline.stats().partitions) == 3)
    book.assert_each_once(range(100))


def test_a_resize_that_waits_for_a_handler_ends_with_a_stop(launch, book, gate):
    pipeline = launch(lambda message: gate.wait(60) and None, processors=Processors(concurrency=2, max_demand=1),
                      partition_by=lambda message: message.data)
    pipeline.push_messages(book.messages(range(20)))
    until(lambda: pipeline.stats().processors[0].outstanding == 1)
    pipeline.resize(4)
    pipeline.push_messages(book.messages(range(20, 40)))
    result = pipeline.stop(0.3)
    assert (result.drained, result.successful + result.failed, result.left) == (False, 40, 40)
    book.assert_each_once(range(40))


def test_a_compiled_key_needs_no_gil(launch):
    """What arrives while one call holds the GIL for a second is with its partitions at the end of that call."""
    def waiting():
        return sum(one.messages for one in pipeline.stats().partitions)

    with Feed.trades(rate=2000) as feed:
        pipeline = launch(producers=WebSocketProducer(feed.url), partition_by=JSONField("sym"),
                          processors=Processors(concurrency=3))
        pipeline.pause()
        until(lambda: waiting() > 0)
        before = waiting()
        ctypes.PyDLL(None).usleep(1_000_000)
        arrived, elsewhere = waiting() - before, pipeline._wsengine_topology.crew.sources.depth
        pipeline.stop(0)
    assert arrived > elsewhere, "and no more than what came just before"


# ---------------------------------------------------------------------------------------------------------------- batchers


@pytest.mark.parametrize("count", [10, None], ids=["by number", "by function"])
def test_p5_order_of_a_key_holds_from_end_to_end(launch, count):
    """One processor a key, one batch processor a key, batches of one partition only."""
    order, threads = defaultdict(list), defaultdict(set)

    def handle_batch(messages, info):
        for message in messages:
            found = json.loads(message.data)
            order[found["sym"]].append(found["seq"])
            threads[found["sym"]].add((info.partition, threading.current_thread().name))

    size = {"batch_size": 10} if count else {"batch_size": (0, lambda m, n: ("emit", 0) if n == 9 else ("cont", n + 1)),
                                             "max_demand": 100}
    with Feed.trades(count=COUNT) as feed:
        pipeline = launch(producers=WebSocketProducer(feed.url), processors=Processors(concurrency=4),
                          handle_batch=handle_batch, partition_by=JSONField("sym"),
                          batchers={"default": Batcher(concurrency=2, batch_timeout=0.05, **size)})
        until(lambda: pipeline.stats().successful == COUNT, 60)
        pipeline.stop()
    assert sorted(itertools.chain(*order.values())) == list(range(COUNT))
    assert all(numbers == sorted(numbers) for numbers in order.values())
    assert all(len(found) == 1 for found in threads.values())
    for found in threads.values():
        [(partition, name)] = found
        assert name.endswith(f"batch_processor_default_{partition}")


def test_a_batchers_own_partition_by_is_asked_behind_the_handler(launch, book):
    seen = defaultdict(list)

    def handle_message(message):
        message.data = message.data * 10

    pipeline = launch(handle_message, processors=Processors(concurrency=1),
                      handle_batch=lambda messages, info: seen[info.partition].extend(m.data for m in messages),
                      batchers={"default": Batcher(3, 5, 0.01, partition_by=lambda message: message.data // 10)})
    pipeline.push_messages(book.messages(range(90)))
    book.wait(90)
    assert seen == {part: [n * 10 for n in range(90) if n % 3 == part] for part in range(3)}


def test_b6_a_batchers_partition_that_cannot_be_told_fails_one_message(launch, book):
    """B-6."""
    def partition_by(message):
        if message.data == 5:
            raise ValueError("no partition")
        return message.data

    pipeline = launch(handle_batch=lambda messages, info: None,
                      batchers={"default": Batcher(2, 4, 0.01, partition_by=partition_by)})
    pipeline.push_messages(book.messages(range(20)))
    book.wait(20)
    assert book.failed == [5]
    book.assert_each_once(range(20))
    until(lambda: pipeline.stats().held_messages == 0)
    assert (pipeline.stats().successful, pipeline.stats().failed) == (19, 1)


def test_messages_of_different_partitions_are_in_different_batches(launch, book):
    batches = []
    def handle_batch(messages, info):
        batches.append(({m.data % 4 for m in messages}, info.partition))

    pipeline = launch(handle_batch=handle_batch,
                      partition_by=lambda message: message.data, processors=Processors(concurrency=2),
                      batchers={"default": Batcher(4, 100, 0.01, partition_by=lambda message: message.data % 4)})
    pipeline.push_messages(book.messages(range(400)))
    book.wait(400)
    assert all(found == {partition} for found, partition in batches)


# ------------------------------------------------------------------------------------------------------------ flow, and ends


def test_the_rate_holds_for_all_partitions_together(launch, book):
    pipeline = launch(processors=Processors(concurrency=4), partition_by=lambda message: message.data,
                      rate_limiting=RateLimiting(100, 3600.0))
    pipeline.push_messages(book.messages(range(300)))
    book.wait(100)
    assert pipeline.test_message(1).wait(10) is not None, "a test's message passes the limit by"
    assert book.total == 100
    pipeline.update_rate_limiting(1000, reset=True)
    book.wait(300)


def test_pause_and_resume(launch, book):
    pipeline = launch(processors=Processors(concurrency=3), partition_by=lambda message: message.data)
    pipeline.pause()
    pipeline.push_messages(book.messages(range(100)))
    until(lambda: sum(one.messages for one in pipeline.stats().partitions) == 100)
    assert book.total == 0
    pipeline.resume()
    book.wait(100)


def test_start_stop_and_start_again(build, book):
    pipeline = build(processors=Processors(concurrency=2), partition_by=lambda message: message.data)
    for life in range(3):
        pipeline.start()
        pipeline.push_messages(book.messages(range(life * 50, life * 50 + 50)))
        assert pipeline.stop().successful == 50
    book.assert_each_once(range(150))


@pytest.mark.parametrize("stuck", ["handler", "partition_by"])
def test_a_deadline_fails_what_waits_in_partitions_once(launch, book, gate, stuck):
    def wait(message):
        gate.wait(60)
        return 0

    pipeline = launch(wait if stuck == "handler" else None, processors=Processors(concurrency=3, max_demand=5), max_queue=64,
                      partition_by=(lambda message: message.data) if stuck == "handler" else wait)
    accepted = pipeline.push_messages(book.messages(range(200)), timeout=0.2)
    assert accepted >= 60
    result = pipeline.stop(0.3)
    assert not result.drained
    book.assert_each_once(range(accepted))
    assert (result.successful + result.failed, result.left) == (accepted, accepted)
    assert pipeline.stats().held_messages == 0


def test_a_deadline_fails_what_a_connection_has_brought(launch, gate):
    counts, failed = Counter(), itertools.count()
    slow = JSONField("sym").key(trade("k3", 0)[1]) % 3

    def transform(data, metadata):
        return Message(data, metadata=metadata)

    with Feed.payloads([trade(f"k{number % 9}", number) for number in range(3000)]) as feed:
        pipeline = launch(held_key("k3", gate, counts), producers=WebSocketProducer(feed.url, transformer=transform),
                          processors=Processors(concurrency=3), partition_by=JSONField("sym"), max_queue=256,
                          handle_failed=lambda messages: [next(failed) for _ in messages] and None)
        until(lambda: pipeline.stats().partitions[slow].stalls)
        result = pipeline.stop(0.3)
    assert not result.drained
    assert result.left == result.failed > 0
    assert counts["k3"] == 0
    assert result.left >= 85, "a share of 256 among three"
    assert pipeline.stats().held_messages == 0
    assert sum(one.bytes for one in pipeline.stats().partitions) == 0


def test_a_partitioner_that_dies_is_replaced_and_loses_nothing(launch, book, monkeypatch, caplog):
    """B-11."""
    doomed = iter([True, True])
    pipeline = launch(processors=Processors(concurrency=2), partition_by=lambda message: message.data)
    partitions = pipeline._wsengine_topology.partitions
    with capture(telemetry.WORKER_REPLACED) as seen:
        for life in range(2):
            before = partitions.post.thread

            class Dying:                          # an inbox that raises where no callback of the user's runs
                @property
                def queue(self):
                    if next(doomed, False):
                        raise MemoryError("on purpose")
                    return ()

            inboxes = pipeline._wsengine_topology.crew.sources.inboxes
            inboxes.insert((0, len(inboxes))[life], Dying())   # ahead of what waits, and behind it
            pipeline.push_messages(book.messages(range(life * 100, life * 100 + 100)))
            until(lambda before=before: partitions.post.thread is not before)
            inboxes[:] = [one for one in inboxes if not isinstance(one, Dying)]
        assert {one.metadata["role"] for one in seen.wait(telemetry.WORKER_REPLACED, 2)} == {"partitioner"}
    book.wait(200)
    book.assert_each_once(range(200))


def test_a_processor_that_dies_is_replaced_at_its_partition(launch, book):
    """B-11: what it had in hand fails; what waits for it is handled by the next, in order."""
    real, doomed = telemetry.execute, [True]
    order = []

    def execute(event, measurements=None, metadata=None):
        if event == telemetry.PROCESSOR_START and doomed and metadata["index"] == 1:
            doomed.clear()
            raise MemoryError("on purpose")
        real(event, measurements, metadata)

    telemetry.attach("listen", telemetry.PROCESSOR_START, lambda *event: None)
    telemetry.execute = execute
    try:
        pipeline = launch(lambda message: order.append(message.data), processors=Processors(concurrency=2, max_demand=10),
                          partition_by=lambda message: 1)
        pipeline.push_messages(book.messages(range(200)))
        book.wait(200, 20)
    finally:
        telemetry.execute = real
        telemetry.detach("listen")
    book.assert_each_once(range(200))
    assert 0 < len(book.failed) <= 10
    assert order == sorted(order)


# ----------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("wrong", ["symbol", 3, JSONField, [JSONField("a")]], ids=str)
@pytest.mark.parametrize("where", ["pipeline", "processors", "batcher"])
def test_a_wrong_partition_by_is_refused_with_path_value_and_remedy(build, where, wrong):
    make = {"pipeline": build, "processors": Processors, "batcher": Batcher}[where]
    with pytest.raises(ConfigurationError) as caught:
        make(partition_by=wrong)
    assert caught.value.path == f"{where}.partition_by"


def test_a_coroutine_function_is_refused(build):
    async def partition_by(message):
        return 1

    with pytest.raises(ConfigurationError, match="async"):
        build(partition_by=partition_by)


def test_each_partition_must_have_a_share(build, launch):
    with pytest.raises(ConfigurationError, match="give up to max_queue=4") as caught:
        build(partition_by=lambda message: 1, processors=Processors(concurrency=5), max_queue=4)
    assert caught.value.path == "processors.concurrency"
    with pytest.raises(ConfigurationError, match="max_queue_bytes of at least 65536"):
        build(partition_by=lambda message: 1, processors=Processors(concurrency=4), max_queue_bytes=65535)
    with Feed.payloads([]) as feed:               # the most that there may be is a share, too
        assert launch(producers=WebSocketProducer(feed.url), partition_by=JSONField("sym"), max_queue=2**23).stop().drained
    pipeline = launch(partition_by=lambda message: 1, processors=Processors(concurrency=4), max_queue_bytes=65536)
    with pytest.raises(ConfigurationError) as caught:
        pipeline.resize(5)
    assert caught.value.path == "resize.concurrency"
