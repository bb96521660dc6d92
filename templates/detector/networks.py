"""Whole networks: from images to maps at three scales, and from those to predictions."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from layers import ConvBlock, ConvSet, ResidualBlock
from ops import PRIORS, STRIDES, initialize_weights, logit

# Residual blocks behind each halving of the side (Redmon and Farhadi 2018, table 1); and a network
# of the same kind for small images and patience.
DARKNETS = {"darknet53": (1, 2, 8, 8, 4), "tiny": (0, 1, 1, 1, 1)}
SEEN = 4 * STRIDES[-1]  # pixels of a side, of the image by which a network's maps are found
OBJECTS = 0.01  # share of the predictions that see an object, before anything is learned


class Darknet(nn.Module):
    """Images to maps, by convolutions and residual blocks alone (Redmon and Farhadi 2018, 2.4).

    Args:
        in_channels: 1 for grey images, 3 for color.
        width: channels of the first convolution; each halving of the side doubles them.
        blocks: residual blocks behind each of the five halvings.
    """

    def __init__(self, in_channels: int, width: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.stem = ConvBlock(in_channels, width)
        stages: list[nn.Module] = []
        for number, count in enumerate(blocks):
            given, wanted = width * 2**number, width * 2 ** (number + 1)
            residual = [ResidualBlock(wanted) for _ in range(count)]
            stages.append(nn.Sequential(ConvBlock(given, wanted, stride=2), *residual))
        self.stages = nn.ModuleList(stages)
        self.channels = [8 * width, 16 * width, 32 * width]
        self.apply(initialize_weights)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps (N, in_channels, H, W) to maps with an 8th, a 16th and a 32nd of the side."""
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[2:]


class TorchvisionBackbone(nn.Module):
    """A classifier of torchvision, cut open where its maps change their size.

    Args:
        name: as `torchvision.models.get_model` knows it, such as "resnet18".
        pretrained: load the weights trained on ImageNet; they are downloaded once.

    Raises:
        ValueError: there is no such network, or it has no maps at the three scales.
        OSError: the weights cannot be fetched.
    """

    def __init__(self, name: str, pretrained: bool) -> None:
        super().__init__()
        network = models.get_model(name, weights="DEFAULT" if pretrained else None)
        found = _find_maps(network)
        self.names, self.channels = [], []
        for stride in STRIDES:
            size = (SEEN // stride, SEEN // stride)
            fitting = [name for name, shape in found.items() if shape[2:] == size]
            if not fitting:
                article = "an" if stride == 8 else "a"
                raise ValueError(f"it has no map with {article} {stride}th of the side")
            self.names.append(fitting[-1])  # the last one, which has seen most
            self.channels.append(found[fitting[-1]][1])
        self.network = create_feature_extractor(network, self.names)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps (N, 1 or 3, H, W) to maps with an 8th, a 16th and a 32nd of the side."""
        maps = self.network(images.expand(-1, 3, -1, -1))  # grey fills three channels
        return [maps[name] for name in self.names]


def _find_maps(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Returns the shapes (1, C, h, w) of all maps that a network makes of an image, by their names.

    Raises:
        ValueError: it cannot be asked for them.
    """
    try:
        training, testing = get_graph_node_names(network)
        names = [name for name in testing if name in training]
        with torch.no_grad():
            explorer = create_feature_extractor(network, names).eval()
            found: dict[str, Any] = explorer(torch.zeros(1, 3, SEEN, SEEN))
    except Exception as error:  # whatever a network raises that was made for one size of images
        raise ValueError(f"it takes no images of any size ({error})") from error
    tensors = {name: each for name, each in found.items() if isinstance(each, Tensor)}
    return {name: tuple(each.shape) for name, each in tensors.items() if each.ndim == 4}


class Detector(nn.Module):
    """Images to predictions at three scales (Redmon and Farhadi 2018, section 2.3).

    From the smallest map up: what was computed of it is enlarged and laid beside the map of the
    next scale, so that small objects, too, are seen with all that surrounds them.

    Args:
        backbone: returns maps with an 8th, a 16th and a 32nd of the side, and has their `channels`.
        num_classes: of the objects.
        width: as of the backbone.
        pairs: of convolutions, before each scale's prediction; two in the paper.
    """

    def __init__(
        self, backbone: "Darknet | TorchvisionBackbone", num_classes: int, width: int, pairs: int
    ) -> None:
        super().__init__()
        self.sets, self.laterals, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        lasts = []
        enlarged = 0
        for given, wanted in zip(
            reversed(backbone.channels), (16 * width, 8 * width, 4 * width), strict=True
        ):
            self.sets.append(ConvSet(given + enlarged, wanted, pairs))
            lasts.append(nn.Conv2d(2 * wanted, PRIORS * (5 + num_classes), 1))
            self.heads.append(nn.Sequential(ConvBlock(wanted, 2 * wanted), lasts[-1]))
            enlarged = wanted // 2
            self.laterals.append(ConvBlock(wanted, enlarged, 1))
        del self.laterals[-1]  # nothing is larger
        self.enlarge = nn.Upsample(scale_factor=2)
        self.apply(initialize_weights)
        self.backbone = backbone
        for last in lasts:
            _expect_few(last)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps images (N, C, S, S), normalized, S a multiple of 32, to three maps.

        Returns:
            Of strides 8, 16 and 32, each (N, 3 * (5 + num_classes), S / stride, S / stride).
        """
        small, *larger = reversed(self.backbone(images))
        x = self.sets[0](small)
        outputs = [self.heads[0](x)]
        for number, beside in enumerate(larger, 1):
            enlarged = self.enlarge(self.laterals[number - 1](x))
            x = self.sets[number](torch.cat([enlarged, beside], dim=1))
            outputs.append(self.heads[number](x))
        return outputs[::-1]


def _expect_few(last: nn.Conv2d) -> None:
    """Has a head expect few objects, or those that are not there would outweigh all else at first.

    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection", section 3.3.
    """
    assert last.bias is not None
    with torch.no_grad():
        last.weight.mul_(0.1)
        last.bias.view(PRIORS, -1)[:, 4] = logit(OBJECTS)
