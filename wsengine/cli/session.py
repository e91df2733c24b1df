"""The steps of `doctor` from the upgrade on: what was agreed, the clock, pings, and the closing handshake.

How pings travel stands in probe.py.
"""

from __future__ import annotations

import statistics
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from wsengine.cli.case import FAILURES, line
from wsengine.cli.probe import Probe
from wsengine.cli.remedies import upgrade_remedy
from wsengine.cli.report import FAILED, NOTE, OK, SKIPPED, Finding
from wsengine.cli.table import milliseconds
from wsengine.errors import InvalidStatus, NegotiationError
from wsengine.websocket.attempt import Attempt
from wsengine.websocket.channel import Channel
from wsengine.websocket.dial import dial
from wsengine.websocket.extensions import PerMessageDeflate
from wsengine.websocket.response import shown_headers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsengine.cli.case import Case
    from wsengine.websocket.dial import Dialed
    from wsengine.websocket.response import Response

__all__ = ["Session"]

PINGS = 5
#: Seconds of clock skew that are worth a note: signed requests and tokens are often refused from there on.
SKEW = 5.0
#: Statuses with which servers refuse an offer of compression instead of ignoring it.
REFUSES_OFFERS = (400, 500, 501)
#: Characters of a refusal's body that are shown.
SHOWN_BODY = 200


