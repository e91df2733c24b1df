"""`Pipeline` itself: its options, its names, its figures, and what its class has to define."""

from __future__ import annotations

import errno
import pickle
import threading
import time

import pytest

from wsengine import (
    ConfigurationError,
    EngineStopped,
    Message,
    Pipeline,
    Processors,
    Producer,
    RateLimiting,
    all_running,
    telemetry,
)
from wsengine.pipeline.plan import OPTIONS
from wsengine.testing import DummyProducer, Feed, capture
from wsengine.websocket.producer import WebSocketProducer
from wsengine.wording import Unshown


class Plain(Pipeline):
    def handle_message(self, message):
        return message


@pytest.mark.parametrize(
    ("options", "path", "remedy"),
    [
        ({"max_queue": 0}, "pipeline.max_queue", "from 1 to 8388608"),
        ({"max_queue": 2**23 + 1}, "pipeline.max_queue", "from 1 to 8388608"),
        ({"max_queue": 1.5}, "pipeline.max_queue", "whole number"),
        ({"max_queue_bytes": 0}, "pipeline.max_queue_bytes", "from 1 to"),
        ({"max_queue_bytes": "64M"}, "pipeline.max_queue_bytes", "whole number"),
        ({"overflow": "spill"}, "pipeline.overflow", "'block'"),
        ({"shutdown_timeout": -1}, "pipeline.shutdown_timeout", "at least 0"),
        ({"shutdown_timeout": None}, "pipeline.shutdown_timeout", "seconds"),
        ({"name": ""}, "pipeline.name", "not empty"),
        ({"name": 7}, "pipeline.name", "string"),
        ({"processors": 8}, "pipeline.processors", "Processors(...)"),
        ({"concurrency": 8}, "pipeline.concurrency", "processors=Processors(concurrency=...)"),
        ({"max_demand": 8}, "pipeline.max_demand", "Processors(max_demand=...)"),
        ({"context": {}}, "pipeline.context", "self is the context"),
        ({"max_que": 8}, "pipeline.max_que", "did you mean 'max_queue'"),
        ({"zzz": 8}, "pipeline.zzz", "the options are"),
    ],
)
def test_a_wrong_option_is_refused_with_path_value_and_remedy(quiet, options, path, remedy):
    with pytest.raises(ConfigurationError) as caught:
        Plain(quiet(), **options)
    assert caught.value.path == path
    given = next(iter(options.values()))
    unknown = path.rpartition(".")[2] not in OPTIONS
    assert caught.value.value == (Unshown.of(given) if unknown else given)  # what is no option of ours may be a secret
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("producers", [None, [], "ws://host", [1], object()])
def test_producers_that_are_none_are_refused(producers):
    with pytest.raises(ConfigurationError, match="producers"):
        Plain(producers)


def test_one_producer_given_twice_is_refused(quiet):
    one = quiet()
    with pytest.raises(ConfigurationError, match="different producers"):
        Plain([one, one])


def test_a_class_needs_exactly_one_of_the_two_handlers(quiet):
    class Neither(Pipeline):
        pass

    class Both(Plain):
        def handle_messages(self, messages):
            return messages

    class NoMethod(Pipeline):
        handle_message = 7

    for wrong in (Neither, Both):
        with pytest.raises(ConfigurationError, match="define either"):
            wrong(quiet())
    with pytest.raises(ConfigurationError, match="define a method"):
        NoMethod(quiet())


def test_a_subclass_may_use_any_names_of_its_own(quiet, eventually):
    class Own(Pipeline):
        def __init__(self, producers):
            super().__init__(producers)
            self._state = self._error = self._result = self._name = self._pid = self._stopped = self._monitor = "mine"
            self._topology = self._producers = None
            self.seen = []

        def _begin(self):
            raise AssertionError("not the engine's")

        _carry_out_stop = _check_handlers = _run_with_signals = _producer_finished = _begin

        def handle_message(self, message):
            self.seen.append((message.data, self._state))

    with Own(quiet()) as pipeline:
        pipeline.push_messages([Message(b"one")])
        eventually(lambda: pipeline.seen == [(b"one", "mine")])
        assert pipeline.stats().state == "running"
    assert pipeline.stop().drained


# ---- options change behaviour


