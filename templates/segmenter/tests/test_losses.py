"""The losses: against the formulas written as loops, and where little or nothing counts."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from losses import DiceLoss, PixelCrossEntropy, log_probabilities, one_hot

COUNT, CLASSES, SIDE = 5, 4, 6

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(scores: Tensor, masks: Tensor) -> Tensor:
    loss: Tensor = PixelCrossEntropy()(log_probabilities(scores), masks)
    return loss


def dice_loss(scores: Tensor, masks: Tensor) -> Tensor:
    loss: Tensor = DiceLoss()(log_probabilities(scores), masks)
    return loss


LOSSES = [cross_entropy, dice_loss]


@pytest.fixture
def scores() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = COUNT, CLASSES, SIDE, SIDE
    return 3 * torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def masks() -> Tensor:
    """Masks of all classes, of two, of one, in part ignored, and ignored as a whole."""
    numbers = torch.arange(SIDE**2).view(SIDE, SIDE)
    masks = torch.stack([numbers % CLASSES, numbers % 2, 0 * numbers + 3, numbers % 3, numbers])
    masks[3, :2], masks[4] = 255, 255
    return masks.byte()


def loops(scores: Tensor, mask: Tensor) -> tuple[float, float]:
    """Returns cross entropy and Dice loss of one sample, pixel by pixel, class by class."""
    entropy, counted = 0.0, 0
    both, sizes, shown = [0.0] * CLASSES, [0.0] * CLASSES, [0] * CLASSES
    for row in range(SIDE):
        for column in range(SIDE):
            label = int(mask[row, column])
            if label == 255:
                continue
            exponentials = [math.exp(value) for value in scores[:, row, column].tolist()]
            probabilities = [value / sum(exponentials) for value in exponentials]
            entropy -= math.log(probabilities[label])
            counted += 1
            both[label] += probabilities[label]
            shown[label] += 1
            for number, probability in enumerate(probabilities):
                sizes[number] += probability + (number == label)
    present = [number for number in range(CLASSES) if shown[number]]
    dice = [1 - 2 * both[number] / sizes[number] for number in present]
    return entropy / max(1, counted), sum(dice) / max(1, len(dice))


def test_losses_are_the_formulas(scores: Tensor, masks: Tensor) -> None:
    pairs = [loops(*pair) for pair in zip(scores, masks, strict=True)]
    for loss, expected in zip(LOSSES, zip(*pairs, strict=True), strict=True):
        values = loss(scores, masks)
        torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))


def test_cross_entropy_is_torchs(scores: Tensor, masks: Tensor) -> None:
    values = cross_entropy(scores[:4], masks[:4])
    for index in range(4):
        part = slice(index, index + 1)
        expected = functional.cross_entropy(scores[part], masks[part].long(), ignore_index=255)
        torch.testing.assert_close(values[index], expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_whatever_is_ignored_changes_nothing(loss: Loss, scores: Tensor, masks: Tensor) -> None:
    other = torch.where((masks == 255)[:, None], -7 * scores, scores).requires_grad_()
    values = loss(other, masks)
    torch.testing.assert_close(values, loss(scores, masks))
    assert values[4] == 0
    (gradient,) = torch.autograd.grad(values.sum(), other)
    assert torch.isfinite(gradient).all()
    assert not gradient.mul((masks == 255)[:, None]).any()
    assert gradient[3].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_certain_and_right_costs_nothing_certain_and_wrong_much(loss: Loss, masks: Tensor) -> None:
    right = 100.0 * one_hot(masks, torch.empty(COUNT, CLASSES)).view(COUNT, CLASSES, SIDE, SIDE)
    torch.testing.assert_close(loss(right, masks), torch.zeros(COUNT))
    wrong = loss(right.roll(1, dims=1), masks)
    assert (wrong[:4] > 0.99).all()
    assert wrong[4] == 0


def test_dice_weighs_a_small_class_as_a_large_one() -> None:
    masks = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
    masks[0, 0, 0] = 1
    scores = torch.zeros(1, 2, SIDE, SIDE)
    scores[:, 0] = 100  # background everywhere
    pixels = SIDE**2
    expected = (1 + 1 - 2 * (pixels - 1) / (2 * pixels - 1)) / 2
    torch.testing.assert_close(dice_loss(scores, masks), torch.tensor([expected]))


@pytest.mark.parametrize("loss", LOSSES)
def test_samples_do_not_mix(loss: Loss, scores: Tensor, masks: Tensor) -> None:
    whole = loss(scores, masks)
    for index in range(COUNT):
        torch.testing.assert_close(
            loss(scores[index : index + 1], masks[index : index + 1]), whole[index : index + 1]
        )


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_summed_in_full(loss: Loss) -> None:
    """A sum of 90,000 would be beyond it."""
    scores = torch.zeros(1, 2, 300, 300, dtype=torch.float16)
    masks = torch.zeros(1, 300, 300, dtype=torch.uint8)
    values = loss(scores, masks)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, loss(scores.double(), masks).float())


@pytest.mark.parametrize("loss", LOSSES)
def test_autocast_rounds_no_loss(loss: Loss, scores: Tensor, masks: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        values = loss(scores.float(), masks)
    torch.testing.assert_close(values, loss(scores, masks).float())
