"""The layer rule: a file of the package imports only its own part of the package, or parts of the layers below.

Imports are read from the sources, nothing is imported: `.py` and `.pyi` by their syntax trees, `.pyx` and `.pxd` line
by line, in functions as well as at the top. Only what stands under `if TYPE_CHECKING:` may point upwards, because it is
gone at run time. The checker itself is checked against files written for that purpose.
"""

import ast
import itertools
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "wsengine"

#: The layer of each part; a part is a module or a package right below `wsengine`. "" is `wsengine/__init__` itself.
LAYERS = {
    "wording": -2, "logs": -1,
    "telemetry": 0, "event_counter": 0,
    "message": 1, "options": 1, "errors": 1,
    "engine": 2,
    "pipeline": 3,
    "websocket": 4,
    "testing": 5, "dashboard": 5, "exporters": 5, "integrations": 5,
    "bench": 6, "tune": 6,
    "cli": 7,
    "": 8, "__main__": 8,
}
#: The modules of layer 1 are one part, in which the errors are the bottom.
BESIDE = {("message", "errors"), ("options", "errors")}
SUFFIXES = (".py", ".pyi", ".pyx", ".pxd")

CYTHON_FROM = re.compile(r"^\s*from\s+([.\w]+)\s+c?import\s*(.*)$")
CYTHON_IMPORT = re.compile(r"^\s*c?import\s+(.+)$")


# ---------------------------------------------------------------------------------------------- the imports of a file

def imports_of(path, package_name):
    """(line, dotted name) of each import that counts, with relative ones resolved."""
    source = path.read_text()
    if path.suffix in (".pyx", ".pxd"):
        return list(cython_imports(source, package_name))
    return list(python_imports(ast.parse(source, str(path)), package_name))


