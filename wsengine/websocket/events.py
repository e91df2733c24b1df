"""What a producer tells about its connections: telemetry and log, each transition once, and never a secret.

Which event means what stands in `telemetry`; the rows below add what the reference lacks (W-30): attempt, durations, close
code, counts. URLs are told without credentials and query. A logger that raises costs its line, not the event behind it.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from wsengine import telemetry
from wsengine.errors import ConnectionClosed
from wsengine.logs import log
from wsengine.wording import told

if TYPE_CHECKING:
    from wsengine.engine.receiver import Note
    from wsengine.websocket.connection import Connection

__all__ = ["Events"]


class Events:
    """Tells what happens to the connections of one producer; in the supervisor's thread only.

    Args:
        telemetry_id: the first element of the events' names.
        logger: one INFO line a change of state, WARNING for what went wrong.
        loud: whether pings and pongs are told.
    """

    def __init__(self, telemetry_id: str, pipeline: str, logger: logging.Logger | logging.LoggerAdapter[Any], *,
                 loud: bool = False) -> None:
        self._loud = loud
        self._told_of_b = False
        self._names = {name: telemetry.connection_event(telemetry_id, name) for name in telemetry.CONNECTION_EVENTS}
        self._queue = {name: telemetry.queue_event(telemetry_id, name) for name in telemetry.QUEUE_EVENTS}
        self._pipeline = pipeline
        self._logger = logger

    def _tell(self, event: tuple[str, ...], connection: Connection, measurements: dict[str, Any],
              metadata: dict[str, Any] | None = None) -> None:
        if telemetry.listening(event):
            telemetry.execute(event, measurements, {
                "pipeline": self._pipeline, "url": connection.url, "index": connection.index, "epoch": connection.epoch,
                **(metadata or {})})

    def opened(self, connection: Connection, attempt: int, duration: float) -> None:
        """READY: `success`, then `status` 1."""
        log(self._logger, logging.INFO, "connection %d to %s is open (attempt %d, %.3f s)", connection.index,
            connection.url, attempt, duration)
        if connection.tls_path == "B" and not self._told_of_b:
            self._told_of_b = True
            log(self._logger, logging.WARNING, "connection %d to %s goes over TLS path B: %s; while a handler holds the "
                "GIL, nothing of it is read and no ping is sent", connection.index, connection.url, connection.tls_reason)
        self._tell(self._names["success"], connection, {"count": 1, "attempt": attempt, "duration": duration})
        self._tell(self._names["status"], connection, {"value": 1})

    def attempt_failed(self, connection: Connection, attempt: int, duration: float, error: BaseException,
                       delay: float | None) -> None:
        """An attempt came to nothing: `failure`. There was no status 1, so there is no status 0."""
        log(self._logger, logging.WARNING, "connection %d to %s failed (attempt %d): %s; %s", connection.index,
            connection.url, attempt, _line(error), _next(delay))
        self._tell(self._names["failure"], connection, {"count": 1, "attempt": attempt, "duration": duration,
                                                        "delay": delay}, {"reason": error})

    def lost(self, connection: Connection, event: str, error: BaseException, duration: float, counts: dict[str, int],
             delay: float | None) -> None:
        """READY is over, by itself: `disconnected`, `timeout` or `failure`, then `status` 0."""
        log(self._logger, logging.WARNING, "connection %d to %s is lost after %.1f s: %s; %s", connection.index,
            connection.url, duration, _line(error), _next(delay))
        measurements: dict[str, Any] = {"count": 1, "duration": duration, "delay": delay, **counts}
        if isinstance(error, ConnectionClosed):
            measurements["close_code"] = error.code
        self._tell(self._names[event], connection, measurements, {"reason": error})
        self._tell(self._names["status"], connection, {"value": 0}, {"reason": error})

    def closed(self, connection: Connection, duration: float) -> None:
        """READY is over, because we were told to stop: `status` 0."""
        log(self._logger, logging.INFO, "connection %d to %s is closed after %.1f s", connection.index, connection.url,
            duration)
        self._tell(self._names["status"], connection, {"value": 0}, {"reason": "stopped"})

    def gave_up(self, connection: Connection, error: BaseException) -> None:
        log(self._logger, logging.ERROR, "connection %d to %s: %s", connection.index, connection.url, _line(error))

    def control(self, connection: Connection, note: Note) -> None:
        """A ping of the peer's, or a pong; only where they are not silenced."""
        if not self._loud:
            return
        measurements: dict[str, Any] = {"count": 1, "monotonic_time": time.monotonic_ns()}
        if note.kind == "pong" and note.round_trip >= 0:
            measurements["round_trip"] = note.round_trip
        self._tell(self._names[note.kind], connection, measurements, {"payload": note.text})

    def pressure(self, connection: Connection, note: Note, limits: tuple[int, int]) -> None:
        """The pipeline is full and reading stopped (`high`), or half is free again (`low`)."""
        held = {"messages": note.detail >> 40, "bytes": note.detail & (1 << 40) - 1, "max_messages": limits[0],
                "max_bytes": limits[1]}
        log(self._logger, logging.DEBUG, "the pipeline is %s: %r",
            "full, reading pauses" if note.kind == "high" else "read again", held)
        self._tell(self._queue[note.kind], connection, held)

    def failed_late(self, connection: Connection, epoch: int, error: BaseException) -> None:
        """The frame handler failed a generation that had ended, and been told, before."""
        log(self._logger, logging.WARNING, "connection %d to %s, generation %d, which is over: %s", connection.index,
            connection.url, epoch, _line(error))

    def dropped(self, connection: Connection, count: int, reason: str, epoch: int | None = None) -> None:
        """Messages arrived and were not taken."""
        log(self._logger, logging.INFO, "connection %d: %d messages dropped: %s", connection.index, count, reason)
        self._tell(self._queue["drop"], connection, {"count": count},
                   {"reason": reason, "epoch": connection.epoch if epoch is None else epoch})


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {told(error)}"


def _next(delay: float | None) -> str:
    return "giving up" if delay is None else f"next attempt in {delay:.2f} s"
