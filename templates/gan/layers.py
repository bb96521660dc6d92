"""Reusable blocks, from which the networks are built."""

import torch
from torch import Tensor, nn


def normalization(kind: str, channels: int) -> nn.Module:
    """Returns a normalization of (N, channels, H, W).

    Args:
        kind: "batch", "none", or "layer", which keeps images apart (Ba et al. 2016).
        channels: of the input.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(1, channels) if kind == "layer" else nn.Identity()


class UpBlock(nn.Module):
    """Transposed convolution, batch normalization and ReLU: twice the side.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        is_first: the input is a latent, (N, in_channels, 1, 1), and becomes 4x4.
    """

    def __init__(self, in_channels: int, out_channels: int, is_first: bool = False) -> None:
        super().__init__()
        stride, padding = (1, 0) if is_first else (2, 1)
        # The normalization takes the mean away, and a bias with it.
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 4, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, 2 * H, 2 * W), a latent to 4x4."""
        out: Tensor = self.activation(self.norm(self.conv(x)))
        return out


class DownBlock(nn.Module):
    """Strided convolution, normalization and leaky ReLU: half the side.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        norm: "batch", "layer" or "none".
    """

    def __init__(self, in_channels: int, out_channels: int, norm: str = "batch") -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 4, 2, padding=1, bias=norm == "none")
        self.norm = normalization(norm, out_channels)
        self.activation = nn.LeakyReLU(0.2, inplace=True)  # the slope of the paper, section 4

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, H / 2, W / 2)."""
        out: Tensor = self.activation(self.norm(self.conv(x)))
        return out


class SelfAttention(nn.Module):
    """Lets every place see every other: the block of SAGAN (Zhang et al. 2019, section 3).

    Its share in the sum begins at zero, so that a network first learns from what is near.

    Args:
        channels: of input and output, 8 or more.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.query = nn.Conv2d(channels, inner, 1, bias=False)
        self.key = nn.Conv2d(channels, inner, 1, bias=False)
        self.value = nn.Conv2d(channels, inner, 1, bias=False)
        self.out = nn.Conv2d(inner, channels, 1, bias=False)
        self.share = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to the same shape."""
        query, key, value = (
            layer(x).flatten(2) for layer in (self.query, self.key, self.value)
        )  # each (N, inner, H * W)
        # Written out: torch's fused attention has no second derivative for the gradient penalty.
        attention = (query.transpose(1, 2) @ key).softmax(dim=2)  # (N, H * W, H * W); rows sum to 1
        seen = (value @ attention.transpose(1, 2)).unflatten(2, x.shape[2:])  # (N, inner, H, W)
        out: Tensor = x + self.share * self.out(seen)  # the skip connection
        return out
