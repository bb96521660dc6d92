"""What makes a run faster, and is settled before the model is built."""

import argparse

import torch

from engine.memory import keep_freed_memory


def tune(options: argparse.Namespace, device: torch.device) -> None:
    """Sets what --tf32 and --fused ask for, and has the process keep freed memory.

    Args:
        options: gives tf32; without --fused, its value is set.
        device: where the steps are computed.
    """
    keep_freed_memory()
    if options.tf32 is not None:  # torch's own choice is TF32 for convolutions alone
        torch.set_float32_matmul_precision("high" if options.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = options.tf32
    if options.fused is None:
        options.fused = device.type == "cuda"
