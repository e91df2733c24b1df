"""What stands in a server's certificate: names, issuer and dates, read from its DER form (RFC 5280 §4.1).

The ssl module tells that only of certificates it has verified, and what is wrong with the others is the question here.
Nothing is judged: trust is OpenSSL's matter.
"""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = ["Certificate", "read_certificate"]

UTC_TIME, CONTEXT_0, CONTEXT_3 = 0x17, 0xA0, 0xA3
DNS_NAME, IP_ADDRESS = 0x82, 0x87
SUBJECT_ALTERNATIVE_NAME = b"\x55\x1d\x11"
#: Attribute types of names (RFC 4519) that are shown.
ATTRIBUTES = {b"\x55\x04\x03": "CN", b"\x55\x04\x0a": "O", b"\x55\x04\x0b": "OU", b"\x55\x04\x06": "C"}


@dataclass(frozen=True)
class Certificate:
    """Immutable.

    Attributes:
        subject, issuer: such as "CN=example.com, O=Example".
        names: DNS names and IP addresses that it is for.
        begins, ends: when it is valid.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    begins: datetime
    ends: datetime

    @property
    def self_issued(self) -> bool:
        """Whether subject and issuer have one name."""
        return self.subject == self.issuer

    def days_left(self, now: datetime) -> float:
        """Days until it ends; below 0 when it has."""
        return (self.ends - now).total_seconds() / 86400


def read_certificate(der: bytes) -> Certificate:
    """Read a certificate. Raises ValueError if it is none."""
    try:
        body = _children(_children(_value(der))[0][1])
        if body[0][0] == CONTEXT_0:  # the version
            body = body[1:]
        _, _, issuer, validity, subject = (value for _, value in body[:5])
        begins, ends = (_time(*one) for one in _children(validity))
        names = next((_names(value) for tag, value in body if tag == CONTEXT_3), ())
        return Certificate(_name(subject), _name(issuer), names, begins, ends)
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError("not a certificate") from error


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """The elements that stand one behind the other, as tag and value (X.690 §8.1)."""
    found, at = [], 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80:
            width = size & 0x7F
            size, at = int.from_bytes(data[at:at + width], "big"), at + width
        if at + size > len(data):
            raise ValueError("not a certificate: an element is longer than what it stands in")
        found.append((tag, data[at:at + size]))
        at += size
    return found


def _value(data: bytes) -> bytes:
    return _children(data)[0][1]


def _name(data: bytes) -> str:
    """Such as "CN=example.com, O=Example", the common name first."""
    parts = []
    for _, relative in _children(data):
        for _, pair in _children(relative):
            (_, kind), (_, value) = _children(pair)[:2]
            if kind in ATTRIBUTES:
                parts.append(f"{ATTRIBUTES[kind]}={value.decode('utf-8', 'replace')}")
    return ", ".join(sorted(parts, key=lambda part: not part.startswith("CN="))) or "(no name)"


def _time(tag: int, value: bytes) -> datetime:
    text = value.decode("ascii")
    if tag == UTC_TIME:  # RFC 5280 §4.1.2.5.1
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _names(extensions: bytes) -> tuple[str, ...]:
    for _, extension in _children(_value(extensions)):
        parts = _children(extension)
        if parts[0][1] == SUBJECT_ALTERNATIVE_NAME:
            return tuple(name for tag, value in _children(_value(parts[-1][1])) if (name := _alternative(tag, value)))
    return ()


def _alternative(tag: int, value: bytes) -> str:
    if tag == DNS_NAME:
        return value.decode("ascii", "replace")
    if tag == IP_ADDRESS:
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(value))
    return ""
