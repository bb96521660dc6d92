"""Tests of data.py: pairs and their names, bad files, and what is done to both images of a pair."""

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
from engine.images import BadImageError

SCALE = 2


def parse(*flags: str, path: Path = Path("data"), size: int = SIZE) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    parser.set_defaults(scale=SCALE)
    options = parser.parse_args(flags)
    options.path_to_data = str(path)
    options.img_size = size
    options.device = "cpu"
    return options


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Six pairs for training, two for the test; levels tell which; a target's is 100 more."""
    root = tmp_path / "data"
    small = Image.new("L", (SIZE // SCALE, SIZE // SCALE))
    for split, count in (("train", 6), ("test", 2)):
        for number in range(count):
            name = f"{'ab'[number % 2]}/{number}.png"
            level = 10 * number
            save(small.point(lambda _, level=level: level), root / split / "input" / name)
            save(grey(100 + level), root / split / "target" / name)
    return root


def levels(split: data.PairFolder) -> list[tuple[int, int]]:
    pairs = [split[index] for index in range(len(split))]
    return [(int(pair[0][0, 0, 0]), int(pair[1][0, 0, 0])) for pair in pairs]


def test_twins_come_together(tree: Path) -> None:
    training_set, test_set = data.build_datasets(parse(path=tree))
    assert levels(training_set) == [(10 * n, 100 + 10 * n) for n in (0, 2, 4, 1, 3, 5)]
    assert levels(test_set) == [(0, 100), (10, 110)]
    assert training_set.classes == test_set.classes == []


def test_extensions_may_differ(tree: Path) -> None:
    path = tree / "train" / "target" / "a" / "0.png"
    save(Image.open(path).convert("RGB"), path.with_suffix(".bmp"))
    path.unlink()
    assert levels(data.build_datasets(parse(path=tree))[0])[0] == (0, 100)


@pytest.mark.parametrize("channels", [1, 3])
def test_targets_are_as_many_times_larger_as_the_scale_says(tree: Path, channels: int) -> None:
    for split in data.build_datasets(parse(f"--channels={channels}", path=tree, size=20)):
        pair = split[0]
        assert [image.dtype for image in pair] == [torch.uint8] * 2
        assert [image.shape for image in pair] == [(channels, 10, 10), (channels, 20, 20)]
        with pytest.raises(IndexError):
            split[len(split)]


@pytest.mark.parametrize("kind", ["input", "target"])
def test_image_without_its_twin_is_named(tree: Path, kind: str) -> None:
    (tree / "train" / kind / "b" / "3.png").unlink()
    other = "target" if kind == "input" else "input"
    with pytest.raises(UserError, match=rf"{other}/b/3\.png: no image of this name in .*{kind}"):
        data.build_datasets(parse(path=tree))


def test_two_images_of_one_name_are_refused(tree: Path) -> None:
    save(grey(0), tree / "train" / "input" / "a" / "0.bmp")
    with pytest.raises(UserError, match=r"a/0\.bmp: another image there has this name; rename"):
        data.build_datasets(parse(path=tree))


@pytest.mark.parametrize("kind", ["input", "target"])
def test_missing_folder_of_a_kind(tree: Path, kind: str) -> None:
    (tree / "test" / kind).rename(tree / "elsewhere")
    with pytest.raises(UserError, match=rf"test/{kind}: no images; they belong in input/, their"):
        data.build_datasets(parse(path=tree))


def test_missing_split(tree: Path) -> None:
    (tree / "train").rename(tree / "elsewhere")
    assert len(data.build_test_set(parse(path=tree))) == 2
    with pytest.raises(UserError, match=r"train: no such folder.*prepare_data\.py"):
        data.build_datasets(parse(path=tree))


def test_scale_that_the_images_belie_is_refused(tree: Path) -> None:
    with pytest.raises(UserError, match=r"--scale 4: .*0\.png is 4 pixels wide.* 8: give 2"):
        data.build_datasets(parse("--scale=4", path=tree))


@pytest.mark.parametrize(
    "flag", ["--scale=0", "--crop_size=0", "--crop_size=7", "--skip_bad=-1", "--scale=3"]
)
def test_number_out_of_range(tree: Path, flag: str) -> None:
    with pytest.raises(UserError, match=r"^--\w+ -?\d+: give "):
        data.build_datasets(parse(flag, path=tree))


def gradients(tree: Path) -> None:
    """Makes of each target an image that tells places, and of its input the same in small."""
    for path in tree.rglob("target/*/*.png"):
        pixels = np.arange(SIZE**2, dtype=np.uint8).reshape(SIZE, SIZE)
        save(Image.fromarray(pixels), path)
        twin = Path(str(path).replace("target", "input"))
        save(Image.fromarray(pixels[::SCALE, ::SCALE].copy()), twin)


def draw(training_set: data.PairFolder, draws: Tensor) -> tuple[Tensor, Tensor]:
    return training_set.get_batch(np.arange(len(draws)), lambda _: draws.numpy())


def test_both_images_are_cropped_and_mirrored_alike(tree: Path) -> None:
    gradients(tree)
    training_set, test_set = data.build_datasets(parse("--crop_size=4", "--flip", path=tree))
    corner_draws = torch.tensor([[0.0, 0.0], [0.99, 0.0], [0.4, 0.99], [0.0, 0.5]])
    draws = torch.cat([corner_draws, torch.tensor([[0.9, 0.0]] * 3 + [[0.1, 0.0]])], dim=1)
    inputs, targets = draw(training_set, draws)
    assert inputs.shape == (4, 3, 2, 2)
    assert targets.shape == (4, 3, 4, 4)
    corners = [(0, 0), (4, 0), (2, 4), (0, 2)]
    whole = torch.arange(SIZE**2, dtype=torch.uint8).view(SIZE, SIZE)
    for number, (top, left) in enumerate(corners):
        expected = whole[top : top + 4, left : left + 4]
        assert torch.equal(targets[number, 0], expected.flip(-1) if number == 3 else expected)
    assert torch.equal(inputs[:3], targets[:3, :, ::SCALE, ::SCALE])
    assert torch.equal(inputs[3], targets[3, :, ::SCALE, 1::SCALE])  # mirrored, columns count back
    assert test_set[0][1].shape == (3, SIZE, SIZE)


def test_both_images_are_turned_alike(tree: Path) -> None:
    gradients(tree)
    training_set, _ = data.build_datasets(parse("--turn", path=tree))
    inputs, targets = draw(training_set, torch.tensor([[0.0, 0.0, 0.9, n / 4] for n in range(4)]))
    plain, _ = data.build_datasets(parse(path=tree))
    for number in range(4):
        for turned, image in zip((inputs, targets), plain[0], strict=True):
            assert torch.equal(turned[number], torch.rot90(image, number, (1, 2)))


def test_crop_as_large_as_the_image_takes_all_of_it(tree: Path) -> None:
    gradients(tree)
    training_set, test_set = data.build_datasets(parse("--crop_size=64", path=tree))
    inputs, targets = draw(training_set, torch.rand(1, 4))
    assert torch.equal(inputs[0], test_set[0][0])
    assert torch.equal(targets[0], test_set[0][1])


@pytest.mark.parametrize("kind", ["input", "target"])
@pytest.mark.parametrize("cache", ["off", "ram"])
def test_a_bad_image_takes_its_twin_with_it(tree: Path, kind: str, cache: str) -> None:
    (tree / "train" / kind / "a" / "2.png").write_text("no image")
    training_set, _ = data.build_datasets(parse(path=tree))
    with pytest.raises(BadImageError, match=r"2\.png: not an image.*--check_data lists"):
        training_set[1]
    flags = "--skip_bad=1", f"--cache={cache}"
    skipping, _ = data.build_datasets(parse(*flags, path=tree))
    for _ in range(2):
        assert levels(skipping) == [(10 * n, 100 + 10 * n) for n in (0, 4, 4, 1, 3, 5)]


def test_bad_images_of_both_kinds_are_counted_together(tree: Path) -> None:
    (tree / "train" / "input" / "a" / "2.png").write_text("no image")
    (tree / "train" / "target" / "b" / "5.png").write_text("no image")
    with pytest.raises(BadImageError, match="bad file 2, --skip_bad is 1"):
        levels(data.build_datasets(parse("--skip_bad=1", path=tree))[0])
    assert len(levels(data.build_datasets(parse("--skip_bad=2", path=tree))[0])) == 6


def test_no_good_pair_is_left(tree: Path) -> None:
    for number, path in enumerate(sorted((tree / "train" / "input").rglob("*.png"))):
        kind = ("input", "target")[number % 2]
        Path(str(path).replace("input", kind)).write_text("no image")
    with pytest.raises(BadImageError, match="no good"):
        levels(data.build_datasets(parse("--skip_bad=6", path=tree))[0])


def test_every_bad_file_is_listed(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("input/a/0.png", "target/b/1.png"):
        (tree / "train" / name).write_text("no image")
    with pytest.raises(UserError, match=r"2 of 16 images are bad, listed above; mend or"):
        data.check_data(parse("--cache=off", path=tree))
    lines = capsys.readouterr().out.splitlines()
    assert [Path(line.partition(":")[0]).name for line in lines] == ["0.png", "1.png"]


def test_fingerprint_tells_files_and_flags(tree: Path) -> None:
    def fingerprint(*flags: str) -> str:
        return data.build_datasets(parse(*flags, path=tree))[0].fingerprint

    prints = [
        fingerprint(),
        *map(fingerprint, ("--flip", "--turn", "--channels=1", "--crop_size=4")),
    ]
    assert fingerprint("--cache=ram") == prints[0]
    for kind in ("input", "target"):
        path = tree / "train" / kind / "a" / "0.png"
        path.rename(path.with_name("new.png"))
    assert len({*prints, fingerprint()}) == 6


def test_workers_take_a_copy(tree: Path) -> None:
    training_set, _ = data.build_datasets(parse(path=tree))
    copy = pickle.loads(pickle.dumps(training_set))
    assert levels(copy) == levels(training_set)
    loader = DataLoader(training_set, batch_size=2, num_workers=1)
    assert [targets.shape for _, targets in loader] == [(2, 3, SIZE, SIZE)] * 3
