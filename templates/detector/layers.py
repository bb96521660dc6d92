"""Reusable blocks, from which the networks are built."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ops import decode, flatten, make_priors


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
        for name, values in (("mean", mean), ("std", std)):
            value = 255 * torch.tensor(values).view(-1, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Maps (N, C, H, W) in [0, 255] of any type to floats of the same shape."""
        return (images.to(self.mean.dtype) - self.mean) / self.std


class ConvBlock(nn.Module):
    """Convolution, batch normalization and a leaky ReLU: what the paper calls a convolutional.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: odd.
        stride: 2 halves height and width.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        # The normalization takes the mean away, and a bias with it.
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = nn.LeakyReLU(0.1, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        out: Tensor = self.activation(self.norm(self.conv(x)))
        return out


class ResidualBlock(nn.Module):
    """Half the channels by a 1x1 convolution, all again by a 3x3 one, and a skip connection.

    Source: Redmon and Farhadi 2018, table 1.

    Args:
        channels: of input and output, an even number.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = ConvBlock(channels, channels // 2, 1)
        self.expand = ConvBlock(channels // 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to the same shape."""
        out: Tensor = x + self.expand(self.reduce(x))  # the skip connection
        return out


class ConvSet(nn.Module):
    """Convolutions 1x1 and 3x3 by turns, which begin and end with a 1x1: five in the paper.

    Args:
        in_channels: of the input.
        out_channels: of the output; the 3x3 ones have twice as many.
        pairs: of a 3x3 and a 1x1 convolution after the first one.
    """

    def __init__(self, in_channels: int, out_channels: int, pairs: int = 2) -> None:
        super().__init__()
        blocks = [ConvBlock(in_channels, out_channels, 1)]
        for _ in range(pairs):
            blocks.append(ConvBlock(out_channels, 2 * out_channels))
            blocks.append(ConvBlock(2 * out_channels, out_channels, 1))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, H, W)."""
        out: Tensor = self.blocks(x)
        return out


class Decode(nn.Module):
    """The network's maps to boxes and probabilities, for use outside of this project.

    Args:
        anchors: width and height of the priors of each scale, in pixels, (3, 3, 2).
        side: of the image, in pixels.
    """

    priors: Tensor

    def __init__(self, anchors: Tensor, side: int) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("priors", make_priors(anchors, side), persistent=False)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps (N, 3 * (5 + C), h, w) of each scale to (N, P, 5 + C).

        Returns:
            Left, top, right and bottom as shares of the image's side, the probability of an object,
            and of each class if there is one.
        """
        predicted = flatten(maps)
        boxes = decode(predicted[..., :4], self.priors) / self.side
        return torch.cat([boxes, predicted[..., 4:].sigmoid()], dim=-1)
