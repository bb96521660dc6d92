"""All that decides the next step, in one place: what a checkpoint holds."""

import argparse
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.utils.data import Dataset

from engine import TEMPLATE_VERSION
from engine.average import MovingAverage
from engine.checkpoint import copy_to_cpu
from engine.distributed import amp_dtype, world_size
from engine.divergence import DeferredStepGuard, StepGuard
from engine.reproducibility import get_rng_state, set_rng_state
from engine.resume import check_changes, fingerprint, place_in_epoch
from engine.schedules import build_scheduler
from engine.weights import check_finite, load_model


class TrainingState:
    """The model and everything around it that changes from step to step.

    Args:
        model: the finished model, unwrapped, on its device.
        optimizers: by the name of the loss that each one minimizes.
        total_steps: length of the learning-rate schedule.
        options: the flags.
        training_set: a resumed run must find it again.

    Attributes:
        parameters: each optimizer's trained parameters: where its loss may send gradients.
        stepped: all parameters that an optimizer has, also those not trained yet.
        schedulers: by the optimizers' names.
        autocast: context in which the model computes its losses.
        share: of one batch in the gradient of a step, shape ().
        scaler: of the loss, for float16; elsewhere it does nothing.
        guard: refuses steps that are not finite.
        fingerprint: of the training set.
        ema: moving average of the weights, if --ema asks for one.
        epoch: passes over the training set that are done, with their tests.
        batch: batches of the current epoch that are done.
        n_iter: optimizer steps that are done.
        ended: the step at which an epoch, or a limit, was last ended, with its test.
        best: the best test result so far, if any.
        window: terms since the last log.
        position: length of metrics.jsonl in bytes.
    """

    def __init__(
        self,
        model: Any,
        optimizers: dict[str, Optimizer],
        total_steps: int,
        options: argparse.Namespace,
        training_set: Dataset[Any],
    ) -> None:
        self.model = model
        self.optimizers = optimizers
        self.parameters = {name: _trained(optimizer) for name, optimizer in optimizers.items()}
        groups = [group for each in optimizers.values() for group in each.param_groups]
        self.stepped: list[nn.Parameter] = [each for group in groups for each in group["params"]]
        self.schedulers = {
            name: build_scheduler(optimizer, options.lr_schedule, options.warmup, total_steps)
            for name, optimizer in optimizers.items()
        }
        device = next(model.parameters()).device
        dtype = amp_dtype(device) if options.amp else torch.float32
        self.autocast: AbstractContextManager[object] = (
            torch.autocast(device.type, dtype) if options.amp else nullcontext()
        )
        self.scaler = GradScaler(device.type, enabled=dtype == torch.float16)
        # What each batch adds to a loss's gradient: its share of the virtual batch, or all of it.
        self.share = torch.tensor(1 / options.accumulate, device=device)
        self.ema = MovingAverage(model, options.ema) if options.ema else None
        is_scaled = self.scaler.is_enabled()
        names = model.state_dict().keys()  # others are constants
        buffers = [each for name, each in model.named_buffers() if name in names]
        watched = self.parameters, buffers, options.max_bad_steps, is_scaled
        self.guard: StepGuard
        if device.type == "cuda" and all(group.get("fused") for group in groups):
            self.guard = DeferredStepGuard(list(optimizers.values()), *watched)
        else:
            self.guard = StepGuard(*watched)
        self.fingerprint = fingerprint(training_set)
        self.epoch = self.batch = self.n_iter = self.ended = self.position = 0
        self.best: float | None = None
        self.window: dict[str, list[float]] = {}

    @property
    def tested_model(self) -> Any:
        """The model that tests and pictures use: the average of the weights if there is one."""
        return self.model if self.ema is None else self.ema.module

    def train(self) -> None:
        """Puts the model into training mode."""
        self.model.train()
        self.guard.keep()

    def end_epoch(self, batches: int) -> None:
        """Takes note that all is done after the last step; `batches` are those of an epoch."""
        self.ended = self.n_iter
        if self.batch >= batches:  # more, if a resumed run's data has become less
            self.epoch, self.batch = self.epoch + 1, 0

    def check(self) -> None:
        """Raises DivergenceError if a weight, or too much of what led to it, is not finite."""
        self.guard.report(self.n_iter)
        for model in {self.model, self.tested_model}:
            check_finite(model, self.n_iter)

    def state_dict(self, options: argparse.Namespace, classes: list[str]) -> dict[str, Any]:
        """Returns a checkpoint: plain types, and the tensors themselves."""
        return {
            "model": self.model.state_dict(),
            "optimizers": {key: o.state_dict() for key, o in self.optimizers.items()},
            "schedulers": {key: dict(s.state_dict()) for key, s in self.schedulers.items()},
            "scaler": dict(self.scaler.state_dict()),
            "ema": self._ema_state(),
            "epoch": self.epoch,
            "batch": self.batch,
            "ended": self.ended,
            "n_iter": self.n_iter,
            "best": self.best,
            "rng": get_rng_state(),
            "options": dict(vars(options)),
            "classes": list(classes),
            "processes": world_size(),
            "fingerprint": self.fingerprint,
            "bad_steps": self.guard.bad_steps,
            "window": self.window,
            "position": self.position,
            "versions": {"torch": str(torch.__version__), "template": TEMPLATE_VERSION},
        }

    def _ema_state(self) -> dict[str, Any] | None:
        if self.ema is None:
            return None
        return {"model": self.ema.module.state_dict(), "n_averaged": int(self.ema.n_averaged)}

    def load_state_dict(
        self, checkpoint: dict[str, Any], options: argparse.Namespace, classes: list[str]
    ) -> None:
        """Restores everything that `state_dict` returned, and names the flags that have changed.

        Learning rates and the like follow today's flags.

        Raises:
            UserError: the checkpoint is of another model, or the flags or the data have changed
                in a way that --allow_changes would have to allow.
        """
        check_changes(checkpoint, options, classes, self.fingerprint)
        load_model(self.model, checkpoint["model"])
        for name, optimizer in self.optimizers.items():
            groups = optimizer.state_dict()["param_groups"]
            state = copy_to_cpu(checkpoint["optimizers"][name]["state"])
            optimizer.load_state_dict({"state": state, "param_groups": groups})
        for name, scheduler in self.schedulers.items():
            scheduler.restore(checkpoint["schedulers"][name])
        self.scaler.load_state_dict(checkpoint["scaler"])
        if self.ema is not None and checkpoint["ema"] is not None:
            load_model(self.ema.module, checkpoint["ema"]["model"])
            self.ema.n_averaged.fill_(checkpoint["ema"]["n_averaged"])
        for name in ("epoch", "ended", "n_iter", "best", "window", "position"):
            setattr(self, name, checkpoint[name])
        self.batch = place_in_epoch(checkpoint, options)
        self.guard.bad_steps = checkpoint["bad_steps"]
        set_rng_state(checkpoint["rng"])


def _trained(optimizer: Optimizer) -> list[nn.Parameter]:
    groups = (group["params"] for group in optimizer.param_groups)
    return [parameter for group in groups for parameter in group if parameter.requires_grad]
