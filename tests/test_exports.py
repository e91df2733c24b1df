"""What is public: that the names of the package are complete, in order, and there."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import wsengine
from wsengine import errors

MODULES = sorted(["wsengine", *(found.name for found in pkgutil.walk_packages(wsengine.__path__, "wsengine.")
                                if not found.name.endswith("__main__"))])


def test_the_modules_were_found():
    assert {"wsengine.message", "wsengine.engine.ring", "wsengine.pipeline.source", "wsengine.websocket.dial",
            "wsengine.testing.dummy", "wsengine.cli.main"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_every_name_that_a_module_lists_exists_and_is_listed_once(name):
    module = importlib.import_module(name)
    listed = getattr(module, "__all__", [])
    assert [one for one in listed if not hasattr(module, one)] == []
    assert len(set(listed)) == len(listed)


def test_everything_that_the_package_holds_is_listed():
    held = {name for name, value in vars(wsengine).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert held - set(wsengine.__all__) == set()


def test_everything_that_is_listed_can_be_imported_by_a_star():
    names = {}
    exec("from wsengine import *", names)
    assert {name: names.get(name) for name in wsengine.__all__} == {
        name: getattr(wsengine, name) for name in wsengine.__all__}


def test_all_errors_are_public():
    defined = {name for name, value in vars(errors).items()
               if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == "wsengine.errors"}
    assert defined == set(errors.__all__)
    assert defined <= set(wsengine.__all__)


def test_the_names_are_sorted_the_errors_after_the_others():
    others = [name for name in wsengine.__all__ if name not in errors.__all__]
    assert others == sorted(others, key=lambda name: (not name.isupper(), name))   # constants before all, as ruff has it
    assert errors.__all__ == sorted(errors.__all__)
    assert wsengine.__all__ == [*others, *errors.__all__]


@pytest.mark.parametrize("name", ["wsengine", "wsengine.testing"])
def test_what_is_public_has_a_docstring(name):
    module = importlib.import_module(name)
    bare = [one for one in module.__all__ if not inspect.ismodule(getattr(module, one))
            and not inspect.getdoc(getattr(module, one))]
    assert bare == []
