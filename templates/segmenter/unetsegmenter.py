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
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassJaccardIndex,
)
from torchvision.utils import make_grid

from engine.exits import UserError
from engine.images import IGNORED, palette
from layers import Normalize
from losses import DiceLoss, PixelCrossEntropy, log_probabilities
from networks import Encoder, TorchvisionEncoder, UNet
from ops import apply_in_tiles, overlay

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TILE = 1024  # side of the parts, in pixels, in which large images are segmented
RAMP = 64  # pixels over which one part gives way to the next
SHOWN = 16  # images in a picture


class UNetSegmenter(nn.Module):
    """Says of each pixel of an image which class it belongs to.

    Args:
        options: the flags; only this class reads them, the networks get keywords.
        classes: names of the classes, in the order of their numbers in the masks.
        fetch: False where a checkpoint's weights follow, so that no others are downloaded.

    Raises:
        UserError: a flag is out of its range, `--backbone` is unknown or missing, or its weights
            cannot be fetched.
    """

    best_metric = "miou"  # decides which checkpoint is best.pt

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Adds the model's own flags. It runs by itself, so that --help needs no torch."""
        parser.set_defaults(epochs=6, batch_size=4, img_size=128, lr=2e-3, channels_last=True)
        add, switch = parser.add_argument, argparse.BooleanOptionalAction
        add("--width", type=int, default=32, help="channels of the largest maps")
        add("--depth", type=int, default=2, help="how often the side of these is halved")
        add(
            "--stride",
            type=int,
            choices=(1, 2, 4),
            default=2,
            help="how many times smaller than the image these are; 1 is the paper's",
        )
        add(
            "--norm",
            choices=("batch", "group"),
            default="batch",
            help="normalization; group where a batch has but one or two images",
        )
        add("--cross_entropy", type=float, default=1.0, help="weight of the pixels' cross entropy")
        add("--dice", type=float, default=1.0, help="weight of the classes' soft Dice loss")
        add("--weight_decay", type=float, default=1e-4, help="of Adam")
        add("--backbone", help="a network of torchvision as encoder instead, e.g. resnet18")
        add(
            "--pretrained",
            action=switch,
            default=False,
            help="start the backbone from its ImageNet weights",
        )
        add("--freeze", action=switch, default=False, help="leave the backbone's weights as is")

    def __init__(
        self, options: argparse.Namespace, classes: Sequence[str], fetch: bool = True
    ) -> None:
        super().__init__()
        _check(options)
        self.classes = list(classes)
        channels, norm = options.channels, options.norm
        self.input_shape = channels, options.img_size, options.img_size
        self.normalize = Normalize([0.5] * channels, [0.5] * channels)
        encoder: Encoder | TorchvisionEncoder
        if options.backbone:
            if options.pretrained:
                self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
            encoder = _build_backbone(options, fetch)
        else:
            encoder = Encoder(channels, options.width, options.depth, norm, options.stride)
        self.network = UNet(encoder, len(classes), options.width, norm)
        self.weights = options.cross_entropy, options.dice
        self.cross_entropy, self.dice_loss = PixelCrossEntropy(), DiceLoss()
        # Constants that move with the module.
        self.register_buffer("colors", torch.from_numpy(palette()) / 255, persistent=False)

    colors: Tensor

    def forward(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """Computes one loss per optimizer, under its name, and detached terms for the log.

        Args:
            batch: images (N, C, H, W) in [0, 255], and masks (N, H, W) of class numbers, or 255
                where a pixel does not count.

        Returns:
            Values per sample, each (N,): "segmenter" is the loss, and its two terms, unweighted.
        """
        images, masks = batch
        scores = self.network(self.normalize(images))  # (N, num_classes, H, W)
        return self._losses(scores, masks)

    def _losses(self, scores: Tensor, masks: Tensor) -> dict[str, Tensor]:
        logs = log_probabilities(scores)
        cross_entropy, dice = self.cross_entropy(logs, masks), self.dice_loss(logs, masks)
        loss = self.weights[0] * cross_entropy + self.weights[1] * dice
        logged = {"cross_entropy": cross_entropy.detach(), "dice_loss": dice.detach()}
        return {"segmenter": loss} | logged

    def build_optimizers(self, options: argparse.Namespace) -> dict[str, Optimizer]:
        """Returns the optimizers by the name of the loss that each one minimizes."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        decay, fused = options.weight_decay, options.fused
        return {"segmenter": Adam(trained, options.lr, weight_decay=decay, fused=fused)}

    def build_metrics(self) -> MetricCollection:
        """Returns what a test measures: numbers, numbers per class, and a confusion matrix.

        All but the loss follow from how many pixels of the whole test set are of which class, and
        taken for which; a class that is neither there nor predicted is left out of the means.
        """
        count, metrics = len(self.classes), dict[str, Metric | MetricCollection](loss=MeanMetric())
        for of_all, of_each, kind in (
            ("miou", "iou_per_class", MulticlassJaccardIndex),
            # The harmonic mean of precision and recall is the Dice coefficient.
            ("dice", "dice_per_class", MulticlassF1Score),
        ):
            metrics[of_all] = kind(count, average="macro", ignore_index=IGNORED)
            metrics[of_each] = kind(count, average="none", ignore_index=IGNORED)
        metrics["accuracy"] = MulticlassAccuracy(count, average="micro", ignore_index=IGNORED)
        metrics["confusion"] = MulticlassConfusionMatrix(count, ignore_index=IGNORED)
        return MetricCollection(metrics, compute_groups=False)  # they are updated one by one

    def evaluate(self, batch: Sequence[Tensor], metrics: MetricCollection) -> None:
        """Updates the metrics with one batch, as `forward` takes it."""
        images, masks = batch
        scores = self.network(self.normalize(images))
        metrics["loss"].update(self._losses(scores, masks)["segmenter"])
        # Under --deterministic, torchmetrics counts by a table of all pixels at once: a large one.
        size = 1 if torch.are_deterministic_algorithms_enabled() else len(masks)
        predicted = scores.argmax(dim=1).split(size)
        for part, mask in zip(predicted, masks.long().split(size), strict=True):
            for name, metric in metrics.items():
                if name != "loss":
                    metric.update(part, mask)

    @torch.no_grad()
    def pictures(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """Returns a sheet (3, H, W) in [0, 1]: each image, with its prediction, with its mask."""
        images, masks = (part[:SHOWN] for part in batch)
        predicted = self.network(self.normalize(images)).argmax(dim=1)
        shown = images.expand(-1, 3, -1, -1).float() / 255  # grey fills three channels
        colors = self.colors.float()
        tinted = (overlay(shown, each, colors) for each in (predicted, masks))
        rows = torch.stack([shown, *tinted], dim=1)  # (N, 3, 3, H, W)
        sheet = make_grid(rows.flatten(0, 1), nrow=6, padding=2, pad_value=1.0)
        return {"image_prediction_target": sheet}

    def inference_module(self) -> nn.Module:
        """Returns what is exported: (N, C, H, W) in [0, 255] to probabilities (N, K, H, W)."""
        return nn.Sequential(self.normalize, self.network, nn.Softmax(dim=1))

    def example_inputs(self) -> Tensor:
        """Returns two random inputs in the shape and type that `inference_module` takes."""
        return torch.randint(0, 256, (2, *self.input_shape), dtype=torch.uint8)

    @torch.no_grad()
    def segment(self, images: Tensor) -> Tensor:
        """Maps images (N, C, H, W) of any size to probabilities (N, K, H, W), large ones in tiles.

        Tiles overlap by as much as a pixel sees, up to half of them: beyond that, what lies far
        away hardly matters.
        """
        unit = self.network.multiple  # tiles begin where a pixel of the smallest map does
        ramp = -(-RAMP // unit) * unit
        most = (TILE - ramp) // 4
        margin = min(-(-self.network.reach // unit), most // unit) * unit
        return apply_in_tiles(self.inference_module(), images, TILE, margin, ramp)

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> list[dict[str, Any]]:
        """Says what each image, uint8 (N, C, H, W) of any size, shows.

        Returns:
            For each image: "mask", uint8 (H, W), the number of each pixel's class; "overlay", the
            image tinted by it; and, by its name, the share in [0, 1] of each class it shows.
        """
        results: list[dict[str, Any]] = []
        for image in inputs:
            mask = self.segment(image[None]).argmax(dim=1)  # (1, H, W)
            shown = image.expand(3, -1, -1)[None].float() / 255
            tinted = overlay(shown, mask, self.colors.float())[0]
            counts = mask.flatten().bincount(minlength=len(self.classes)).tolist()
            shares = {
                f"share of {name}": count / mask.numel()
                for name, count in zip(self.classes, counts, strict=True)
                if count
            }
            results.append({"mask": mask[0].byte(), "overlay": tinted, **shares})
        return results


def _build_backbone(options: argparse.Namespace, fetch: bool) -> TorchvisionEncoder:
    name, pretrained = options.backbone, options.pretrained and fetch
    try:
        return TorchvisionEncoder(name, options.channels, pretrained, options.freeze)
    except ValueError as error:
        raise UserError(f"--backbone {name} cannot be used: {error}") from error
    except OSError as error:
        raise UserError(
            f"--pretrained: the weights of {name} cannot be fetched ({error}): connect to the "
            "network, or train without --pretrained"
        ) from error


def _check(options: argparse.Namespace) -> None:
    allowed = {
        "width": (options.width >= 1, "1 or more"),
        "depth": (0 <= options.depth <= 8, "0 to 8"),
        "cross_entropy": (options.cross_entropy >= 0, "0 or more"),
        "dice": (options.dice >= 0, "0 or more"),
        "weight_decay": (options.weight_decay >= 0, "0 or more"),
    }
    for name, (is_allowed, limits) in allowed.items():
        if not is_allowed:
            raise UserError(f"--{name} {getattr(options, name)}: give {limits}")
    if not options.cross_entropy and not options.dice:
        raise UserError("--cross_entropy 0: one of the weights of the losses must be more than 0")
    if not options.backbone and (options.pretrained or options.freeze):
        raise UserError("--pretrained and --freeze need a --backbone, such as resnet18")
