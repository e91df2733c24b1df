"""The server of a case: a feed of this machine that sends made-up trades or a recording, or a server somewhere else.

What is stamped and what is not is known here: trades are, unless they are compressed ahead; nothing else is.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from wsengine.errors import ConfigurationError
from wsengine.options import whole
from wsengine.testing.feed import Feed
from wsengine.testing.images import SYMBOLS, trade
from wsengine.testing.tls import ServerTLS
from wsengine.testing.wire import TEXT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsengine.bench.case import Case

__all__ = ["Source", "certificates", "feed_of"]

#: Trades that are compressed ahead, and repeated; about how many bytes of them; but how many at least.
COMPRESSED, COMPRESSED_BYTES, LEAST = 5000, 8 << 20, 8


@dataclass(frozen=True, slots=True)
class Source:
    """Where messages come from: `url`, another server; else `recording`, a file; else made-up trades.

    rate: messages a second of trades, None for flat out. seed: of the trades. certificate: file of the feed's, for TLS.

    Raises:
        ConfigurationError: seed or port are none.
    """

    url: str | None = None
    recording: str | None = None
    rate: float | None = None
    seed: int = 1
    port: int = 0
    certificate: Path | None = None

    def __post_init__(self) -> None:
        whole("source.seed", self.seed)
        whole("source.port", self.port, maximum=65535)

    @property
    def ignores(self) -> tuple[str, ...]:
        """The options, its own and those of a case, that have no effect on what it sends."""
        if self.url is not None:
            return ("size", "tls", "deflate", "rate", "seed", "port")
        return ("size", "rate", "seed") if self.recording is not None else ()

    def stamps(self, case: Case) -> bool:
        """Whether the messages of this case say when they were sent."""
        return self.url is None and self.recording is None and not case.deflate


def feed_of(case: Case, source: Source) -> Feed:
    """The feed of a case, not started. Not for a source with a url."""
    tls = None if case.tls == "none" or source.certificate is None else ServerTLS(source.certificate)
    compression = "no_context_takeover" if case.deflate else None
    if source.recording is not None:
        return Feed.recording(source.recording, speed=None, loop=True, compression=compression, port=source.port, tls=tls)
    if case.deflate:
        return Feed.payloads([(TEXT, one) for one in trades(case.size, source.seed)], loop=True, rate=source.rate,
                             compression=compression, port=source.port, tls=tls)
    return Feed.trades(size=case.size, rate=source.rate, seed=source.seed, port=source.port, tls=tls)


def trades(size: int, seed: int) -> list[bytes]:
    """Trades of one size, without sequence numbers and stamps, the same for the same seed."""
    made = random.Random(seed)
    count = min(COMPRESSED, max(LEAST, COMPRESSED_BYTES // size))
    return [trade(size, made.choice(SYMBOLS), made.uniform(20_000, 90_000), made) for _ in range(count)]


@contextlib.contextmanager
def certificates(wanted: bool) -> Iterator[tuple[Path, Path] | None]:
    """Files with a certificate for this machine's address and with its CA, for as long as they are needed; None if they are
    not wanted."""
    if not wanted:
        yield None
        return
    try:
        import trustme
    except ModuleNotFoundError:
        raise ConfigurationError("case.tls", "A or B", "install what issues the feed's certificate first: "
                                 "pip install 'wsengine[bench]'") from None
    with TemporaryDirectory(prefix="wsengine-bench-") as folder:
        authority = trustme.CA()
        certificate, ca = Path(folder, "feed.pem"), Path(folder, "ca.pem")
        authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        authority.cert_pem.write_to_path(ca)
        yield certificate, ca
