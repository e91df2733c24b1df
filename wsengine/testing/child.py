"""A test server in a process of its own, and the line it is controlled by: one JSON object a line, over two pipes.

Both ends of that line live here. What a server does with a request does not. The child ends when it is told to, and
also when its pipe ends, so that a parent that dies leaves no server behind.
"""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wsengine.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ServerProcess", "serve", "wait_until"]

S = TypeVar("S")

#: The root that the package was imported from: the child must run the same code as its parent.
_ROOT = str(Path(__file__).resolve().parents[2])


def _encode(value: object) -> bytes:
    def default(other: object) -> object:
        if isinstance(other, (bytes, bytearray, memoryview)):
            return {"base64": base64.b64encode(other).decode()}
        raise TypeError(f"{type(other).__name__} cannot be sent to a server process")

    return json.dumps(value, default=default, separators=(",", ":")).encode() + b"\n"


def _decode(line: bytes) -> Any:
    def hook(value: dict[str, Any]) -> Any:
        return base64.b64decode(value["base64"]) if value.keys() == {"base64"} else value

    return json.loads(line, object_hook=hook)


class ServerProcess:
    """A child that runs `python -m <module>`. Thread-safe: one request at a time is on the line.

    Args:
        module: its name.
        settings: what the server is to do; the first line it reads.
        timeout: seconds that the start, and later each answer, may take.

    Raises:
        ConfigurationError: the server refuses its settings, such as a port that is taken.
        RuntimeError: the process ended by itself.
        TimeoutError: it did not answer.
    """

    def __init__(self, module: str, settings: Mapping[str, object], *, timeout: float = 30.0) -> None:
        self._name = module.rpartition(".")[2]
        self._timeout = timeout
        self._lock = threading.Lock()
        self._received = bytearray()
        path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env={**os.environ, "PYTHONPATH": path},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        try:
            self.ready: Any = self._exchange(settings)
        except BaseException:
            self._end(0)
            raise

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def request(self, op: str, **arguments: object) -> Any:
        """Ask for one thing and return the answer. Raises as the constructor does."""
        with self._lock:
            return self._exchange({"op": op, **arguments})

    def stop(self) -> Any:
        """End the process; return its last answer, or None where it had already gone."""
        with self._lock:
            try:
                return self._exchange({"op": "stop"}) if self._process.poll() is None else None
            except (RuntimeError, TimeoutError):
                return None  # It is ended below all the same.
            finally:
                self._end(5)

    def _exchange(self, message: object) -> Any:
        try:
            line = memoryview(_encode(message))
            while line:
                line = line[self._requests.write(line) :]
        except (BrokenPipeError, ValueError):
            raise RuntimeError(self._gone()) from None
        try:
            answer = _decode(self._read_line())
        except (KeyboardInterrupt, SystemExit):
            self._end(0)  # the answer on its way would be taken for that of the next request
            raise
        if "refused" in answer:
            raise ConfigurationError(*answer["refused"])
        return answer["answer"]

    def _read_line(self) -> bytes:
        deadline = time.monotonic() + self._timeout
        poller = select.poll()
        poller.register(self._answers, select.POLLIN)
        while (end := self._received.find(b"\n")) < 0:
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                # A late answer would be taken for that to the next request: the line ends here, and the server with it.
                self._end(0)
                raise TimeoutError(f"{self._name} gave no answer within {self._timeout} seconds, and was ended")
            data = os.read(self._answers.fileno(), 1 << 20)
            if not data:
                raise RuntimeError(self._gone())
            self._received += data
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def _gone(self) -> str:
        self._end(5)
        return f"{self._name} ended by itself with status {self._process.returncode}; what it said stands on stderr"

    def _end(self, grace: float) -> None:
        self._requests.close()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()


def serve(start: Callable[[dict[str, Any]], object], handlers: Mapping[str, Callable[..., object]]) -> None:
    """The child's side: start with the first line, then answer one line after the other until "stop" or the end.

    Args:
        start: is given the settings; its result is the first answer. A ConfigurationError it raises reaches the parent.
        handlers: for each request its callable, given the request's arguments by name; "stop" is the last to be asked.
    """
    if sys.stdin.isatty():
        sys.exit("this server is started by wsengine.testing (Feed, ScriptedServer); to look at a feed: wsengine demo")
    # Ctrl-C in a terminal reaches the whole process group; the server must outlive the client's draining.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer

    def answer(value: object) -> None:
        answers.write(_encode(value))
        answers.flush()

    first = requests.readline()
    if not first:
        return
    try:
        answer({"answer": start(_decode(first))})
    except ConfigurationError as error:
        answer({"refused": [error.path, error.value, error.remedy]})
        return
    for line in requests:
        message = _decode(line)
        op = message.pop("op")
        answer({"answer": handlers[op](**message)})
        if op == "stop":
            return


def wait_until(look: Callable[[], S], condition: Callable[[S], object], timeout: float, what: str) -> S:
    """Look every few milliseconds until the condition holds; return what was seen then.

    Raises:
        TimeoutError: it does not hold within `timeout` seconds; names `what` was waited for and the last that was seen.
    """
    deadline = time.monotonic() + timeout
    while True:
        seen = look()
        if condition(seen):
            return seen
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what}: not within {timeout} seconds; last seen: {seen}")
        time.sleep(0.005)
