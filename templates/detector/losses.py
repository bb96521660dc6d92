"""The loss, one value per sample, and the measures of a test.

Boxes are (left, top, right, bottom) in pixels of the square image that the network sees.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import complete_box_iou_loss

from ops import STRIDES, decode, paired_iou, shape_iou


class DetectionLoss(nn.Module):
    """Says of a batch's predictions how far they are from the truth, term by term, unweighted.

    After Redmon and Farhadi 2018, section 2.1, with the loss of the boxes of Zheng et al. 2020.
    Each object is one prediction's task, or several's: see `assign`. A prediction that has no task,
    but whose box overlaps an object all the same, is not told that there is none.

    Args:
        num_classes: of the objects.
        match_iou: of the shapes of a prior and an object, above which the prior gets it as well.
        ignore_iou: of a prediction and an object, above which it is not told that there is none.
        neighbors: whether the nearest cells beside and above or below an object's own get it, too.
        iou_goal: whether objectness is to be the IoU of a prediction with its object (Redmon and
            Farhadi 2017, section 2), and not 1: of several boxes around an object, the one that
            fits best then has the highest score.
    """

    def __init__(
        self,
        num_classes: int,
        match_iou: float,
        ignore_iou: float,
        neighbors: bool,
        iou_goal: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes, self.match_iou = num_classes, match_iou
        self.ignore_iou, self.neighbors, self.iou_goal = ignore_iou, neighbors, iou_goal

    def forward(
        self, predicted: Tensor, priors: Tensor, anchors: Tensor, boxes: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Returns the terms "box", "objectness" and "classification": sums over an image, (N,).

        Args:
            predicted: what the network says of each image, (N, P, 5 + C).
            priors: where each prediction starts from, (P, 5).
            anchors: width and height of the priors of each scale, (3, 3, 2).
            boxes: of the objects, (N, M, 4).
            labels: theirs, (N, M), -1 where there is no object.
        """
        # Half precision would lose small boxes, and small losses beside large ones.
        predicted = predicted.to(torch.promote_types(predicted.dtype, torch.float32))
        boxes = boxes.to(predicted.dtype)
        found = decode(predicted[..., :4], priors)  # (N, P, 4)
        images, objects, tasks = assign(
            boxes, labels, priors, anchors, self.match_iou, self.neighbors
        )
        chosen = predicted[images, tasks]  # (K, 5 + C)
        pairs = found[images, tasks], boxes[images, objects]  # each (K, 4)
        box_loss = complete_box_iou_loss(*pairs)
        goals = functional.one_hot(labels[images, objects], self.num_classes).to(chosen.dtype)
        class_loss = functional.binary_cross_entropy_with_logits(
            chosen[:, 5:], goals, reduction="none"
        ).sum(dim=1)

        with torch.no_grad():
            goal = paired_iou(*pairs) if self.iou_goal else torch.ones_like(box_loss)
            wanted = spread_out(goal, images, tasks, found.shape[:2])  # (N, P), -1 without a task
            counts = (wanted >= 0) | ~overlaps_any(found, boxes, self.ignore_iou)
        objectness = functional.binary_cross_entropy_with_logits(
            predicted[..., 4], wanted.clamp(min=0), reduction="none"
        )
        nothing = predicted.new_zeros(len(predicted))
        return {
            "box": nothing.index_add(0, images, box_loss),
            "objectness": (objectness * counts).sum(dim=1),
            "classification": nothing.index_add(0, images, class_loss),
        }


