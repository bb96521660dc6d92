"""Reusable blocks, from which the networks are built."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Brings image bytes to floats around zero, on whichever device they are.

    Args:
        mean: of each channel, as a share of full brightness.
        std: of each channel, likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # Not parameters, not weights to save: constants that move with the module.
        self.register_buffer("mean", 255 * torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Maps (N, C, H, W) in [0, 255] of any type to floats of the same shape."""
        return (images.float() - self.mean) / self.std


def normalization(kind: str, channels: int) -> nn.Module:
    """Returns a normalization of (N, channels, H, W).

    Args:
        kind: "batch" (Ioffe and Szegedy 2015), or "group", which keeps images apart and so suits
            batches of one or two (Wu and He 2018).
        channels: of the input.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(math.gcd(8, channels), channels)


class DoubleConv(nn.Module):
    """Two convolutions, each with normalization and ReLU: what the network has at every level.

    The paper's convolutions take a pixel off each border; these are padded, and but for a
    stride keep the size.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        norm: "batch" or "group".
        stride: of the first convolution, whose squares have a side of `stride + 2`: they overlap.
    """

    def __init__(
        self, in_channels: int, out_channels: int, norm: str = "batch", stride: int = 1
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for given, step in ((in_channels, stride), (out_channels, 1)):
            # The normalization takes the mean away, and a bias with it.
            conv = nn.Conv2d(given, out_channels, step + 2, step, padding=1, bias=False)
            layers += [conv, normalization(norm, out_channels), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        out: Tensor = self.layers(x)
        return out


class UpBlock(nn.Module):
    """One level of the decoder: an up-convolution, the skip connection, two convolutions.

    Args:
        in_channels: of the map from below.
        skip_channels: of the encoder's map of this level.
        out_channels: of the output.
        norm: "batch" or "group".
        factor: how many times larger the encoder's map is than that from below.
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        out_channels: int,
        norm: str = "batch",
        factor: int = 2,
    ) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, factor, stride=factor)
        self.convs = DoubleConv(skip_channels + out_channels, out_channels, norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Joins the map from below with the encoder's, of the same image.

        Args:
            x: (N, in_channels, H, W).
            skip: (N, skip_channels, factor * H, factor * W).

        Returns:
            (N, out_channels, factor * H, factor * W).
        """
        out: Tensor = self.convs(torch.cat([skip, self.up(x)], dim=1))  # the skip connection
        return out
