"""What `--debug` does with a trainer: short runs that answer one question each.

one_batch: does everything work once? A step, a log, pictures, a test of one batch, a checkpoint.
overfit: can the model learn a single batch by heart? If not, the fault lies in it, in its loss, or
in the targets, and more data will not help.
profile: where does a step spend its time?
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from engine import distributed, loading
from engine.exits import UserError
from engine.options import PROFILED_STEPS

LEARNED = 0.1  # of its first value: a loss that falls below was learned
ROWS = 12  # of the profile's table


@contextmanager
def mode(trainer: Any) -> Iterator[Any]:
    """Gives the trainer as --debug would have it, to be run; afterwards says what came of it."""
    kind = trainer.options.debug
    if kind is None:
        yield trainer
    else:
        with {"one_batch": _one_batch, "overfit": _overfit, "profile": _profile}[kind](trainer):
            yield trainer


@contextmanager
def _one_batch(trainer: Any) -> Iterator[None]:
    options, samples = trainer.options, trainer.test_set
    first = Subset(samples, range(min(options.batch_size, len(samples))))
    trainer.test_loader = loading.test_loader(first, options)
    yield
    _say("one_batch: a step, its log, pictures, a test and a checkpoint: all of it works")


@contextmanager
def _overfit(trainer: Any) -> Iterator[None]:
    options = trainer.options
    with_workers = trainer.training_loader
    with_workers.set_position(0, 0)
    batch = next(iter(with_workers))
    with_workers.close()
    trainer.training_loader = _SameBatch(batch, options.max_steps * options.accumulate)
    trainer.total_steps = options.max_steps
    trainer.test_is_due = lambda: False
    append = trainer.window.append
    ends: list[Mapping[str, Tensor]] = []  # the terms of the first batch and of the last

    def note(terms: Mapping[str, Tensor]) -> None:
        ends[1:] = [terms]
        append(terms)

    trainer.window.append = note
    yield
    _say(judge(ends[0], ends[-1], list(trainer.state.parameters)))


@contextmanager
def _profile(trainer: Any) -> Iterator[None]:
    if (steps := trainer.total_steps) < PROFILED_STEPS:
        raise UserError(
            f"--debug profile takes {PROFILED_STEPS} steps, and this run has {steps}: "
            "raise --epochs, or lower --batch_size"
        )
    folder = str(trainer.run_dir / "profile")
    watch, trainer.test_is_due = trainer.meter.watch, lambda: False
    waiting, warm_up = 2, 2
    schedule = torch.profiler.schedule(
        wait=waiting, warmup=warm_up, active=PROFILED_STEPS - waiting - warm_up, repeat=1
    )
    with torch.profiler.profile(
        schedule=schedule,
        on_trace_ready=torch.profiler.tensorboard_trace_handler(folder, use_gzip=True),
    ) as profiler:

        def watch_and_step(batches: Any) -> Iterator[Any]:
            for batch in watch(batches):
                yield batch
                profiler.step()

        trainer.meter.watch = watch_and_step
        yield
    order = "self_cuda_time_total" if trainer.device.type == "cuda" else "self_cpu_time_total"
    _say(profiler.key_averages().table(sort_by=order, row_limit=ROWS, max_name_column_width=40))
    _say(f"profile: the trace in {folder} opens in Perfetto (ui.perfetto.dev)")


class _SameBatch:
    """One batch, again and again, with all that a trainer asks of its loader."""

    num_workers = 0
    persistent_workers = False

    def __init__(self, batch: Any, count: int) -> None:
        self._batch, self._count = batch, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return (self._batch for _ in range(self._count))

    def set_position(self, epoch: int, start: int) -> None:
        """Takes the place in the run, which says nothing here."""

    def close(self) -> None:
        """Has nothing to end."""


def judge(first: Mapping[str, Tensor], last: Mapping[str, Tensor], losses: list[str]) -> str:
    """Says by the terms of the first step and the last whether the batch was learned."""
    fell = {name: (first[name].mean().item(), last[name].mean().item()) for name in first}
    texts = [f"{name} from {before:.4g} to {after:.4g}" for name, (before, after) in fell.items()]
    if len(losses) > 1:
        verdict = "losses that pull against one another need not fall: judge by the other terms"
    elif not all(map(math.isfinite, fell[losses[0]])):
        verdict = "the loss is not finite: try a lower --lr"
    elif (before := fell[losses[0]][0]) <= 0:
        verdict = "a loss that begins at 0 or below has no scale: judge by the other terms"
    elif (share := fell[losses[0]][1] / before) < LEARNED:
        verdict = "it could learn the batch by heart"
    else:
        verdict = (
            f"it could not, {share:.0%} of the loss is left: try another --lr or more --max_steps, "
            "then look at the loss and at the targets"
        )
    return f"overfit: {', '.join(texts)}; {verdict}"


def _say(text: str) -> None:
    distributed.on_first(print, text)