def test_max_queue_is_rounded_up_and_bounds_what_is_held(launch, book, gate):
    for max_queue, bound in ((5, 8), (16, 16)):
        pipeline = launch(lambda message: gate.wait(5) and None, max_queue=max_queue)
        assert pipeline.max_queue == bound
        assert pipeline.push_messages(book.messages(range(40)), timeout=0.05) == bound
        assert pipeline.stats().held_messages == pipeline.stats().max_queue == bound


def test_max_queue_bytes_bounds_what_is_held_of_a_feed(launch, gate, eventually):
    held = []
    for max_queue_bytes in (2**16, 2**20):
        with Feed.binary(4096) as feed:
            producer = WebSocketProducer(feed.url, max_size=2**16)
            pipeline = launch(lambda message: gate.wait(10) and None, producers=producer, max_queue_bytes=max_queue_bytes)
            eventually(lambda pipeline=pipeline: pipeline.stats().held_messages > 0)
            time.sleep(0.3)
            held.append(pipeline.stats().held_messages * 4096)
            assert held[-1] <= max_queue_bytes + 2**18
            pipeline.stop(0)
    assert held[1] > 2 * held[0]


def test_the_name_shows_in_threads_registry_and_topology(launch, eventually):
    pipeline = launch(name="orders", processors=Processors(concurrency=2))
    eventually(lambda: len([t for t in threading.enumerate() if t.name.startswith("wsengine:orders:processor_")]) == 2)
    assert pipeline.name == "orders"
    assert "orders" in all_running()
    assert pipeline.producer_names() == ["wsengine:orders:producer_0"]
    assert pipeline.topology() == {
        "producers": [{"name": "wsengine:orders:producer_0", "type": "Quiet", "concurrency": 1}],
        "processors": [{"name": "wsengine:orders:processor", "processor_key": "default", "concurrency": 2}],
        "batchers": []}
    assert repr(pipeline) == "<Made 'orders' running>"
    pipeline.stop()
    assert "orders" not in all_running()


def test_the_name_of_the_class_is_the_default(quiet):
    assert Plain(quiet()).name == "Plain"


def test_two_pipelines_of_one_name_cannot_run_together(build):
    first, second = build(name="same"), build(name="same")
    first.start()
    with pytest.raises(ConfigurationError, match="another pipeline of this name runs"):
        second.start()
    assert second.state == "new"
    first.stop()
    second.start()
    assert all_running().count("same") == 1


def test_a_running_pipeline_cannot_be_started_again(launch):
    pipeline = launch()
    with pytest.raises(EngineStopped, match="is running already"):
        pipeline.start()
    assert pipeline.state == "running"


def test_all_running_is_sorted(launch):
    for name in ("zebra", "ant", "mole"):
        launch(name=name)
    assert [name for name in all_running() if name in ("zebra", "ant", "mole")] == ["ant", "mole", "zebra"]


class Raising(Producer):
    """Fails where it is told to."""

    def __init__(self, where):
        self.where = where

    def attach(self, host):
        super().attach(host)
        if self.where == "attach":
            raise OSError(self.where)

    def start(self):
        if self.where == "start":
            raise OSError(self.where)
        super().start()

    def run(self, inbox):
        if self.where == "run":
            raise OSError(self.where)


def end_by(how, pipeline, gate):
    """Start a pipeline and bring it to its end."""
    if how in ("attach", "start"):
        with pytest.raises(OSError, match=how):
            pipeline.start()
    elif how == "body":
        with pytest.raises(LookupError), pipeline:
            raise LookupError
    elif how in ("run", "finished"):
        assert isinstance(pipeline.run().error, OSError if how == "run" else type(None))
    else:
        pipeline.start().push_messages(Message(how))
        result = pipeline.stop(0.1 if how == "stuck" else None) if how != "handler" else pipeline.join(20)
        assert result.drained is (how != "stuck")


@pytest.mark.parametrize("how", ["stop", "stuck", "handler", "body", "finished", "run", "start", "attach"])
def test_all_running_forgets_a_pipeline_however_it_ends(build, gate, how):
    """B-20: a stop, one at its deadline, one within a handler, an exception in a `with`, the end of all producers, one that
    fails, and starts that fail; the name is free each time."""
    def handle_message(message):
        if message.data == "stuck":
            gate.wait(30)
        if message.data == "handler":
            pipeline.stop()

    before = all_running()
    own = {"producers": Raising(how)} if how in ("finished", "run", "start", "attach") else {}
    pipeline = build(handle_message, name="ghost", **own)
    assert all_running() == before
    end_by(how, pipeline, gate)
    assert (all_running(), pipeline.state in ("stopped", "new")) == (before, True)
    again = build(name="ghost").start()
    assert all_running() == sorted([*before, "ghost"])
    assert again.stop().drained
    assert all_running() == before


