"""Whole networks: latents to images, images to scores, and images to features."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from layers import DownBlock, SelfAttention, UpBlock
from ops import initialize_weights, one_of, resize, to_floats

WIDEST = 8  # times the width: where larger images add stages, channels grow no further


def stage_widths(size: int, width: int) -> list[int]:
    """Returns the channels of the maps with sides 4, 8, ... up to half of the image's.

    Args:
        size: side of the images, a power of two from 8 on.
        width: channels of the largest map; each smaller one has twice as many, up to a limit.
    """
    count = int(math.log2(size)) - 2
    return [width * min(WIDEST, 2**stage) for stage in reversed(range(count))]


def attention_stage(size: int) -> int:
    """Returns the stage whose map has half of the image's side, or 32 pixels if that is less."""
    return int(math.log2(min(size // 2, 32))) - 2


class Generator(nn.Module):
    """Latents to images, by transposed convolutions alone (Radford et al. 2016, section 3).

    Args:
        latent_size: numbers in a latent.
        channels: 1 for grey images, 3 for color.
        size: side of the images, a power of two from 8 on.
        width: channels of the largest map.
        attention: add a self-attention block.
        kinds: of image; a latent's first number names one of them. 0: it is like the others.
    """

    def __init__(
        self,
        latent_size: int,
        channels: int,
        size: int,
        width: int,
        attention: bool = False,
        kinds: int = 0,
    ) -> None:
        super().__init__()
        self.kinds = kinds
        widths = stage_widths(size, width)
        layers: list[nn.Module] = []
        for stage, wanted in enumerate(widths):
            given = widths[stage - 1] if stage else latent_size + max(0, kinds - 1)
            layers.append(UpBlock(given, wanted, is_first=stage == 0))
            if attention and stage == attention_stage(size):
                layers.append(SelfAttention(wanted))
        layers.append(nn.ConvTranspose2d(widths[-1], channels, 4, 2, padding=1))
        self.layers = nn.Sequential(*layers, nn.Tanh())
        self.apply(initialize_weights)

    def forward(self, latents: Tensor) -> Tensor:
        """Maps (N, latent_size) in [-1, 1] to images (N, channels, size, size) in (-1, 1)."""
        if self.kinds:
            # Not from -1 to 1: what all kinds have in common would drown what tells them apart.
            kind = 2 * one_of(self.kinds, latents[:, :1])
            latents = torch.cat([kind, latents[:, 1:]], dim=1)
        images: Tensor = self.layers(latents[:, :, None, None])
        return images


class Discriminator(nn.Module):
    """Images to scores, by strided convolutions alone: the generator's mirror image.

    Args:
        channels: 1 for grey images, 3 for color.
        size: side of the images, a power of two from 8 on.
        width: channels of the largest map.
        norm: "batch" (the paper), "layer" or "none"; none on the first map, as in the paper.
        spectral: divide each weight by its largest singular value (Miyato et al. 2018, section 2).
        attention: add a self-attention block.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        width: int,
        norm: str = "batch",
        spectral: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        widths = [channels, *reversed(stage_widths(size, width))]
        layers: list[nn.Module] = []
        for stage, wanted in enumerate(widths[1:]):
            layers.append(DownBlock(widths[stage], wanted, norm if stage else "none"))
            if attention and len(widths) - 2 - stage == attention_stage(size):
                layers.append(SelfAttention(wanted))
        layers.append(nn.Conv2d(widths[-1], 1, 4))
        self.layers = nn.Sequential(*layers)
        self.apply(initialize_weights)
        if spectral:
            for module in list(self.modules()):
                if isinstance(module, nn.Conv2d):
                    spectral_norm(module)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (N, channels, size, size) in [-1, 1] to logits (N,), high for real ones."""
        scores: Tensor = self.layers(images).flatten()
        return scores


class FeatureNetwork(nn.Module):
    """A small classifier of images: how alike two sets of images are shows in its features.

    Args:
        num_classes: scores per image; 0 for a network that is left as it was drawn.
    """

    size, width = 32, 16  # side to which images are brought; channels of the first map
    num_features = 128

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        widths = [3, *(self.width * 2**stage for stage in range(4))]
        layers: list[nn.Module] = []
        for stage, (given, wanted) in enumerate(pairwise(widths)):
            stride = 2 if stage else 1
            conv = nn.Conv2d(given, wanted, 3, stride, padding=1, bias=False)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # keeps the scale, untrained
            layers += [conv, nn.BatchNorm2d(wanted), nn.ReLU(inplace=True)]
        # At the end each feature varies by 1, whatever the images: distances then have one scale.
        scale = nn.BatchNorm1d(self.num_features, affine=False)
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), scale)
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else None

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps bytes, (N, 1 or 3, H, W) in [0, 255], to [features (N, 128), scores (N, classes)].

        Without classes, there are no scores.
        """
        # Grey fills three channels.
        features = self.layers(resize(to_floats(images).expand(-1, 3, -1, -1), self.size))
        return [features] if self.head is None else [features, self.head(features)]


class InceptionNetwork(nn.Module):
    """The network that FID is defined by (Heusel et al. 2017); torchmetrics fetches its weights.

    Raises:
        ModuleNotFoundError: the package torch-fidelity is not installed.
        OSError: the weights cannot be fetched.
    """

    num_features = 2048

    def __init__(self) -> None:
        super().__init__()
        from torchmetrics.image.fid import NoTrainInceptionV3

        self.network = NoTrainInceptionV3("inception-v3-compat", [str(self.num_features)])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps bytes, (N, 1 or 3, H, W) in [0, 255], to [features (N, 2048)]."""
        features: Tensor = self.network(images.expand(-1, 3, -1, -1))
        return [features]


def random_features(seed: int = 0) -> FeatureNetwork:
    """Returns a feature network as it was drawn, always the same one (Naeem et al. 2020)."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return FeatureNetwork(num_classes=0)
