"""What the feed sends, prebuilt: all frames of a run of messages in one piece of memory, back to back.

An image is made once and knows nothing of time, sockets or how far anybody has got; that stands in lane.py.
"""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from wsengine.testing.stamp import SEQUENCE_WIDTH, STAMP_WIDTH
from wsengine.testing.wire import TEXT, build_server_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsengine.testing.wire import ServerDeflate

__all__ = ["BLOCK", "MINIMUM_TRADE", "SYMBOLS", "Image", "message_image", "trade", "trade_image"]

#: Bytes of an image that repeats: small enough to stay in the second-level cache of a core, large enough that a send
#: of several 100 KiB seldom meets its end.
BLOCK = 1 << 20

#: Bytes of the smallest trade: its fixed fields.
MINIMUM_TRADE = 96

SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD", "XRP-USD", "ADA-USD", "LTC-USD", "DOT-USD", "UNI-USD")


@dataclass(frozen=True)
class Image:
    """Frames back to back.

    Attributes:
        wire: the frames.
        starts: where each begins, and at last the end of the last; one longer than there are messages.
        stamped: where the payload of the first begins if all are trades of one size, to be stamped as they are sent;
            None if they are sent as they are.
    """

    wire: bytes
    starts: Sequence[int]
    stamped: int | None

    def __len__(self) -> int:
        return len(self.starts) - 1


def message_image(
    messages: Sequence[tuple[int, bytes]], repeat: bool, deflate: ServerDeflate | None = None
) -> Image:
    """Build the image of some messages, each an opcode and a payload; one to be repeated is filled up to a block.

    With `deflate` they are compressed. Its first message refers to nothing before it, so the image may be repeated.
    """
    if deflate is None:
        frames = [build_server_frame(opcode, payload) for opcode, payload in messages]
    else:
        frames = [deflate.frames(opcode, payload) for opcode, payload in messages]
    if repeat and frames:
        frames *= max(1, BLOCK // sum(map(len, frames)))
    return Image(b"".join(frames), array("Q", accumulate(map(len, frames), initial=0)), None)


def trade_image(size: int, seed: int) -> Image:
    """Build a block of synthetic trades, the same for the same seed: a random walk of the prices of eight symbols."""
    source = random.Random(seed)
    prices = {symbol: source.uniform(20_000, 90_000) for symbol in SYMBOLS}
    frames = []
    for _ in range(max(1, BLOCK // len(build_server_frame(TEXT, bytes(size))))):
        symbol = source.choice(SYMBOLS)
        prices[symbol] = min(99_999.0, max(10_000.0, prices[symbol] * source.gauss(1, 0.0002)))
        frames.append(build_server_frame(TEXT, trade(size, symbol, prices[symbol], source)))
    header = len(frames[0]) - size
    return Image(b"".join(frames), array("Q", range(0, len(frames) * len(frames[0]) + 1, len(frames[0]))), header)


def trade(size: int, symbol: str, price: float, source: random.Random) -> bytes:
    """Build one trade of exactly `size` bytes: JSON with `seq`, `ts`, `sym`, `px`, `qty` and, given room, `id`."""
    quantity = source.uniform(0.0001, 0.9999)
    text = f'{{"seq":{0:>{SEQUENCE_WIDTH}},"ts":{0:>{STAMP_WIDTH}}'
    text += f',"sym":"{symbol}","px":{price:.2f},"qty":{quantity:.4f}'
    room = size - len(text) - 1
    identity = room - len(',"id":""')
    if identity > 0:
        digits = f"{source.getrandbits(64):016x}"
        text += f',"id":"{(digits * (identity // 16 + 1))[:identity]}"'
    return (text.ljust(size - 1) + "}").encode()
