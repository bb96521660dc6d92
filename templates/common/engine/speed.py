"""What makes a run faster, and is settled before the model is built."""

import argparse

import numpy as np
import torch

from engine.memory import keep_freed_memory


def tune(options: argparse.Namespace, device: torch.device) -> None:
    """Sets what --tf32 and --fused ask for, and what costs no flag: memory, and denormal numbers.

    It comes before any large computation: torch's threads have what the process had as they began.

    Args:
        options: gives tf32; without --fused, its value is set.
        device: where the steps are computed.
    """
    keep_freed_memory()
    flush_denormals()
    if options.tf32 is not None:  # torch's own choice is TF32 for convolutions alone
        torch.set_float32_matmul_precision("high" if options.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = options.tf32
    if options.fused is None:
        options.fused = device.type == "cuda"


def flush_denormals() -> None:
    """Has the CPU take numbers so small that they have lost digits, below 1e-38, for zero.

    The surer a network is, the smaller are its gradients; with denormal numbers among them a
    processor computes many times slower.
    """
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # kept by NumPy, which before 2.3 warns as it asks for what is zero by then
    torch.set_flush_denormal(True)
