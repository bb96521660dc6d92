"""Whole networks: images to images, pairs to patch scores, images to features and to a style."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from layers import ConvBlock, ResnetBlock, StyledResnetBlock, UpBlock, normalization
from ops import enlarge, freeze, initialize_weights, initialize_without_norms

# Of what is added to an enlarged image, which is small: a step of Adam, which moves every weight by
# as much, would move the sum over the last kernel by more than there is to correct.
SHARE = 0.1


class Generator(nn.Module):
    """Images to images: the global generator of Wang et al. 2018, section 3.2.

    The image is shrunk, changed by residual blocks, and enlarged again.

    Args:
        channels: 1 for grey images, 3 for color; of input and output.
        width: channels of the largest maps; each halving of the side doubles them.
        downsamplings: how often the side is halved.
        blocks: residual blocks on the smallest maps.
        norm: "instance" (the paper), "batch" or "none".
        scale: how many times larger the output is. The input is first enlarged by bicubic
            interpolation.
        residual: the network computes what to add to the enlarged input, not the whole image.
        style_size: numbers in a style code, by which the residual blocks normalize; 0: none.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        downsamplings: int,
        blocks: int,
        norm: str = "instance",
        scale: int = 1,
        residual: bool = False,
        style_size: int = 0,
    ) -> None:
        super().__init__()
        self.scale, self.residual, self.style_size = scale, residual, style_size
        self.multiple: int = (
            2**downsamplings
        )  # of which both sides of the enlarged input must be one
        widths = [width * 2**stage for stage in range(downsamplings + 1)]
        shrink = [ConvBlock(*pair, stride=2, norm=norm) for pair in pairwise(widths)]
        self.encoder = nn.Sequential(ConvBlock(channels, width, 7, norm=norm), *shrink)
        self.blocks = nn.ModuleList(
            StyledResnetBlock(widths[-1], style_size)
            if style_size
            else ResnetBlock(widths[-1], norm)
            for _ in range(blocks)
        )
        grow = [UpBlock(*pair, norm=norm) for pair in pairwise(reversed(widths))]
        last = nn.Conv2d(width, channels, 7)
        self.decoder = nn.Sequential(*grow, nn.ReflectionPad2d(3), last)
        if norm != "none":
            self.apply(initialize_weights)
            return
        self.apply(initialize_without_norms)
        # What is added to a sum begins small, so that depth does not make the sum grow.
        added = [block.conv for block in self.blocks if isinstance(block, ResnetBlock)]
        with torch.no_grad():
            for conv in [*added, last]:
                conv.weight.mul_(0.1)

    def forward(self, inputs: Tensor, style: Tensor | None = None) -> Tensor:
        """Maps images (N, channels, H, W) in [-1, 1] to (N, channels, scale * H, scale * W).

        Args:
            inputs: the images; both sides, times the scale, are multiples of `multiple`.
            style: codes, (N, style_size); zeros if there are none.

        Returns:
            Images in (-1, 1), or around it if the output is a residual.
        """
        base = enlarge(inputs, self.scale)
        x = self.encoder(base)
        if self.style_size and style is None:
            style = x.new_zeros(len(x), self.style_size)
        for block in self.blocks:
            x = block(x, style) if self.style_size else block(x)
        change: Tensor = self.decoder(x)
        return base + SHARE * change if self.residual else change.tanh()

    @property
    def reach(self) -> int:
        """How far, in pixels of the output, what decides a pixel can lie, but for its norms."""
        convolutions = 3 + 3 * (self.multiple - 1) + 3  # of encoder and decoder
        return convolutions + 2 * len(self.blocks) * self.multiple + 2 * self.scale


