"""Learning-rate schedules, stepped once per optimizer step."""

import math
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def build_scheduler(optimizer: Optimizer, schedule: str, warmup: int, total_steps: int) -> LambdaLR:
    """Returns a scheduler that rises over `warmup` steps, then follows `schedule` to `total_steps`.

    Args:
        optimizer: its learning rates are what the factor multiplies.
        schedule: "constant", "cosine" (Loshchilov and Hutter 2017, section 3) or "linear".
        warmup: steps of linear rise; the first step has lr / (warmup + 1) (Goyal et al. 2017, 2.2).
        total_steps: steps of the whole run, warm-up included.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        if schedule == "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        if schedule == "linear":
            return 1 - progress
        return 1.0

    return LambdaLR(optimizer, factor)


def restore_scheduler(scheduler: LambdaLR, state: Mapping[str, Any]) -> None:
    """Takes up the saved place in the schedule; the rates themselves follow from today's flags."""
    scheduler.load_state_dict(dict(state) | {"base_lrs": scheduler.base_lrs})
    rates = [
        base * factor(scheduler.last_epoch)
        for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    ]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
