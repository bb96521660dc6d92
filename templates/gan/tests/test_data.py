"""Tests of data.py: folders, bad files, and mirroring."""

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
from engine.images import BadImageError


def parse(*flags: str, path: Path = Path("data"), size: int = SIZE) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    options = parser.parse_args(flags)
    options.path_to_data = str(path)
    options.img_size = size
    options.device = "cpu"
    return options


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Images in folders and beside them; an image's level tells its file."""
    root = tmp_path / "data"
    for number, name in enumerate(("a/x", "a/b/y", "c/z", "top")):
        save(grey(10 * number), root / "train" / f"{name}.png")
    for number in range(2):
        save(grey(100 + number), root / "test" / f"{number}.png")
    return root


def levels(split: data.ImageFolder) -> list[int]:
    return [int(split[index][0][0, 0, 0]) for index in range(len(split))]


def test_images_are_found_wherever_they_lie(tree: Path) -> None:
    training_set, test_set = data.build_datasets(parse(path=tree))
    assert levels(training_set) == [10, 0, 20, 30]  # sorted by path: a/b/y, a/x, c/z, top
    assert levels(test_set) == [100, 101]
    assert training_set.classes == test_set.classes == []


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_resized_uint8(tree: Path, channels: int) -> None:
    options = parse(f"--channels={channels}", path=tree, size=20)
    for split in data.build_datasets(options):
        image, number = split[0]
        assert number == 0
        assert (image.dtype, image.shape) == (torch.uint8, (channels, 20, 20))
        images, numbers = split.get_batch(
            np.array([1, 0]), lambda count: np.zeros((2, count), np.float32)
        )
        assert torch.equal(images[1], image)
        assert numbers.tolist() == [1, 0]
        with pytest.raises(IndexError):
            split[len(split)]


def test_test_set_needs_no_training_set(tree: Path) -> None:
    (tree / "train").rename(tree / "elsewhere")
    assert len(data.build_test_set(parse(path=tree), [])) == 2


@pytest.mark.parametrize("split", ["train", "test"])
def test_missing_folder(tree: Path, split: str) -> None:
    (tree / split).rename(tree / "elsewhere")
    with pytest.raises(UserError, match=rf"{split}: no such .*prepare_data\.py.*path_to_data"):
        data.build_datasets(parse(path=tree))


@pytest.mark.parametrize(("left", "line"), [(0, "no images"), (1, "one image only")])
def test_too_few_images(tree: Path, left: int, line: str) -> None:
    for path in sorted((tree / "test").iterdir())[left:]:
        path.unlink()
    with pytest.raises(UserError, match=f"test: {line}; put two or more there"):
        data.build_datasets(parse(path=tree))


def test_number_out_of_range(tree: Path) -> None:
    with pytest.raises(UserError, match="--skip_bad -1: give 0 or more"):
        data.build_datasets(parse("--skip_bad=-1", path=tree))


def test_half_of_the_training_images_are_mirrored(tree: Path) -> None:
    pixels = np.zeros((SIZE, SIZE), np.uint8)
    pixels[:, 0] = 255
    for path in tree.rglob("*.png"):
        save(Image.fromarray(pixels), path)
    training_set, test_set = data.build_datasets(parse("--flip", path=tree))
    draws = np.array([0.2, 0.5, 0.9, 0.1], np.float32)[:, None]
    images, _ = training_set.get_batch(np.arange(4), lambda _: draws)
    assert [int(image[0, 0, 0]) for image in images] == [0, 255, 255, 0]
    assert [int(image[0, 0, -1]) for image in images] == [255, 0, 0, 255]
    assert (training_set.mirror, test_set.mirror, parse().flip) == (True, False, False)


def test_path_and_advice_are_in_the_error(tree: Path) -> None:
    (tree / "train" / "c" / "z.png").write_text("no image")
    training_set, _ = data.build_datasets(parse(path=tree))
    with pytest.raises(BadImageError, match=r"z\.png: not an image.*--check_data lists"):
        training_set[2]
    skipping, _ = data.build_datasets(parse("--skip_bad=1", path=tree))
    assert levels(skipping) == [10, 0, 30, 30]


def test_every_bad_file_is_listed(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a/x.png", "top.png"):
        (tree / "train" / name).write_text("no image")
    with pytest.raises(UserError, match=r"2 of 6 images are bad, listed above; mend or"):
        data.check_data(parse("--cache=off", path=tree))
    lines = capsys.readouterr().out.splitlines()
    assert [Path(line.partition(":")[0]).name for line in lines] == ["x.png", "top.png"]


def test_fingerprint_tells_files_and_flags(tree: Path) -> None:
    def fingerprint(*flags: str) -> str:
        return data.build_datasets(parse(*flags, path=tree))[0].fingerprint

    prints = [fingerprint(), fingerprint("--flip"), fingerprint("--channels=1")]
    assert fingerprint("--cache=ram") == prints[0]
    (tree / "train" / "top.png").rename(tree / "train" / "new.png")
    assert len({*prints, fingerprint()}) == 4


def test_workers_take_a_copy(tree: Path) -> None:
    training_set, _ = data.build_datasets(parse(path=tree))
    copy = pickle.loads(pickle.dumps(training_set))
    assert levels(copy) == levels(training_set)
    loader = DataLoader(training_set, batch_size=2, num_workers=1)
    assert [images.shape for images, _ in loader] == [(2, 3, SIZE, SIZE)] * 2