class PatchDiscriminator(nn.Module):
    """Images to one score for each patch (Isola et al. 2017, section 3.2.2), and to features.

    Args:
        channels: of the input.
        width: channels of the first map.
        layers: maps that halve the side.
    """

    def __init__(self, channels: int, width: int, layers: int = 3) -> None:
        super().__init__()
        widths = [channels, *(width * min(8, 2**stage) for stage in range(layers + 1))]
        self.blocks = nn.ModuleList()
        for stage, (given, wanted) in enumerate(pairwise(widths)):
            # None on the first map, as in the paper; the last one keeps the side.
            norm = normalization("instance" if stage else "none", wanted)
            conv = nn.Conv2d(given, wanted, 4, 2 if stage < layers else 1, padding=2)
            self.blocks.append(nn.Sequential(conv, norm, nn.LeakyReLU(0.2)))
        self.blocks.append(nn.Conv2d(widths[-1], 1, 4, padding=2))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps (N, channels, H, W) to the maps of each block; the last are logits (N, 1, h, w)."""
        maps: list[Tensor] = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps


class MultiscaleDiscriminator(nn.Module):
    """Discriminators of one kind for an image, its half, its quarter (Wang et al. 2018, 3.2).

    Args:
        channels: of one image.
        width: channels of the first map.
        scales: how many discriminators.
    """

    def __init__(self, channels: int, width: int, scales: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(
            PatchDiscriminator(2 * channels, width) for _ in range(scales)
        )
        self.apply(initialize_weights)

    def forward(self, inputs: Tensor, images: Tensor) -> list[list[Tensor]]:
        """Maps inputs and images, each (N, channels, H, W), to the maps of each scale.

        Of each list, the last are logits (N, 1, h, w), high for patches of real images.
        """
        x = torch.cat([inputs, images], dim=1)  # what is judged is whether the two go together
        outputs: list[list[Tensor]] = []
        for network in self.networks:
            outputs.append(network(x))
            x = functional.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        return outputs


class Vgg19(nn.Module):
    """The convolutions of VGG19 (Simonyan and Zisserman 2015), cut into slices and frozen.

    Each slice ends behind the first activation of a block, relu1_1 to relu5_1. Names of weights are
    torchvision's: the number of a layer within its "features".

    Args:
        weights: torchvision's for this network, or those that were learned otherwise.

    Raises:
        KeyError: a weight is missing.
        RuntimeError: a weight has another shape.
    """

    widths = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)  # 0: pool
    ends = (2, 7, 12, 21, 30)

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        given = 3
        for width in self.widths:
            if width:
                conv = nn.Conv2d(given, width, 3, padding=1)
                name = f"features.{len(layers)}"
                conv.load_state_dict({key: weights[f"{name}.{key}"] for key in ("weight", "bias")})
                layers += [conv, nn.ReLU()]
                given = width
            else:
                layers.append(nn.MaxPool2d(2))
        starts = (0, *self.ends)
        self.slices = nn.ModuleList(
            nn.Sequential(*layers[start:end]) for start, end in zip(starts, self.ends, strict=False)
        )
        freeze(self)
        # What ImageNet's images have on average, of values in [0, 1]: it was trained on the rest.
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    mean: Tensor
    std: Tensor

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps images, (N, 1 or 3, H, W) in [-1, 1] with sides of 16 or more, to a map a slice."""
        x = ((images + 1) / 2 - self.mean) / self.std  # grey fills three channels
        outputs: list[Tensor] = []
        for part in self.slices:
            x = part(x)
            outputs.append(x)
        return outputs


class StyleEncoder(nn.Module):
    """Images to style codes, without a normalization, which would take the style away.

    Args:
        channels: of the images.
        width: channels of the first map.
        style_size: numbers in a code.
    """

    def __init__(self, channels: int, width: int, style_size: int) -> None:
        super().__init__()
        widths = [channels, width, 2 * width, 4 * width]
        shrink = [ConvBlock(*pair, stride=2, norm="none") for pair in pairwise(widths)]
        self.layers = nn.Sequential(*shrink, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.linear = nn.Linear(widths[-1], style_size)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (N, channels, H, W) in [-1, 1] to codes (N, style_size)."""
        codes: Tensor = self.linear(self.layers(images))
        return codes