def test_a_start_that_fails_leaves_nothing_running(child):
    """B-20, in a process that has nothing else."""
    script = child("""
        class Broken(Quiet):
            def start(self):
                raise OSError("no thread for you")

        class P(Pipeline):
            def handle_message(self, message):
                pass

        pipeline = P([Quiet(), Broken()], name="broken", shutdown_timeout=1)
        try:
            pipeline.start()
        except OSError as error:
            say("raised", error)
        import wsengine
        deadline = time.monotonic() + 3
        while threading.active_count() > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        say(threading.active_count(), wsengine.all_running(), pipeline.state != "running")
        """)
    assert script.line() == "raised no thread for you"
    assert script.line() == "1 [] True"
    assert script.end(5)[0] == 0


def test_a_pipeline_refuses_to_be_pickled(quiet):
    with pytest.raises(TypeError, match="make one in each process"):
        pickle.dumps(Plain(quiet()))


def test_a_pipeline_that_comes_and_goes_leaves_nothing_behind(no_leaks, quiet):
    import gc

    for _ in range(3):
        with Plain(quiet(), processors=Processors(concurrency=3)) as pipeline:
            pipeline.push_messages(Message(i) for i in range(10))
    del pipeline
    gc.collect()


# ---- figures


def test_stats_tell_what_is_held_waits_and_was_done(launch, book, gate, eventually):
    def handle_message(message):
        if message.data == "stuck":
            gate.wait(5)
        if message.data == "bad":
            raise ValueError("bad")

    pipeline = launch(handle_message, processors=Processors(max_demand=1), max_queue=16)
    pipeline.push_messages(book.messages([1, 2, "bad"]))
    book.wait(3)
    eventually(lambda: pipeline.stats().held_messages == 0)
    time.sleep(0.05)
    first = pipeline.stats()
    assert (first.name, first.state, first.successful, first.failed) == (pipeline.name, "running", 2, 1)
    pipeline.push_messages(book.messages(["stuck", 3, 4]))
    eventually(lambda: pipeline.stats().depth == 2)
    busy = pipeline.stats()
    assert (busy.held_messages, busy.max_queue, busy.max_queue_bytes) == (3, 16, 64 * 2**20)
    assert [one.outstanding for one in busy.processors] == [1]
    assert 0 <= busy.rate < 100
    gate.set()
    book.wait(6)
    pipeline.stop()
    last = pipeline.stats()
    assert (last.state, last.successful, last.failed, last.depth, last.held_messages) == ("stopped", 5, 1, 0, 0)
    assert last.rate > 0
    assert last.processors[0].successful == 5
    assert last.processors[0].busy_seconds > 0
    assert last.producers == ({"name": "Quiet", "depth": 0},)


# ---- telemetry


def test_the_start_tells_telemetry_of_the_topology(build):
    """B-5: `system_time` is that of the wall clock, unlike the ancestor's."""
    pipeline = build()
    before = time.time_ns()
    with capture(telemetry.TOPOLOGY_INIT) as seen:
        pipeline.start()
        [event] = seen.wait(telemetry.TOPOLOGY_INIT)
    assert event.metadata == {"topology_name": pipeline.name, "config": pipeline.topology()}
    assert before <= event.measurements["system_time"] <= time.time_ns()
    assert abs(event.measurements["monotonic_time"] - time.monotonic_ns()) < 10**10


