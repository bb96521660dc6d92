"""What an attacked run must be in the end: bit for bit the one that nobody attacked."""

import logging
import runpy
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from victim import Fault, Victim

logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every purge

SMALL = ["--img_size=32", "--batch_size=32", "--log_every=1", "--warmup=3"]
COMPARED = [
    "model",
    "optimizers",
    "schedulers",
    "scaler",
    "ema",
    "best",
    "epoch",
    "batch",
    "n_iter",
    "ended",
]


class AttackError(Exception):
    """The victim did not do what it owes its user."""


class Range:
    """A project, its data, and a folder for the runs to be attacked.

    Args:
        project: the rendered project.
        path_to_data: small data of the kind that it trains on.
        folder: for the runs.
        flags: of every run, unless an attack has others.
    """

    def __init__(
        self, project: Path, path_to_data: Path, folder: Path, flags: Sequence[str] = ()
    ) -> None:
        self.project = project
        self.path_to_data = path_to_data
        self.folder = folder
        network = runpy.run_path(str(project / "tests" / "small.py"))["SMALL_NETWORK"]
        self.flags = [*SMALL, *network, "--num_workers=0", *flags]
        self._unbroken: dict[tuple[str, ...], Path] = {}

    def start(self, run: Path, *flags: str, fault: Fault | None = None) -> Victim:
        """Starts, or goes on with, the run in a folder."""
        where = [f"--path_to_data={self.path_to_data}", f"--run_dir={run}", "--resume"]
        return Victim(self.project, [*self.flags, *where, *flags], fault)

    def finish(self, run: Path, *flags: str) -> None:
        """Goes on with the run, undisturbed, to its end."""
        victim = self.start(run, *flags)
        expect(victim, victim.end(), 0)

    def new(self, name: str) -> Path:
        """Returns a folder that is not there yet."""
        run = self.folder / name
        shutil.rmtree(run, ignore_errors=True)
        return run

    def unbroken(self, *flags: str) -> Path:
        """Returns the run that nobody attacks, by these flags."""
        if flags not in self._unbroken:
            self._unbroken[flags] = self.new(f"unbroken-{len(self._unbroken)}")
            self.finish(self._unbroken[flags], *flags)
        return self._unbroken[flags]


def expect(victim: Victim, status: int, expected: int, words: str = "") -> str:
    """Returns what is on stderr.

    Raises:
        AttackError: the status is another, the words are missing, or there is a traceback.
    """
    errors = victim.output(2)
    if status != expected or words not in errors or "Traceback" in errors:
        raise AttackError(f"status {status}, not {expected} ({words}): {errors.strip()[-2000:]}")
    return errors


def expect_line(victim: Victim, status: int, expected: int, words: str) -> None:
    """Raises AttackError unless stderr is one line, with the words."""
    errors = expect(victim, status, expected, words)
    if len(errors.splitlines()) != 1:
        raise AttackError(f"not one line: {errors}")


def expect_whole_files(run: Path) -> None:
    """Raises AttackError for a torn file under a final name."""
    for path in run.glob("checkpoints/*.pt"):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            torch.load(path, weights_only=True)
        except Exception as error:
            raise AttackError(f"{path} is torn: {error}") from error
        if damaged:
            raise AttackError(f"{path} is damaged: {damaged}")


def expect_equal(first: Path, second: Path) -> None:
    """Raises AttackError unless two runs have ended the same: weights, state, numbers, curves."""
    states = [
        torch.load(run / "checkpoints" / "last.pt", weights_only=True) for run in (first, second)
    ]
    for name in COMPARED:
        if not equal(states[0][name], states[1][name]):
            raise AttackError(f"{second}: {name} differs")
    if (first / "metrics.jsonl").read_bytes() != (second / "metrics.jsonl").read_bytes():
        raise AttackError(f"{second}: metrics.jsonl differs")
    curves = [read_curves(run) for run in (first, second)]
    if curves[0] != curves[1]:
        differing = [tag for tag in curves[0] if curves[0][tag] != curves[1].get(tag)]
        raise AttackError(f"{second}: the curves {differing} differ")


def read_curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Returns (step, value) of each curve as TensorBoard shows it; speeds are never the same."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("speed/")]
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in tags}


def equal(first: Any, second: Any) -> bool:
    """Compares nested plain types and tensors, bit for bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)
