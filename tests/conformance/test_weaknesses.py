"""The table of weaknesses in docs/conformance.md: each row is there, and is named by tests that exist. The tests themselves
stand where they belong."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
DOCUMENT = (TESTS.parent / "docs" / "conformance.md").read_text()
#: (row, its tests as `file::name`).
TABLE = [(row, re.findall(r"`([^`]+::[^`]+)`", cells))
         for row, cells in re.findall(r"^\| ([BTD]-\d+) \|(.+)\|$", DOCUMENT, re.MULTILINE)]


@cache
def docstrings(file):
    """Name of a function -> its docstring."""
    tree = ast.parse((TESTS / file).read_text())
    return {one.name: ast.get_docstring(one) or "" for one in tree.body if isinstance(one, ast.FunctionDef)}


def test_every_row_is_in_the_table_once():
    wanted = {f"{kind}-{number}" for kind, last in (("B", 22), ("T", 3), ("D", 5)) for number in range(1, last + 1)}
    found = [row for row, _ in TABLE]
    assert len(found) == len(set(found))
    assert set(found) == wanted


@pytest.mark.parametrize(("row", "tests"), TABLE, ids=[row for row, _ in TABLE])
def test_each_row_is_named_by_tests_that_exist(row, tests):
    assert tests
    for one in tests:
        file, name = one.split("::")
        assert name.startswith("test_")
        assert re.search(rf"\b{row}\b", docstrings(file)[name]), f"{one} does not name {row}"
