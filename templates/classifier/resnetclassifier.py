"""The finished model: networks, losses, optimizers, metrics and flags, packed into one module.

`train.py`, `test.py` and `predict.py` know no more of a model than this class shows them. To train
a model of your own, keep the names of its methods and change what they do.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
from torchvision.utils import make_grid

from engine.exits import UserError
from layers import Normalize
from losses import ClassificationLoss
from networks import SimpleNetwork, TorchvisionNetwork
from ops import frame

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREEN, RED = (0.2, 0.7, 0.3), (0.9, 0.2, 0.2)


class ResNetClassifier(nn.Module):
    """Tells images apart by class.

    Args:
        options: the flags; only this class reads them, the networks get keywords.
        classes: names of the classes, in the order of the labels.
        fetch: False where a checkpoint's weights follow, so that no others are downloaded.

    Raises:
        UserError: `--backbone` is unknown or missing, or its weights cannot be fetched.
    """

    best_metric = "accuracy"  # decides which checkpoint is best.pt

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Adds the model's own flags. It runs by itself, so that --help needs no torch."""
        parser.set_defaults(epochs=20, batch_size=32, lr=3e-3)
        parser.add_argument("--width", type=int, default=16, help="channels of the first stage")
        parser.add_argument("--stages", type=int, default=3, help="stages; each halves the side")
        parser.add_argument("--blocks", type=int, default=1, help="residual blocks in a stage")
        parser.add_argument("--label_smoothing", type=float, default=0.1, help="in [0, 1)")
        parser.add_argument("--weight_decay", type=float, default=1e-4, help="of Adam")
        parser.add_argument("--backbone", help="a network of torchvision instead, e.g. resnet18")
        parser.add_argument(
            "--pretrained",
            action=argparse.BooleanOptionalAction,
            default=False,
            help="start the backbone from its ImageNet weights",
        )
        parser.add_argument(
            "--freeze",
            action=argparse.BooleanOptionalAction,
            default=False,
            help="train the backbone's head alone",
        )

    def __init__(
        self, options: argparse.Namespace, classes: Sequence[str], fetch: bool = True
    ) -> None:
        super().__init__()
        self.classes = list(classes)
        channels = options.channels
        self.input_shape = (channels, options.img_size, options.img_size)
        self.normalize = Normalize([0.5] * channels, [0.5] * channels)
        self.network: nn.Module
        if options.backbone:
            if options.pretrained:
                self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
            self.network = _build_backbone(options, len(classes), fetch)
        elif options.pretrained or options.freeze:
            raise UserError("--pretrained and --freeze need a --backbone, such as resnet18")
        else:
            self.network = SimpleNetwork(
                channels, len(classes), options.width, options.stages, options.blocks
            )
        self.loss = ClassificationLoss(options.label_smoothing)

    def forward(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """Computes one loss per optimizer, under its name, and detached terms for the log.

        Args:
            batch: images (N, C, H, W) in [0, 255], and labels (N,).

        Returns:
            Values per sample, each (N,): "classifier" is the loss, "accuracy" is 0 or 1.
        """
        images, labels = batch
        scores = self.network(self.normalize(images))  # (N, num_classes)
        right = (scores.argmax(dim=1) == labels).float()
        return {"classifier": self.loss(scores, labels), "accuracy": right.detach()}

    def build_optimizers(self, options: argparse.Namespace) -> dict[str, Optimizer]:
        """Returns the optimizers by the name of the loss that each one minimizes."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        decay, fused = options.weight_decay, options.fused
        return {"classifier": Adam(trained, options.lr, weight_decay=decay, fused=fused)}

    def build_metrics(self) -> MetricCollection:
        """Returns what a test measures: numbers, one number per class, and a confusion matrix."""
        count = len(self.classes)
        return MetricCollection(
            {
                "loss": MeanMetric(),
                "accuracy": MulticlassAccuracy(count, average="micro"),
                "accuracy_per_class": MulticlassAccuracy(count, average="none"),
                "confusion": MulticlassConfusionMatrix(count),
            },
            compute_groups=False,  # they are updated one by one
        )

    def evaluate(self, batch: Sequence[Tensor], metrics: MetricCollection) -> None:
        """Updates the metrics with one batch, as `forward` takes it."""
        images, labels = batch
        scores = self.network(self.normalize(images))
        metrics["loss"].update(self.loss(scores, labels))
        for name in ("accuracy", "accuracy_per_class", "confusion"):
            metrics[name].update(scores, labels)

    @torch.no_grad()
    def pictures(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """Returns pictures (3, H, W) in [0, 1]: images framed green where right, red if wrong."""
        images, labels = (part[:32] for part in batch)
        right = self.network(self.normalize(images)).argmax(dim=1) == labels
        colors = torch.tensor([RED, GREEN], device=images.device)[right.long()]  # (N, 3)
        shown = images.expand(-1, 3, -1, -1) / 255  # grey fills three channels
        return {"images": make_grid(frame(shown, colors, width=2), nrow=8, padding=0)}

    def inference_module(self) -> nn.Module:
        """Returns what is exported: (N, C, H, W) in [0, 255] to probabilities (N, classes)."""
        return nn.Sequential(self.normalize, self.network, nn.Softmax(dim=1))

    def example_inputs(self) -> Tensor:
        """Returns two random inputs in the shape and type that `inference_module` takes."""
        return torch.randint(0, 256, (2, *self.input_shape), dtype=torch.uint8)

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> list[dict[str, Any]]:
        """Returns class and probability of each image of (N, C, H, W) in [0, 255]."""
        probabilities, labels = self.inference_module()(inputs).max(dim=1)
        return [
            {"class": self.classes[label], "probability": probability}
            for label, probability in zip(labels.tolist(), probabilities.tolist(), strict=True)
        ]


def _build_backbone(
    options: argparse.Namespace, num_classes: int, fetch: bool
) -> TorchvisionNetwork:
    name, pretrained = options.backbone, options.pretrained and fetch
    try:
        return TorchvisionNetwork(name, num_classes, pretrained, options.freeze)
    except ValueError as error:
        raise UserError(f"--backbone {name} cannot be used: {error}") from error
    except OSError as error:
        raise UserError(
            f"--pretrained: the weights of {name} cannot be fetched ({error}): connect to the "
            "network, or train without --pretrained"
        ) from error
