"""Cases: their checks, their product, what tells them apart, and the work of their handlers."""

from __future__ import annotations

import time

import pytest

from wsengine import ConfigurationError
from wsengine.bench.case import Case, cases, labels
from wsengine.bench.handlers import work_of


def test_cases_are_the_product_of_the_lists_in_order_and_each_once():
    made = cases({"handler": ["message", "chunk"], "size": [128, 1024, 128], "concurrency": [1]})
    assert [(case.size, case.handler) for case in made] == [
        (128, "message"), (128, "chunk"), (1024, "message"), (1024, "chunk")]
    assert cases({}) == [Case()]


def test_a_label_names_what_differs_and_nothing_else():
    assert labels(cases({"size": [128, 256], "tls": ["A"], "deflate": [True, False]})) == [
        "size=128 deflate=yes", "size=128 deflate=no", "size=256 deflate=yes", "size=256 deflate=no"]
    assert labels([Case()]) == ["wsengine"]


@pytest.mark.parametrize(("option", "value"), [
    ("size", 95), ("size", 2**20 + 1), ("concurrency", 0), ("min_demand", 100), ("max_demand", 0), ("handler", "batch"),
    ("cost", "spin"), ("cost", "spin:0"), ("cost", "spin:-1"), ("cost", "sleep:1001"), ("cost", "sleep:nan"),
    ("cost", "xml"), ("tls", "C"), ("deflate", "yes"),
])
def test_a_wrong_value_is_refused_by_its_name(option, value):
    with pytest.raises(ConfigurationError) as refused:
        Case(**{option: value})
    assert refused.value.path.rpartition(".")[2] == option
    assert refused.value.remedy


def test_an_empty_list_is_refused():
    with pytest.raises(ConfigurationError, match="at least one value"):
        cases({"size": []})


def test_a_parser_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr("wsengine.bench.handlers.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="pip install orjson"):
        Case(cost="orjson")


def test_the_work_is_what_its_name_says():
    assert work_of("none") is None
    assert work_of("json")(b'{"a": [1]}') == {"a": [1]}
    begun = time.thread_time_ns()
    work_of("spin:2000")(b"")
    assert time.thread_time_ns() - begun >= 2_000_000
    begun, cpu = time.monotonic_ns(), time.thread_time_ns()
    work_of("sleep:30")(b"")
    assert time.monotonic_ns() - begun >= 30_000_000
    assert time.thread_time_ns() - cpu < 20_000_000