def test_a_processor_tells_of_each_chunk_and_each_message(launch, book, gate):
    begun = threading.Event()

    def handle_message(message):
        begun.set()
        gate.wait(5)
        if message.data == "bad":
            raise ValueError("bad")
        if message.data == "weak":
            message.fail("weak")

    pipeline = launch(handle_message, processors=Processors(max_demand=10))
    pipeline.push_messages(Message("first"))
    assert begun.wait(5)
    events = (telemetry.PROCESSOR_START, telemetry.PROCESSOR_STOP, telemetry.MESSAGE_START, telemetry.MESSAGE_STOP,
              telemetry.MESSAGE_EXCEPTION)
    with capture(*events) as seen:
        pipeline.push_messages(book.messages(["good", "bad", "weak"]))
        gate.set()
        [stop] = seen.wait(telemetry.PROCESSOR_STOP)
    [start] = seen.of(telemetry.PROCESSOR_START)
    where = {"topology_name": pipeline.name, "name": f"wsengine:{pipeline.name}:processor_0", "index": 0}
    assert where.items() <= start.metadata.items()
    assert [m.data for m in start.metadata["messages"]] == ["good", "bad", "weak"]
    assert set(start.measurements) == {"system_time", "monotonic_time"}
    assert where.items() <= stop.metadata.items()
    assert [m.data for m in stop.metadata["successful_messages_to_ack"]] == ["good"]
    assert [m.data for m in stop.metadata["failed_messages"]] == ["bad", "weak"]
    assert stop.measurements["duration"] > 0
    assert [one.metadata["message"].data for one in seen.of(telemetry.MESSAGE_START)] == ["good", "bad", "weak"]
    assert [one.metadata["message"].data for one in seen.of(telemetry.MESSAGE_STOP)] == ["good", "weak"]
    [exception] = seen.of(telemetry.MESSAGE_EXCEPTION)
    assert exception.metadata["message"].data == "bad"
    assert exception.metadata["kind"] == "error"
    assert isinstance(exception.metadata["reason"], ValueError)
    assert exception.metadata["stacktrace"] is not None
    assert set(exception.measurements) == {"duration", "monotonic_time"}


def test_the_events_of_one_span_share_a_context(launch, book):
    events = (telemetry.PROCESSOR_START, telemetry.PROCESSOR_STOP, telemetry.MESSAGE_START, telemetry.MESSAGE_STOP)
    with capture(*events) as seen:
        launch().push_messages(book.message(1))
        seen.wait(telemetry.PROCESSOR_STOP)
    contexts = [one.metadata.get("telemetry_span_context") for event in events for one in seen.of(event)]
    assert None not in contexts
    assert contexts[0] is contexts[1]
    assert contexts[2] is contexts[3]
    assert contexts[0] is not contexts[2]


def test_the_message_stop_event_has_the_message_that_the_handler_returned(launch, book):
    with capture(telemetry.MESSAGE_STOP) as seen:
        launch(lambda message: book.message("returned")).push_messages(book.message("given"))
        [stop] = seen.wait(telemetry.MESSAGE_STOP)
    assert stop.metadata["message"].data == "returned"


@pytest.mark.parametrize("raises", [False, True])
def test_handle_failed_is_a_span_of_its_own(launch, book, raises):
    """B-13: it names the pipeline, unlike the ancestor's."""
    def handle_failed(messages):
        if raises:
            raise OSError("no dead letters today")

    events = (telemetry.HANDLE_FAILED_START, telemetry.HANDLE_FAILED_STOP, telemetry.HANDLE_FAILED_EXCEPTION)
    with capture(*events) as seen:
        pipeline = launch(lambda message: message.fail("x"), handle_failed=handle_failed)
        pipeline.push_messages(book.message(1))
        book.wait(1)
    [start] = seen.of(telemetry.HANDLE_FAILED_START)
    assert start.metadata["topology_name"] == pipeline.name
    assert [m.data for m in start.metadata["messages"]] == [1]
    ends = [one.event for one in seen.events[1:]]
    assert ends == [telemetry.HANDLE_FAILED_EXCEPTION if raises else telemetry.HANDLE_FAILED_STOP]


def test_a_pipeline_works_the_same_with_several_producers(build):
    """B-17."""
    class Some(Producer):
        def __init__(self, which):
            self.which = which

        def run(self, inbox):
            inbox.push(Message((self.which, i)) for i in range(100))

    seen = []
    pipeline = build(lambda message: seen.append(message.data), producers=[Some("a"), Some("b"), Some("c")])
    result = pipeline.run()
    assert result.successful == 300
    for which in "abc":
        assert [i for w, i in seen if w == which] == list(range(100))
    assert pipeline.producer_names()[2] == f"wsengine:{pipeline.name}:producer_2"


