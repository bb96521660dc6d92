"""Learning-rate schedules, stepped once per optimizer step."""

import math
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class StepSchedule(LambdaLR):
    """A LambdaLR that is stepped often: of its `step` it does what changes the rates, no more."""

    def step(self, epoch: int | None = None) -> None:
        """Goes on to the next step's rates, or to those of step `epoch`."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._last_lr = []
        groups = self.optimizer.param_groups
        for group, base, factor in zip(groups, self.base_lrs, self.lr_lambdas, strict=True):
            group["lr"] = base * factor(self.last_epoch)
            self._last_lr.append(group["lr"])

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up the saved place in the schedule; the rates follow from today's flags."""
        self.step(state["last_epoch"])


def build_scheduler(
    optimizer: Optimizer, schedule: str, warmup: int, total_steps: int
) -> StepSchedule:
    """Returns a scheduler that rises over `warmup` steps, then follows `schedule` to `total_steps`.

    Args:
        optimizer: its learning rates are what the factor multiplies.
        schedule: "constant", "cosine" (Loshchilov and Hutter 2017, section 3) or "linear".
        warmup: steps of linear rise; the first step has lr / (warmup + 1) (Goyal et al. 2017, 2.2).
        total_steps: steps of the whole run, warm-up included.
    """
    length = max(1, total_steps - warmup)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / length)
        if schedule == "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        if schedule == "linear":
            return 1 - progress
        return 1.0

    return StepSchedule(optimizer, factor)
