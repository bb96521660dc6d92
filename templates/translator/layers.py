"""Reusable blocks, from which the networks are built."""

from torch import Tensor, nn


def normalization(kind: str, channels: int) -> nn.Module:
    """Returns a normalization of (N, channels, H, W).

    Args:
        kind: "instance", which keeps images apart (Ulyanov et al. 2016), "batch" or "none".
        channels: of the input.
    """
    if kind == "instance":
        return nn.InstanceNorm2d(channels)
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.Identity()


class ConvBlock(nn.Module):
    """Convolution, normalization and an activation.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: odd.
        stride: 2 halves the side.
        norm: "instance", "batch" or "none".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        norm: str = "instance",
    ) -> None:
        super().__init__()
        # Mirrored at the border: zeros there would be an edge that the image has not.
        self.pad = nn.ReflectionPad2d(kernel_size // 2)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, bias=norm == "none")
        self.norm = normalization(norm, out_channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        out: Tensor = self.activation(self.norm(self.conv(self.pad(x))))
        return out


class UpBlock(nn.Module):
    """Transposed convolution, normalization and ReLU: twice the side.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        norm: "instance", "batch" or "none".
    """

    def __init__(self, in_channels: int, out_channels: int, norm: str = "instance") -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(
            in_channels, out_channels, 3, 2, padding=1, output_padding=1, bias=norm == "none"
        )
        self.norm = normalization(norm, out_channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, 2 * H, 2 * W)."""
        out: Tensor = self.activation(self.norm(self.conv(x)))
        return out


class ResnetBlock(nn.Module):
    """Two convolutions and a skip connection (He et al. 2016), without a ReLU after the sum.

    Args:
        channels: of input and output.
        norm: "instance", "batch" or "none".
    """

    def __init__(self, channels: int, norm: str = "instance") -> None:
        super().__init__()
        self.block = ConvBlock(channels, channels, norm=norm)
        self.pad = nn.ReflectionPad2d(1)
        self.conv = nn.Conv2d(channels, channels, 3, bias=norm == "none")
        self.norm = normalization(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to the same shape."""
        out: Tensor = x + self.norm(self.conv(self.pad(self.block(x))))  # the skip connection
        return out


class AdaptiveInstanceNorm(nn.Module):
    """Instance normalization whose scale and shift follow from a style (Huang and Belongie 2017).

    A style code of zeros leaves the plain normalization, at the beginning of the training.

    Args:
        channels: of the input.
        style_size: numbers in a style code.
    """

    def __init__(self, channels: int, style_size: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.linear = nn.Linear(style_size, 2 * channels)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Maps (N, channels, H, W), and style codes (N, style_size), to the first one's shape."""
        scale, shift = self.linear(style)[:, :, None, None].chunk(2, dim=1)  # (N, channels, 1, 1)
        out: Tensor = (1 + scale) * self.norm(x) + shift
        return out


class StyledResnetBlock(nn.Module):
    """A residual block whose normalizations follow from a style code.

    Args:
        channels: of input and output.
        style_size: numbers in a style code.
    """

    def __init__(self, channels: int, style_size: int) -> None:
        super().__init__()
        self.pad = nn.ReflectionPad2d(1)
        self.conv1 = nn.Conv2d(channels, channels, 3, bias=False)
        self.norm1 = AdaptiveInstanceNorm(channels, style_size)
        self.activation = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, bias=False)
        self.norm2 = AdaptiveInstanceNorm(channels, style_size)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Maps (N, channels, H, W), and style codes (N, style_size), to the first one's shape."""
        out: Tensor = self.activation(self.norm1(self.conv1(self.pad(x)), style))
        out = x + self.norm2(self.conv2(self.pad(out)), style)  # the skip connection
        return out
