"""What telemetry costs where nobody listens, and, beside it, with one handler. A round is 1,000 calls."""

import pytest

from wsengine import telemetry

CALLS = 1000
EVENT = telemetry.connection_event("benchmark", "status")
MEASUREMENTS = {"status": 0}
METADATA = {"url": "ws://localhost"}


def empty():
    for _ in range(CALLS):
        pass


def listening():
    ask = telemetry.listening
    for _ in range(CALLS):
        ask(EVENT)


def execute():
    run = telemetry.execute
    for _ in range(CALLS):
        run(EVENT, MEASUREMENTS, METADATA)


def record(benchmark):
    if benchmark.stats:
        benchmark.extra_info["ns_per_call"] = benchmark.stats.stats.median * 1e9 / CALLS


@pytest.mark.parametrize("call", [empty, listening, execute])
def test_a_call_with_nobody_listening(benchmark, call):
    assert not telemetry.listening(EVENT)
    benchmark(call)
    record(benchmark)


@pytest.mark.parametrize("call", [listening, execute])
def test_a_call_with_one_handler(benchmark, call):
    seen = []
    telemetry.attach("benchmark", EVENT, lambda *event: seen.append(None))
    try:
        benchmark(call)
    finally:
        telemetry.detach("benchmark")
    assert bool(seen) is (call is execute)
    record(benchmark)
