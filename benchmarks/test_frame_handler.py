"""A producer with a frame handler under a flood: one that hands each payload on as it is, and one that makes ten of it. The
handler of the messages does nothing. Figures are in extra_info, and count messages, not frames."""

import pytest

from wsengine.testing import Feed


@pytest.mark.parametrize("concurrency", [1, 8], ids=lambda number: f"x{number}")
@pytest.mark.parametrize("emits", ["one", "ten"])
def test_messages_behind_a_frame_handler(measured, emits, concurrency):
    found = measured(Feed.trades(), "frame_handler_client", "--emits", emits, "--concurrency", concurrency)
    assert found["emitted"] > 0
