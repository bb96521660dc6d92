"""Where the model runs: the device, and several GPUs of one process."""

import argparse

import torch
from torch import nn

from engine.exits import UserError


def pick_device(name: str) -> torch.device:
    """Returns the named device, or for "auto" the accelerator if there is one, else the CPU.

    Raises:
        UserError: there is no such device here.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name} cannot be used here: {reason}") from error
    return device


def amp_dtype(device: torch.device) -> torch.dtype:
    """Returns the type for mixed precision: bfloat16, which needs no loss scaling, or float16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float16
    return torch.bfloat16


def parallelize(model: nn.Module, device: torch.device, options: argparse.Namespace) -> nn.Module:
    """Returns the model, or wraps it so that each batch is split over all GPUs of this process.

    This is the guide's second pattern: networks and losses are packed in one module, so the losses
    are computed on every GPU, one per sample, and gathered.

    Raises:
        UserError: the batch has fewer samples than there are GPUs.
    """
    count = torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1
    if options.parallel == "none" or count == 1:
        return model
    if options.batch_size < count:
        raise UserError(
            f"--batch_size {options.batch_size} is less than the number of GPUs, {count}"
        )
    print(f"nn.DataParallel splits each batch over {count} GPUs; --parallel none uses one")
    return nn.DataParallel(model)
