"""Functions without parameters of their own."""

from torch import Tensor, nn


def initialize_weights(module: nn.Module) -> None:
    """Draws a convolution's or linear layer's weights by He et al. 2015, section 2.2; biases are 0.

    Use it as `network.apply(initialize_weights)`.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def frame(images: Tensor, colors: Tensor, width: int) -> Tensor:
    """Paints a frame around each image.

    Args:
        images: (N, 3, H, W) in [0, 1].
        colors: (N, 3) in [0, 1], each image's own.
        width: of the frame, in pixels; it is added on all four sides.

    Returns:
        (N, 3, H + 2 * width, W + 2 * width) in [0, 1].
    """
    height, breadth = images.shape[2:]
    framed = colors[:, :, None, None].repeat(1, 1, height + 2 * width, breadth + 2 * width)
    framed[:, :, width : width + height, width : width + breadth] = images
    return framed
