"""What data.py does to both of a training pair, and pairs whose objects are pasted on others."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SIZE, save
from PIL import Image
from test_data import parse, plant, save_mask, spoil
from torch import Tensor

import data


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return plant(tmp_path / "data")


def paint(tree: Path, pair: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
    """Gives every image and its mask new pixels, those that `pair` returns at each call."""
    for path in tree.rglob("images/*/*.png"):
        pixels, labels = pair()
        save(Image.fromarray(pixels.astype(np.uint8)), path)
        save_mask(labels, Path(str(path).replace("images", "masks")))


def mark_places(tree: Path) -> None:
    """Has every image tell its places, and every mask the rest of the same by three."""
    pixels = np.arange(SIZE**2).reshape(SIZE, SIZE)
    paint(tree, lambda: (pixels, pixels % 3))


def draw(training_set: data.MaskFolder, draws: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
    indices = np.arange(first, first + len(draws))
    return training_set.get_batch(indices, lambda _: draws.numpy())


@pytest.mark.parametrize(
    "flags", [["--crop_padding=3"], ["--flip"], ["--crop_padding=8", "--flip"]]
)
def test_mask_is_moved_as_its_image_is(tree: Path, flags: list[str]) -> None:
    mark_places(tree)
    training_set, test_set = data.build_datasets(parse(*flags, path=tree))
    draws = torch.rand(6, 10, generator=torch.Generator().manual_seed(0))
    images, masks = draw(training_set, draws)
    is_inside = masks != 255
    assert torch.equal(images[:, 0][is_inside] % 3, masks[is_inside])
    assert (images[:, 0][~is_inside] == 128).all()
    assert is_inside.all() == (flags == ["--flip"])
    plain = test_set[0][0]
    assert not all(torch.equal(image, plain) for image in images)


def test_shift_is_as_far_as_its_draw_says(tree: Path) -> None:
    mark_places(tree)
    training_set, _ = data.build_datasets(parse("--crop_padding=2", path=tree))
    draws = torch.zeros(2, 10)
    draws[1, 4:6] = 0.99
    images, masks = draw(training_set, draws)
    whole = torch.arange(SIZE**2, dtype=torch.uint8).view(SIZE, SIZE)
    assert torch.equal(images[0, 0, 2:, 2:], whole[:-2, :-2])
    assert torch.equal(images[1, 0, :-2, :-2], whole[2:, 2:])
    assert (masks[0, :2] == 255).all()
    assert (masks[1, :, -2:] == 255).all()


def test_random_boxes_are_cut_out_of_both_alike(tree: Path) -> None:
    """A picture of two halves: the border lies at the same place in image and mask."""
    halves = np.repeat([[0, 1]], 20, 1).repeat(40, 0)
    paint(tree, lambda: (200 * halves, halves))
    training_set, _ = data.build_datasets(parse("--crop_scale=0.3", path=tree, size=32))
    draws = torch.rand(6, 10, generator=torch.Generator().manual_seed(1))
    images, masks = draw(training_set, draws)
    assert images.shape == (6, 3, 32, 32)
    assert ((images[:, 0] > 100) == masks).float().mean() > 0.98
    assert len({int(mask.sum()) for mask in masks}) > 3


def test_colors_are_changed_and_masks_are_not(tree: Path) -> None:
    mark_places(tree)
    training_set, test_set = data.build_datasets(parse("--color_jitter=0.5", path=tree))
    images, masks = draw(training_set, torch.full((1, 10), 0.9))
    assert not torch.equal(images[0], test_set[0][0])
    assert torch.equal(masks[0], test_set[0][1])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_objects_of_other_pairs_are_pasted_on(tree: Path, number: int) -> None:
    """An object fills its whole image; an image of class 0 shows none."""
    training_set, _ = data.build_datasets(parse(f"--copy_paste={number}", path=tree))
    old = [(10 * n, n % 3) for n in (0, 2, 4, 1, 3, 5)]
    others = np.random.default_rng(0).integers(6, size=(6, number))
    draws = np.random.default_rng(1).random((6, number + 10 * (1 + number)), np.float32)
    draws[:, :number] = (others + 0.5) / 6
    images, masks = draw(training_set, torch.from_numpy(draws))
    for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
        seen = [index, *(other for other in others[index] if old[other][1] != 0)][-1]
        assert old[seen] == (int(image.unique()), int(mask.unique()))


def test_what_is_pasted_on_is_changed_by_its_own_draws(tree: Path) -> None:
    mark_places(tree)
    training_set, _ = data.build_datasets(parse("--copy_paste=1", "--flip", path=tree))
    draws = torch.full((1, 21), 0.9)
    plain = draw(training_set, draws)
    draws[0, 1 + 10 + 6] = 0.1  # the other is mirrored, and no more
    images, masks = draw(training_set, draws)
    mirrored, is_pasted = plain[1].flip(-1), plain[1].flip(-1) != 0
    assert torch.equal(masks, mirrored.where(is_pasted, plain[1]))
    assert torch.equal(images, plain[0].flip(-1).where(is_pasted[:, None], plain[0]))


def test_border_of_a_shifted_image_is_not_pasted_on(tree: Path) -> None:
    training_set, _ = data.build_datasets(parse("--copy_paste=1", "--crop_padding=3", path=tree))
    draws = torch.full((6, 21), 0.5)  # images in the middle, those that are pasted on as well
    assert (draw(training_set, draws)[1] != 255).all()
    draws[:, 1 + 10 :] = 0.99
    assert (draw(training_set, draws)[1] != 255).all()
    draws[:, 1:] = 0.99
    assert (draw(training_set, draws)[1] == 255).any()


def test_augmentation_is_the_same_for_any_batch(tree: Path) -> None:
    random, shape = np.random.default_rng(0), (SIZE, SIZE)
    paint(tree, lambda: (random.integers(256, size=shape), random.integers(3, size=shape)))
    flags = "--copy_paste=2", "--crop_padding=2", "--crop_scale=0.5", "--flip", "--color_jitter=0.4"
    training_set, _ = data.build_datasets(parse(*flags, path=tree))
    draws = torch.rand(6, 2 + 3 * 10, generator=torch.Generator().manual_seed(0))
    for index, pair in enumerate(zip(*draw(training_set, draws), strict=True)):
        alone = draw(training_set, draws[index : index + 1], first=index)
        assert torch.equal(alone[0][0], pair[0])
        assert torch.equal(alone[1][0], pair[1])


def test_bad_pair_is_replaced_where_it_would_be_pasted_on(tree: Path) -> None:
    spoil(tree / "train" / "masks" / "a" / "2.png", "no mask")
    flags = "--copy_paste=1", "--skip_bad=1"
    training_set, _ = data.build_datasets(parse(*flags, path=tree))
    draws = torch.full((1, 21), 1.5 / 6)  # the second pair onto the first
    images, masks = draw(training_set, draws)
    assert (images.unique().tolist(), masks.unique().tolist()) == ([40], [1])  # its neighbor
