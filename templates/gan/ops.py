"""Functions without parameters of their own."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def initialize_weights(module: nn.Module) -> None:
    """Draws weights around zero with a standard deviation of 0.02 (Radford et al. 2016, section 4).

    Scales of normalizations are drawn around one, as in the authors' code: around zero, they would
    leave nothing of the signal. Biases are 0. Use it as `network.apply(initialize_weights)`.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def to_floats(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Brings image bytes in [0, 255] to floats in [-1, 1], the range of the generator's tanh."""
    return images.to(dtype) / 127.5 - 1


def to_bytes(images: Tensor) -> Tensor:
    """Brings floats in [-1, 1] to the bytes in [0, 255] that an image file would hold."""
    return (images.float() * 127.5 + 127.5).round().clamp(0, 255).byte()


def one_of(count: int, numbers: Tensor) -> Tensor:
    """Cuts [-1, 1] into `count` equal parts, and marks with 1 the one that each number is in.

    Args:
        count: of the parts.
        numbers: (N, 1), in [-1, 1].

    Returns:
        (N, count), otherwise 0.
    """
    parts = ((numbers + 1) * (count / 2)).floor().clamp(0, count - 1)
    return (parts == torch.arange(count, device=numbers.device)).to(numbers.dtype)


def resize(images: Tensor, side: int) -> Tensor:
    """Resizes floats, (N, C, H, W), to (N, C, side, side), without aliasing where they shrink."""
    if images.shape[-2:] == (side, side):
        return images
    return functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