def python_imports(node, package_name):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((child.lineno, alias.name) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = resolved("." * child.level + (child.module or ""), package_name)
            yield from ((child.lineno, f"{base}.{alias.name}") for alias in child.names)
        elif isinstance(child, ast.If) and is_type_checking(child.test):
            for other in child.orelse:
                yield from python_imports(ast.Module([other], []), package_name)
        else:
            yield from python_imports(child, package_name)


def is_type_checking(test):
    return ((isinstance(test, ast.Name) and test.id == "TYPE_CHECKING")
            or (isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"))


def cython_imports(source, package_name):
    """Cython's statements; what stands in docstrings and comments is blanked first, with the lines kept."""
    source = re.sub(r'("""|\'\'\')(.*?)\1', lambda found: "\n" * found.group(0).count("\n"), source, flags=re.DOTALL)
    lines = source.split("\n")
    for number, line in enumerate(lines, 1):
        line = line.partition("#")[0]
        if found := CYTHON_FROM.match(line):
            base, names = resolved(found.group(1), package_name), found.group(2)
            if names.startswith("("):
                names = "\n".join(lines[number - 1:]).partition("(")[2].partition(")")[0]
            for name in re.findall(r"(\*|\w+)(?:\s+as\s+\w+)?", re.sub(r"#.*", "", names)):
                yield number, f"{base}.{name}"
        elif found := CYTHON_IMPORT.match(line):
            for name in found.group(1).split(","):
                yield number, name.split()[0]


def resolved(name, package_name):
    """The absolute name of `name`, which may begin with dots, as it stands in a module of the package."""
    stripped = name.lstrip(".")
    dots = len(name) - len(stripped)
    if dots == 0:
        return name
    parts = package_name.split(".")
    parts = parts[:len(parts) - (dots - 1)]
    return ".".join([*parts, stripped] if stripped else parts)


# ------------------------------------------------------------------------------------------------------------ the rule

def part_of(dotted):
    """Which part of the package a dotted name belongs to: None if foreign, "" for what `wsengine` itself holds."""
    names = dotted.split(".")
    if names[0] != "wsengine":
        return None
    return names[1] if len(names) > 1 and names[1] in LAYERS else ""


def allowed(part, target):
    return target is None or target == part or LAYERS[target] < LAYERS[part] or (part, target) in BESIDE


def violations(root):
    """Each import that points upwards or sideways, as "file:line: what"."""
    found = []
    for path in sorted(path for path in root.rglob("*") if path.suffix in SUFFIXES):
        inside = path.relative_to(root)
        part = inside.parts[0] if len(inside.parts) > 1 else inside.stem
        part = "" if part == "__init__" else part
        place = f"wsengine/{inside}"
        if part not in LAYERS:
            found.append(f"{place}:1: {part} has no layer; give it one in {Path(__file__).name}")
            continue
        package_name = ".".join(["wsengine", *inside.parts[:-1]])
        for line, name in imports_of(path, package_name):
            target = part_of(name)
            if not allowed(part, target):
                found.append(f"{place}:{line}: {part} (layer {LAYERS[part]}) imports {name} (layer {LAYERS[target]})")
    return sorted(set(found))


def test_every_import_of_the_package_points_to_its_own_part_or_to_a_layer_below():
    found = violations(PACKAGE)
    assert not found, "imports against the layers:\n  " + "\n  ".join(found)


def test_the_sources_were_found_and_their_imports_read():
    pairs = {(path.suffix, part_of(name))
             for path in PACKAGE.rglob("*") if path.suffix in SUFFIXES
             for _, name in imports_of(path, ".".join(["wsengine", *path.relative_to(PACKAGE).parts[:-1]]))}
    assert {(".py", "errors"), (".pyi", "engine"), (".pyx", "engine"), (".pxd", "engine")} <= pairs


# --------------------------------------------------------------------------------------------------------- the checker

@pytest.fixture
def tree(tmp_path):
    """Write files of a package made up for the test, and check it."""
    numbers = itertools.count()

    def check(files):
        root = tmp_path / str(next(numbers))
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return violations(root)
    return check


@pytest.mark.parametrize("statement", [
    "import wsengine.pipeline.source",
    "import os, wsengine.pipeline.source",
    "from wsengine.pipeline import source",
    "from wsengine.pipeline.source import Source",
    "from wsengine import pipeline",
    "from ..pipeline import source",
    "from ..pipeline.source import Source",
    "from .. import pipeline",
    "def late():\n    from wsengine.pipeline import source",
    "try:\n    import wsengine.pipeline\nexcept ImportError:\n    pass",
    "class A:\n    def b(self):\n        if self:\n            import wsengine.pipeline as p",
])
@pytest.mark.parametrize("suffix", ["py", "pyi", "pyx", "pxd"])
def test_an_import_upwards_is_found_in_every_kind_of_file(tree, suffix, statement):
    lines = statement.split("\n")
    line = 2 + next(at for at, text in enumerate(lines) if "pipeline" in text)
    found = tree({f"engine/ring.{suffix}": '"""Text."""\n' + statement + "\n"})
    assert len(found) == 1
    assert found[0].startswith(f"wsengine/engine/ring.{suffix}:{line}: engine (layer 2) imports wsengine.pipeline")
    assert found[0].endswith("(layer 3)")


@pytest.mark.parametrize("statement", [
    "cimport wsengine.pipeline.source",
    "from wsengine.pipeline.source cimport Source",
    "from ..pipeline.source cimport Source as S",
    "from wsengine.pipeline.source cimport (One,\n                                        Two)",
    "from wsengine cimport pipeline",
])
@pytest.mark.parametrize("suffix", ["pyx", "pxd"])
def test_a_cimport_upwards_is_found(tree, suffix, statement):
    found = tree({f"engine/ring.{suffix}": statement + "\n"})
    assert found
    assert all(one.startswith(f"wsengine/engine/ring.{suffix}:1: ") for one in found)


def test_another_part_of_the_same_layer_is_not_below(tree):
    assert tree({"testing/feed.py": "import wsengine.exporters\n"}) == [
        "wsengine/testing/feed.py:1: testing (layer 5) imports wsengine.exporters (layer 5)"]
    assert tree({"errors.py": "from wsengine.options import whole\n"}) == [
        "wsengine/errors.py:1: errors (layer 1) imports wsengine.options.whole (layer 1)"]
    assert tree({"options.py": "from wsengine.errors import ConfigurationError\n"}) == []


def test_imports_downwards_and_within_a_part_and_foreign_ones_pass(tree):
    assert tree({
        "engine/receiver.pyx": "from libc.stdint cimport int64_t\nfrom wsengine.engine.ring cimport Ring\n"
                                 "from wsengine.errors import EngineError\nimport time\n",
        "engine/receiver.pyi": "from wsengine.engine.ring import Ring\n",
        "websocket/dial.py": "from . import uri\nfrom .uri import parse\nfrom wsengine.engine.ring import Ring\n",
        "cli/main.py": "import wsengine.testing\nimport wsengine_other\n",
        "__init__.py": "from wsengine.cli import main\nfrom wsengine.pipeline.pipeline import Pipeline\n",
    }) == []


def test_names_for_type_checkers_only_may_come_from_above(tree):
    block = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from wsengine.websocket.uri import parse_uri\n"
    assert tree({"errors.py": block}) == []
    assert tree({"errors.py": "import typing\nif typing.TYPE_CHECKING:\n    import wsengine.websocket.uri\n"}) == []
    found = tree({"errors.py": block + "else:\n    import wsengine.websocket.dial\n"})
    assert found == ["wsengine/errors.py:5: errors (layer 1) imports wsengine.websocket.dial (layer 4)"]
    assert len(tree({"errors.py": "if not TYPE_CHECKING:\n    import wsengine.websocket.dial\n"})) == 1


def test_what_stands_in_texts_and_comments_is_no_import(tree):
    text = '"""Says:\n\nfrom wsengine.cli import main\n"""\n# import wsengine.cli\n'
    for suffix in ("py", "pyi", "pyx", "pxd"):
        assert tree({f"engine/ring.{suffix}": text}) == []


def test_the_top_of_the_package_may_not_be_imported_from_below(tree):
    assert tree({"engine/ring.py": "from wsengine import Pipeline\nimport wsengine\n"}) == [
        "wsengine/engine/ring.py:1: engine (layer 2) imports wsengine.Pipeline (layer 8)",
        "wsengine/engine/ring.py:2: engine (layer 2) imports wsengine (layer 8)",
    ]


def test_a_part_without_a_layer_is_named(tree):
    assert tree({"novelty.py": ""}) == ["wsengine/novelty.py:1: novelty has no layer; give it one in test_layers.py"]
