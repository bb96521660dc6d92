"""The run's written record: config.txt, metrics.jsonl and TensorBoard's event files."""

import argparse
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import image
from torch import Tensor

from engine.exits import DivergenceError
from engine.options import save_config

FLUSH_SECONDS = 10.0  # TensorBoard shows a point at most so much later; a flush waits for the disk


class Record:
    """Writes scalars and pictures under the run's folder; continues cleanly after a resume.

    `metrics.jsonl` holds one object a line: n_iter, epoch, split and the numbers that the training
    itself determines, so two equal runs write equal files. Speeds go to TensorBoard alone.

    Args:
        run_dir: the run's folder; made if it is missing.
        options: written to config.txt.
        n_iter: step from which the run continues; events after it are purged.
        position: length in bytes of metrics.jsonl at that step; what lies behind it is cut off.
    """

    def __init__(
        self, run_dir: Path, options: argparse.Namespace, n_iter: int, position: int
    ) -> None:
        self._run_dir = run_dir
        self._options = options
        self._n_iter = n_iter
        self._position = position
        self._flushed = time.time()

    def __enter__(self) -> "Record":
        save_config(self._options, self._run_dir / "config.txt")
        self._lines = (self._run_dir / "metrics.jsonl").open("ab")
        self._lines.truncate(min(self._position, self._lines.tell()))
        # `SummaryWriter` would send each point through a queue and two threads, at ten times the
        # cost; its own parts write the same file from here.
        self._events = EventsWriter(
            str(self._run_dir / "events"),
            f".{self._n_iter}",  # a resume within a second is another file, too
        )
        if self._n_iter:
            # Points that a crashed run wrote after its last checkpoint vanish from the curves.
            start = SessionLog(status=SessionLog.START)
            self._write(Event(step=self._n_iter + 1, session_log=start))
        self.flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._events.close()

    @property
    def position(self) -> int:
        """Length of metrics.jsonl in bytes."""
        return self._lines.tell()

    def scalars(self, split: str, n_iter: int, epoch: int, numbers: Mapping[str, float]) -> None:
        """Writes one line and one point a curve."""
        line = {"n_iter": n_iter, "epoch": epoch, "split": split} | dict(numbers)
        self._lines.write(json.dumps(line).encode() + b"\n")
        self._lines.flush()
        self.curves(split, n_iter, numbers)

    def curves(self, split: str, n_iter: int, numbers: Mapping[str, float]) -> None:
        """Writes one point a curve, to TensorBoard alone."""
        points = [
            Summary.Value(tag=f"{split}/{name}", simple_value=value)
            for name, value in numbers.items()
        ]
        self._write(Event(step=n_iter, summary=Summary(value=points)))

    def pictures(self, split: str, n_iter: int, pictures: Mapping[str, Tensor]) -> None:
        """Writes pictures of shape (3, H, W) in [0, 1]."""
        for name, picture in pictures.items():
            summary = image(f"{split}/{name}", picture.float().cpu().numpy())
            self._write(Event(step=n_iter, summary=summary))

    def flush(self) -> None:
        """Waits until the events are on the disk."""
        self._events.flush()
        self._flushed = time.time()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._events.write_event(event)
        if event.wall_time > self._flushed + FLUSH_SECONDS:
            self.flush()


class LossWindow:
    """The terms of the batches since the last log: kept on the device, read back all at once.

    Args:
        accumulate: batches a step, to name the step of a term that is not finite.
        past: what `read` returned when the run that this one resumes was saved.
    """

    def __init__(self, accumulate: int, past: Mapping[str, list[float]]) -> None:
        self._accumulate = accumulate
        self._past = dict(past)
        self._new: dict[str, list[Tensor]] = {}

    def append(self, terms: Mapping[str, Tensor]) -> None:
        """Takes each term's values over one batch, shape (N,); N is the same for every batch."""
        for name, value in terms.items():
            self._new.setdefault(name, []).append(value)

    def read(self, n_iter: int) -> dict[str, list[float]]:
        """Returns the window's terms, read back from the device; `n_iter` is the newest's step.

        Raises:
            DivergenceError: one of them is not finite.
        """
        for name, values in self._new.items():
            numbers = torch.stack(values).mean(dim=1).tolist()
            for age, number in enumerate(reversed(numbers)):
                if not math.isfinite(number):
                    raise DivergenceError(
                        f"step {n_iter - age // self._accumulate}: {name} is {number}; nothing was "
                        "saved since; try a lower --lr, or --warmup, or --clip_grad"
                    )
            self._past[name] = self._past.get(name, []) + numbers
        self._new = {}
        return self._past

    def means(self, n_iter: int) -> dict[str, float]:
        """Returns each term's mean over the window, and starts the next; raises as `read` does."""
        means = {name: math.fsum(terms) / len(terms) for name, terms in self.read(n_iter).items()}
        self._past = {}
        return means
