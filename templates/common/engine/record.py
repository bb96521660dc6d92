"""The run's record: config.txt, environment.jsonl, metrics.jsonl and TensorBoard's event files."""

import argparse
import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import torch
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import image
from torch import Tensor
from tqdm import tqdm

from engine.distributed import mean_over_processes
from engine.environment import FILENAME, append_environment
from engine.options import save_config

FLUSH_SECONDS = 10.0  # TensorBoard shows a point at most so much later; a flush waits for the disk


class Record:
    """Writes scalars and pictures under the run's folder; continues cleanly after a resume.

    `metrics.jsonl` holds one object a line: n_iter, epoch, split and the numbers that the training
    itself determines, so two equal runs write equal files. Speeds go to TensorBoard alone.

    A full disk ends no run: lines wait until they can be written, and no checkpoint counts on a
    line that is not; curves lack the points of that time.

    Args:
        run_dir: the run's folder.
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
        self._position = position  # in metrics.jsonl, behind the last whole line
        self._waiting = b""  # lines that are not in the file yet
        self._lock = threading.Lock()  # a save calls `sync` from its thread
        self._failure = ""
        self._events: EventsWriter | None = None
        self._flushed = time.time()

    def __enter__(self) -> "Record":
        save_config(self._options, self._run_dir / "config.txt")
        path = self._run_dir / "metrics.jsonl"
        path.touch()
        self._lines = path.open("r+b", buffering=0)
        self._position = min(self._position, path.stat().st_size)
        self._lines.truncate(self._position)
        try:
            append_environment(self._run_dir, self._options, self._n_iter)
        except OSError as error:
            self._report(FILENAME, error)
        # Points that a crashed run wrote after its last checkpoint vanish from the curves.
        start = SessionLog(status=SessionLog.START)
        self._write_event(self._n_iter + 1, session_log=start)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lines.close()
        if self._events:
            with self._reported():
                self._events.close()

    def scalars(
        self,
        split: str,
        n_iter: int,
        epoch: int,
        numbers: Mapping[str, float],
        speed: Mapping[str, float] | None = None,
    ) -> None:
        """Writes one line and one point a curve; `speed` goes to TensorBoard alone."""
        numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
        line = {"n_iter": n_iter, "epoch": epoch, "split": split} | numbers  # JSON knows no NaN
        with self._lock:
            self._waiting += json.dumps(line).encode() + b"\n"
        try:
            self._write_lines()
        except OSError as error:
            self._report("metrics.jsonl", error)
        curves = {f"{split}/{name}": value for name, value in numbers.items()}
        curves |= {f"speed/{name}": value for name, value in (speed or {}).items()}
        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in curves.items()]
        self._write_event(n_iter, summary=Summary(value=points))

    def _write_lines(self) -> None:
        with self._lock:
            self._lines.seek(self._position)  # over what a failed write may have left
            left = self._waiting
            while left:
                left = left[self._lines.write(left) :]
            self._position += len(self._waiting)
            self._waiting = b""

    @property
    def position(self) -> int:
        """Length of metrics.jsonl in bytes, once the lines that wait are written."""
        with self._lock:
            return self._position + len(self._waiting)

    def pictures(self, split: str, n_iter: int, pictures: Mapping[str, Tensor]) -> None:
        """Writes pictures of shape (3, H, W) in [0, 1]."""
        for name, picture in pictures.items():
            summary = image(f"{split}/{name}", picture.float().cpu().numpy())
            self._write_event(n_iter, summary=summary)

    def sync(self) -> None:
        """Waits until the lines and the curves are on the disk, as a checkpoint assumes.

        Raises:
            OSError: lines cannot be written; they go on waiting.
        """
        self._write_lines()
        os.fsync(self._lines.fileno())
        if events := self._events:
            with self._reported():
                events.flush()

    def _write_event(self, n_iter: int, **content: Summary | SessionLog) -> None:
        now = time.time()
        event = Event(step=n_iter, wall_time=now, **content)
        with self._reported():
            # `SummaryWriter` would send each event through a queue and two threads, at ten times
            # the cost; its own parts write the same file from here.
            events = self._events  # a save that fails sets it to None from its thread
            if events is None:  # its suffix puts the files of one second in their order
                events = EventsWriter(str(self._run_dir / "events"), f".{n_iter:012d}")
                self._events = events
            events.write_event(event)
            if now > self._flushed + FLUSH_SECONDS:
                self._flushed = now
                events.flush()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Names a failure to write events; the next one opens a new file, whole records only."""
        try:
            yield
        except OSError as error:
            self._events = None
            self._report("the curves", error)

    def _report(self, what: str, error: OSError) -> None:
        """Names a failure once."""
        line = f"{self._run_dir}: {what} cannot be written: {error.strerror}"
        if line != self._failure:
            tqdm.write(f"{line}; training goes on", file=sys.stderr)
        self._failure = line


class LossWindow:
    """The terms of the batches since the last log: kept on the device, read back all at once.

    Args:
        past: what `read` returned when the run that this one resumes was saved.
    """

    def __init__(self, past: Mapping[str, list[float]]) -> None:
        self._past = dict(past)
        self._new: list[Mapping[str, Tensor]] = []

    def append(self, terms: Mapping[str, Tensor]) -> None:
        """Takes each term's values over one batch, shape (N,); N is the same for every batch."""
        self._new.append(terms)

    def read(self) -> dict[str, list[float]]:
        """Returns each batch's mean of each term, over all processes, read back from the device."""
        if self._new:
            names = list(self._new[0])
            values = [torch.cat([terms[name] for terms in self._new]) for name in names]
            means = torch.stack([each.view(len(self._new), -1).mean(dim=1) for each in values])
            for name, new in zip(names, mean_over_processes(means).tolist(), strict=True):
                self._past[name] = self._past.get(name, []) + new
        self._new = []
        return self._past

    def means(self) -> dict[str, float]:
        """Returns each term's mean over the window, and starts the next.

        A batch whose term is not finite is left out: its step was not applied.
        """
        means = {}
        for name, terms in self.read().items():
            if finite := [term for term in terms if math.isfinite(term)]:
                means[name] = math.fsum(finite) / len(finite)
        self._past = {}
        return means
