"""The loss, and who is to find what, against what is written in loops and worked out by hand."""

import contextlib
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torch.nn.functional import pad

from losses import AveragePrecision, DetectionLoss, assign, overlaps_any
from ops import make_priors

ANCHORS = torch.tensor(
    [[[6, 6], [6, 12], [12, 6]], [[12, 12], [12, 20], [20, 12]], [[20, 20], [20, 32], [32, 20]]]
).double()
SIDE, CLASSES = 32, 3
PRIORS = make_priors(ANCHORS, SIDE)
TERMS = ("box", "objectness", "classification")


def make_batch(count: int = 3, most: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what a network may say, boxes that lie in the image, and labels, some of them -1."""
    corners = torch.rand(count, most, 2, 2, dtype=torch.float64) * SIDE
    boxes = torch.cat([corners.amin(2), corners.amax(2) + 0.5], dim=-1).clamp(max=SIDE)
    labels = torch.randint(-1, CLASSES, (count, most))
    predicted = torch.randn(count, len(PRIORS), 5 + CLASSES, dtype=torch.float64)
    return predicted, boxes * (labels >= 0)[..., None], labels


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(0.0, width) * max(0.0, height)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def tasks(box: list[float], match_iou: float, neighbors: bool) -> Iterator[int]:
    """Yields the places of the predictions that are to find a box."""
    width, height = box[2] - box[0], box[3] - box[1]
    shapes = [[0, 0, w, h] for w, h in ANCHORS.flatten(0, 1).tolist()]
    similar = [iou([0, 0, width, height], shape) for shape in shapes]
    for number, value in enumerate(similar):
        if number != similar.index(max(similar)) and value <= match_iou:
            continue
        scale, prior = divmod(number, 3)
        stride = 8 * 2**scale
        cells = SIDE // stride
        start = sum(3 * (SIDE // (8 * 2**before)) ** 2 for before in range(scale))
        x, y = (box[0] + box[2]) / 2 / stride, (box[1] + box[3]) / 2 / stride
        column, row = min(int(x), cells - 1), min(int(y), cells - 1)
        places = [(column, row)]
        if neighbors:
            places.append((column - 1 if x - column < 0.5 else column + 1, row))
            places.append((column, row - 1 if y - row < 0.5 else row + 1))
        for one, other in places:
            if 0 <= one < cells and 0 <= other < cells:
                yield start + prior * cells**2 + other * cells + one


def decoded(numbers: Tensor, prior: Tensor) -> list[Tensor]:
    stride, width, height = prior[2:]
    x, y = prior[:2] + stride * (2 * torch.sigmoid(numbers[:2]) - 0.5)
    w, h = width * torch.exp(numbers[2]), height * torch.exp(numbers[3])
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def complete_iou_loss(a: list[Tensor], b: list[float]) -> Tensor:
    """Zheng et al. 2020, equations 10 to 12."""
    wide = torch.clamp(torch.minimum(a[2], torch.tensor(b[2])) - a[0].clamp(min=b[0]), min=0)
    high = torch.clamp(torch.minimum(a[3], torch.tensor(b[3])) - a[1].clamp(min=b[1]), min=0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - wide * high
    overlap = wide * high / union
    outer = a[2].clamp(min=b[2]) - a[0].clamp(max=b[0]), a[3].clamp(min=b[3]) - a[1].clamp(max=b[1])
    apart = (a[0] + a[2] - b[0] - b[2]) ** 2 / 4 + (a[1] + a[3] - b[1] - b[3]) ** 2 / 4
    ratio = torch.atan((a[2] - a[0]) / (a[3] - a[1]))
    v = 4 / math.pi**2 * (math.atan((b[2] - b[0]) / (b[3] - b[1])) - ratio) ** 2
    alpha = (v / (1 - overlap + v)).detach()
    return 1 - overlap + apart / (outer[0] ** 2 + outer[1] ** 2) + alpha * v


def cross_entropy(score: Tensor, goal: float) -> Tensor:
    share = torch.sigmoid(score)
    return -goal * torch.log(share) - (1 - goal) * torch.log(1 - share)


def slow_loss(
    predicted: Tensor, boxes: Tensor, labels: Tensor, settings: tuple[float, float, bool, bool]
) -> dict[str, Tensor]:
    """The definition, image by image, object by object, prediction by prediction."""
    match, ignore, neighbors, iou_goal = settings
    terms: dict[str, list[Tensor]] = {name: [] for name in TERMS}
    for scores, all_boxes, all_labels in zip(predicted, boxes, labels, strict=True):
        objects = [
            (box, label)
            for box, label in zip(all_boxes.tolist(), all_labels.tolist(), strict=True)
            if label >= 0
        ]
        sums = {name: torch.zeros((), dtype=torch.float64) for name in TERMS}
        busy: dict[int, float] = {}
        for box, label in objects:
            for task in tasks(box, match, neighbors):
                found = decoded(scores[task], PRIORS[task])
                goal = iou([each.item() for each in found], box) if iou_goal else 1.0
                busy[task] = max(goal, busy.get(task, 0.0))
                sums["box"] += complete_iou_loss(found, box)
                for number in range(CLASSES):
                    is_right = float(number == label)
                    sums["classification"] += cross_entropy(scores[task, 5 + number], is_right)
        for place, numbers in enumerate(scores):
            own = [each.item() for each in decoded(numbers, PRIORS[place])]
            if place in busy or all(iou(own, box) <= ignore for box, _ in objects):
                sums["objectness"] += cross_entropy(numbers[4], busy.get(place, 0.0))
        for name in TERMS:
            terms[name].append(sums[name])
    return {name: torch.stack(values) for name, values in terms.items()}


@pytest.mark.parametrize("seed", range(100))
def test_loss_and_gradients_are_those_of_loops(seed: int) -> None:
    torch.manual_seed(seed)
    predicted, boxes, labels = make_batch(count=1 + seed % 3, most=1 + seed % 5)
    switches = seed // 4 % 2 == 0, seed // 8 % 2 == 0
    settings = (0.4, 1.0)[seed % 2], (0.5, 0.2)[seed // 2 % 2], *switches
    ours, theirs = predicted.clone().requires_grad_(), predicted.clone().requires_grad_()
    terms = DetectionLoss(CLASSES, *settings)(ours, PRIORS, ANCHORS, boxes, labels)
    expected = slow_loss(theirs, boxes, labels, settings)
    for name in TERMS:
        torch.testing.assert_close(terms[name], expected[name], atol=1e-5, rtol=1e-5)
    weights = torch.rand(len(boxes), dtype=torch.float64)  # each sample's loss is its own
    for each in (terms, expected):
        total = torch.stack([each[name] * factor for factor, name in enumerate(TERMS, 1)])
        (total * weights).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)


def assigned(box: list[float], match_iou: float, neighbors: bool) -> list[list[float]]:
    """Returns the priors whose predictions are to find a box."""
    boxes = torch.tensor([[[0.0] * 4, box]], dtype=torch.float64)
    labels = torch.tensor([[-1, 2]])
    images, objects, found = assign(boxes, labels, PRIORS, ANCHORS, match_iou, neighbors)
    assert images.tolist() == [0] * len(found)
    assert objects.tolist() == [1] * len(found)
    return sorted(PRIORS[found].tolist())


def test_assignment_by_hand() -> None:
    """A box of 12 x 11 about (20, 10): of the second scale's square prior, in its second cell."""
    box = [14.0, 4.5, 26.0, 15.5]
    own = [16.0, 0, 16, 12, 12]
    assert assigned(box, 1.0, False) == [own]
    # 20 is in the first half of its cell, 10 in the second of its own.
    assert assigned(box, 1.0, True) == sorted([own, [0.0, 0, 16, 12, 12], [16.0, 16, 16, 12, 12]])
    # 12 x 20 and 20 x 12 have 132 / 240 in common, 12 x 6 has 72 / 132, all others less.
    assert assigned(box, 0.54, False) == sorted(
        [own, [16.0, 0, 16, 12, 20], [16.0, 0, 16, 20, 12], [16.0, 8, 8, 12, 6]]
    )


def test_cells_beyond_the_image_get_nothing() -> None:
    assert assigned([0.0, 0, 6, 6], 1.0, True) == [[0.0, 0, 8, 6, 6]]
    assert assigned([26.0, 26, 32, 32], 1.0, True) == [[24.0, 24, 8, 6, 6]]
    # Its center lies on the last pixel's far side.
    assert assigned([26.0, 26, 38, 38], 1.0, False) == [[16.0, 16, 16, 12, 12]]


def test_nobody_is_told_that_an_overlapping_prediction_is_wrong() -> None:
    predicted = torch.zeros(1, len(PRIORS), 5 + CLASSES, dtype=torch.float64, requires_grad=True)
    boxes, labels = torch.tensor([[[2.0, 2, 14, 14]]]).double(), torch.tensor([[0]])
    task = assign(boxes, labels, PRIORS, ANCHORS, 1.0, False)[2]
    terms = DetectionLoss(CLASSES, 1.0, 0.3, False)(predicted, PRIORS, ANCHORS, boxes, labels)
    terms["objectness"].sum().backward()
    assert predicted.grad is not None
    gradient = predicted.grad[0, :, 4]
    assert gradient[task].item() == -0.5
    # 12 x 20 about (8, 8) has 144 of 240 in common: no word; in the next cell, it has none.
    for column, expected in ((0, 0.0), (16, 0.5)):
        place = PRIORS.tolist().index([column, 0, 16, 12, 20])
        assert gradient[place].item() == expected


@pytest.mark.parametrize("most", [0, 1, 5])
def test_nothing_annotated_is_no_fault(most: int) -> None:
    predicted = torch.randn(2, len(PRIORS), 5 + CLASSES, dtype=torch.float64, requires_grad=True)
    boxes, labels = torch.zeros(2, max(1, most), 4), torch.full((2, max(1, most)), -1)
    terms = DetectionLoss(CLASSES, 0.4, 0.5, True)(predicted, PRIORS, ANCHORS, boxes, labels)
    assert terms["box"].tolist() == terms["classification"].tolist() == [0, 0]
    assert (terms["objectness"] > 0).all()
    torch.stack([*terms.values()]).sum().backward()
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()
    assert not predicted.grad[..., [0, 1, 2, 3, 5, 6, 7]].any()


def test_padding_changes_nothing() -> None:
    predicted, *truth = make_batch()
    loss = DetectionLoss(CLASSES, 0.4, 0.5, True)
    padded = pad(truth[0], (0, 0, 2, 3)), pad(truth[1], (2, 3), value=-1)
    first, second = (loss(predicted, PRIORS, ANCHORS, *each) for each in (truth, padded))
    torch.testing.assert_close(first, second)


def test_half_precision_is_summed_in_full() -> None:
    predicted, boxes, labels = make_batch()
    others = PRIORS.float(), ANCHORS.float(), boxes.float(), labels
    terms = DetectionLoss(CLASSES, 0.4, 0.5, True)(predicted.bfloat16(), *others)
    assert [values.dtype for values in terms.values()] == [torch.float32] * 3


@pytest.mark.parametrize("least", [0.2, 0.5, 0.9])
def test_overlaps_are_those_of_pairs(least: float) -> None:
    _, found, _ = make_batch(2, 30)
    _, boxes, _ = make_batch(2, 7)
    boxes[:, 0] = found[:, 0]
    ours = overlaps_any(found, boxes, least)
    for image in range(2):
        for box, is_above in zip(found[image].tolist(), ours[image].tolist(), strict=True):
            area = (box[2] - box[0]) * (box[3] - box[1])
            pairs = [iou(box, other) for other in boxes[image].tolist() if area or any(other)]
            assert is_above == any(value > least for value in pairs)


FOUND: list[Any] = [  # of four images: boxes, labels and scores
    ([[10, 10, 30, 30], [11, 10, 33, 31], [50, 50, 60, 64]], [0, 0, 1], [0.9, 0.8, 0.7]),
    ([[0, 0, 20, 20]], [1], [0.95]),  # in an image without objects
    ([], [], []),
    ([[5, 5, 25, 45], [30, 30, 50, 52], [30, 30, 50, 50]], [0, 1, 1], [0.3, 0.6, 0.4]),
]
TRUTH: list[Any] = [
    ([[10, 10, 32, 30], [50, 50, 60, 60]], [0, 1]),
    ([], []),
    ([[70, 70, 90, 80]], [0]),
    ([[5, 5, 25, 40], [31, 30, 52, 52]], [0, 1]),
]


def as_tensors(entries: list[Any]) -> list[dict[str, Tensor]]:
    return [
        {
            "boxes": torch.tensor(boxes).float().view(-1, 4),
            "labels": torch.tensor(labels).long(),
            **dict(zip(["scores"], map(torch.tensor, rest), strict=False)),
        }
        for boxes, labels, *rest in entries
    ]


def as_coco(entries: list[Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for image, (boxes, labels, *rest) in enumerate(entries):
        for number, (ends, label) in enumerate(zip(boxes, labels, strict=True)):
            box = [*ends[:2], ends[2] - ends[0], ends[3] - ends[1]]
            row = {"id": len(rows) + 1, "image_id": image, "category_id": label, "bbox": box}
            score = {"score": rest[0][number]} if rest else {}
            rows.append(row | {"area": box[2] * box[3], "iscrowd": 0} | score)
    return rows


def cocos_own(**parameters: Any) -> COCOeval:
    """Runs COCO's own code on the same boxes."""
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": number} for number in range(len(TRUTH))],
        "categories": [{"id": number} for number in (0, 1)],
        "annotations": as_coco(TRUTH),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        measure = COCOeval(truth, truth.loadRes(as_coco(FOUND)), "bbox")
        vars(measure.params).update(parameters)
        for step in (measure.evaluate, measure.accumulate, measure.summarize):
            step()
    return measure


def test_average_precision_is_cocos_own() -> None:
    metric = AveragePrecision(3)
    for part in (slice(2), slice(2, 4)):
        metric.update(as_tensors(FOUND[part]), as_tensors(TRUTH[part]))
    values, expected = metric.compute(), cocos_own()
    for place, name in enumerate(("map", "map_50", "map_75")):
        assert values[name].item() == pytest.approx(expected.stats[place], abs=1e-6)
    curves = expected.eval["precision"][0, :, :, 0, -1].T
    np.testing.assert_allclose(metric.precision[:2], curves, atol=1e-6)
    assert 0.2 < values["map"] < 0.8
    for category in (0, 1):
        own = values["map_per_class"][category].item()
        assert own == pytest.approx(cocos_own(catIds=[category]).stats[0], abs=1e-6)
    assert values["map_per_class"][2].isnan()  # of which there is none
    assert metric.precision[2].isnan().all()
