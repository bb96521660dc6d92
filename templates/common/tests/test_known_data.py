"""Known data sets: what is written, what is refused, and that nothing is left behind."""

import sys
import urllib.error
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from engine import known_data
from engine.drawn_data import BLOB_CLASSES, SLANT, TURN, Canvas, bend
from engine.exits import UserError


def tree_of(target: Path) -> dict[str, bytes]:
    return {
        path.relative_to(target).as_posix(): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file()
    }


class FakeArrays:
    """Stands in for torchvision's MNIST and its kin: two images per split."""

    classes = ("7 - seven", "T-shirt/top")

    def __init__(self, root: Path, train: bool, download: bool) -> None:
        assert download
        root.mkdir(exist_ok=True)
        (root / "archive.gz").touch()
        print("what torchvision says")
        self.level = 10 if train else 20

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        for label in (1, 0):
            yield Image.new("L", (4, 4), self.level + label), label


class FakeImagenette:
    """Stands in for torchvision's Imagenette: two files per split."""

    wnids = ("n1", "n2")
    classes = (("tench", "Tinca tinca"), ("chain saw", "chainsaw"))

    def __init__(self, root: Path, split: str, size: str, download: bool) -> None:
        assert (size, download) == ("160px", True)
        for code in self.wnids:
            folder = root / "imagenette2-160" / split / code
            folder.mkdir(parents=True)
            (folder / f"{code}_{split}.JPEG").write_text(f"{code} {split}")


def test_digits_are_scikit_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="the digits need scikit-learn")
    target = tmp_path / "a b" / "数据"  # neither exists yet
    known_data.write("digits", str(target))
    assert "1437 train, 360 test images" in capsys.readouterr().out
    digits = datasets.load_digits()
    for split, chosen in (("train", range(1797)), ("test", range(0, 1797, 5))):
        labels = [int(digits.target[i]) for i in chosen if split == "test" or i % 5]
        for name in map(str, range(10)):
            files = list((target / split / name).glob("*.png"))
            assert len(files) == labels.count(int(name)) > 0
    first = np.asarray(Image.open(target / "test" / "0" / "00000.png"))
    assert first.dtype == np.uint8
    assert np.array_equal(first, np.round(digits.images[0] * 255 / 16))
    assert [path.name for path in tmp_path.iterdir()] == ["a b"]
    assert [path.name for path in target.parent.iterdir()] == ["数据"]


def test_missing_scikit_learn_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[demo\]'"):
        known_data.write("digits", str(tmp_path / "data"))
    assert not list(tmp_path.iterdir())


def test_fake_is_the_same_every_time_and_shows_its_class(tmp_path: Path) -> None:
    known_data.write("fake", str(tmp_path / "a"))
    known_data.write("fake", str(tmp_path / "b"))
    assert tree_of(tmp_path / "a") == tree_of(tmp_path / "b")
    assert len(list((tmp_path / "a").glob("train/*/*.png"))) == 4 * 64
    assert len(list((tmp_path / "a").glob("test/*/*.png"))) == 4 * 16
    for label, name in enumerate(BLOB_CLASSES):
        for path in (tmp_path / "a").glob(f"*/{name}/*.png"):
            pixels = np.asarray(Image.open(path)).sum(-1)
            assert pixels.shape == (32, 32)
            row, column = np.unravel_index(pixels.argmax(), pixels.shape)
            assert (row // 16, column // 16) == (label // 2, label % 2)


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_arrays_are_written_as_a_tree(
    tmp_path: Path,
    dataset: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torchvision.datasets, known_data.DOWNLOADS[dataset], FakeArrays)
    target = tmp_path / "data"
    target.mkdir()  # empty, so free to use
    known_data.write(dataset, str(target))
    levels = {
        path.relative_to(target).as_posix(): Image.open(path).getextrema()
        for path in target.rglob("*.png")
    }
    assert levels == {
        "train/T-shirt_top/00000.png": (11, 11),
        "train/7/00001.png": (10, 10),
        "test/T-shirt_top/00000.png": (21, 21),
        "test/7/00001.png": (20, 20),
    }
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert capsys.readouterr().out == f"{dataset} is in {target}: 2 train, 2 test images\n"


def test_imagenettes_files_keep_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision.datasets, "Imagenette", FakeImagenette)
    known_data.write("imagenette", str(tmp_path / "data"))
    assert tree_of(tmp_path) == {
        "data/train/tench/n1_train.JPEG": b"n1 train",
        "data/train/chain_saw/n2_train.JPEG": b"n2 train",
        "data/test/tench/n1_val.JPEG": b"n1 val",
        "data/test/chain_saw/n2_val.JPEG": b"n2 val",
    }


