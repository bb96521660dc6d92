"""Whole networks, from images to a score for each class at each pixel."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torchvision import models

from layers import DoubleConv, UpBlock
from ops import initialize_weights, pad_to_multiple


class Encoder(nn.Module):
    """The contracting path of Ronneberger et al. 2015: two convolutions a level, then pooling.

    Args:
        in_channels: 1 for grey images, 3 for color.
        width: channels of the first level; each later one has twice as many, at half the side.
        depth: how often the side is halved.
        norm: "batch" or "group".
        stride: sides of the image, in sides of the first map; 1 is the paper's.

    Attributes:
        channels: of each map that it returns.
        strides: sides of the image, in sides of each map.
        reach: how far, in pixels, what decides a pixel of the last map can lie.
    """

    def __init__(
        self, in_channels: int, width: int, depth: int, norm: str = "batch", stride: int = 1
    ) -> None:
        super().__init__()
        self.channels = [width * 2**level for level in range(depth + 1)]
        self.strides = [stride * 2**level for level in range(depth + 1)]
        self.reach = sum(2 * stride for stride in self.strides) + self.strides[-1] - 1
        given = [in_channels, *self.channels]
        self.levels = nn.ModuleList(
            DoubleConv(*pair, norm, 1 if number else stride)
            for number, pair in enumerate(zip(given, self.channels, strict=False))
        )
        self.pool = nn.MaxPool2d(2)
        self.apply(initialize_weights)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps (N, in_channels, H, W) to a map a level, (N, channels, H / stride, W / stride)."""
        x, maps = images, []
        for number, level in enumerate(self.levels):
            x = level(self.pool(x) if number else x)
            maps.append(x)
        return maps


class TorchvisionEncoder(nn.Module):
    """A classifier of torchvision, cut into slices where it halves the side of its maps.

    Its first map is the image itself, unless the classifier has one of that size.

    Args:
        name: as `torchvision.models.get_model` knows it, such as "resnet18".
        in_channels: 1 for grey images, 3 for color.
        pretrained: load the weights trained on ImageNet; they are downloaded once.
        freeze: leave them as they are, the guide's fine-tuning.

    Attributes:
        channels: of each map that it returns.
        strides: sides of the image, in sides of each map.
        reach: how far, in pixels, what matters to a pixel of the last map may lie, at a guess.

    Raises:
        ValueError: there is no such network, or its layers cannot be cut so.
        OSError: the weights cannot be fetched.
    """

    def __init__(
        self, name: str, in_channels: int, pretrained: bool = False, freeze: bool = False
    ) -> None:
        super().__init__()
        network = models.get_model(name, weights="DEFAULT" if pretrained else None)
        try:
            cut = list(_cut(network))
        except Exception as error:  # whatever it is that layers raise on what they do not expect
            raise ValueError("it is no chain of layers that halve the side") from error
        self.freeze = freeze
        self.channels, self.strides = [in_channels], [1]
        self.slices = nn.ModuleList()
        for layers, channels, stride in cut:
            self.slices.append(nn.Sequential(*layers))
            self.channels.append(channels)
            self.strides.append(stride)
        self.has_own_first = self.strides[1] == 1
        if self.has_own_first:
            del self.channels[0], self.strides[0]
        self.reach = 8 * self.strides[-1]
        if freeze:
            self.requires_grad_(False)

    def train(self, mode: bool = True) -> "TorchvisionEncoder":
        """Sets the mode; what is frozen stays in eval mode, or its running means would drift."""
        return super().train(mode and not self.freeze)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps (N, in_channels, H, W) to maps (N, channels, H / stride, W / stride)."""
        maps = [] if self.has_own_first else [images]
        x = images.expand(-1, 3, -1, -1)  # grey fills three channels
        for part in self.slices:
            x = part(x)
            maps.append(x)
        return maps


def _chain(module: nn.Module) -> Iterator[nn.Module]:
    """Yields the layers that make up a sequence, and those of the sequences in it."""
    for layer in module.children():
        if isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward:
            yield from _chain(layer)
        else:
            yield layer


def _cut(network: nn.Module) -> Iterator[tuple[list[nn.Module], int, int]]:
    """Yields the layers of each slice, the channels that it ends in, and its stride.

    Raises:
        ValueError: the layers are no chain, or do not divide the side evenly.
    """
    side, channels, stride = 256, 3, 1
    x, found = torch.zeros(1, channels, side, side), list[nn.Module]()
    network.eval()  # running means are not to learn from zeros
    layers = getattr(network, "features", network)
    assert isinstance(layers, nn.Module)
    for layer in _chain(layers):
        if isinstance(layer, nn.AdaptiveAvgPool2d | nn.Linear):
            break
        with torch.no_grad():
            x = layer(x)
        if x.ndim != 4 or x.shape[-1] != x.shape[-2] or side % x.shape[-1]:
            raise ValueError(f"maps of shape {tuple(x.shape)} for images of {side} pixels a side")
        if side // x.shape[-1] != stride and found:
            yield found, channels, stride
            found = []
        found.append(layer)
        channels, stride = x.shape[1], side // x.shape[-1]
    network.train()
    yield found, channels, stride


class UNet(nn.Module):
    """The network of Ronneberger et al. 2015, figure 1: an encoder, and a decoder that mirrors it.

    The decoder enlarges the encoder's last map level by level, and joins it at each one with the
    encoder's map of that size, which still knows where things are. Where the finest map is smaller
    than the image, the head enlarges the scores.

    Args:
        encoder: returns maps of an image, the finest first; see above.
        num_classes: scores per pixel.
        width: channels of the decoder's last level; those before have twice as many each.
        norm: "batch" or "group".
    """

    def __init__(
        self, encoder: Encoder | TorchvisionEncoder, num_classes: int, width: int, norm: str
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.multiple: int = encoder.strides[-1]  # of which the sides are made one
        self.decoder = nn.ModuleList()
        given = encoder.channels[-1]
        for level in reversed(range(len(encoder.strides) - 1)):
            factor = encoder.strides[level + 1] // encoder.strides[level]
            wanted = width * 2**level
            self.decoder.append(UpBlock(given, encoder.channels[level], wanted, norm, factor))
            given = wanted
        finest = encoder.strides[0]  # if 1, the head is the paper's convolution of 1 x 1
        self.head = nn.ConvTranspose2d(given, num_classes, finest, stride=finest)
        for module in (self.decoder, self.head):  # the encoder's own are its affair
            module.apply(initialize_weights)

    def forward(self, images: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W), normalized, of any size, to scores (N, num_classes, H, W).

        Sides that are no multiple of the last map's stride are filled up with the pixels at the
        border; what that adds to the scores is cut off.
        """
        height, width = images.shape[-2:]
        *skips, x = self.encoder(pad_to_multiple(images, self.multiple))
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            x = block(x, skip)  # it joins the two: the skip connection
        scores: Tensor = self.head(x)
        return scores[..., :height, :width]

    @property
    def reach(self) -> int:
        """How far, in pixels, what decides a score can lie."""
        return self.encoder.reach + sum(3 * stride for stride in self.encoder.strides[:-1])