class Session:
    """The upgrade and the open connection. Each step yields what it finds; `end` lets go of the connection."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._answer: Response | None = None
        self._answered_at = 0.0  # the wall clock at the server's answer, half of the upgrade's time ago
        self._dialed: Dialed | None = None
        self._refused_offer = ""
        self._probe: Probe
        self.steps = (("upgrade", self._see_upgrade), ("deflate", self._see_deflate), ("clock", self._see_clock),
                      ("round trip", self._see_round_trip), ("server pings", self._see_server_pings),
                      ("closing", self._see_closing))

    @property
    def has_answer(self) -> bool:
        """Whether the server has answered, be it by a refusal."""
        return self._answer is not None

    def end(self) -> None:
        """Close the socket; idempotent."""
        if self._dialed is not None:
            self._dialed.sock.close()

    def _see_upgrade(self) -> Iterator[Finding]:
        try:
            self._case.way.check_headers(list(self._case.server.headers))
            self._dialed = dialed = self._dial()
        except FAILURES as error:
            self._answer = getattr(error, "response", None)
            self._answered_at = time.time()
            finding = self._case.fail("upgrade", error, upgrade_remedy(error), "the upgrade has failed")
            yield Finding("upgrade", FAILED, finding.text + _told(self._answer), finding.remedy,
                          {} if self._answer is None else {"http_status": self._answer.status_code})
            return
        self._answer = dialed.response
        taken = dialed.timings["upgrade"]
        self._answered_at = time.time() - taken / 2
        asked = self._case.server.subprotocols
        said = f"subprotocol {dialed.subprotocol or 'none'}" + (f" of {', '.join(asked)}" if asked else "")
        missed = bool(asked) and dialed.subprotocol is None
        yield Finding("upgrade", NOTE if missed else OK,
                      f"HTTP 101 in {milliseconds(taken)}; {said}; {_headers(dialed.response)}",
                      "the server took none of the subprotocols; it may not know them" if missed else "",
                      {"http_status": 101, "seconds": taken, "subprotocol": dialed.subprotocol, "timings": dialed.timings})

    def _dial(self) -> Dialed:
        """As the library does it, with an offer of compression; without, if that is what the server refuses."""
        case, request = self._case, self._case.server.request()
        try:
            return dial(case.uri, case.way, **request, compression=PerMessageDeflate(), open_timeout=case.timeout)
        except (InvalidStatus, NegotiationError) as error:
            if isinstance(error, InvalidStatus) and error.response.status_code not in REFUSES_OFFERS:
                raise
            try:
                dialed = dial(case.uri, case.way, **request, open_timeout=case.timeout)
            except FAILURES:
                raise error from None
            self._refused_offer = line(error)
            return dialed

    def _see_deflate(self) -> Iterator[Finding]:
        assert self._dialed is not None
        offer, agreed = PerMessageDeflate().offer, self._dialed.deflate
        facts = {"offered": offer, "agreed": None if agreed is None else agreed._asdict()}
        if self._refused_offer:
            yield Finding("deflate", FAILED, f"the server refuses whoever offers '{offer}': {self._refused_offer}; without "
                                             "it, it accepts", "leave compression off, which is the default", facts)
        elif agreed is None:
            yield Finding("deflate", NOTE, f"offered '{offer}', not taken: messages go uncompressed",
                          "nothing to do: compression is off by default, and would have no effect here", facts)
        else:
            answer = self._dialed.response.header("Sec-WebSocket-Extensions")
            yield Finding("deflate", OK, f"offered '{offer}', answered '{answer}'", facts=facts)

    def _see_clock(self) -> Iterator[Finding]:
        date = None if self._answer is None else self._answer.header("Date")
        there = _moment(date or "")
        if there is None:
            yield Finding("clock", SKIPPED, "the answer has no Date" if not date else "the Date of the answer is none")
            return
        # The header tells whole seconds, so the middle of its second is meant.
        skew = self._answered_at - there - 0.5
        far = abs(skew) > SKEW
        text = "agrees with the server's, to the second or so" if abs(skew) < 1.5 else (
            f"this machine is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the server")
        yield Finding("clock", NOTE if far else OK, text,
                      "set the clock (NTP): signed requests, tokens and certificates depend on it" if far else "",
                      {"skew": round(skew, 1)})

    # ---------------------------------------------------------------------------------------------- the open connection

    def _see_round_trip(self) -> Iterator[Finding]:
        dialed = self._dialed
        assert dialed is not None
        channel = Channel(Attempt(self._case.uri.authority, None, None), dialed.sock, dialed.remote_address)
        channel.layer = dialed.layer
        self._probe = Probe(channel, dialed)
        trips: list[float] = []
        try:
            for _ in range(PINGS):
                trip = self._probe.ping(self._case.timeout)
                if trip is None:
                    yield self._no_pong(trips)
                    return
                trips.append(trip)
        except FAILURES as error:
            yield self._case.fail("round trip", error, "see the log of the server", "the connection has ended")
            return
        median = statistics.median(trips)
        yield Finding("round trip", OK, f"min {milliseconds(min(trips))}, median {milliseconds(median)} of {PINGS} pings",
                      facts={"seconds": trips, "min": min(trips), "median": median})

    def _no_pong(self, trips: list[float]) -> Finding:
        return Finding("round trip", FAILED,
                       f"ping {len(trips) + 1} of {PINGS} was not answered within {self._case.timeout:g} s",
                       "the server or something between does not answer pings (RFC 6455 §5.5.2 asks for it): leave "
                       "pong_timeout off, and rely on ws_timeout and the server's own pings", {"seconds": trips})

    def _see_server_pings(self) -> Iterator[Finding]:
        try:
            self._probe.listen(self._case.listen)
        except FAILURES as error:
            yield self._case.fail("server pings", error, "see the log of the server", "the connection has ended")
            return
        pings, messages = self._probe.server_pings, self._probe.messages
        facts = {"pings": pings, "messages": messages}
        came = f"; {messages} message{'s' if messages != 1 else ''} came" if messages else ""
        if self._probe.closed is not None:
            code, reason = self._probe.closed
            self._case.halted = "the server has closed the connection"
            yield Finding("server pings", FAILED, f"the server closed the connection by itself with {code}"
                                                  f"{f' ({reason})' if reason else ''}{came}",
                          "it may expect a message soon after the open, such as a login or a subscription", facts)
            return
        yield Finding("server pings", OK, (f"{pings}, answered" if pings else "none") + f" in {self._case.listen:g} s{came}",
                      facts=facts)

    def _see_closing(self) -> Iterator[Finding]:
        begun = time.monotonic()
        try:
            answered = self._probe.close(self._case.timeout)
        except FAILURES as error:
            yield Finding("closing", NOTE, f"our Close was not answered: {line(error)}",
                          "nothing to do: the connection ends without the server's Close")
            return
        if answered:
            code, _ = self._probe.closed or (1005, "")
            taken = milliseconds(time.monotonic() - begun)
            yield Finding("closing", OK, f"the server answers our Close with {code} in {taken}", facts={"code": code})
        else:
            yield Finding("closing", NOTE, f"our Close was not answered within {self._case.timeout:g} s",
                          "nothing to do: close_timeout bounds that wait")


def _moment(date: str) -> float | None:
    """Seconds since 1970, UTC where it names no zone; None if it is no date, or none that a datetime can hold."""
    try:
        there = parsedate_to_datetime(date)
        return (there if there.tzinfo is not None else there.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _headers(response: Response) -> str:
    return ", ".join(f"{name}: {value}" for name, value in shown_headers(response)) or "no headers"


def _told(response: Response | None) -> str:
    """What a refusal has told."""
    if response is None:
        return ""
    body = " ".join(response.body.decode("utf-8", "replace").split())
    shown = body[:SHOWN_BODY] + ("…" if len(body) > SHOWN_BODY else "")
    return f"; headers: {_headers(response)}; " + (f"body: {shown}" if body else "no body")
