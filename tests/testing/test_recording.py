"""Recordings: that they load as written, and that a broken one is named with its line."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from wsengine.errors import ConfigurationError
from wsengine.testing import load_recording

if TYPE_CHECKING:
    from pathlib import Path


def written(folder: Path, *lines: str) -> Path:
    path = folder / "feed.jsonl.gz"
    path.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode()))
    return path


def test_times_and_payloads_load_as_written(tmp_path: Path) -> None:
    recording = load_recording(written(tmp_path, '[0.0,"{}"]', '[0,"same time"]', '[1.5,"grüße"]'))
    assert list(recording.times) == [0.0, 0.0, 1.5]
    assert list(recording.payloads) == [b"{}", b"same time", "grüße".encode()]
    assert len(recording) == 3
    assert recording.duration == 1.5


@pytest.mark.recording
@pytest.mark.parametrize(("name", "count", "duration"), [
    ("coinbase", 9946, 30.78), ("kraken", 4321, 30.55), ("bitfinex", 1693, 30.69),
])
def test_the_exchange_recordings_load_whole(recordings: Path, name: str, count: int, duration: float) -> None:
    recording = load_recording(recordings / f"{name}.jsonl.gz")
    assert len(recording) == count
    assert recording.duration == pytest.approx(duration, abs=0.01)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.gz.*there is no such file"):
        load_recording(tmp_path / "nothing.gz")


def test_a_file_that_is_not_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    path.write_text('[0.0,"{}"]\n')
    with pytest.raises(ConfigurationError, match=r"plain\.jsonl.*cannot be read as a gzip file"):
        load_recording(path)


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, *(f'[{index},"{index * 7919}"]' for index in range(1000)))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ConfigurationError, match="cannot be read as a gzip file"):
        load_recording(path)


def test_a_file_without_messages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no message"):
        load_recording(written(tmp_path))


@pytest.mark.parametrize("line", [
    "{}", "[1]", '["1","text"]', '[true,"text"]', "[1,2]", '[NaN,"text"]', "not json", '[0.5,"before the line above"]',
])
def test_a_broken_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigurationError, match=r"feed\.jsonl\.gz, line 2.*record it again"):
        load_recording(written(tmp_path, '[1,"fine"]', line))