@torch.no_grad()
def assign(
    boxes: Tensor,
    labels: Tensor,
    priors: Tensor,
    anchors: Tensor,
    match_iou: float,
    neighbors: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Says which prediction is to find which object.

    Of an object's own cell, at the scale of a prior, it is the prior whose shape is nearest to the
    object's (Redmon and Farhadi 2018, section 2.1); and all others that are near enough. Two
    objects may have a prediction in common; it then gets a loss for either.

    Args:
        boxes: (N, M, 4).
        labels: (N, M), -1 where there is no object.
        priors: where each prediction starts from, (P, 5).
        anchors: (3, 3, 2).
        match_iou: of the shapes; above it, a prior is near enough.
        neighbors: whether the nearest cells beside and above or below do as well.

    Returns:
        The image, the place in `boxes` and the place in `priors` of each pair, each (K,).
    """
    overlap = shape_iou(boxes[..., 2:] - boxes[..., :2], anchors.flatten(0, 1))  # (N, M, 9)
    nearest = functional.one_hot(overlap.argmax(dim=-1), overlap.shape[-1]).bool()
    images, objects, shapes = (
        ((nearest | (overlap > match_iou)) & (labels >= 0)[..., None]).nonzero().unbind(1)
    )
    scales = shapes.div(anchors.shape[1], rounding_mode="floor")
    strides = torch.tensor(STRIDES, device=boxes.device)
    # All maps have the same side in pixels, which the cells of a scale share out among them.
    cells_at = _sides(priors, anchors, strides)  # (3,)
    counts = cells_at[scales]  # (K,)
    center = (boxes[images, objects, :2] + boxes[images, objects, 2:]) / 2
    place = center / strides[scales][:, None]  # in cells, (K, 2)
    own = place.long().clamp(min=0).minimum(counts[:, None] - 1)
    cells = own[:, None]  # (K, 1, 2): column and row
    if neighbors:
        step = torch.where(place - own < 0.5, -1, 1)  # to the nearer side
        both = functional.pad(torch.diag_embed(step), (0, 0, 1, 0))  # (K, 3, 2): own cell first
        cells = own[:, None] + both
    starts = functional.pad((anchors.shape[1] * cells_at**2).cumsum(0), (1, 0))[scales]
    first = starts + shapes % anchors.shape[1] * counts**2
    tasks = first[:, None] + cells[..., 1] * counts[:, None] + cells[..., 0]  # (K, 1 or 3)
    is_inside = ((cells >= 0) & (cells < counts[:, None, None])).all(dim=-1)
    pairs, _ = is_inside.nonzero().unbind(1)
    return images[pairs], objects[pairs], tasks[is_inside]


def _sides(priors: Tensor, anchors: Tensor, strides: Tensor) -> Tensor:
    """Returns how many cells a side each scale has, (3,), by the number of all predictions."""
    smallest = len(priors) / anchors.shape[1] / ((strides[-1] / strides) ** 2).sum()
    return smallest.sqrt().round().long() * strides[-1].div(strides, rounding_mode="floor")


def spread_out(values: Tensor, images: Tensor, tasks: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns the largest of the values, (K,), for each prediction, (N, P), and -1 for none."""
    spread = values.new_full((shape[0] * shape[1],), -1.0)
    return spread.scatter_reduce(0, images * shape[1] + tasks, values, "amax").view(shape)


@torch.no_grad()
def overlaps_any(found: Tensor, boxes: Tensor, least: float) -> Tensor:
    """Says of each predicted box, (N, P, 4), whether an object overlaps it so much, (N, P).

    There are N * M * P pairs, so that this is where the loss spends its time: one number a pair is
    kept, and changed in place. `torchvision.ops.box_iou` keeps eight.

    Args:
        found: (N, P, 4).
        boxes: of the objects, (N, M, 4); those that are padding have no area, and overlap nothing.
        least: an IoU in (0, 1]; what is above it counts.
    """
    left, top, right, bottom = (each[:, None].contiguous() for each in found.unbind(2))  # (N, 1, P)
    lefts, tops, rights, bottoms = (each[:, :, None] for each in boxes.unbind(2))  # (N, M, 1)
    common = torch.minimum(right, rights).sub_(torch.maximum(left, lefts)).clamp_(min=0)
    common *= torch.minimum(bottom, bottoms).sub_(torch.maximum(top, tops)).clamp_(min=0)
    # common / (own + other - common) > least, solved for what differs from pair to pair
    share = least / (1 + least)
    common -= share * (rights - lefts) * (bottoms - tops)
    is_above: Tensor = common.amax(dim=1) > share * ((right - left) * (bottom - top))[:, 0]
    return is_above


class AveragePrecision(MeanAveragePrecision):
    """COCO's mean average precision: one number, and what it is made of.

    Args:
        num_classes: of the objects.

    Attributes:
        precision: at an IoU of 0.5, of each class at 101 recalls from 0 to 1, (num_classes, 101).
    """

    full_state_update = False  # the engine merges what several processes have seen

    def __init__(self, num_classes: int) -> None:
        super().__init__(backend="pycocotools", extended_summary=True)
        self.num_classes = num_classes
        self.precision = torch.full((num_classes, 101), torch.nan)
        self.warn_on_many_detections = False

    def compute(self) -> dict[str, Tensor]:
        """Returns means over IoUs from 0.5 to 0.95, "map"; at two of them; and of each class.

        `precision` is then set. A class of which the test has no objects is left out of the means;
        elsewhere it is NaN.
        """
        found = super().compute()
        # (IoUs, recalls, classes that were met): of objects of any size, the 100 best of an image
        precision = found["precision"][..., 0, -1].float()
        met = found["classes"].long()
        whole = precision.new_full((*precision.shape[:2], self.num_classes), torch.nan)
        whole[..., met] = precision.masked_fill(precision < 0, torch.nan)
        self.precision = whole[0].T
        return {
            **{name: found[name] for name in ("map", "map_50", "map_75")},
            "map_per_class": whole.mean(dim=(0, 1)),
        }


class PrecisionRecall(Metric):
    """The precision of each class at 101 recalls, as the average precision has found it.

    Args:
        whole: computes it.
    """

    full_state_update = False

    def __init__(self, whole: AveragePrecision) -> None:
        super().__init__()
        self.whole = whole

    def update(self) -> None:
        """Does nothing: the whole is updated by itself."""

    def compute(self) -> Tensor:
        """Returns (num_classes, 101)."""
        self.whole.compute()  # unless it has been computed
        return self.whole.precision

    def plot(self, labels: Sequence[str], add_text: bool = True) -> tuple[Any, Any]:
        """Draws a curve for each class.

        Args:
            labels: names of the classes.
            add_text: whether there is a legend.

        Returns:
            Figure and axes.
        """
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots()
        for label, curve in zip(labels, self.compute().cpu(), strict=True):
            axes.plot(torch.linspace(0, 1, len(curve)), curve, label=label)
        axes.set(xlabel="recall", ylabel="precision at an IoU of 0.5", xlim=(0, 1), ylim=(0, 1.02))
        if add_text:
            axes.legend(loc="lower left")
        return figure, axes
