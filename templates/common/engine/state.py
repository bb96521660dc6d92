"""All that decides the next step, in one place: what a checkpoint holds."""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from engine.distributed import amp_dtype
from engine.exits import DivergenceError, UserError
from engine.reproducibility import get_rng_state, set_rng_state
from engine.schedules import build_scheduler


class TrainingState:
    """The model and everything around it that changes from step to step.

    Args:
        model: the finished model, unwrapped, on its device.
        optimizers: by the name of the loss that each one minimizes.
        total_steps: length of the learning-rate schedule.
        device: where the model is.
        options: the flags.

    Attributes:
        parameters: each optimizer's trained parameters: where its loss may send gradients.
        schedulers: by the optimizers' names.
        autocast: context in which the model computes its losses.
        share: of one batch in the gradient of a step, shape ().
        scaler: of the loss, for float16; elsewhere it does nothing.
        ema: moving average of the weights, if --ema asks for one.
        epoch: passes over the training set that are done, with their tests.
        batch: batches of the current epoch that are done.
        n_iter: optimizer steps that are done.
        best: the best test result so far, if any.
        window: terms since the last log.
        position: length of metrics.jsonl in bytes.
    """

    def __init__(
        self,
        model: Any,
        optimizers: dict[str, Optimizer],
        total_steps: int,
        device: torch.device,
        options: argparse.Namespace,
    ) -> None:
        self.model = model
        self.optimizers = optimizers
        self.parameters = {name: _trained(optimizer) for name, optimizer in optimizers.items()}
        self.schedulers = {
            name: build_scheduler(optimizer, options.lr_schedule, options.warmup, total_steps)
            for name, optimizer in optimizers.items()
        }
        dtype = amp_dtype(device) if options.amp else torch.float32
        self.autocast: Callable[[], AbstractContextManager[object]] = (
            partial(torch.autocast, device.type, dtype) if options.amp else nullcontext
        )
        self.scaler = GradScaler(device.type, enabled=dtype == torch.float16)
        # What each batch adds to a loss's gradient: its share of the virtual batch.
        self.share = torch.tensor(1 / options.accumulate, device=device)
        self.ema: AveragedModel | None = None
        if options.ema:
            average = get_ema_multi_avg_fn(options.ema)
            self.ema = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
        self.epoch = self.batch = self.n_iter = self.position = 0
        self.best: float | None = None
        self.window: dict[str, list[float]] = {}

    @property
    def tested_model(self) -> Any:
        """The model that tests and pictures use: the average of the weights if there is one."""
        return self.model if self.ema is None else self.ema.module

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
            "n_iter": self.n_iter,
            "best": self.best,
            "rng": get_rng_state(),
            "options": dict(vars(options)),
            "classes": list(classes),
            "window": self.window,
            "position": self.position,
            "versions": {"torch": str(torch.__version__)},
        }

    def _ema_state(self) -> dict[str, Any] | None:
        if self.ema is None:
            return None
        return {"model": self.ema.module.state_dict(), "n_averaged": int(self.ema.n_averaged)}

    def load_state_dict(
        self, checkpoint: dict[str, Any], options: argparse.Namespace, classes: list[str]
    ) -> None:
        """Restores everything that `state_dict` returned, and says which flags have changed.

        Raises:
            UserError: the checkpoint is of another model, or of data with other classes.
        """
        if checkpoint["classes"] != classes:
            raise UserError(
                f"--path_to_data {options.path_to_data} has the classes {', '.join(classes)}; "
                f"the run began with {', '.join(checkpoint['classes'])}"
            )
        for name, value in vars(options).items():
            before = checkpoint["options"].get(name)
            if value != before and name != "resume":
                stays = ", which stays" if name == "lr" else ""
                print(f"--{name} is {value}; the checkpoint was saved with {before}{stays}")
        load_model(self.model, checkpoint["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(checkpoint["optimizers"][name])
        for name, scheduler in self.schedulers.items():
            scheduler.load_state_dict(checkpoint["schedulers"][name])
        self.scaler.load_state_dict(checkpoint["scaler"])
        if self.ema is not None and checkpoint["ema"] is not None:
            load_model(self.ema.module, checkpoint["ema"]["model"])
            self.ema.n_averaged.fill_(checkpoint["ema"]["n_averaged"])
        for name in ("epoch", "batch", "n_iter", "best", "window", "position"):
            setattr(self, name, checkpoint[name])
        set_rng_state(checkpoint["rng"])


def _trained(optimizer: Optimizer) -> list[nn.Parameter]:
    groups = (group["params"] for group in optimizer.param_groups)
    return [parameter for group in groups for parameter in group if parameter.requires_grad]


def load_model(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Loads the weights into the model once names and shapes are seen to fit.

    Raises:
        UserError: they are another model's.
    """
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        if name not in own or name not in weights:
            where = "model" if name in own else "checkpoint"
            raise UserError(f"the checkpoint is another model's: only the {where} has {name}")
        if own[name].shape != weights[name].shape:
            shapes = f"{tuple(weights[name].shape)}, the model's {tuple(own[name].shape)}"
            raise UserError(f"the checkpoint is another model's: its {name} has shape {shapes}")
    model.load_state_dict(weights)


def restore_model(build: Callable[..., Any], checkpoint: dict[str, Any]) -> Any:
    """Returns the checkpoint's model in eval mode, with the averaged weights if it has any.

    Args:
        build: the model's class, called with the checkpoint's options and classes.
        checkpoint: what `read_checkpoint` returned.
    """
    options = argparse.Namespace(**checkpoint["options"])
    model = build(options, checkpoint["classes"], fetch=False)
    load_model(model, checkpoint["ema"]["model"] if checkpoint["ema"] else checkpoint["model"])
    return model.eval()


def load_fitting(model: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """Loads the weights whose names and shapes fit, and returns the model's names left untouched.

    A new task has another number of classes: fine-tuning keeps all but the last layer.
    """
    own = model.state_dict()
    fitting = {
        name: weight
        for name, weight in weights.items()
        if name in own and own[name].shape == weight.shape
    }
    model.load_state_dict(fitting, strict=False)
    return sorted(own.keys() - fitting.keys())


def check_finite(model: nn.Module, n_iter: int) -> None:
    """Raises DivergenceError if a weight is not finite, so that no such model is ever saved."""
    for name, weight in model.state_dict().items():
        if not torch.isfinite(weight).all():
            raise DivergenceError(
                f"step {n_iter}: {name} is not finite; the last checkpoint is untouched; "
                "try a lower --lr, or --warmup, or --clip_grad"
            )
