"""Reusable blocks, from which the networks are built."""

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


class ConvBlock(nn.Module):
    """Convolution, batch normalization and ReLU.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: 2 halves height and width.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        # The normalization takes the mean away, and a bias with it.
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        out: Tensor = self.activation(self.norm(self.conv(x)))
        return out


class ResnetBlock(nn.Module):
    """Two convolutions with a skip connection: the basic block of He et al. 2016, figure 2.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: 2 halves height and width.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.first = ConvBlock(in_channels, out_channels, stride)
        self.conv = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:  # the sum needs equal shapes (option B)
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        residual = self.norm(self.conv(self.first(x)))
        out: Tensor = self.activation(residual + self.shortcut(x))  # the skip connection
        return out
