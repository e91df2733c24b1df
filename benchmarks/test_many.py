"""A thousand connections of one producer: seconds to connect, resident bytes each and CPU while idle, in extra_info."""

import pytest

from wsengine.testing import Feed

pytest.importorskip("pytest_benchmark", reason="benchmarks need the extra: pip install 'wsengine[bench]'")

ENGINE_THREADS = 3  # reader, timer, supervisor


@pytest.mark.parametrize("connections", [10, 1000])
def test_connecting_and_idling(measured, connections):
    found = measured(Feed.payloads([(2, b"hello")], resume=False), "many_client", "--connections", connections)
    assert found["engine_threads"] == ENGINE_THREADS
