"""How the engine's threads are started, and how they end with the interpreter: named, joined, with whose signals.

Every thread of the engine is a `threading.Thread` made here, so that it has a name that `top -H` and a debugger show, and
is stopped before the interpreter waits for it. It belongs to whoever had it made, because what is stopped from within one of
its own threads cannot wait for that thread's end. What a thread does is not known here. Also here: what a fork does to
engines, because that is a matter of threads as well.

A thread that runs a user's code keeps the signal mask that it was born with, as any thread of Python's does: processes that
the code starts inherit it, and could not be terminated if all were blocked. The system gives signals for the process to the
main thread all the same, unless that blocks them; who waits for them in `signal.sigwait` must have blocked them before a
pipeline starts, which its threads inherit.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Protocol

from wsengine.errors import ForkedProcessError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Stoppable", "at_exit", "belonging_to", "check_fork", "exiting", "spawn", "unstarted", "within"]


class Stoppable(Protocol):
    """Something whose threads must end with the interpreter."""

    def stop_at_exit(self) -> None: ...


_engines: weakref.WeakSet[Stoppable] = weakref.WeakSet()
_exiting = threading.Event()


def spawn(name: str, body: Callable[[], None], *, deaf: bool = False) -> threading.Thread:
    """Start a non-daemon thread with an OS name. Names are `wsengine:<pipeline>:<part>`. One that is `deaf` takes no
    signals: it runs no Python code, least of all a user's."""
    thread = unstarted(name, body, deaf=deaf)
    thread.start()
    return thread


def unstarted(name: str, body: Callable[[], None], *, deaf: bool = False) -> threading.Thread:
    """The same, for `start` to be called: who has the thread before it runs keeps it whatever a signal's handler raises."""
    owner = _here.owner

    def run() -> None:
        if deaf:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        _name_for_the_system(name)
        _here.owner = owner
        body()

    return threading.Thread(target=run, name=name, daemon=False)


class _Here(threading.local):
    """To whom the thread belongs that asks; None: to nobody."""

    owner: object = None


_here = _Here()


@contextlib.contextmanager
def belonging_to(owner: object) -> Iterator[None]:
    """Have the threads that are made in the block belong to `owner`, and so those that they make. Whoever is in the block
    counts as one of them: what is being started does not end before it has been."""
    before, _here.owner = _here.owner, owner
    try:
        yield
    finally:
        _here.owner = before


def within(owner: object) -> bool:
    """Whether the caller runs in a thread that belongs to `owner`, for whose end a stop waits."""
    return _here.owner is owner


def _name_for_the_system(name: str) -> None:
    """The kernel keeps 15 bytes: the end tells more than the beginning."""
    if sys.platform == "linux":
        short = name.rsplit(":", 1)[-1].encode()[-15:]
        try:
            with open(f"/proc/self/task/{threading.get_native_id()}/comm", "wb", buffering=0) as comm:
                comm.write(short)
        except OSError:
            return  # no /proc: the name is a convenience


def at_exit(engine: Stoppable) -> None:
    """Have `engine.stop_at_exit()` called when the interpreter begins to end."""
    _engines.add(engine)


def exiting() -> bool:
    """Whether the interpreter is ending: no dial and no replacement starts any more."""
    return _exiting.is_set()


def _stop_engines() -> None:
    _exiting.set()
    for engine in list(_engines):
        engine.stop_at_exit()


# atexit runs only after non-daemon threads have been joined, which would wait for ever. The hook that runs before is
# private, so where it is missing the program must stop its pipelines by itself.
getattr(threading, "_register_atexit", atexit.register)(_stop_engines)


def check_fork(pid: int) -> None:
    """Raise ForkedProcessError in a process other than `pid`, in which the engine's threads do not exist."""
    if os.getpid() != pid:
        raise ForkedProcessError


def _after_fork_in_child() -> None:
    _engines.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
