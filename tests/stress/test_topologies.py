"""Pipelines of random shape under random handling: partitions or none, failures of every callback, deaths of threads,
pauses, resizes, other rates, and a stop at any moment. Whatever happens, each message that was accepted is acknowledged
once, batches of a key keep its order, the figures agree, and nothing hangs. The same with feeds whose connections are cut.

What a run does is drawn from a seed, which is printed and given by --seed; threads make it another run each time all the
same. 60 runs, 4,000 with WSENGINE_LONG=1.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import threading
import time
from collections import Counter

import pytest

from tests.threads import Threads
from tests.waiting import until
from wsengine import (
    Backoff,
    Batcher,
    EngineStopped,
    JSONField,
    Message,
    Pipeline,
    Processors,
    RateLimiting,
    Retry,
    WebSocketProducer,
    telemetry,
)
from wsengine.pipeline import monitor
from wsengine.testing import DummyProducer, Feed

pytestmark = [pytest.mark.stress, pytest.mark.usefixtures("no_leaks")]

RUNS = 4000 if os.environ.get("WSENGINE_LONG") == "1" else 60
KEYS = "abcde"


class Fault(BaseException):
    """What callbacks raise here; not an Exception, to be as rude as possible."""


class Ledger:
    """Two acknowledgers of this kind take all acknowledgements; thread-safe. One of them raises now and then."""

    def __init__(self, rude):
        self.rude = rude
        self.lock = threading.Lock()
        self.seen = Counter()
        self.successful = self.failed = 0

    def ack(self, ack_ref, successful, failed):
        with self.lock:
            self.seen.update(message.metadata["number"] for message in successful + failed)
            self.successful += len(successful)
            self.failed += len(failed)
        if self.rude and (successful + failed)[0].metadata["number"] % 7 == 0:
            raise Fault("an acknowledger")


class Plan:
    """What one run is, drawn from its seed."""

    def __init__(self, seed):
        self.seed = seed
        rng = self.rng = random.Random(seed)
        self.concurrency = rng.choice([1, 1, 2, 4, 8])
        self.max_demand = rng.choice([1, 3, 10, 100])
        self.fault_rate = rng.choice([0, 0.01, 0.2])
        self.by_chunk = rng.random() < 0.3
        self.count = rng.choice([0, 1, 50, 400, 2000])
        self.death_rate = rng.choice([0, 0, 0.02])
        names = rng.sample(["default", "db", "log"], rng.choice([0, 1, 1, 2, 3]))
        self.batchers = {name: self.batcher() for name in names}
        self.rate = rng.choice([None, None, None, RateLimiting(2000, 0.05, mode=rng.choice(["bucket", "window"]))])
        self.retry = rng.choice([None, None, Retry(max_retries=2, initial=0.0005, on=Fault)])
        self.max_queue = rng.choice([16, 64, 1024])
        self.partitions = rng.choice([None, None, key_of(rng.choice([0, 0, 0.02]), seed)])
        self.overflow = rng.choice(["block", "block", "drop_oldest", "drop_newest", "error"])

    def batcher(self):
        rng = self.rng
        size = rng.choice([1, 2, 7, 16])
        options = {"batch_size": size}
        if rng.random() < 0.3:
            function = sized_by(size, rng.choice([0, 0.02]), self.seed)
            options = {"batch_size": (0, function), "max_demand": rng.choice([1, 20])}
        partition_by = rng.choice([None, None, None, lambda message: message.batch_key])
        return Batcher(concurrency=rng.choice([1, 2, 3]), partition_by=partition_by, batch_timeout=rng.choice([0.002, 0.05]),
                       retry=rng.choice([None, None, Retry(max_retries=1, initial=0.0005, on=Fault)]), **options)

    def __repr__(self):
        return (f"seed={self.seed} processors={self.concurrency}x{self.max_demand} faults={self.fault_rate} "
                f"deaths={self.death_rate} chunks={self.by_chunk} messages={self.count} batchers={sorted(self.batchers)} "
                f"rate={self.rate} retry={self.retry is not None} max_queue={self.max_queue} "
                f"partitions={self.partitions} overflow={self.overflow}")


def sized_by(limit, fault_rate, seed):
    rng = random.Random(seed)

    def function(message, count):
        if rng.random() < fault_rate:
            raise Fault("a size function")
        return rng.choice([("cont", count + 1)] * 4 + [("emit", 0), ("emit_before", 1)]) if count < limit else ("emit", 0)

    return function


def key_of(fault_rate, seed):
    """A partition_by that fails now and then."""
    rng = random.Random(seed)

    def function(message):
        if rng.random() < fault_rate:
            raise Fault("partition_by")
        return message.data[0]

    return function


class Driven(Pipeline):
    """Its callbacks fail as the plan says, and keep the order in which batches of a key were handled."""

    def __init__(self, plan, ledgers):
        self.faults = random.Random(plan.seed + 1)
        self.plan, self.ledgers = plan, ledgers
        self.lock = threading.Lock()
        self.busy, self.overlaps, self.order = Counter(), 0, {}
        setattr(self, "handle_messages" if plan.by_chunk else "handle_message", self.chunk if plan.by_chunk else self.one)
        if plan.batchers:
            self.handle_batch = self.batch
        super().__init__(DummyProducer(), processors=Processors(concurrency=plan.concurrency, max_demand=plan.max_demand,
                                                                retry=plan.retry),
                         batchers=plan.batchers, rate_limiting=plan.rate, max_queue=plan.max_queue,
                         partition_by=plan.partitions, overflow=plan.overflow,
                         name=f"driven-{plan.seed}", shutdown_timeout=20)

    def perhaps_fail(self, what):
        with self.lock:
            fails = self.faults.random() < self.plan.fault_rate
        if fails:
            raise Fault(what)

    def one(self, message):
        message.batch_key = message.data[0]
        message.batcher = message.metadata["batcher"]
        if message.metadata["number"] % 97 == 5:
            message.ack_immediately()
        if message.metadata["number"] % 31 == 3:
            message.batch_mode = "flush"
        self.perhaps_fail("a handler")

    def chunk(self, messages):
        for message in messages:
            try:
                self.one(message)
            except Fault as fault:
                message.fail(fault)
        self.perhaps_fail("a handler of chunks")

    def prepare_messages(self, messages):
        if self.faults.random() < self.plan.fault_rate / 10:
            raise Fault("prepare_messages")

    def handle_failed(self, messages):
        self.perhaps_fail("handle_failed")

    def batch(self, messages, info):
        identity = (info.batcher, info.batch_key)
        with self.lock:
            self.busy[identity] += 1
            self.overlaps += self.busy[identity] > 1
            self.order.setdefault(identity, []).extend(message.data[1] for message in messages)
        try:
            self.perhaps_fail("handle_batch")
            for message in messages:
                if message.data[1] % 53 == 1:
                    message.fail("by number")
            return messages if messages[0].data[1] % 11 else messages[1:]
        finally:
            with self.lock:
                self.busy[identity] -= 1


def push(pipeline, plan, ledgers, accepted, over):
    """Bring messages in until all are in or the pipeline takes no more."""
    rng, names = random.Random(plan.seed + 2), [*plan.batchers, "nowhere"] if plan.batchers else ["default"]
    sequences = Counter()
    for number in range(plan.count):
        key = rng.choice(KEYS)
        known = names[:-1] or names
        batcher = rng.choice(names) if number % 50 == 7 else known[0] if rng.random() < 0.7 else rng.choice(known)
        message = Message((key, sequences[batcher, key]), acknowledger=(rng.choice(ledgers), number % 3, None),
                          metadata={"number": number, "batcher": batcher})
        sequences[batcher, key] += 1
        try:
            if not pipeline.push_messages(message, timeout=30):
                over.set()
                return
        except Exception:
            over.set()
            return
        accepted.append(number)
    over.set()


@contextlib.contextmanager
def deaths(plan):
    """Have threads of the pipeline die where no callback runs: in telemetry, which else never raises."""
    real, rng, lock = telemetry.execute, random.Random(plan.seed + 4), threading.Lock()

    def execute(event, measurements=None, metadata=None):
        with lock:
            dies = rng.random() < plan.death_rate
        if dies and event in (telemetry.PROCESSOR_START, telemetry.BATCH_PROCESSOR_START, telemetry.BATCHER_START):
            raise Fault("a death")
        real(event, measurements, metadata)

    telemetry.attach_many("doom", (telemetry.PROCESSOR_START, telemetry.BATCH_PROCESSOR_START, telemetry.BATCHER_START),
                          lambda *event: None)
    telemetry.execute = execute
    try:
        yield
    finally:
        telemetry.execute = real
        telemetry.detach("doom")


def drive(plan):
    """One run; returns how many messages were accepted."""
    with deaths(plan) if plan.death_rate else contextlib.nullcontext():
        return drive_it(plan)


def drive_it(plan):
    ledgers = [Ledger(rude=False), Ledger(rude=plan.fault_rate > 0)]
    pipeline, accepted, over = Driven(plan, ledgers), [], threading.Event()
    pipeline.start()
    pusher = threading.Thread(target=push, args=(pipeline, plan, ledgers, accepted, over))
    pusher.start()
    rng, resized, deadline = random.Random(plan.seed + 3), plan.concurrency > 1, time.monotonic() + rng_seconds(plan)
    while not over.wait(rng_pause(rng)) and time.monotonic() < deadline:
        action = rng.randrange(6)
        if action == 0:
            pipeline.pause()
            over.wait(rng_pause(rng))
            pipeline.resume()
        elif action == 1:
            concurrency = rng.choice([1, 2, 5])
            resized = resized or concurrency > 1
            pipeline.resize(concurrency)
        elif action == 2 and plan.rate is not None:
            pipeline.update_rate_limiting(rng.choice([500, 5000]), reset=rng.random() < 0.5)
        elif action == 3:
            pipeline.stats()
        elif action == 4:
            pipeline.test_batch(range(0))
    patient = rng.random() < 0.8
    result = pipeline.stop(20 if patient else 0)
    pusher.join(30)
    assert not pusher.is_alive(), "whoever pushes is let go by a stop"
    check(plan, pipeline, result, ledgers, accepted, patient, resized)
    return len(accepted)


def rng_pause(rng):
    return rng.choice([0, 0.0005, 0.003])


def rng_seconds(plan):
    return plan.rng.choice([0.01, 0.1, 0.4, 2.0])


def check(plan, pipeline, result, ledgers, accepted, patient, resized):
    seen = ledgers[0].seen + ledgers[1].seen
    assert seen == Counter(accepted), (
        f"{plan}: {[(n, seen[n]) for n in set(seen) | set(accepted) if seen[n] != (n in set(accepted))][:10]}")
    assert result.threads_alive == () or not patient, plan
    # A stop without time, on a busy machine, may return before a thread has had a core.
    until(lambda: not {one.name for one in threading.enumerate()} & {*result.threads_alive})
    assert result.drained or not patient, plan
    stats = pipeline.stats()
    told = stats if result.threads_alive else result  # what such a thread had in hand was settled behind the result
    assert told.successful + told.failed == len(accepted), plan
    assert (stats.held_messages, stats.held_bytes, stats.depth) == (0, 0, 0), plan
    assert all((one.held, one.waiting, one.open_batches) == (0, 0, 0) for one in stats.batchers) or not patient, plan
    assert pipeline.overlaps == 0, f"{plan}: two batches of a key at a time"
    if (not resized or plan.partitions is not None) and plan.retry is None and all(
            one.retry is None for one in plan.batchers.values()):
        for numbers in pipeline.order.values():   # one processor, or one a key: arrival, chunk, batch all keep it
            assert numbers == sorted(numbers), plan


@pytest.mark.timeout(60 + RUNS)
@pytest.mark.parametrize("part", range(4))
def test_random_pipelines_under_random_handling(seed, part, monkeypatch, caplog):
    monkeypatch.setattr(monitor, "PERIOD", 0.003)
    caplog.set_level("CRITICAL")
    messages = 0
    for number in range(RUNS // 4):
        plan = Plan(seed * 1000 + part * 100_000 + number)
        try:
            messages += drive(plan)
        except BaseException:
            print(plan)
            raise
    print(f"{RUNS // 4} runs, {messages} messages, seeds from {seed * 1000 + part * 100_000}")


class FedPlan:
    """What one run with a feed is, drawn from its seed."""

    def __init__(self, seed):
        self.seed = seed
        rng = self.rng = random.Random(seed)
        self.count = 5000
        self.feed_rate = rng.choice([None, 20_000])
        self.fault_rate = rng.choice([0, 0.01, 0.2])
        self.death_rate = rng.choice([0, 0, 0.02])
        self.partition_by = rng.choice([JSONField("sym"), JSONField("sym"), lambda message: json.loads(message.data)["sym"]])
        self.batchers = {"default": Batcher(rng.choice([1, 3]), rng.choice([1, 16]), 0.01)} if rng.random() < 0.5 else None
        self.concurrency, self.max_demand = rng.choice([1, 2, 5]), rng.choice([1, 10, 100])
        self.max_queue = rng.choice([32, 512, 65536])
        self.cuts = rng.randrange(4)
        self.patient = rng.random() < 0.5

    def __repr__(self):
        return (f"seed={self.seed} rate={self.feed_rate} faults={self.fault_rate} deaths={self.death_rate} "
                f"partition_by={self.partition_by} batchers={self.batchers is not None} processors={self.concurrency}x"
                f"{self.max_demand} max_queue={self.max_queue} cuts={self.cuts} patient={self.patient}")


class Fed(Pipeline):
    """Messages of a feed and others, which are pushed; both are acknowledged by ledgers. Callbacks fail as the plan says. It
    keeps which messages of each key came in which order to the end of the callbacks."""

    def __init__(self, plan, url):
        self.plan, self.faults, self.lock = plan, random.Random(plan.seed + 1), threading.Lock()
        self.ledgers = [Ledger(rude=False), Ledger(rude=plan.fault_rate > 0)]
        self.order, self.made, self.spoiled = {}, [], []
        self.handle_message = self.one
        if plan.batchers:
            self.handle_batch = self.batch
        self.feed = WebSocketProducer(url, retry=Backoff(0.001, maximum=0.001), transformer=self.transform)
        super().__init__([self.feed, DummyProducer()], partition_by=plan.partition_by, batchers=plan.batchers,
                         processors=Processors(concurrency=plan.concurrency, max_demand=plan.max_demand),
                         max_queue=plan.max_queue, name=f"fed-{plan.seed}", shutdown_timeout=60)

    def message(self, data):
        number = json.loads(data)["seq"]
        return Message(data, metadata={"number": number}, acknowledger=(self.ledgers[number % 2], number % 3, None))

    def transform(self, data, metadata):
        made = self.message(data)
        try:
            self.perhaps_fail("a transformer")
        except Fault:
            with self.lock:
                self.spoiled.append(made.metadata["number"])
            raise
        with self.lock:
            self.made.append(made.metadata["number"])
        return made

    def perhaps_fail(self, what):
        with self.lock:
            fails = self.faults.random() < self.plan.fault_rate
        if fails:
            raise Fault(what)

    def prepare_messages(self, messages):
        if self.faults.random() < self.plan.fault_rate / 10:
            raise Fault("prepare_messages")

    def handle_failed(self, messages):
        self.perhaps_fail("handle_failed")

    def one(self, message):
        if not self.plan.batchers:
            self.keep([message])
        if message.metadata["number"] % 97 == 5:
            message.ack_immediately()
        self.perhaps_fail("a handler")

    def batch(self, messages, info):
        self.keep(messages)
        self.perhaps_fail("handle_batch")

    def keep(self, messages):
        with self.lock:
            for message in messages:
                found = json.loads(message.data)
                self.order.setdefault(found["sym"], []).append(found["seq"])


#: The first number of what is pushed; what the feed sends counts from 0.
PUSHED = 1_000_000


def push_beside(pipeline, accepted, over):
    """Push messages of keys of their own until it is over, or the pipeline takes no more."""
    for number in itertools.count(PUSHED):
        if over.is_set():
            return
        data = json.dumps({"sym": f"pushed-{number % 3}", "seq": number}).encode()
        try:
            if not pipeline.push_messages(pipeline.message(data), timeout=60):
                return
        except EngineStopped:
            return
        accepted.append(number)
        if number % 100 == 0:
            over.wait(0.001)                     # the feed is to have its share


def drive_fed(plan, feed):
    """One run; returns the pipeline, its result, and the numbers of what was pushed and accepted."""
    rng, accepted, over = random.Random(plan.seed + 3), [], threading.Event()
    with Threads() as threads, Fed(plan, feed.url) as pipeline:
        threads.start(push_beside, pipeline, accepted, over)
        for cut in range(plan.cuts):
            feed.wait(lambda log, cut=cut: len(log.connections) > cut)
            time.sleep(rng_pause(rng) * 10)
            feed.cut(60)
            pipeline.resize(rng.choice([1, 2, 3, 8]))
            pipeline.pause()
            time.sleep(rng_pause(rng))
            pipeline.resume()
        if plan.patient:
            until(lambda: len(pipeline.made) + len(pipeline.spoiled) == plan.count, 60)
        else:                                    # in the midst of it, and of another cut
            threads.start(cut_once, feed)
        over.set()
        result = pipeline.stop(None if plan.patient else 0)
    return pipeline, result, accepted


def cut_once(feed):
    with contextlib.suppress(TimeoutError):      # the client may be gone already
        feed.cut(5)


def check_fed(plan, pipeline, result, accepted):
    seen = pipeline.ledgers[0].seen + pipeline.ledgers[1].seen
    twice = [number for number, times in seen.items() if times > 1]
    assert not twice, f"{plan}: acknowledged more than once: {twice[:10]}"
    missing = set(accepted) - set(seen)
    assert not missing, f"{plan}: accepted and never acknowledged: {sorted(missing)[:10]}"
    handled = list(itertools.chain(*pipeline.order.values()))
    assert len(handled) == len(set(handled)), plan
    assert set(handled) <= set(seen), plan
    assert set(seen) <= {*accepted, *pipeline.made}, plan
    assert all(numbers == sorted(numbers) for numbers in pipeline.order.values()), plan
    taken = pipeline.feed.connections[0].counts()["messages"]
    assert result.successful + result.failed == taken + len(accepted), plan
    assert result.threads_alive == (), plan
    stats = pipeline.stats()
    assert (stats.held_messages, stats.depth) == (0, 0), plan
    late = set(pipeline.made) - set(seen)         # made while the stop acknowledged what they were made of
    assert len(late) <= (0 if plan.patient else 8 * plan.max_demand), f"{plan}: never acknowledged: {sorted(late)[:10]}"
    if plan.patient:
        assert result.drained, plan
        assert sorted(pipeline.made + pipeline.spoiled) == list(range(plan.count)), plan
        assert seen == Counter([*accepted, *pipeline.made]), plan
    if plan.patient and not (plan.fault_rate or plan.death_rate):
        assert (result.failed, len(handled)) == (0, plan.count + len(accepted)), plan


@pytest.mark.timeout(60 + RUNS)
def test_feeds_that_are_cut_lose_nothing_and_keep_each_key_in_order(seed, monkeypatch, caplog):
    """A connection comes back where it was; partitions are resized and paused meanwhile, callbacks fail, threads die, and a
    stop comes while a connection is cut."""
    monkeypatch.setattr(monitor, "PERIOD", 0.003)
    caplog.set_level("CRITICAL")
    for number in range(max(RUNS // 10, 1)):
        plan = FedPlan(seed * 1000 + number)
        try:
            with (deaths(plan) if plan.death_rate else contextlib.nullcontext(),
                  Feed.trades(count=plan.count, rate=plan.feed_rate) as feed):
                check_fed(plan, *drive_fed(plan, feed))
        except BaseException:
            print(plan)
            raise
    print(f"{max(RUNS // 10, 1)} runs, seeds from {seed * 1000}")
