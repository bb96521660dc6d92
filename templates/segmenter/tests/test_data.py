"""Tests of data.py: images and their masks, bad files, and what is done to both of a pair."""

import argparse
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SIZE, grey, save
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

import data
from engine.exits import UserError
from engine.images import BadImageError, write_labels

CLASSES = ["sky", "sea", "land"]


def parse(*flags: str, path: Path = Path("data"), size: int = SIZE) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    parser.set_defaults(crop_padding=0)
    options = parser.parse_args(flags)
    options.path_to_data = str(path)
    options.img_size = size
    options.device = "cpu"
    return options


def save_mask(labels: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_labels(labels.astype(np.uint8), path)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Six pairs for training, two for the test; levels tell which, and a mask is of one class."""
    root = tmp_path / "data"
    for split, count in (("train", 6), ("test", 2)):
        for number in range(count):
            name = f"{'ab'[number % 2]}/{number}.png"
            save(grey(10 * number), root / split / "images" / name)
            save_mask(np.full((SIZE, SIZE), number % 3), root / split / "masks" / name)
    (root / "classes.txt").write_text("\n".join([*CLASSES, ""]))
    return root


def levels(split: data.MaskFolder) -> list[tuple[int, int]]:
    pairs = [split[index] for index in range(len(split))]
    return [(int(image[0, 0, 0]), int(mask[0, 0])) for image, mask in pairs]


def test_twins_come_together(tree: Path) -> None:
    training_set, test_set = data.build_datasets(parse(path=tree))
    assert levels(training_set) == [(10 * n, n % 3) for n in (0, 2, 4, 1, 3, 5)]
    assert levels(test_set) == [(0, 0), (10, 1)]
    assert training_set.classes == test_set.classes == CLASSES


def test_extensions_may_differ(tree: Path) -> None:
    path = tree / "train" / "images" / "a" / "2.png"
    save(Image.open(path).convert("RGB"), path.with_suffix(".bmp"))
    path.unlink()
    assert levels(data.build_datasets(parse(path=tree))[0])[1] == (20, 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(tree: Path, channels: int) -> None:
    for split in data.build_datasets(parse(f"--channels={channels}", path=tree, size=20)):
        image, mask = split[0]
        assert image.dtype == mask.dtype == torch.uint8
        assert image.shape == (channels, 20, 20)
        assert mask.shape == (20, 20)
        with pytest.raises(IndexError):
            split[len(split)]


def test_proportions_are_kept_and_what_is_left_free_is_ignored(tree: Path) -> None:
    save(Image.new("L", (40, 20), 200), tree / "train" / "images" / "a" / "0.png")
    save_mask(np.repeat([[1, 2]], 20, 1).repeat(20, 0), tree / "train" / "masks" / "a" / "0.png")
    image, mask = data.build_datasets(parse(path=tree))[0][0]
    assert image[0, :, 0].tolist() == [128, 128, 200, 200, 200, 200, 128, 128]
    assert mask[:, 0].tolist() == [255, 255, 1, 1, 1, 1, 255, 255]
    assert mask[3].tolist() == [1] * 4 + [2] * 4


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_file_without_its_twin_is_named(tree: Path, kind: str) -> None:
    (tree / "train" / kind / "b" / "3.png").unlink()
    other = "masks" if kind == "images" else "images"
    with pytest.raises(UserError, match=rf"{other}/b/3\.png: no image of this name in .*{kind}"):
        data.build_datasets(parse(path=tree))


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_missing_folder_of_a_kind(tree: Path, kind: str) -> None:
    (tree / "test" / kind).rename(tree / "elsewhere")
    line = rf"test/{kind}: no images; they belong in images/, their twins in masks/"
    with pytest.raises(UserError, match=line):
        data.build_datasets(parse(path=tree))


def test_missing_split(tree: Path) -> None:
    (tree / "train").rename(tree / "elsewhere")
    assert len(data.build_test_set(parse(path=tree), CLASSES)) == 2
    with pytest.raises(UserError, match=r"train: no such folder.*prepare_data\.py"):
        data.build_datasets(parse(path=tree))


def test_test_set_has_the_checkpoints_classes(tree: Path) -> None:
    with pytest.raises(UserError, match=r"classes\.txt: not the checkpoint's classes: lacking fog"):
        data.build_test_set(parse(path=tree), ["sky", "fog"])
    (tree / "classes.txt").unlink()
    assert data.build_test_set(parse(path=tree), CLASSES).classes == CLASSES
    with pytest.raises(UserError, match=r"data/classes\.txt: No such file"):
        data.build_datasets(parse(path=tree))


@pytest.mark.parametrize(
    "flag",
    [
        "--crop_padding=-1",
        "--crop_padding=9",
        "--crop_scale=0",
        "--color_jitter=2",
        "--copy_paste=-1",
    ],
)
def test_number_out_of_range(tree: Path, flag: str) -> None:
    with pytest.raises(UserError, match=r"^--\w+ [-\d.]+: give "):
        data.build_datasets(parse(flag, path=tree))


def mark_places(tree: Path) -> None:
    """Has every image tell its places, and every mask tell them too: class 1 at even numbers."""
    pixels = np.arange(SIZE**2, dtype=np.uint8).reshape(SIZE, SIZE)
    for path in tree.rglob("images/*/*.png"):
        save(Image.fromarray(pixels), path)
        save_mask(pixels % 3, Path(str(path).replace("images", "masks")))


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
    for path in tree.rglob("images/*/*.png"):
        save(Image.fromarray((200 * halves).astype(np.uint8)), path)
        save_mask(halves, Path(str(path).replace("images", "masks")))
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
    random = np.random.default_rng(0)
    for path in tree.rglob("images/*/*.png"):
        save(Image.fromarray(random.integers(256, size=(SIZE, SIZE), dtype=np.uint8)), path)
        save_mask(random.integers(3, size=(SIZE, SIZE)), Path(str(path).replace("images", "masks")))
    flags = "--copy_paste=2", "--crop_padding=2", "--crop_scale=0.5", "--flip", "--color_jitter=0.4"
    training_set, _ = data.build_datasets(parse(*flags, path=tree))
    draws = torch.rand(6, 2 + 3 * 10, generator=torch.Generator().manual_seed(0))
    for index, pair in enumerate(zip(*draw(training_set, draws), strict=True)):
        alone = draw(training_set, draws[index : index + 1], first=index)
        assert torch.equal(alone[0][0], pair[0])
        assert torch.equal(alone[1][0], pair[1])


def spoil(path: Path, fault: str) -> None:
    """Makes a pair of a training tree bad, by its mask; or by its image, if a text is wanted."""
    if fault == "text":
        Path(str(path).replace("masks", "images")).write_text("no image")
    elif fault == "no mask":
        path.write_text("no image")
    elif fault == "size":
        save_mask(np.zeros((SIZE, SIZE + 1)), path)
    else:
        save_mask(np.full((SIZE, SIZE), 3), path)


FAULTS = {
    "text": r"images/a/2\.png: not an image",
    "no mask": r"masks/a/2\.png: not an image",
    "size": r"masks/a/2\.png: 9x8 pixels, but its image .*images/a/2\.png has 8x8",
    "number": r"masks/a/2\.png: a pixel of class 3, but there are 3 classes, 0 to 2; .* is 255",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("cache", ["off", "ram"])
def test_what_is_bad_takes_its_twin_with_it(tree: Path, fault: str, cache: str) -> None:
    spoil(tree / "train" / "masks" / "a" / "2.png", fault)
    training_set, _ = data.build_datasets(parse(path=tree))
    with pytest.raises(BadImageError, match=rf"{FAULTS[fault]}.*--check_data lists"):
        training_set[1]
    flags = "--skip_bad=1", f"--cache={cache}"
    skipping, _ = data.build_datasets(parse(*flags, path=tree))
    for _ in range(2):
        assert levels(skipping) == [(10 * n, n % 3) for n in (0, 4, 4, 1, 3, 5)]


def test_bad_pair_is_replaced_where_it_would_be_pasted_on(tree: Path) -> None:
    spoil(tree / "train" / "masks" / "a" / "2.png", "no mask")
    flags = "--copy_paste=1", "--skip_bad=1"
    training_set, _ = data.build_datasets(parse(*flags, path=tree))
    draws = torch.full((1, 21), 1.5 / 6)  # the second pair onto the first
    images, masks = draw(training_set, draws)
    assert (images.unique().tolist(), masks.unique().tolist()) == ([40], [1])  # its neighbor


def test_every_bad_file_is_listed(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("a/0.png", "b/1.png", "a/2.png", "b/3.png")
    for name, fault in zip(names, FAULTS, strict=True):
        spoil(tree / "train" / "masks" / name, fault)
    with pytest.raises(UserError, match=r"4 of 16 images are bad, listed above; mend or"):
        data.check_data(parse("--cache=off", path=tree))
    lines = capsys.readouterr().out.splitlines()
    found = ["/".join(Path(line.partition(":")[0]).parts[-3:]) for line in lines]
    kinds = ("images", "masks", "masks", "masks")
    assert set(found) == {f"{kind}/{name}" for kind, name in zip(kinds, names, strict=True)}


def test_good_data_is_in_order(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.check_data(parse("--cache=off", path=tree))
    assert "16 files in order" in capsys.readouterr().out


def test_what_was_good_is_looked_at_anew_once_its_surroundings_change(tree: Path) -> None:
    """The cache on disk holds the masks; fewer classes, or another image, may make them bad."""
    options = parse("--cache=disk", path=tree)
    levels(data.build_datasets(options)[0])
    (tree / "classes.txt").write_text("sky\nsea\n")
    with pytest.raises(BadImageError, match=r"a/2\.png: a pixel of class 2"):
        levels(data.build_datasets(options)[0])
    (tree / "classes.txt").write_text("\n".join(CLASSES))
    save(Image.new("L", (SIZE, SIZE + 1)), tree / "train" / "images" / "a" / "2.png")
    with pytest.raises(BadImageError, match=r"a/2\.png: 8x8 pixels, but its image .* has 8x9"):
        levels(data.build_datasets(options)[0])


def test_bad_files_of_both_kinds_are_counted_together(tree: Path) -> None:
    (tree / "train" / "images" / "a" / "2.png").write_text("no image")
    (tree / "train" / "masks" / "b" / "5.png").write_text("no image")
    with pytest.raises(BadImageError, match="bad file 2, --skip_bad is 1"):
        levels(data.build_datasets(parse("--skip_bad=1", path=tree))[0])
    assert len(levels(data.build_datasets(parse("--skip_bad=2", path=tree))[0])) == 6


def test_fingerprint_tells_files_and_flags(tree: Path) -> None:
    def fingerprint(*flags: str) -> str:
        return data.build_datasets(parse(*flags, path=tree))[0].fingerprint

    shape = "--crop_padding=4", "--crop_scale=0.5", "--flip"
    changes = *shape, "--channels=1", "--color_jitter=0.1", "--copy_paste=1"
    prints = [fingerprint(), *map(fingerprint, changes)]
    assert fingerprint("--cache=ram") == prints[0]
    for kind in ("images", "masks"):
        path = tree / "train" / kind / "a" / "0.png"
        path.rename(path.with_name("new.png"))
    assert len({*prints, fingerprint()}) == 8


def test_workers_take_a_copy(tree: Path) -> None:
    training_set, _ = data.build_datasets(parse(path=tree))
    copy = pickle.loads(pickle.dumps(training_set))
    assert levels(copy) == levels(training_set)
    loader = DataLoader(training_set, batch_size=2, num_workers=1)
    assert [masks.shape for _, masks in loader] == [(2, SIZE, SIZE)] * 3
