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
from torchvision.utils import make_grid

from engine.exits import UserError
from engine.images import palette, placement
from layers import Decode, Normalize
from losses import AveragePrecision, DetectionLoss, PrecisionRecall
from networks import DARKNETS, Darknet, Detector, TorchvisionBackbone
from ops import (
    STRIDES,
    decode,
    draw_objects,
    flatten,
    letterbox,
    make_priors,
    suppress,
    unletterbox,
)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WEIGHTS = ("box", "objectness", "classification")
# Width and height in pixels of an image with a side of 416 (Redmon and Farhadi 2018, section 2.3):
# for objects of all kinds, where the data does not say which there are.
ANCHORS = (10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 116, 90, 156, 198, 373, 326)
ANCHORS_SIDE = 416
LEAST_SCORE = 0.01  # of what a test counts; what predictions show is a flag
SHOWN = 16  # images in a picture


class YOLOv3(nn.Module):
    """Finds the objects in an image: boxes around them, and their classes.

    Args:
        options: the flags; only this class reads them, the networks get keywords.
        classes: names of the classes, in the order of the labels.
        fetch: False where a checkpoint's weights follow, so that no others are downloaded.

    Raises:
        UserError: a flag is out of its range, `--backbone` is unknown, or its weights cannot be
            fetched.
    """

    best_metric = "map"  # decides which checkpoint is best.pt
    anchors: Tensor

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Adds the model's own flags. It runs by itself, so that --help needs no torch."""
        parser.set_defaults(epochs=40, batch_size=8, img_size=128, lr=2e-3, test_every=2)
        add, switch = parser.add_argument, argparse.BooleanOptionalAction
        names = "darknet53 (the paper's), tiny, or a network of torchvision, e.g. resnet18"
        add("--backbone", default="tiny", help=names)
        add("--width", type=int, default=16, help="channels of the first map; 32 in the paper")
        add(
            "--pretrained",
            action=switch,
            default=False,
            help="start torchvision's network from its ImageNet weights",
        )
        add("--box", type=float, default=3.0, help="weight of the boxes' loss")
        add("--objectness", type=float, default=1.0, help="weight of that of finding objects")
        add("--classification", type=float, default=1.0, help="weight of that of their classes")
        add(
            "--match_iou",
            type=float,
            default=0.4,
            metavar="IOU",
            help="priors whose shape is so near to an object's learn it, too; 1: the nearest alone",
        )
        add(
            "--ignore_iou",
            type=float,
            default=0.5,
            metavar="IOU",
            help="predictions that overlap an object so much are not told that there is none",
        )
        add(
            "--neighbors",
            action=switch,
            default=True,
            help="the cells nearest to an object's own learn it, too; --no-neighbors: the paper",
        )
        add("--iou_goal", action=switch, default=False, help="objectness learns IoUs, not only 1")
        add("--weight_decay", type=float, default=1e-4, help="of Adam")
        add("--score", type=float, default=0.3, help="least score of what predictions show")
        add(
            "--nms_iou",
            type=float,
            default=0.5,
            metavar="IOU",
            help="of two boxes of a class that overlap so much, the better one stays",
        )

    def __init__(
        self, options: argparse.Namespace, classes: Sequence[str], fetch: bool = True
    ) -> None:
        super().__init__()
        _check(options)
        self.classes = list(classes)
        self.side, channels = options.img_size, options.channels
        self.input_shape = channels, self.side, self.side
        self.normalize = Normalize([0.5] * channels, [0.5] * channels)
        if options.pretrained:
            self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
        backbone = _build_backbone(options, fetch)
        pairs = 0 if options.backbone == "tiny" else 2
        self.network = Detector(backbone, len(classes), options.width, pairs)
        self.register_buffer("anchors", _find_anchors(options))
        settings = options.match_iou, options.ignore_iou, options.neighbors, options.iou_goal
        self.loss = DetectionLoss(len(classes), *settings)
        self.weights = {name: getattr(options, name) for name in WEIGHTS}
        self.score, self.nms_iou = options.score, options.nms_iou

    def forward(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """Computes one loss per optimizer, under its name, and detached terms for the log.

        Args:
            batch: images (N, C, S, S) in [0, 255]; boxes of their objects (N, M, 4), left, top,
                right and bottom in pixels; and labels (N, M), -1 where there is no object.

        Returns:
            Values per sample, each (N,): "detector" is the loss; its terms, unweighted, are "box",
            "objectness" and "classification".
        """
        images, boxes, labels = batch
        terms = self._terms(flatten(self.network(self.normalize(images))), boxes, labels)
        weighted = [self.weights[name] * values for name, values in terms.items()]
        detached = {name: values.detach() for name, values in terms.items()}
        return {"detector": torch.stack(weighted).sum(dim=0), **detached}

    def _terms(self, predicted: Tensor, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        priors = make_priors(self.anchors, self.side)
        terms: dict[str, Tensor] = self.loss(predicted, priors, self.anchors, boxes, labels)
        return terms

    def build_optimizers(self, options: argparse.Namespace) -> dict[str, Optimizer]:
        """Returns the optimizers by the name of the loss that each one minimizes."""
        decay, fused = options.weight_decay, options.fused
        return {"detector": Adam(self.parameters(), options.lr, weight_decay=decay, fused=fused)}

    def build_metrics(self) -> MetricCollection:
        """Returns what a test measures: the loss, COCO's mean average precision, and curves."""
        precision = AveragePrecision(len(self.classes))
        return MetricCollection(
            {
                "loss": MeanMetric(),
                "map": precision,
                "precision_recall": PrecisionRecall(precision),
            },
            compute_groups=False,  # they are updated one by one
        )

    def evaluate(self, batch: Sequence[Tensor], metrics: MetricCollection) -> None:
        """Updates the metrics with one batch, as `forward` takes it."""
        images, boxes, labels = batch
        predicted = flatten(self.network(self.normalize(images)))
        terms = self._terms(predicted, boxes, labels)
        metrics["loss"].update(sum(self.weights[name] * terms[name] for name in WEIGHTS))
        names = "boxes", "scores", "labels"
        found = self._detect(predicted, LEAST_SCORE)
        truth = [
            {"boxes": each[own >= 0], "labels": own[own >= 0]}
            for each, own in zip(boxes, labels, strict=True)
        ]
        metrics["map"].update([dict(zip(names, each, strict=True)) for each in found], truth)
        metrics["precision_recall"].update()

    def _detect(self, predicted: Tensor, least: float) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Returns boxes, scores and labels of each image, best first."""
        predicted = predicted.float()
        boxes = decode(predicted[..., :4], make_priors(self.anchors, self.side).float())
        scores = predicted[..., 4:5].sigmoid() * predicted[..., 5:].sigmoid()
        return suppress(boxes.clamp(0, self.side), scores, least, self.nms_iou)

    @torch.no_grad()
    def pictures(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """Returns a picture (3, H, W) in [0, 1]: of each image the truth, then what was found."""
        images, boxes, labels = (part[:SHOWN] for part in batch)
        found = self._detect(flatten(self.network(self.normalize(images))), self.score)
        shown = []
        for image, own, names, (others, scores, guesses) in zip(
            images, boxes, labels, found, strict=True
        ):
            shown.append(self._draw(image, own[names >= 0], names[names >= 0]))
            shown.append(self._draw(image, others, guesses, scores))
        return {"truth_and_found": make_grid(torch.stack(shown), nrow=8, pad_value=1.0)}

    def _draw(
        self, image: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor | None = None
    ) -> Tensor:
        """Returns an image, uint8 (C, H, W), with boxes and words, (3, H, W) in [0, 1]."""
        words = [self.classes[label] for label in labels.tolist()]
        rows = palette()[1 + labels.cpu().numpy() % 254].tolist()  # each class has its own
        colors = [(red, green, blue) for red, green, blue in rows]
        if scores is not None:
            words = [f"{word} {score:.2f}" for word, score in zip(words, scores, strict=True)]
        return draw_objects(image, boxes, words, colors) / 255

    def inference_module(self) -> nn.Module:
        """Returns what is exported: images (N, C, S, S) in [0, 255] to all predictions.

        They are (N, P, 5 + classes): left, top, right and bottom as shares of the image's side, the
        probability of an object, and of each class if there is one. What overlaps is still there.
        """
        return nn.Sequential(self.normalize, self.network, Decode(self.anchors, self.side))

    def example_inputs(self) -> Tensor:
        """Returns two random inputs in the shape and type that `inference_module` takes."""
        return torch.randint(0, 256, (2, *self.input_shape), dtype=torch.uint8)

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> list[dict[str, Any]]:
        """Returns a picture and a list of the objects of each image, uint8 (N, C, H, W).

        They may have any size. Boxes are left, top, right and bottom in their pixels.
        """
        height, width = inputs.shape[-2:]
        place = placement(width, height, self.side)
        images = letterbox(inputs, self.side, place)
        found = self._detect(flatten(self.network(self.normalize(images))), self.score)
        results = []
        for image, (boxes, scores, labels) in zip(inputs, found, strict=True):
            boxes = unletterbox(boxes, width, height, place)
            rows = zip(labels.tolist(), scores.tolist(), boxes.tolist(), strict=True)
            objects = [
                {
                    "class": self.classes[label],
                    "score": round(score, 4),
                    "box": [round(number, 2) for number in box],
                }
                for label, score, box in rows
            ]
            picture = self._draw(image, boxes, labels, scores)
            results.append({"image": picture, "objects": objects})
        return results


def _find_anchors(options: argparse.Namespace) -> Tensor:
    """Returns width and height of the priors, small ones first, three for each scale, (3, 3, 2)."""
    numbers = options.anchors
    if numbers is None:
        numbers = [number * options.img_size / ANCHORS_SIDE for number in ANCHORS]
    sizes = torch.tensor(numbers, dtype=torch.float32).view(-1, 2)
    return sizes[sizes.prod(dim=1).argsort(stable=True)].view(len(STRIDES), -1, 2)


def _build_backbone(options: argparse.Namespace, fetch: bool) -> Darknet | TorchvisionBackbone:
    name = options.backbone
    if name in DARKNETS:
        return Darknet(options.channels, options.width, DARKNETS[name])
    try:
        return TorchvisionBackbone(name, options.pretrained and fetch)
    except ValueError as error:
        raise UserError(f"--backbone {name} cannot be used: {error}") from error
    except OSError as error:
        raise UserError(
            f"--pretrained: the weights of {name} cannot be fetched ({error}): connect to the "
            "network, or train without --pretrained"
        ) from error


def _check(options: argparse.Namespace) -> None:
    last = STRIDES[-1]
    count = len(options.anchors or ANCHORS)
    allowed = {
        "img_size": (options.img_size % last == 0, f"a multiple of {last}"),
        "width": (options.width >= 2 and options.width % 2 == 0, "an even number, 2 or more"),
        "anchors": (
            count == len(ANCHORS) and min(options.anchors or ANCHORS) > 0,
            f"{len(ANCHORS)} numbers above 0, nine times width and height",
        ),
    }
    for name in ("match_iou", "ignore_iou", "nms_iou"):
        allowed[name] = 0 < getattr(options, name) <= 1, "more than 0, at most 1"
    allowed["score"] = 0 <= options.score < 1, "0 or more, less than 1"
    for name in (*WEIGHTS, "weight_decay"):
        allowed[name] = getattr(options, name) >= 0, "0 or more"
    for name, (is_allowed, limits) in allowed.items():
        if not is_allowed:
            raise UserError(f"--{name} {getattr(options, name)}: give {limits}")
    if options.pretrained and options.backbone in DARKNETS:
        raise UserError("--pretrained needs a --backbone of torchvision, such as resnet18")
    if options.img_size == last and options.batch_size == 1:
        raise UserError(
            f"--batch_size 1 with --img_size {last}: a single pixel is left, which cannot be "
            f"normalized; give 2 or more, or --img_size {2 * last}"
        )
