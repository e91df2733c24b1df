"""A free-threaded Python on this machine that can run the user's handler: found on the PATH, or named by the user."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wsengine.errors import ConfigurationError
from wsengine.tune.client import distribution_version

if TYPE_CHECKING:
    from wsengine.tune.measure import Measure

__all__ = ["NAMES", "Interpreter", "free_threaded"]

#: What free-threaded builds are called; the first was 3.13. The newest first.
NAMES = tuple(f"python3.{minor}t" for minor in range(sys.version_info.minor + 4, 12, -1))
#: What to do so that there is one.
REMEDY = "name one by --free-threaded PYTHON that has wsengine installed and all that your module imports"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python without the GIL that imports wsengine and the user's module."""

    path: str
    version: str


def free_threaded(measure: Measure, named: str | None) -> Interpreter | str:
    """One that can measure the same; or why there is none, in words.

    Args:
        measure: what is tuned.
        named: the interpreter that the user wants; None for one of the PATH.

    Raises:
        ConfigurationError: the one that was named will not do.
    """
    if named is not None:
        found = _tried(measure, named)
        if isinstance(found, str):
            raise ConfigurationError("tune.free_threaded", named, f"{REMEDY} ({found})")
        return found
    paths = [path for path in map(shutil.which, NAMES) if path is not None]
    if not paths:
        return f"no free-threaded Python is at hand; {REMEDY}"
    reasons = []
    for path in paths:
        found = _tried(measure, path)
        if isinstance(found, Interpreter):
            return found
        reasons.append(f"{path}: {found}")
    return f"{'; '.join(reasons)}; {REMEDY}"


def _tried(measure: Measure, path: str) -> Interpreter | str:
    """That interpreter, or why it can't measure this."""
    if shutil.which(path) is None:
        return "there is no such program"
    try:
        found = replace(measure, python=path).check()
    except ConfigurationError as error:
        return str(error)
    if found["gil"]:
        return "it has a GIL, or what your module imports brings it back"
    ours = distribution_version()
    if ours and found["version"] and found["version"] != ours:
        return f"it has wsengine {found['version']}, and this is {ours}"
    return Interpreter(path, found["python"])
