"""An embedded server, seen from the program that uses it: its life from start to stop, where it listens, and `with`.

What each server sends, and what it tells about its connections, stands with it (feed, scripted); the process that it runs
in, and the line to it, in child.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from wsengine.testing.child import ServerProcess

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["EmbeddedServer"]


class EmbeddedServer(ABC):
    """A server in a process of its own; use `with`. It starts once and stops once; what it saw stays readable."""

    #: The module that the process runs, and what errors call the server.
    _module: ClassVar[str]
    _noun: ClassVar[str]

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._server: ServerProcess | None = None
        self._over = False

    def start(self) -> Self:
        """Start the server; done by `with`.

        Raises:
            ConfigurationError: the port is taken.
            RuntimeError: it is started already, or the process ended by itself.
            TimeoutError: the process does not answer within 30 seconds.
        """
        if self._server is not None or self._over:
            raise RuntimeError(f"this {self._noun} has been started; make a new one")
        self._server = ServerProcess(self._module, self._settings)
        return self

    def stop(self) -> Any:
        """End the process, and with it all its connections; what it saw stays readable."""
        if not self._over:
            answer = self._running().stop()
            self._server = None
            self._over = True
            self._keep(answer)
        return None

    @abstractmethod
    def _keep(self, answer: Any) -> None:
        """Keep the last answer of the process, None if it had none to give."""

    @property
    def port(self) -> int:
        """The port it listens on. Raises RuntimeError before the start and after the stop."""
        port: int = self._running().ready["port"]
        return port

    @property
    def url(self) -> str:
        """The URL to connect to; any path does. Raises RuntimeError before the start and after the stop."""
        return f"{'ws' if self._settings['tls'] is None else 'wss'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self if self._server is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> ServerProcess:
        if self._server is None:
            raise RuntimeError(f"this {self._noun} is not running; use it in a with statement, or call start()")
        return self._server
