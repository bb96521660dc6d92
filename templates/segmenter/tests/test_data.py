"""Tests of data.py: images and their masks, and bad files."""

import argparse
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SIZE, grey, save
from PIL import Image
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


def plant(root: Path) -> Path:
    """Writes six pairs for training, two for the test.

    Levels of grey tell which one it is, and a mask is of one class.
    """
    for split, count in (("train", 6), ("test", 2)):
        for number in range(count):
            name = f"{'ab'[number % 2]}/{number}.png"
            save(grey(10 * number), root / split / "images" / name)
            save_mask(np.full((SIZE, SIZE), number % 3), root / split / "masks" / name)
    (root / "classes.txt").write_text("\n".join([*CLASSES, ""]))
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return plant(tmp_path / "data")


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