def test_sources_of_several_kinds_share_the_processors_beside_another_pipeline(launch, book, new_book, eventually):
    """B-17: unlike the ancestor, which has one kind of producer; groups of processors are pipelines of their own."""
    class Numbers(Producer):
        def run(self, inbox):
            inbox.push(book.messages(range(100)))

    seen, beside, dummy, other = [], [], DummyProducer(), new_book()
    with Feed.trades(count=200) as feed:
        pipeline = launch(seen.append, producers=[WebSocketProducer(feed.url, concurrency=2), Numbers(), dummy],
                          processors=Processors(concurrency=3, max_demand=10))
        second = launch(beside.append, producers=[WebSocketProducer(feed.url), DummyProducer()])
        dummy.emit(book.messages(range(100, 150)))
        pipeline.push_messages(book.messages(range(150, 180)))
        second.push_messages(other.messages(range(20)))
        eventually(lambda: (len(seen), len(beside)) == (580, 220))
        figures = pipeline.stats()
        assert pipeline.stop().successful == 580
        assert second.state == "running"
        second.push_messages(other.message("still there"))
        other.wait(21)
        assert second.stop().successful == 221
    book.assert_each_once(range(180))
    for index in (0, 1):
        fed = [one.seq for one in seen if one.connection is not None and one.connection_index == index]
        assert sorted(fed) == list(range(200))
    assert [one.seq for one in beside if one.connection is not None] == list(range(200))
    assert [one["name"] for one in figures.producers] == ["WebSocketProducer", "Numbers", "DummyProducer"]
    assert sum(one.successful for one in figures.processors) == figures.successful


def test_a_start_that_fails_ends_what_it_started_at_once(monkeypatch, build):
    pipeline = build(producers=WebSocketProducer("ws://127.0.0.1:9"), processors=Processors(concurrency=3),
                     shutdown_timeout=20.0)
    real = threading.Thread.start
    for part in (":processor_2", ":timer", ":supervisor"):
        def start(thread, part=part):
            if thread.name.endswith(part):
                raise RuntimeError("can't start new thread")
            real(thread)

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            begun = time.monotonic()
            with pytest.raises(RuntimeError, match="new thread"):
                pipeline.start()
        assert time.monotonic() - begun < 5
        assert pipeline.state == "stopped"
        assert not [one.name for one in threading.enumerate() if pipeline.name in one.name]


def test_a_producer_works_for_one_running_pipeline(build):
    producer = WebSocketProducer("ws://127.0.0.1:9")
    first, second = build(producers=producer), build(producers=producer)
    first.start()
    with pytest.raises(ConfigurationError, match="make a producer for each pipeline"):
        second.start()
    first.stop()
    second.start()
    assert second.stop().drained


def test_a_coroutine_function_is_refused_as_a_handler():
    class Async(Pipeline):
        async def handle_message(self, message):
            return message

    with pytest.raises(ConfigurationError, match="without async"):
        Async(WebSocketProducer("ws://127.0.0.1:9"))


# ---- starts that fail, and what runs in them


class Twice(DummyProducer):
    """Fails in `attach` at the second start and no other."""

    starts = 0

    def attach(self, host):
        self.starts += 1
        super().attach(host)
        if self.starts == 2:
            raise OSError(errno.EMFILE, "too many open files")


def test_a_restart_that_fails_leaves_a_pipeline_that_is_stopped_as_before(build, book):
    """B-20: `stop` and `join` give the result of the life before, and the next start is like any other."""
    producer = Twice()
    pipeline = build(producers=producer)
    pipeline.start().push_messages(book.message(1))
    before = pipeline.stop()
    with pytest.raises(OSError, match="too many open files"):
        pipeline.start()
    assert (pipeline.state, pipeline.name in all_running()) == ("stopped", False)
    assert pipeline.join(5) is before
    assert pipeline.stop() is before
    with pytest.raises(EngineStopped, match="stopping and takes no more"):
        producer.emit(book.message("into a life that was none"))
    pipeline.start().push_messages(book.message(2))
    assert pipeline.stop().successful == 1
    book.assert_each_once([1, 2])


def test_a_start_that_fails_before_there_is_a_pipeline_can_be_repeated(build, book):
    class Once(Twice):
        starts = 1

    pipeline = build(producers=[DummyProducer(), Once()])
    with pytest.raises(OSError, match="too many open files"):
        pipeline.start()
    assert pipeline.state == "new"
    with pytest.raises(EngineStopped, match="has not been started"):
        pipeline.stop()
    pipeline.start().push_messages(book.message(1))
    assert pipeline.stop().successful == 1