@pytest.mark.parametrize("dataset", known_data.DOWNLOADS)
@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no route"), RuntimeError("Tried a mirror, got:\nno route\n")]
)
def test_no_network_leaves_nothing(
    tmp_path: Path, dataset: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(root: Path, **_: Any) -> None:
        root.mkdir()
        (root / "half").touch()
        raise error

    monkeypatch.setattr(torchvision.datasets, known_data.DOWNLOADS[dataset], fail)
    with pytest.raises(UserError) as refusal:
        known_data.write(dataset, str(tmp_path / "new" / "data"))
    message = str(refusal.value)
    assert message.startswith(f"cannot download {dataset}: ")
    assert message.endswith("; --dataset digits or fake needs no network")
    assert "no route" in message
    assert "\n" not in message
    assert not list(tmp_path.iterdir())


def test_failure_in_the_second_split_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Half(FakeArrays):
        def __init__(self, root: Path, train: bool, download: bool) -> None:
            super().__init__(root, train, download)
            if not train:
                raise urllib.error.URLError("cut off")

    monkeypatch.setattr(torchvision.datasets, "MNIST", Half)
    with pytest.raises(UserError, match=r"cannot download mnist: .*cut off"):
        known_data.write("mnist", str(tmp_path / "data"))
    assert not list(tmp_path.iterdir())


def test_full_disk_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(UserError, match=r"cannot write .*data: No space left on device"):
        known_data.write("fake", str(tmp_path / "data"))
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for target in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(UserError, match="is already there: delete it, or name another"):
            known_data.write("fake", str(target))
    assert tree_of(tmp_path) == {"mine.txt": b"mine"}


@pytest.fixture(scope="module")
def canvases() -> list[Canvas]:
    return list(known_data.draw_canvases("fake"))


def test_canvases_are_the_same_every_time(canvases: list[Canvas]) -> None:
    for first, second in zip(canvases, known_data.draw_canvases("fake"), strict=True):
        assert first.image.tobytes() == second.image.tobytes()
        assert [each.name for each in first.objects] == [each.name for each in second.objects]
        assert [each.box for each in first.objects] == [each.box for each in second.objects]
    assert Counter(canvas.split for canvas in canvases) == known_data.SHAPES.canvases
    assert len({canvas.image.tobytes() for canvas in canvases}) == len(canvases)


def test_canvases_hold_any_number_of_objects_of_every_class_and_size(
    canvases: list[Canvas],
) -> None:
    counts = {len(canvas.objects) for canvas in canvases}
    assert counts == set(range(known_data.SHAPES.most + 1))
    objects = [each for canvas in canvases for each in canvas.objects]
    assert {each.name for each in objects} == {"cross", "disc", "frame"}
    widths = {each.box[2] - each.box[0] for each in objects if each.name == "frame"}
    assert len(widths) == len(known_data.SHAPES.sizes)


def test_what_is_seen_of_an_object_lies_in_its_box_and_is_its_own(canvases: list[Canvas]) -> None:
    hidden = 0
    for canvas in canvases:
        seen = np.zeros((32, 32), int)
        for each in canvas.objects:
            left, top, right, bottom = each.box
            assert 0 <= left < right <= 32
            assert 0 <= top < bottom <= 32
            inside = each.mask[top:bottom, left:right]
            assert inside.sum() == each.mask.sum() > 0
            hidden += not (inside.any(0).all() and inside.any(1).all())
            seen += each.mask
        assert seen.max(initial=0) <= 1
    assert hidden  # of some objects, a side is hidden by another


def test_the_last_object_is_seen_whole_in_one_color(canvases: list[Canvas]) -> None:
    for canvas in canvases:
        if canvas.objects:
            pixels = np.asarray(canvas.image)
            within = pixels[canvas.objects[-1].mask].astype(int)
            levels = np.median(within, axis=0)
            assert (levels >= 200).all() or (levels <= 55).all()
            background = pixels[~np.any([each.mask for each in canvas.objects], axis=0)]
            assert 60 < np.median(background) < 195


def test_digits_of_the_test_are_on_no_training_canvas(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Image.new("L", (8, 8), 255)
    digits = [("train", "1", full), ("test", "2", full)]
    monkeypatch.setattr(known_data, "read_digits", lambda: iter(digits))
    scene = known_data.DIGITS._replace(canvases={"train": 3, "test": 3}, side=48)
    monkeypatch.setattr(known_data, "DIGITS", scene)
    drawn = list(known_data.draw_canvases("digits"))
    names = {(canvas.split, each.name) for canvas in drawn for each in canvas.objects}
    assert names == {("train", "1"), ("test", "2")}


def test_bent_copies_are_what_was_bent_a_little() -> None:
    ink = np.zeros((8, 8), np.uint8)
    ink[1:7, 3:5] = 255  # an upright bar
    bent = bend([("1", ink), ("one", ink)], copies=5)
    assert [name for name, _ in bent] == 5 * ["1", "one"]
    assert len({each.tobytes() for _, each in bent}) == 10
    for _, each in bent:
        rows, columns = (each > 127).nonzero()
        side = len(each)
        assert abs(rows.mean() - side / 2) < 2 > abs(columns.mean() - side / 2)
        assert 0.7 < (each > 127).sum() / side**2 / (12 / 64) < 1.3
        assert np.polyfit(rows, columns, 1)[0] == pytest.approx(0, abs=TURN + SLANT + 0.1)
    assert bend([("1", ink)], copies=0) == []
