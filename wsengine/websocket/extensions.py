"""permessage-deflate in the opening handshake (RFC 7692 §7.1): the option, the offer, and the judgement of the answer.

Here belongs what client and server agree on. What is done with it does not: the way in is `engine.inflate`'s, the way out
`engine.deflate`'s. wsproto has no part in this: it offers parameters that servers refuse, and takes answers that mean
nothing (tests/websocket/test_extensions.py names them).

An answer that is not exactly one the offer allows ends the attempt: each side would read the other's bytes wrongly.

::

    parameter                     we offer                  the server may answer               it holds for
    server_no_context_takeover    if asked                  it, and must if offered             what it sends
    client_no_context_takeover    if asked                  it                                  what we send
    server_max_window_bits        with N, if asked          8 to N, and must if offered; 8-15   what it sends
    client_max_window_bits        always; with N, if asked  8 to N; without N 8 to 15           what we send
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from wsengine.engine.deflate import Deflater
from wsengine.engine.inflate import HAVE_ZLIB, DeflateParameters
from wsengine.errors import ConfigurationError, NegotiationError
from wsengine.options import boolean, reject_unknown, whole
from wsengine.websocket.head import LONGEST_QUOTE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["PerMessageDeflate", "agreed_deflate", "check_compression", "extension_headers"]

NAME = "permessage-deflate"
FLAGS = ("server_no_context_takeover", "client_no_context_takeover")
WINDOWS = ("server_max_window_bits", "client_max_window_bits")

#: What stands between the commas and semicolons of a list of extensions (RFC 6455 §9.1): a token, or a parameter with its
#: value, a token or one in quotation marks.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ITEM = re.compile(rf'[ \t]*({_TOKEN})[ \t]*(?:=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)")[ \t]*)?')
_BITS = re.compile(r"[89]|1[0-5]")  # a number without leading zeros (RFC 7692 §7.1.2)


@dataclass(frozen=True, init=False)
class PerMessageDeflate:
    """How messages are to be compressed, as far as the server agrees. Immutable, so safe to share between threads.

    Args:
        server_no_context_takeover: ask the server to compress each message by itself. Costs it most of the gain.
        client_no_context_takeover: compress each of our messages by itself.
        server_max_window_bits: ask the server to refer back no further than 2 to the power of this, 8 to 15; it bounds
            the memory of our side: 32 KiB with 15, which is what a server may use that was not asked. Some refuse it.
        client_max_window_bits: the same of what we send, 9 to 15 (zlib has no raw window of 8 bits).
        level: of zlib, 0 to 9, for what we send.
        memory_level: of zlib, 1 to 9, for what we send. Nothing is allocated before we send something large enough.
        threshold: bytes below which a message of ours goes uncompressed.

    Without arguments it offers `permessage-deflate; client_max_window_bits`, which all servers understand; any further
    parameter is refused by some.

    Raises:
        ConfigurationError: an option is wrong or unknown, or this build has no zlib.

    Source: RFC 7692 §7.1; the names of its parameters.
    """

    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_max_window_bits: int | None
    client_max_window_bits: int | None
    level: int
    memory_level: int
    threshold: int

    def __init__(self, *, server_no_context_takeover: bool = False, client_no_context_takeover: bool = False,
                 server_max_window_bits: int | None = None, client_max_window_bits: int | None = None, level: int = 6,
                 memory_level: int = 5, threshold: int = 256, **unknown: object) -> None:
        reject_unknown("compression", unknown, [one.name for one in fields(self)],
                       {"wbits": "server_max_window_bits and client_max_window_bits", "memLevel": "memory_level",
                        "mem_level": "memory_level", "compress_settings": "level and memory_level",
                        "max_window_bits": "server_max_window_bits and client_max_window_bits"})
        checked: dict[str, Any] = {
            "server_no_context_takeover": boolean("compression.server_no_context_takeover", server_no_context_takeover),
            "client_no_context_takeover": boolean("compression.client_no_context_takeover", client_no_context_takeover),
            "server_max_window_bits": _optional_bits("server_max_window_bits", server_max_window_bits, 8),
            "client_max_window_bits": _optional_bits("client_max_window_bits", client_max_window_bits, 9),
            "level": whole("compression.level", level, maximum=9),
            "memory_level": whole("compression.memory_level", memory_level, minimum=1, maximum=9),
            "threshold": whole("compression.threshold", threshold, maximum=2**31 - 1),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        _need_zlib(NAME)

    @property
    def offer(self) -> str:
        """The value of Sec-WebSocket-Extensions in the upgrade request."""
        parameters = [NAME, *(name for name in FLAGS if getattr(self, name))]
        if self.server_max_window_bits is not None:
            parameters.append(f"server_max_window_bits={self.server_max_window_bits}")
        bits = self.client_max_window_bits
        parameters.append("client_max_window_bits" + ("" if bits is None else f"={bits}"))
        return "; ".join(parameters)

    def deflater(self, agreed: DeflateParameters) -> Deflater | None:
        """Return a compressor for what we send on one generation of a connection; None if we may not compress.

        It may only not where the server demands a window of 8 bits of us. To send uncompressed is always allowed.
        """
        if agreed.client_max_window_bits == 8:
            return None
        return Deflater(window_bits=agreed.client_max_window_bits, takeover=not agreed.client_no_context_takeover,
                        level=self.level, memory_level=self.memory_level, threshold=self.threshold)


def check_compression(path: str, value: object) -> PerMessageDeflate | None:
    """Check the option `compression`: None (off), "deflate" (PerMessageDeflate without arguments), or PerMessageDeflate.

    Raises:
        ConfigurationError: it is none of these, or this build has no zlib.
    """
    if value is None or isinstance(value, PerMessageDeflate):
        return value
    if value != "deflate" or not isinstance(value, str):
        raise ConfigurationError(path, value, 'give None for off, "deflate", or a PerMessageDeflate(...)')
    _need_zlib(value, path)
    return PerMessageDeflate()


def extension_headers(offered: PerMessageDeflate | None) -> list[tuple[bytes, bytes]]:
    """Return the header of the upgrade request that makes the offer; none if nothing is offered."""
    return [] if offered is None else [(b"Sec-WebSocket-Extensions", offered.offer.encode("ascii"))]


def agreed_deflate(values: Sequence[str], offered: PerMessageDeflate | None) -> DeflateParameters | None:
    """Return what the server has agreed on, None for no compression.

    Args:
        values: of all Sec-WebSocket-Extensions headers of the 101; several are one list (RFC 6455 §9.1).
        offered: in the request.

    Raises:
        NegotiationError: the answer is ill-formed or is not one the offer allows; names the extension or the parameter.
    """
    answer = None
    for name, parameters in _extensions(values):
        if offered is None or name != NAME:
            raise NegotiationError(f"the server chose the extension {_quoted(name)}; "
                                   + ("none was offered" if offered is None else f"offered: {NAME}"))
        if answer is not None:
            raise NegotiationError(f"the server chose {NAME} twice")
        answer = _judge(parameters, offered)
    return answer


def _judge(parameters: list[tuple[str, str | None]], offered: PerMessageDeflate) -> DeflateParameters:
    answer: dict[str, str | None] = {}
    for name, value in parameters:
        if name not in (*FLAGS, *WINDOWS):
            raise NegotiationError(f"the server answered {NAME} with the unknown parameter {_quoted(name)}")
        if name in answer:
            raise NegotiationError(f"the server answered {NAME} with {name} twice")
        answer[name] = value
    for name in FLAGS:
        if answer.get(name) is not None:
            raise NegotiationError(f"the server answered {NAME} with a value for {name}, which takes none: "
                                   f"{_quoted(answer[name])}")
    if offered.server_no_context_takeover and "server_no_context_takeover" not in answer:
        raise NegotiationError(f"the server took {NAME} without server_no_context_takeover, which was asked for")
    if offered.server_max_window_bits is not None and "server_max_window_bits" not in answer:
        raise NegotiationError(f"the server took {NAME} without server_max_window_bits, which was asked for")
    return DeflateParameters(
        server_no_context_takeover="server_no_context_takeover" in answer,
        # Asked for, it is also our promise, whatever the server repeats of it (RFC 7692 §7.1.1.2).
        client_no_context_takeover=offered.client_no_context_takeover or "client_no_context_takeover" in answer,
        server_max_window_bits=_answered_bits("server_max_window_bits", answer, offered),
        client_max_window_bits=_answered_bits("client_max_window_bits", answer, offered),
    )


def _answered_bits(name: str, answer: dict[str, str | None], offered: PerMessageDeflate) -> int:
    asked: int | None = getattr(offered, name)
    if name not in answer:
        return asked or 15
    value = answer[name]
    if value is None or not _BITS.fullmatch(value):
        raise NegotiationError(f"the server answered {NAME} with {name}"
                               + (" without a value" if value is None else f"={_quoted(value)}") + "; it takes 8 to 15")
    bits = int(value)
    if asked is not None and bits > asked:
        raise NegotiationError(f"the server answered {NAME} with {name}={bits}, above the {asked} that was offered")
    return bits


def _extensions(values: Sequence[str]) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """The extensions of a list, each with its parameters in order. Elements that are empty count for nothing
    (RFC 9110 §5.6.1); a parameter that is empty is an error."""
    text = ",".join(values)
    at = 0
    while at < len(text):
        if text[at] in ", \t":
            at += 1
            continue
        name, value, at = _item(text, at)
        if value is not None:
            raise NegotiationError(f"the server's list of extensions is ill-formed: {_quoted(name)} has a value")
        parameters = []
        while at < len(text) and text[at] == ";":
            parameter, value, at = _item(text, at + 1)
            parameters.append((parameter, value))
        if at < len(text) and text[at] != ",":
            raise NegotiationError(f"the server's list of extensions is ill-formed at {_quoted(text[at:])}")
        yield name, parameters


def _item(text: str, at: int) -> tuple[str, str | None, int]:
    """Read a token, with its value if it has one; returns where it ends."""
    match = _ITEM.match(text, at)
    if match is None:
        raise NegotiationError(f"the server's list of extensions is ill-formed at {_quoted(text[at:])}")
    name, value, quoted = match.groups()
    if quoted is not None:
        value = re.sub(r"\\(.)", r"\1", quoted)
        if not re.fullmatch(_TOKEN, value):  # RFC 6455 §9.1: unquoted, it must be one
            raise NegotiationError(f"the server's list of extensions is ill-formed: the value {_quoted(value)} of {name} "
                                   "is no token")
    return name, value, match.end()


def _quoted(text: str | None) -> str:
    return repr((text or "")[:LONGEST_QUOTE])


def _optional_bits(name: str, value: int | None, minimum: int) -> int | None:
    return None if value is None else whole(f"compression.{name}", value, minimum=minimum, maximum=15)


def _need_zlib(value: object, path: str = "compression") -> None:
    if not HAVE_ZLIB:
        raise ConfigurationError(path, value, "this build of wsengine has no zlib; install zlib's headers (Debian, Ubuntu: "
                                              "zlib1g-dev; Fedora: zlib-devel) and build it again")
