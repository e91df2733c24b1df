"""How options are checked: one error that names the option by its path, the value given, and the remedy.

Here live the checks that several option objects share. Which options there are, and their defaults, stands with the
objects that take them (`Processors`, `WebSocketProducer`, `Backoff`, `Pipeline`).
"""

from __future__ import annotations

import difflib
import inspect
import logging
import math
from typing import TYPE_CHECKING, Any, TypeVar

from wsengine.errors import ConfigurationError
from wsengine.wording import Unshown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["OVERFLOW_POLICIES", "boolean", "check_logger", "choice", "close_coroutine", "function", "number", "patience",
           "refuse_async", "reject_unknown", "seconds", "text", "whole"]

T = TypeVar("T", bound=str)
#: Of the option `overflow`: what happens to messages for which there is no room (engine.overflow).
OVERFLOW_POLICIES = ("block", "drop_oldest", "drop_newest", "error")


def whole(path: str, value: object, *, minimum: int = 0, maximum: int | None = None) -> int:
    """Check a whole number between `minimum` and `maximum`, both included; a bool is not one."""
    bounds = f"from {minimum} to {maximum}" if maximum is not None else f"of at least {minimum}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(path, value, f"give a whole number {bounds}")
    if value < minimum or (maximum is not None and value > maximum):
        raise ConfigurationError(path, value, f"give a whole number {bounds}")
    return value


def seconds(path: str, value: object, *, optional: bool = True, zero: bool = False) -> float | None:
    """Check a time in seconds, 1e-6 to 1e9 (or 0 to 1e9 with `zero`); None (off) only where `optional`."""
    remedy = f"give seconds {'of at least' if zero else 'above'} 0" + (", or None to turn it off" if optional else "")
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigurationError(path, value, remedy)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigurationError(path, value, remedy)
    if value < 0 or (value == 0 and not zero):
        raise ConfigurationError(path, value, remedy)
    if 0 < value < 1e-6 and not zero:  # meant as a time, and nanoseconds would make it "off"
        raise ConfigurationError(path, value, "give seconds of at least 1e-6" + (", or None for off" if optional else ""))
    if value > 1e9:  # before any conversion: an int may be too large for a float
        raise ConfigurationError(path, value, "give seconds of at most 1e9" + (", or None for off" if optional else ""))
    return float(value)


def patience(path: str, value: object) -> float | None:
    """Check the seconds that a call may wait: any number, below 0 as 0; None waits for ever."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise ConfigurationError(path, value, "give seconds, or None to wait for ever")
    return float(max(0, min(value, 1e9)))  # bounded first: an int may be too large for a float


def number(path: str, value: object, minimum: float, maximum: float, unit: str) -> float:
    """Check a number of `unit` between `minimum` and `maximum`, both included; a bool is not one, nor is nan."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not minimum <= value <= maximum:
        raise ConfigurationError(path, value, f"give {unit} from {minimum:g} to {maximum:g}")
    return float(value)


def boolean(path: str, value: object) -> bool:
    """Check a bool; 0, 1 and strings are not taken for one."""
    if not isinstance(value, bool):
        raise ConfigurationError(path, value, "give True or False")
    return value


def text(path: str, value: object, *, empty: bool = False) -> str:
    """Check a string without control characters, not empty unless `empty`."""
    if not isinstance(value, str) or (not value and not empty) or any(ord(c) < 32 or ord(c) == 127 for c in value):
        remedy = "give a string without control characters" + ("" if empty else ", not empty")
        raise ConfigurationError(path, value, remedy)
    return value


def choice(path: str, value: object, choices: Collection[T]) -> T:
    """Check that the value is one of `choices`."""
    for one in choices:
        if value == one and isinstance(value, str):
            return one
    raise ConfigurationError(path, value, "give one of " + ", ".join(map(repr, choices)))


def function(path: str, value: object, signature: str, *, optional: bool = True) -> Callable[..., object] | None:
    """Check a callable that is not async, or None where `optional`; `signature` is shown in the remedy."""
    if value is None and optional:
        return None
    if not callable(value):
        raise ConfigurationError(path, value, f"give a callable {signature}" + (", or None" if optional else ""))
    refuse_async(path, value)
    return value


def refuse_async(path: str, value: object) -> None:
    """Refuse what is defined with async, as far as that can be told without a call; there is no loop that would await it."""
    call = value if inspect.isroutine(value) or isinstance(value, type) else getattr(value, "__call__", None)  # noqa: B004
    for one in (value, call):
        if inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one):
            raise ConfigurationError(path, value, "define it without async: it is called in a thread, and its result is "
                                     "what counts")


def close_coroutine(answer: object) -> bool:
    """Close a coroutine that a callable has returned, else it warns, in another place, that nobody awaited it. Whether it
    was one."""
    if not inspect.iscoroutine(answer):
        return False
    answer.close()
    return True


def check_logger(path: str, value: object) -> logging.Logger | logging.LoggerAdapter[Any]:
    """Check a logger; None takes that of connections."""
    if value is not None and not isinstance(value, (logging.Logger, logging.LoggerAdapter)):
        raise ConfigurationError(path, value, "give a logging.Logger")
    return value or logging.getLogger("wsengine.connection")


#: Of an option whose name is reserved.
LATER = "it is not available in this version"


def reject_unknown(path: str, given: Mapping[str, object], known: Collection[str], renamed: Mapping[str, str]) -> None:
    """Refuse option names that do not exist; the remedy names the one that is meant.

    Of what is given only the type is told: an option of another library may be a token, a password, a URL with both.

    Args:
        path: the object that was given the options, for the message.
        given: the unexpected names with their values.
        known: the names that exist.
        renamed: former names, and names of other libraries, each with what to use instead; LATER for what is to come.
    """
    for name in given:
        if name in known:
            continue
        full, value = f"{path}.{name}", Unshown.of(given[name])
        if renamed.get(name) == LATER:
            raise ConfigurationError(full, value, f"{LATER}; leave it out")
        if name in renamed:
            raise ConfigurationError(full, value, f"there is no such option; use {renamed[name]}")
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "the options are " + ", ".join(sorted(known))
        raise ConfigurationError(full, value, f"there is no such option; {hint}")