@pytest.mark.parametrize("restart", [False, True])
def test_a_pipeline_whose_monitor_gets_no_thread_is_stopped(monkeypatch, build, book, restart, no_leaks):
    pipeline = build(producers=DummyProducer(), shutdown_timeout=20.0)
    if restart:
        pipeline.start()
        pipeline.stop()
    real = threading.Thread.start

    def start(thread):
        if thread.name.endswith(":monitor"):
            raise RuntimeError("can't start new thread")
        real(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="new thread"):
            pipeline.start()
    assert (pipeline.state, pipeline.name in all_running()) == ("stopped", False)
    assert pipeline.stop().drained
    assert not [one.name for one in threading.enumerate() if pipeline.name in one.name]
    pipeline.start().push_messages(book.message(1))
    assert pipeline.stop().successful == 1


def test_what_the_event_of_the_start_raises_leaves_nothing_running(build, book):
    """What passes through telemetry's own guard, such as KeyboardInterrupt: who leaves `with` by it finds all stopped."""
    def interrupt(*event):
        pipeline.push_messages(book.message("taken"))
        raise KeyboardInterrupt

    pipeline = build(shutdown_timeout=20.0)
    telemetry.attach("test-init", telemetry.TOPOLOGY_INIT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), pipeline:
            raise AssertionError("the start had failed")
    finally:
        telemetry.detach("test-init")
    assert (pipeline.state, pipeline.name in all_running()) == ("stopped", False)
    book.assert_each_once(["taken"])
    assert pipeline.stop().threads_alive == ()


def test_a_handler_that_does_not_return_holds_up_no_start_that_fails(build, book, gate, eventually):
    entered = threading.Event()

    def interrupt(*event):
        pipeline.push_messages(book.message("stuck"))
        assert entered.wait(10)
        raise KeyboardInterrupt

    pipeline = build(lambda message: entered.set() or (gate.wait(30) and None), shutdown_timeout=30.0)
    telemetry.attach("test-init", telemetry.TOPOLOGY_INIT, interrupt)
    begun = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            pipeline.start()
    finally:
        telemetry.detach("test-init")
    assert time.monotonic() - begun < 10
    assert (pipeline.state, book.failed) == ("stopped", ["stuck"])
    gate.set()


def test_a_producer_may_look_around_while_it_is_put_in_place(build, book):
    """No lock is held meanwhile: others start and stop, and the name is taken."""
    seen = []

    class Curious(DummyProducer):
        def attach(self, host):
            super().attach(host)
            seen.append(pipeline.state)
            seen.append("curious" in all_running())
            other = build(name="other").start()
            seen.append(other.stop().drained)
            for forbidden in (pipeline.start, build(name="curious").start, build(name="thief", producers=self).start):
                with pytest.raises((EngineStopped, ConfigurationError)) as caught:
                    forbidden()
                seen.append(str(caught.value))

    pipeline = build(producers=Curious(), name="curious")
    pipeline.start()
    assert seen[:3] == ["starting", True, True]
    assert "is starting already" in seen[3]
    assert "another pipeline of this name runs" in seen[4]
    assert "make a producer for each pipeline" in seen[5]
    pipeline.push_messages(book.message(1))
    assert pipeline.stop().successful == 1


def test_a_limit_that_is_changed_while_producers_are_put_in_place_holds(build):
    class Changing(DummyProducer):
        def attach(self, host):
            super().attach(host)
            pipeline.update_rate_limiting(allowed_messages=1000)

    pipeline = build(producers=Changing(), rate_limiting=RateLimiting(1, 60))
    pipeline.start().push_messages(Message(number) for number in range(500))
    assert pipeline.stop(5).successful == 500


@pytest.mark.parametrize("error", [None, OSError("gone")])
def test_a_producer_that_ends_as_it_is_put_in_place_ends_the_pipeline(build, error):
    class Over(DummyProducer):
        def attach(self, host):
            super().attach(host)
            host.finished(self, error)

    pipeline = build(producers=Over()).start()
    assert pipeline.join(10).error is error


def test_producers_need_not_be_hashable_nor_to_be_compared(build):
    """They are looked up under a lock, where no code of theirs runs."""
    class Odd(DummyProducer):
        __hash__ = None

        def __eq__(self, other):
            raise AssertionError("asked under a lock")

    odd = Odd()
    first, second = build(producers=odd).start(), build(producers=odd)
    with pytest.raises(ConfigurationError, match="make a producer for each pipeline"):
        second.start()
    odd.finish()
    assert first.join(10).drained
