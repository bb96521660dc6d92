"""Functions without parameters of their own."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional


def initialize_weights(module: nn.Module) -> None:
    """Draws a convolution's weights by He et al. 2015, section 2.2; biases are 0.

    Use it as `network.apply(initialize_weights)`.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Repeats the pixels at the right and lower border until both sides are multiples.

    They are at least twice the multiple, so that the smallest map of a network has several pixels
    for a batch normalization to average, whatever the size of the batch.

    Args:
        images: floats, (N, C, H, W).
        multiple: 1 or more.
    """
    height, width = images.shape[-2:]
    right, bottom = (
        max(2 * multiple, -(-side // multiple) * multiple) - side for side in (width, height)
    )
    return functional.pad(images, (0, right, 0, bottom), mode="replicate")


def overlay(images: Tensor, masks: Tensor, colors: Tensor) -> Tensor:
    """Tints each pixel of an image with the color of its class; class 0 leaves it as it is.

    Args:
        images: (N, 3, H, W) in [0, 1].
        masks: (N, H, W), of any whole numbers that have a color.
        colors: (K, 3) in [0, 1].

    Returns:
        (N, 3, H, W) in [0, 1].
    """
    tints = colors[masks.long()].permute(0, 3, 1, 2)  # (N, 3, H, W)
    return torch.where(masks[:, None] == 0, images, (images + 2 * tints) / 3)


def apply_in_tiles(
    network: Callable[[Tensor], Tensor], images: Tensor, side: int, margin: int, ramp: int
) -> Tensor:
    """Applies a network to images in square tiles that overlap, and blends what it makes of them.

    A tile counts for nothing within the margin at each border, but for the image's own, and for
    more and more over the ramp behind it, as its neighbor counts for less. If nothing beyond the
    margin decides a pixel, and tiles begin where the network's maps do, the result is that of the
    whole image.

    Args:
        network: maps (N, C, H, W) to (N, K, H, W).
        images: (N, C, H, W).
        side: of the tiles, in pixels, more than twice the margin and the ramp together.
        margin: in pixels.
        ramp: in pixels, 1 or more.

    Returns:
        (N, K, H, W).
    """
    height, width = images.shape[-2:]
    overlap = 2 * margin + ramp
    sums: list[Tensor] = []  # of what the tiles have made, weighted, and of the weights
    for rows in _spans(height, side, overlap):
        for columns in _spans(width, side, overlap):
            made = network(images[..., rows, columns])
            down = _weights(rows, height, margin, ramp)
            weight = (down[:, None] * _weights(columns, width, margin, ramp)).to(made)
            if not sums:
                shapes = (*made.shape[:2], height, width), (height, width)
                sums = [made.new_zeros(shape) for shape in shapes]
            for total, part in zip(sums, (made * weight, weight), strict=True):
                total[..., rows, columns] += part
    return sums[0] / sums[1]


def _spans(length: int, side: int, overlap: int) -> Iterator[slice]:
    """Yields where tiles lie along a line; each one but the last is as long as the side."""
    start = 0
    while start + side < length:
        yield slice(start, start + side)
        start += side - overlap
    yield slice(start, length)


def _weights(span: slice, length: int, margin: int, ramp: int) -> Tensor:
    """Returns how much each pixel of a tile counts along a line, from 0 to 1."""
    places = torch.arange(span.start, span.stop) + 0.5
    rising, falling = (
        ((distance - margin) / ramp).clamp(0, 1) if inside else torch.ones_like(places)
        for distance, inside in (
            (places - span.start, span.start > 0),
            (span.stop - places, span.stop < length),
        )
    )
    return rising * falling
