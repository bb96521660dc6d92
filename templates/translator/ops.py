"""Functions without parameters of their own."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


def initialize_weights(module: nn.Module) -> None:
    """Draws weights around zero with a standard deviation of 0.02 (Isola et al. 2017, section 6.2).

    Normalizations make up for the scale. Biases are 0. Use it as `network.apply(...)`.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def initialize_without_norms(module: nn.Module) -> None:
    """Draws weights that keep the scale of what passes through them (He et al. 2015, section 2.2).

    For networks in which no normalization does. Biases are 0. Use it as `network.apply(...)`.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def to_floats(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Brings image bytes in [0, 255] to floats in [-1, 1]."""
    return images.to(dtype) / 127.5 - 1


def to_bytes(images: Tensor) -> Tensor:
    """Brings floats in [-1, 1] to the bytes in [0, 255] that an image file would hold."""
    return (images.float() * 127.5 + 127.5).round().clamp(0, 255).byte()


def enlarge(images: Tensor, scale: int) -> Tensor:
    """Enlarges floats, (N, C, H, W), to (N, C, scale * H, scale * W), by bicubic interpolation."""
    if scale == 1:
        return images
    return functional.interpolate(images, scale_factor=scale, mode="bicubic")


def freeze(network: nn.Module) -> nn.Module:
    """Turns all parameters into constants, with `requires_grad = False`, and returns the network.

    As buffers, they move to a device and to replicas with the network; as buffers that are not
    persistent, no checkpoint holds them.
    """
    network.requires_grad_(False)
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach(), persistent=False)
    return network


def apply_in_parts(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    scale: int,
    multiple: int,
    reach: int,
    side: int,
) -> Tensor:
    """Applies a network to images of any size, in parts where they are large.

    Each part is computed with a margin around it, which is then cut off: if nothing beyond decides
    a pixel, the parts fit together without a seam. Sides that do not suit the network are filled up
    with the pixels at the border, which are cut off likewise.

    Args:
        network: maps images (N, C, H, W) to images scale times larger.
        images: (N, C, H, W).
        scale: of the network.
        multiple: of which both sides of the output must be one, twice or more.
        reach: how far apart, in pixels of the output, two pixels may be that concern each other.
        side: of the parts, in pixels of the output.
    """
    height, width = images.shape[-2:]
    unit = multiple // math.gcd(multiple, scale)  # of the input's sides
    least = -(-max(2 * multiple, 4) // (unit * scale)) * unit
    filled = [max(least, -(-length // unit) * unit) for length in (height, width)]
    images = functional.pad(images, (0, filled[1] - width, 0, filled[0] - height), mode="replicate")
    part = max(1, side // (unit * scale)) * unit
    margin = -(-reach // (unit * scale)) * unit
    rows = []
    for top in range(0, filled[0], part):
        row = []
        for left in range(0, filled[1], part):
            first, start = max(0, top - margin), max(0, left - margin)
            window = images[..., first : top + part + margin, start : left + part + margin]
            above, before = (top - first) * scale, (left - start) * scale
            made = network(window)[..., above : above + part * scale, :]
            row.append(made[..., before : before + part * scale])
        rows.append(torch.cat(row, dim=-1))
    return torch.cat(rows, dim=-2)[..., : height * scale, : width * scale]
