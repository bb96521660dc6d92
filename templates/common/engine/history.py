"""What a run's folder tells of it, read for a report; nothing is written, and a run may go on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from engine.checkpoint import newest_first, read_checkpoint
from engine.environment import FILENAME
from engine.exits import UserError

LAST_PICTURES = 3  # of each name, that are kept
NOT_TERMS = ("n_iter", "epoch", "split")  # of a line of metrics.jsonl
KEPT = ("n_iter", "epoch", "ended", "best", "fingerprint", "classes", "options")  # of a checkpoint


class Point(NamedTuple):
    """A value of a curve."""

    n_iter: int
    value: float


class Picture(NamedTuple):
    """A picture that a run recorded, as an encoded image file (PNG)."""

    n_iter: int
    content: bytes


@dataclass
class History:
    """A run so far.

    Attributes:
        name: of its folder, as it was given.
        options: from config.txt, as texts.
        lines: of metrics.jsonl.
        speeds: efficiency and images/s, by name.
        pictures: the last few, by name.
        seconds: for which it has run, in all of its starts.
        starts: the lines of environment.jsonl, one for each start.
        checkpoint: what the newest good one says, without weights; empty if there is none.
    """

    name: str
    options: dict[str, str]
    lines: list[dict[str, Any]]
    speeds: dict[str, list[Point]]
    pictures: dict[str, list[Picture]]
    seconds: float
    starts: list[dict[str, Any]]
    checkpoint: dict[str, Any]

    def curve(self, split: str, term: str) -> list[Point]:
        """Returns what metrics.jsonl says of a term in one of the splits, train and test."""
        lines = [line for line in self.lines if line["split"] == split and term in line]
        return [Point(line["n_iter"], line[term]) for line in lines]

    def terms(self) -> list[str]:
        """Names all terms, those of the training first, in the order in which they appeared."""
        lines = sorted(self.lines, key=lambda line: bool(line["split"] != "train"))
        names = dict.fromkeys(name for line in lines for name in line)
        return [name for name in names if name not in NOT_TERMS]

    def best(self, metric: str) -> dict[str, Any] | None:
        """Returns the line of the best test by the metric; None if there was no test yet."""
        best = self.checkpoint.get("best")
        tests = [line for line in self.lines if line["split"] == "test" and metric in line]
        return next((line for line in tests if line[metric] == best), None)

    @property
    def is_finished(self) -> bool:
        """Says whether the newest checkpoint is that of the last step."""
        if not self.checkpoint:
            return False
        done = {"epochs": self.checkpoint["epoch"], "max_steps": self.checkpoint["ended"]}
        return any(0 < self._limit(name) <= count for name, count in done.items())

    def _limit(self, name: str) -> int:
        """Returns a flag of the last start, which may ask for more than the checkpoint's; or 0."""
        text = self.options.get(name, "")
        return int(text) if text.isdecimal() else int(self.checkpoint["options"][name] or 0)

    @property
    def last_step(self) -> int:
        """Number of the last step that is known of."""
        logged = self.lines[-1]["n_iter"] if self.lines else 0
        return int(max(logged, self.checkpoint.get("n_iter", 0)))


def read_history(folder: Path) -> History:
    """Reads a run's folder; what of it cannot be read is as if it were not there.

    Raises:
        UserError: it is no run's folder.
    """
    if not folder.is_dir():
        raise UserError(f"--run_dir {folder}: there is no such folder")
    if not (folder / "metrics.jsonl").is_file():
        raise UserError(f"--run_dir {folder} holds no metrics.jsonl: give the folder of a run")
    events = _Events(folder)
    lines = [line for line in _read_lines(folder / "metrics.jsonl") if "split" in line]
    return History(
        name=str(folder),
        options=_read_options(folder / "config.txt"),
        lines=[_checked(line) for line in lines if _has_place(line)],
        speeds=events.speeds,
        pictures=events.pictures,
        seconds=events.seconds,
        starts=_read_lines(folder / FILENAME),
        checkpoint=_read_newest(folder / "checkpoints"),
    )


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the objects of a file of JSON lines, without a line that is torn."""
    found = []
    for line in _read_text(path).splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _has_place(line: dict[str, Any]) -> bool:
    return all(isinstance(line.get(name), int) for name in ("n_iter", "epoch"))


def _checked(line: dict[str, Any]) -> dict[str, Any]:
    """Returns a line of metrics.jsonl without what is no number."""
    return {
        name: value
        for name, value in line.items()
        if name in NOT_TERMS or isinstance(value, (int, float))
    }


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _read_options(path: Path) -> dict[str, str]:
    """Returns the flags in config.txt; its first line is the command."""
    pairs = (line.partition(": ") for line in _read_text(path).splitlines()[1:])
    return {name: value for name, mark, value in pairs if mark}


def _read_newest(folder: Path) -> dict[str, Any]:
    """Returns what the newest good checkpoint says, without the weights."""
    for path in newest_first(folder):
        try:
            checkpoint = read_checkpoint(path)
            return {name: checkpoint[name] for name in KEPT}
        except (OSError, UserError, KeyError):
            continue
    return {}


class _Events:
    """What stands in TensorBoard's event files alone: speeds, pictures and times.

    A start of the run overrides what the starts before it wrote of the same steps, as TensorBoard
    shows it.
    """

    def __init__(self, folder: Path) -> None:
        self.speeds: dict[str, list[Point]] = {}
        self.pictures: dict[str, list[Picture]] = {}
        self.seconds = 0.0
        for path in sorted(folder.glob("events*")):  # their names begin with the time
            try:
                times = [self._read(event) for event in LegacyEventFileLoader(str(path)).Load()]
            except OSError:
                continue
            self.seconds += max(times, default=0.0) - min(times, default=0.0)
        self.pictures = {
            name: pictures[-LAST_PICTURES:] for name, pictures in self.pictures.items() if pictures
        }

    def _read(self, event: Any) -> float:
        """Takes an event, and returns its time."""
        if event.HasField("session_log") and event.session_log.status == event.session_log.START:
            self._forget(event.step)
        for value in event.summary.value:
            if value.HasField("image"):
                pictures = self.pictures.setdefault(value.tag, [])
                pictures.append(Picture(event.step, value.image.encoded_image_string))
            elif value.tag.startswith("speed/"):
                speeds = self.speeds.setdefault(value.tag.removeprefix("speed/"), [])
                speeds.append(Point(event.step, value.simple_value))
        return float(event.wall_time)

    def _forget(self, first: int) -> None:
        """Drops points and pictures of this step and later ones."""
        for name, points in self.speeds.items():
            self.speeds[name] = [each for each in points if each.n_iter < first]
        for name, pictures in self.pictures.items():
            self.pictures[name] = [each for each in pictures if each.n_iter < first]
