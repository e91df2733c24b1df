"""What a server answered to the upgrade request, as a user sees it: in errors, in `response`, in logs.

Here belong its fields, how they are read, and which of them may be shown. How it is parsed and judged does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from wsengine.websocket.credentials import is_credential

__all__ = ["HIDDEN", "MAX_BODY", "Response", "shown_headers"]

#: Bytes of the body of a refusal that are kept, for its message.
MAX_BODY = 4 * 1024
#: What stands where a secret would.
HIDDEN = "(hidden)"


@dataclass(frozen=True, repr=False)
class Response:
    """The server's answer to the upgrade request. Immutable; its `repr` shows no cookies, credentials or body.

    Attributes:
        status_code: the HTTP status, 101 for an accepted upgrade.
        reason_phrase: the text behind the status, "" if there is none; unprintable characters are replaced.
        headers: pairs of name and value in the order and spelling of the server, decoded as ISO 8859-1.
        body: of a refusal, without its transfer coding, as far as it came, at most `MAX_BODY` bytes; empty for a 101.
    """

    status_code: int
    reason_phrase: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Return the value of a header by its name in any case, None if it is absent; several are joined."""
        values = self.all(name)
        return ", ".join(values) if values else None

    def all(self, name: str) -> list[str]:
        """Return every value of a header by its name in any case, in the order of the server."""
        return [value for one, value in self.headers if one.lower() == name.lower()]

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asks to wait (RFC 9110 §10.2.3), at least 0; None if it does not, or not intelligibly.

        A date is taken relative to the response's own Date header, so neither side's clock needs to be right; where that
        is missing or makes no sense, to our clock.
        """
        value = (self.header("Retry-After") or "").strip()
        if value.isascii() and value.isdigit():
            return float(value[:10])
        until = _moment(value)
        if until is None:
            return None
        since = _moment(self.header("Date") or "") or datetime.now(UTC)
        return max(0.0, (until - since).total_seconds())

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}: {value}" for name, value in shown_headers(self))
        return f"Response({self.status_code} {self.reason_phrase}, [{shown}], body of {len(self.body)} bytes)"


def _moment(text: str) -> datetime | None:
    """The moment of an HTTP date (RFC 9110 §5.6.7), in UTC; None if it is not one."""
    try:
        moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except Exception:  # the server chose the text; with ValueError, TypeError and OverflowError it is not sure to be all
        return None


def shown_headers(response: Response) -> list[tuple[str, str]]:
    """The headers as they may be shown: values quoted, secrets hidden."""
    return [(name, _shown(name, value)) for name, value in response.headers]


def _shown(name: str, value: str) -> str:
    if is_credential(name):
        return HIDDEN
    if name.lower() in ("location", "content-location", "refresh", "link"):  # URIs, whose queries and user names are secrets
        return HIDDEN if "?" in value or "@" in value else repr(value)
    return repr(value)
