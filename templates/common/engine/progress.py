"""What the person at the terminal sees: the bar, and how much of the time went into computing."""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from tqdm import tqdm

from engine.distributed import hide_bars, is_joined
from engine.loading import default_workers

STARVED = 0.2  # share of the time spent waiting for data above which there is an advice to give
FORMATS = {"efficiency": "{:.0%}", "images/s": "{:.0f}", "lr": "{:.1e}"}
OWN_EVERY = 7  # steps; no --accumulate that is a power of two falls in step with it
_END = object()


class EfficiencyMeter:
    """Measures compute efficiency: the share of the time in which steps were computed.

    On the CPU it is the main thread's own time in the steps: what workers that share its cores
    take from it is time lost to data, as is what it spends inside `next(batches)`. On CUDA the host
    runs ahead of the device, so its times say little: there two events a step bracket the device's
    idle time, from the end of one step to the start of the next. They are read a window later, when
    the device has long passed them, so that the measurement never holds the device up.

    Args:
        device: where the steps are computed.
        clock: returns seconds; a test puts its own in its place.
        own_clock: likewise; by default, returns the seconds that this thread was on a core.
    """

    def __init__(
        self,
        device: torch.device,
        clock: Callable[[], float] = time.perf_counter,
        own_clock: Callable[[], float] | None = None,
    ) -> None:
        # In a step, processes wait for one another: that time is not lost to data.
        self._own_clock = own_clock or (time.perf_counter if is_joined() else time.thread_time)
        self._clock = clock
        self._idle = _CudaIdle(device) if device.type == "cuda" else None
        self._share: float | None = None  # of the last window, lost to data
        self._advised = self._workers_run = False
        self._number = 0  # of the step, whatever the window
        self._own_share = 1.0  # of the time in steps, the thread's own
        self._restart()

    def _restart(self) -> None:
        self._in_steps = self._total = 0.0
        self._steps = 0
        self._own = self._sampled = 0.0  # of some steps, the thread's own time and all of it

    def watch(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yields the batches and times each but the very first, in which workers start."""
        iterator = iter(batches)
        if self._idle:
            self._idle.begin()
        started = self._clock()
        while (batch := next(iterator, _END)) is not _END:
            if self._idle:
                self._idle.step_starts(self._workers_run)
            # To read a thread's clock is a system call, dearer than all else here: not every step.
            is_sample = not self._idle and self._number % OWN_EVERY == 1
            own = self._own_clock() if is_sample else 0.0
            begun = self._clock()
            yield batch
            done = self._clock()
            if self._idle:
                self._idle.step_ends()
            if self._workers_run:
                if is_sample:
                    self._own += self._own_clock() - own
                    self._sampled += done - begun
                self._in_steps += done - begun
                self._total += done - started
                self._steps += 1
            started, self._workers_run = done, True
            self._number += 1

    def window(self, batch_size: int) -> dict[str, float]:
        """Returns `efficiency`, in [0, 1], and `images/s` since the last call, as far as known.

        On CUDA the efficiency is that of the window before.
        """
        total, steps = self._total, self._steps
        if self._sampled:  # a window of few steps may hold none of those
            self._own_share = self._own / self._sampled
        computed = self._in_steps * self._own_share
        self._restart()
        if not total:
            return {}
        self._share = self._idle.share(total) if self._idle else max(0.0, 1 - computed / total)
        speed = {"images/s": steps * batch_size / total}
        return speed if self._share is None else {"efficiency": 1 - self._share} | speed

    def advice(self, options: argparse.Namespace) -> str | None:
        """Returns, once, a line that names the flag to change where data is the bottleneck."""
        if self._advised or self._share is None or self._share <= STARVED:
            return None
        self._advised = True
        line = f"{self._share:.0%} of the time went into data: "
        cache = getattr(options, "cache", None)
        if cache == "device":
            return f"{line}the first epoch decodes the images"
        if cache == "off":
            return f"{line}try --cache auto (now off)"
        if options.num_workers < default_workers():
            return f"{line}try --num_workers {default_workers()} (now {options.num_workers})"
        return f"{line}store the images smaller, near --img_size, or raise --num_workers"


class _CudaIdle:
    """The device's idle time between steps, by pairs of events."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device)
        self._pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._last: tuple[list[tuple[torch.cuda.Event, torch.cuda.Event]], float] | None = None
        self._end = self._mark()

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event

    def begin(self) -> None:
        """Has what the device did before, a test or nothing, not count."""
        self._end = self._mark()

    def step_starts(self, counts: bool) -> None:
        if counts:
            self._pairs.append((self._end, self._mark()))

    def step_ends(self) -> None:
        self._end = self._mark()

    def share(self, total: float) -> float | None:
        """Takes the window's seconds; returns idle time over total of the window before."""
        ready, self._last = self._last, (self._pairs, total)
        self._pairs = []
        if ready is None or not all(start.query() for _, start in ready[0]):
            return None
        milliseconds: float = sum(end.elapsed_time(start) for end, start in ready[0])
        return min(1.0, milliseconds / 1000 / ready[1])


def bar_style(done: int) -> dict[str, Any]:
    """Returns how a bar looks of whose batches some are done, as tqdm takes it."""
    style: dict[str, Any] = {"unit": "batch", "mininterval": 0.5, "dynamic_ncols": True}
    return style | {"disable": hide_bars(), "initial": done}


def show(bar: "tqdm[Any]", title: str, numbers: Mapping[str, float]) -> None:
    """Puts the numbers behind the bar; where no terminal shows one, prints them as a line."""
    texts = {name: FORMATS.get(name, "{:.4g}").format(value) for name, value in numbers.items()}
    if bar.disable:
        line = ", ".join(f"{name} {text}" for name, text in texts.items())
        print(f"{title}: {line}", flush=True)  # a job's log is read while it runs
    else:
        bar.set_postfix(texts, refresh=False)  # drawn with the bar's next redraw
