"""The options of a batcher, and of a pipeline that has batchers."""

import pytest

from wsengine import Batcher, BatchInfo, ConfigurationError, Pipeline
from wsengine.testing import DummyProducer


def by_function(message, accumulator):
    return "cont", accumulator


class Batched(Pipeline):
    def handle_message(self, message):
        pass

    def handle_batch(self, messages, batch_info):
        pass


def test_what_nobody_sets_is_as_documented():
    batcher = Batcher()
    assert (batcher.concurrency, batcher.batch_size, batcher.batch_timeout, batcher.max_demand) == (1, 100, 1.0, None)
    assert batcher.bound(1) == batcher.bound(8) == 8192
    assert Batcher(batch_size=10000).bound(8) == 10000
    assert Batcher(batch_size=10, max_demand=3).bound(8) == 24


@pytest.mark.parametrize(("options", "path"), [
    ({"concurrency": 0}, "concurrency"), ({"concurrency": 1025}, "concurrency"), ({"concurrency": True}, "concurrency"),
    ({"batch_size": 0}, "batch_size"), ({"batch_size": 2**20 + 1}, "batch_size"), ({"batch_size": 1.5}, "batch_size"),
    ({"batch_size": None}, "batch_size"), ({"batch_size": (0,)}, "batch_size"),
    ({"batch_size": (0, 5), "max_demand": 1}, "batch_size[1]"),
    ({"batch_timeout": 0}, "batch_timeout"), ({"batch_timeout": -1}, "batch_timeout"),
    ({"batch_timeout": "1"}, "batch_timeout"),
    ({"max_demand": 0}, "max_demand"), ({"max_demand": 2**23 + 1}, "max_demand"),
    ({"batch_sise": 5}, "batch_sise"),
])
def test_a_wrong_option_is_refused_with_its_path(options, path):
    with pytest.raises(ConfigurationError) as refused:
        Batcher(**options)
    assert refused.value.path == f"batcher.{path}"


def test_a_function_as_size_needs_max_demand():
    with pytest.raises(ConfigurationError, match="max_demand"):
        Batcher(batch_size=(0, by_function))
    assert Batcher(batch_size=(0, by_function), max_demand=7).bound(2) == 14


def test_an_async_size_function_is_refused():
    async def late(message, accumulator):
        return "cont", accumulator

    with pytest.raises(ConfigurationError, match="async"):
        Batcher(batch_size=(0, late), max_demand=1)


@pytest.mark.parametrize("batchers", [[], "db", Batcher(), {"db": 100}, {5: Batcher()}, {"": Batcher()}], ids=repr)
def test_batchers_are_given_by_name(batchers):
    with pytest.raises(ConfigurationError, match=r"pipeline\.batchers"):
        Batched(DummyProducer(), batchers=batchers)


def test_batchers_without_a_handler_for_batches_are_refused_and_the_other_way_round():
    class Unbatched(Pipeline):
        def handle_message(self, message):
            pass

    with pytest.raises(ConfigurationError, match="define handle_batch"):
        Unbatched(DummyProducer(), batchers={"db": Batcher()})
    with pytest.raises(ConfigurationError, match="give batchers="):
        Batched(DummyProducer())
    with pytest.raises(ConfigurationError, match="without async"):
        type("Late", (Batched,), {"handle_batch": by_coroutine})(DummyProducer(), batchers={"db": Batcher()})


async def by_coroutine(self, messages, batch_info):
    return messages


def test_a_batch_that_could_never_be_full_is_refused():
    with pytest.raises(ConfigurationError, match="max_queue=128") as refused:
        Batched(DummyProducer(), batchers={"db": Batcher(batch_size=129)}, max_queue=100)
    assert refused.value.path == "pipeline.batchers['db'].batch_size"
    Batched(DummyProducer(), batchers={"db": Batcher(batch_size=128)}, max_queue=100)


def test_options_of_a_batcher_given_to_the_pipeline_are_told_their_place():
    with pytest.raises(ConfigurationError, match=r"batchers=\{name: Batcher\(batch_size="):
        Batched(DummyProducer(), batch_size=5)


def test_batch_info_says_what_it_holds():
    info = BatchInfo("db", ("k", 1), None, 3, "size")
    assert (info.batcher, info.batch_key, info.partition, info.size, info.trigger) == ("db", ("k", 1), None, 3, "size")
    assert repr(info) == "BatchInfo(batcher='db', batch_key=('k', 1), partition=None, size=3, trigger='size')"
    with pytest.raises(AttributeError):
        info.size = 4
