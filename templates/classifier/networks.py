"""Whole networks, from images to class scores."""

from torch import Tensor, nn
from torchvision import models

from layers import ConvBlock, ResnetBlock
from ops import initialize_weights


class SimpleNetwork(nn.Module):
    """A small residual network: a stem, stages of blocks, global pooling and a linear head.

    Args:
        in_channels: 1 for grey images, 3 for color.
        num_classes: scores per image.
        width: channels of the first stage; each later stage doubles them and halves the side.
        stages: number of stages.
        blocks: number of blocks in each stage.
    """

    def __init__(
        self, in_channels: int, num_classes: int, width: int = 32, stages: int = 3, blocks: int = 1
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBlock(in_channels, width)]
        channels = width
        for stage in range(stages):
            for block in range(blocks):
                wanted = width * 2**stage
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(ResnetBlock(channels, wanted, stride))
                channels = wanted
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, num_classes)
        self.apply(initialize_weights)

    def forward(self, images: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W), normalized, to scores (N, num_classes)."""
        features = self.pool(self.features(images))  # (N, C, 1, 1)
        scores: Tensor = self.head(features.flatten(1))
        return scores


class TorchvisionNetwork(nn.Module):
    """A network of torchvision with a new head, and, if wanted, all else frozen.

    Args:
        name: as `torchvision.models.get_model` knows it, such as "resnet18".
        num_classes: scores per image.
        pretrained: load the weights trained on ImageNet; they are downloaded once.
        freeze: train the head alone, the guide's fine-tuning.

    Raises:
        ValueError: there is no such network, or it does not end in a linear layer.
        OSError: the weights cannot be fetched.
    """

    def __init__(self, name: str, num_classes: int, pretrained: bool, freeze: bool) -> None:
        super().__init__()
        self.freeze = freeze
        self.network = models.get_model(name, weights="DEFAULT" if pretrained else None)
        if freeze:
            self.network.requires_grad_(False)
        self._replace_head(num_classes)

    def _replace_head(self, num_classes: int) -> None:
        """Puts a new linear layer in the place of the last one, whatever it is called."""
        names = [name for name, m in self.network.named_modules() if isinstance(m, nn.Linear)]
        if not names:
            raise ValueError("it does not end in a linear layer")
        features = self.network.get_submodule(names[-1]).in_features
        self.network.set_submodule(names[-1], nn.Linear(features, num_classes))
        self.head_name = names[-1]

    def train(self, mode: bool = True) -> "TorchvisionNetwork":
        """Sets the mode; frozen features stay in eval mode, or their running means would drift."""
        super().train(mode)
        if self.freeze:
            self.network.eval()
            self.network.get_submodule(self.head_name).train(mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Maps (N, 1 or 3, H, W), normalized, to scores (N, num_classes)."""
        scores: Tensor = self.network(images.expand(-1, 3, -1, -1))  # grey fills three channels
        return scores
