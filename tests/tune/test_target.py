"""How a handler is found by its name, and that nothing of its own producers is touched."""

from __future__ import annotations

import sys
import textwrap

import pytest

from wsengine import ConfigurationError, Pipeline, Retry
from wsengine.testing import DummyProducer
from wsengine.tune.target import load

MODULE = textwrap.dedent("""
    from wsengine import Batcher, Pipeline, Processors, RateLimiting, Retry, WebSocketProducer

    def one(message): return message
    def many(messages): return messages
    number = 7

    class Plain(Pipeline):
        def handle_message(self, message): pass

    class Own(Pipeline):
        def __init__(self):
            super().__init__(WebSocketProducer("wss://127.0.0.1:1/real"), batchers={"db": Batcher()},
                             processors=Processors(concurrency=3, retry=Retry(2)), rate_limiting=RateLimiting(10, 1.0))
        def handle_message(self, message): pass
        def handle_batch(self, messages, batch_info): pass

    class Needy(Pipeline):
        def __init__(self, producer, database): ...

    class Failing(Pipeline):
        def __init__(self, producer): raise OSError("no database here")

    class Space:
        made = Plain(WebSocketProducer("wss://127.0.0.1:1/real"))
""")


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "shop.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found")
    (tmp_path / "program.py").write_text("raise SystemExit('it wants arguments')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("shop", None)


@pytest.mark.parametrize(("name", "kind"), [
    ("shop:Plain", "pipeline"), ("shop:Own", "pipeline"), ("shop:Space.made", "pipeline"), ("shop:one", "message"),
    ("shop:many", "chunk"),
])
def test_what_is_meant_becomes_a_pipeline(name, kind):
    pipeline = load(name, kind)
    assert isinstance(pipeline, Pipeline)
    assert pipeline.state == "new"


def test_another_producer_and_other_numbers_are_used_and_all_else_stays():
    pipeline = load("shop:Own", "pipeline")
    pipeline._wsengine_instead(DummyProducer(), concurrency=5, min_demand=1, max_demand=20, max_queue=1000)
    with pipeline:
        stats = pipeline.stats()
        assert len(stats.processors) == 5
        assert stats.max_queue == 1024
        assert [one["name"] for one in stats.producers] == ["DummyProducer"]
        assert len(stats.batchers) == 1
        assert pipeline.get_rate_limiting() is None
        processors = pipeline._wsengine_topology.plan.processors
        assert (processors.min_demand, processors.max_demand, processors.retry) == (1, 20, Retry(2))
    assert pipeline.stop().drained


def test_numbers_that_do_not_go_with_the_rest_are_refused():
    pipeline = load("shop:Own", "pipeline")
    with pytest.raises(ConfigurationError, match="max_queue=64"):
        pipeline._wsengine_instead(DummyProducer(), concurrency=1, min_demand=0, max_demand=10, max_queue=64)


def test_a_pipeline_that_runs_is_refused():
    with load("shop:Plain", "pipeline") as running:
        sys.modules["shop"].running = running
        with pytest.raises(ConfigurationError, match="has not been started"):
            load("shop:running", "pipeline")


@pytest.mark.parametrize(("name", "kind", "said"), [
    ("shop", "pipeline", "give it as module:name"), (":Plain", "pipeline", "give it as module:name"),
    ("nowhere_at_all:x", "pipeline", "ModuleNotFoundError"), ("broken:x", "pipeline", "nowhere_to_be_found"),
    ("program:x", "pipeline", "SystemExit: it wants arguments"),
    ("shop:Missing", "pipeline", "AttributeError"), ("shop:one", "pipeline", "or --handler module:function"),
    ("shop:number", "pipeline", "give a Pipeline"), ("shop:Needy", "pipeline", "give an object of it"),
    ("shop:Failing", "pipeline", "OSError: no database here"), ("shop:number", "message", "give a function"),
    ("shop:Plain", "message", "give a function"),
])
def test_what_is_none_of_these_is_refused_with_the_reason(name, kind, said):
    with pytest.raises(ConfigurationError) as refused:
        load(name, kind)
    assert refused.value.path == f"tune.{'target' if kind == 'pipeline' else 'handler'}"
    assert said in str(refused.value)
