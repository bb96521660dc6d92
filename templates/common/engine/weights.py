"""A model's weights: into the model that they fit, and out of it only if they are finite."""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from engine.checkpoint import require_checkpoint
from engine.exits import DivergenceError, UserError


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


def fine_tune(model: nn.Module, path: str) -> None:
    """Loads what fits of the weights in --path_to_checkpoint, and names what does not."""
    for name in load_fitting(model, require_checkpoint(path)["model"]):
        print(f"{name} is not in {path}, or of another shape: new")


def check_finite(model: nn.Module, n_iter: int) -> None:
    """Raises DivergenceError if a weight is not finite, so that no such model is ever saved."""
    for name, weight in model.state_dict().items():
        if not torch.isfinite(weight).all():
            raise DivergenceError(
                f"step {n_iter}: {name} is not finite; the last checkpoint is untouched; "
                "try a lower --lr, or --warmup, or --clip_grad"
            )
