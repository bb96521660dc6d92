"""The record: read back as it was written, cut where a run resumes, safe on a full disk."""

import argparse
import json
from pathlib import Path

import pytest
from conftest import Parse

from engine.record import Record


def test_record_continues_where_the_checkpoint_was(parse: Parse, tmp_path: Path) -> None:
    with Record(tmp_path, parse(), n_iter=0, position=0) as record:
        record.scalars("train", 1, 0, {"loss": 3.0})
        position = record.position
        record.scalars("train", 2, 0, {"loss": 2.5})  # after the last checkpoint
    with Record(tmp_path, parse(), n_iter=1, position=position) as record:
        record.scalars("train", 2, 0, {"loss": 2.0})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["n_iter"], line["loss"]) for line in lines] == [(1, 3.0), (2, 2.0)]

    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard"
    )
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    points = [(point.step, point.value) for point in events.Scalars("train/loss")]
    assert points == [(1, 3.0), (2, 2.0)]


def test_full_disk_delays_lines_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Record(tmp_path, argparse.Namespace(), 0, 0) as record:
        record.scalars("train", 1, 0, {"loss": 1.0})
        whole = record.position
        with monkeypatch.context() as patch:
            patch.setattr(record, "_lines", FullDisk(tmp_path / "metrics.jsonl"))
            record.scalars("train", 2, 0, {"loss": 2.0})
            record.scalars("train", 3, 0, {"loss": 3.0})
            with pytest.raises(OSError, match="No space left"):
                record.sync()
        record.scalars("train", 4, 0, {"loss": 4.0})
        assert record.position == 4 * whole
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["n_iter"] for line in lines] == [1, 2, 3, 4]
    message = f"{tmp_path}: metrics.jsonl cannot be written: No space left on device"
    assert capsys.readouterr().err == f"{message}; training goes on\n"  # once


class FullDisk:
    """A file that takes three bytes of each write, and then no more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._room = 3

    def seek(self, position: int) -> None:
        self._position = position
        self._room = 3

    def write(self, content: bytes) -> int:
        if not self._room:
            raise OSError(28, "No space left on device")
        with self._path.open("r+b") as file:
            file.seek(self._position)
            self._room = 0
            return file.write(content[:3])


def test_lines_stay_json_whatever_the_numbers(parse: Parse, tmp_path: Path) -> None:
    with Record(tmp_path, parse(), n_iter=0, position=0) as record:
        record.scalars("test", 1, 0, {"loss": float("nan"), "accuracy": 0.5})
    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert line == {"n_iter": 1, "epoch": 0, "split": "test", "accuracy": 0.5}
