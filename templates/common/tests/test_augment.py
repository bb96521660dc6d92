"""Augmentation of a batch, held against torchvision's transforms v2, image by image."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional
from torchvision.tv_tensors import BoundingBoxes

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


def test_zoomed_squares_lie_in_the_image_or_around_it() -> None:
    random = torch.rand(1000, 3, generator=torch.Generator().manual_seed(3))
    top, left, rows, columns = augment.draw_zooms(random, SIDE, 2.0).unbind(1)
    assert torch.equal(rows, columns)
    assert (int(rows.min()), int(rows.max())) == (SIDE // 2 + 1, 2 * SIDE)
    for start in (top, left):
        end = start + rows - SIDE
        assert torch.where(rows < SIDE, (start >= 0) & (end <= 0), (start <= 0) & (end >= 0)).all()
    one = augment.draw_zooms(random, SIDE, 1.0)
    assert one.unique(dim=0).tolist() == [[0, 0, SIDE, SIDE]]


def test_what_reaches_out_of_the_image_is_filled(images: Tensor) -> None:
    """As if the image lay in the middle of a larger one."""
    random = torch.rand(COUNT, 3, generator=torch.Generator().manual_seed(2))
    crops = augment.draw_zooms(random, SIDE, 2.0)
    ours = augment.resized_crop(images, crops, SIDE, fill=128)
    padded = functional.pad(images, [SIDE], fill=128)
    crops[:, :2] += SIDE
    theirs = [
        functional.resized_crop(image, *crop, [SIDE, SIDE], antialias=True)
        for image, crop in zip(padded, crops.int().tolist(), strict=True)
    ]
    assert farthest(ours, theirs) <= 1


def test_objects_are_pasted_over_what_is_there() -> None:
    """Of the others, neither class 0 nor what is ignored; the last one lies on top."""
    masks = torch.tensor([[1, 1, 255, 0, 0], [0, 255, 2, 2, 0], [0, 0, 0, 3, 255]])
    images = 10 * torch.arange(1, 4)[:, None] + torch.arange(5)
    shape = 1, 3, 1, 1, 5  # (N, M, C, H, W)
    colored = images.view(shape).repeat(1, 1, 2, 1, 1)
    image, mask = augment.copy_paste(colored, masks.view(shape), ignored=255)
    assert mask.flatten().tolist() == [1, 1, 2, 3, 0]
    assert image.shape == (1, 2, 1, 5)
    assert image[0, 1, 0].tolist() == [10, 11, 22, 33, 14]


@pytest.fixture
def boxes() -> Tensor:
    """Three boxes in each image, in its pixels."""
    generator = torch.Generator().manual_seed(4)
    corners = torch.rand(COUNT, 3, 2, 2, generator=generator) * SIDE
    return torch.cat([corners.amin(2), corners.amax(2)], dim=-1)


def as_torchvisions(boxes: Tensor) -> BoundingBoxes:
    return BoundingBoxes(boxes, format="XYXY", canvas_size=(SIDE, SIDE))


def test_mirrored_boxes_are_torchvisions(boxes: Tensor) -> None:
    which = draws(0, 2).bool()
    ours = augment.flip_boxes(boxes, which, SIDE)
    for own, old, is_mirrored in zip(ours, boxes, which.tolist(), strict=True):
        theirs = functional.horizontal_flip(as_torchvisions(old))
        torch.testing.assert_close(own, theirs.as_subclass(Tensor) if is_mirrored else old)


@pytest.mark.parametrize("size", [8, SIDE, 30])
def test_boxes_of_a_resized_crop_are_torchvisions(boxes: Tensor, size: int) -> None:
    random = torch.rand(COUNT, 4, generator=torch.Generator().manual_seed(2))
    crops = augment.draw_boxes(random, SIDE, 0.3)
    ours = augment.crop_boxes(boxes, crops, size)
    for own, old, crop in zip(ours, boxes, crops.int().tolist(), strict=True):
        moved = functional.resized_crop(as_torchvisions(old), *crop, [size, size])
        theirs = functional.clamp_bounding_boxes(moved).as_subclass(Tensor)
        is_there = augment.areas(theirs) > 0  # torchvision does not care what is left of others
        torch.testing.assert_close(own[is_there], theirs[is_there], atol=1e-3, rtol=1e-4)
        assert not augment.areas(own)[~is_there].any()


def test_boxes_follow_what_they_are_around_in_a_mosaic() -> None:
    """Each of four images has a rectangle of a level of its own, which the mosaic may cut."""
    generator = torch.Generator().manual_seed(5)
    for _ in range(20):
        images = torch.zeros(1, 4, 1, SIDE, SIDE, dtype=torch.uint8)
        corner = torch.randint(0, SIDE - 6, (4, 2), generator=generator)
        length = torch.randint(2, 6, (4, 2), generator=generator)
        boxes = torch.cat([corner, corner + length], dim=1).float().view(1, 4, 1, 4)
        for number, (left, top, right, bottom) in enumerate(boxes[0, :, 0].long().tolist()):
            images[0, number, 0, top:bottom, left:right] = number + 1
        centers = torch.randint(5, SIDE - 5, (1, 2), generator=generator)
        laid = augment.mosaic(images, centers)[0, 0]
        moved = augment.mosaic_boxes(boxes, centers, SIDE)[0, :, 0]
        for number, box in enumerate(moved):
            rows, columns = torch.nonzero(laid == number + 1, as_tuple=True)
            if not len(rows):
                assert augment.areas(box) == 0
                continue
            ends = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            assert box.tolist() == [float(end) for end in ends]


def test_boxes_of_which_little_is_left_become_padding() -> None:
    boxes = torch.tensor([[[0.0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 3, 3]]])
    size = torch.tensor([[4.0, 4, 4, 4]])
    labels = torch.tensor([[5, 6, 7, -1]])
    kept, names = augment.drop_cut(boxes, labels, size)
    assert names.tolist() == [[5, -1, -1, -1]]
    assert kept[0].tolist() == [[0, 0, 2, 2], *[[0] * 4] * 3]
