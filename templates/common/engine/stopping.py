"""Signals ask; the loop answers between two steps, when a save is safe."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, distributed

from engine.distributed import world_size
from engine.exits import PreemptedError

# The scheduler's warning, Ctrl-C, and Slurm's early warning; Windows lacks the last.
SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)
]


class StopRequest:
    """Turns the first signal into a request the loop polls; a second one ends the run at once.

    Attributes:
        signal: the one received, here or, once all agreed, in another process; 0 if none was.
        cut_short: whether a test pass was ended by it.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.cut_short = False
        self._received = 0
        self._is_alone = world_size() == 1
        self._question: tuple[Tensor, distributed.Work] | None = None

    def listen(self) -> None:
        """Installs the handlers; only the main thread may."""
        for number in SIGNALS:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._received = number
        if self._is_alone:
            self.signal = number
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    @property
    def is_received(self) -> bool:
        """Whether this process, whatever the others do, has received a signal."""
        return bool(self._received)

    def agree(self, now: bool = False) -> None:
        """Has all processes hear of a signal at the same place, where each of them calls this.

        Each call asks, and the next one hears the answer, which has come by then: it waits for
        nothing, unless the answer is wanted now.
        """
        if self._is_alone:
            return
        self._hear()
        received = torch.tensor(self._received)
        work = distributed.all_reduce(received, distributed.ReduceOp.MAX, async_op=True)
        self._question = received, work
        if now:
            self._hear()

    def _hear(self) -> None:
        if self._question:
            received, work = self._question
            work.wait()
            self.signal, self._question = int(received), None

    def __bool__(self) -> bool:
        return bool(self.signal)

    def error(self, run_dir: Path) -> PreemptedError:
        """Returns the exception that ends the run once everything is saved."""
        name = signal.Signals(self.signal).name
        return PreemptedError(f"{name}: saved; continue with --resume --run_dir {run_dir}")


@contextmanager
def hold_signals() -> Iterator[None]:
    """Has signals wait while workers start, which hold them, too, until they ignore them.

    A worker that is met by a signal between its first line and `ignore_signals` would die of it.
    """
    if hasattr(signal, "pthread_sigmask"):  # Windows lacks it
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        _release_signals()


def ignore_signals(worker: int) -> None:
    """Has a loader's worker ignore what is sent to the whole group; the main process ends it."""
    del worker
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _release_signals()


def _release_signals() -> None:
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
