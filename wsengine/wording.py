"""How what others gave gets into our texts: on one line, short, and never a secret, whatever its methods do.

Here belongs how a single value, error or text is put into words. What is said about it stands where it is said (errors,
options, websocket.events). URLs and headers have rules of their own (websocket.uri, websocket.response).
"""

from __future__ import annotations

import enum
import threading
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType

__all__ = ["Unshown", "is_interrupt", "kept", "printable", "shown", "told"]

#: Characters of a value in a text at the most.
LONGEST = 80
#: Of them, those before the gap in a longer one.
HEAD = 40
#: Values whose repr says what they are, and no more than whoever gave them has written.
PLAIN = (bool, int, float, complex, str, bytes, bytearray, enum.Enum, PurePath, type, type(None))
COLLECTIONS = (tuple, list, set, frozenset)
FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType)


class Unshown(str):
    """Stands for a value that is not shown, by its type: "<dict>"; for a function, by its name."""

    __slots__ = ()

    @classmethod
    def of(cls, value: object) -> Unshown:
        """What stands for this value; once again for what stands for one."""
        if isinstance(value, cls):
            return value
        if isinstance(value, FUNCTIONS):
            return cls(f"<function {value.__qualname__}>")
        return cls(f"<{type(value).__name__}>")

    def __repr__(self) -> str:
        return str(self)


def kept(value: object) -> object:
    """The value if it is plain, or a collection of plain ones; else what stands for it.

    The repr of anything else may hold a secret, as that of a functools.partial or of a mapping of headers does, or raise;
    and an error that kept it would take it along into telemetry and pickles.
    """
    return value if _is_plain(value) else Unshown.of(value)


def _is_plain(value: object, depth: int = 3) -> bool:
    if isinstance(value, COLLECTIONS):
        return depth > 0 and type(value) in COLLECTIONS and all(_is_plain(one, depth - 1) for one in value)
    return isinstance(value, PLAIN)


def shown(value: object) -> str:
    """The repr of a value, shortened; its type where it has none."""
    try:
        text = repr(value)
    except BaseException as fault:
        if is_interrupt(fault):
            raise
        return Unshown.of(value)
    return text if len(text) <= LONGEST else f"{text[:HEAD]}...{text[HEAD + 3 - LONGEST:]}"  # a path's end names the file


def told(error: BaseException | None) -> str:
    """The text of an error on one line; where its own method fails, its type."""
    try:
        return printable(str(error))
    except BaseException as fault:
        if is_interrupt(fault):
            raise
        return Unshown.of(error)


def printable(text: str) -> str:
    """The text with what is not printable escaped, such as line ends and ESC: a peer shall not write our lines."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def is_interrupt(error: BaseException) -> bool:
    """Whether it is the main thread's to be interrupted: what user code raises in other threads ends none of them."""
    return isinstance(error, (KeyboardInterrupt, SystemExit)) and threading.current_thread() is threading.main_thread()
