"""Augmentation of a batch, held against torchvision's transforms v2, image by image."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from engine import augment
from engine.reproducibility import derive_seed, uniform

COUNT, SIDE = 40, 21


@pytest.fixture(params=[1, 3])
def images(request: pytest.FixtureRequest) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (COUNT, request.param, SIDE, SIDE)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def draws(low: int, high: int) -> Tensor:
    return torch.randint(low, high, (COUNT,), generator=torch.Generator().manual_seed(1))


def farthest(ours: Tensor, theirs: list[Tensor]) -> int:
    """Returns the largest difference, in grey levels."""
    assert ours.dtype == torch.uint8
    return int((ours.int() - torch.stack(theirs).int()).abs().max())


@pytest.mark.parametrize("fill", [0, 255])
def test_crop_is_torchvisions(images: Tensor, fill: int) -> None:
    top, left = draws(0, 11), draws(0, 11).flip(0)
    ours = augment.crop_padded(images, 5, top, left, fill)
    padded = functional.pad(images, [5], fill=fill)
    pairs = zip(padded, top.tolist(), left.tolist(), strict=True)
    theirs = [functional.crop(image, *corner, SIDE, SIDE) for image, *corner in pairs]
    assert farthest(ours, theirs) == 0


def test_flip_is_torchvisions(images: Tensor) -> None:
    which = draws(0, 2).bool()
    pairs = zip(images, which.tolist(), strict=True)
    theirs = [functional.horizontal_flip(image) if flip else image for image, flip in pairs]
    assert farthest(augment.flip(images, which), theirs) == 0


@pytest.mark.parametrize("size", [8, SIDE, 30])
def test_resized_crop_is_torchvisions(images: Tensor, size: int) -> None:
    random = torch.rand(COUNT, 4, generator=torch.Generator().manual_seed(2))
    boxes = augment.draw_boxes(random, SIDE, 0.1)
    ours = augment.resized_crop(images, boxes, size)
    theirs = [
        functional.resized_crop(image, *box, [size, size], antialias=True)
        for image, box in zip(images, boxes.int().tolist(), strict=True)
    ]
    assert farthest(ours, theirs) <= 1


def test_color_is_torchvisions(images: Tensor) -> None:
    factors = 0.5 + torch.rand(3, COUNT, generator=torch.Generator().manual_seed(3))
    ours = augment.adjust_color(images, *factors)
    theirs = []
    for image, (brightness, contrast, saturation) in zip(images, factors.T.tolist(), strict=True):
        image = functional.adjust_brightness(image, brightness)
        image = functional.adjust_contrast(image, contrast)
        theirs.append(functional.adjust_saturation(image, saturation))
    assert farthest(ours, theirs) <= 1


def test_factors_of_one_change_nothing(images: Tensor) -> None:
    ones = torch.ones(COUNT)
    assert torch.equal(augment.adjust_color(images, ones, ones, ones), images)


def test_boxes_have_the_shares_and_ratios_that_were_asked_for() -> None:
    random = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(4))
    side = 1000
    top, left, rows, columns = augment.draw_boxes(random, side, 0.2).unbind(1)
    assert ((top >= 0) & (top + rows <= side) & (left >= 0) & (left + columns <= side)).all()
    whole = (rows < side) & (columns < side)  # not cut to the image
    share = (rows * columns / side**2)[whole]
    assert share.min() > 0.199
    assert share[share < 0.75].mean().item() == pytest.approx((0.2 + 0.75) / 2, abs=0.01)
    ratio = (columns / rows)[whole].log()
    assert ratio.abs().max() < 0.29  # of 4/3
    assert ratio.mean().abs() < 0.01
    places = (top / (side - rows).clamp(min=1))[whole]
    assert places.mean().item() == pytest.approx(0.5, abs=0.01)


def test_draws_are_even_and_follow_from_the_place() -> None:
    indices = np.arange(1000)
    numbers = uniform(7, 3, indices, 4)
    assert numbers.shape == (1000, 4)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    histogram, _ = np.histogram(numbers, 10, (0, 1))
    assert abs(histogram - 400).max() < 80  # 4 standard deviations
    assert np.abs(np.corrcoef(numbers.T) - np.eye(4)).max() < 0.12
    chosen = np.array([500, 2])
    np.testing.assert_array_equal(uniform(7, 3, chosen, 2), numbers[chosen][:, :2])
    assert len(np.unique(uniform(7, 4, indices, 4))) > 3990  # of 2**24 numbers; a few may meet
    assert not np.isin(uniform(7, 4, indices, 4), numbers).any()


def test_draws_are_mixed_as_seeds_are() -> None:
    seed = derive_seed(7, 1, 3, 500, 2)  # 1: of a sample
    assert uniform(7, 3, np.array([500]), 3)[0, 2] == (seed >> 39) * 2.0**-24
