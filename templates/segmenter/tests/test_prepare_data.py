"""Tests of prepare_data.py: canvases and their masks, and downloads brought to our layout."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import grey, save
from PIL import Image

import prepare_data
from engine import known_data
from engine.exits import UserError
from engine.images import palette, read_labels

FEW = known_data.DIGITS._replace(canvases={"train": 30, "test": 20})


def prepare(dataset: str, target: Path) -> None:
    prepare_data.main(argparse.Namespace(dataset=dataset, path_to_data=str(target)))


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sklearn.datasets", reason="the digits need scikit-learn")
    target = tmp_path_factory.mktemp("digits") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known_data, "DIGITS", FEW)
        prepare("digits", target)
    return target


@pytest.mark.slow
def test_digits_are_classes_and_all_else_is_background(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = (digits / "classes.txt").read_text().splitlines()
    assert classes == ["background", *map(str, range(10))]
    monkeypatch.setattr(known_data, "DIGITS", FEW)
    canvases = list(known_data.draw_canvases("digits", times=5, copies=10))
    for split, count in (("train", 150), ("test", 20)):
        own = [canvas for canvas in canvases if canvas.split == split]
        paths = sorted((digits / split / "masks").iterdir())
        assert len(paths) == len(own) == count
        for path, canvas in zip(paths, own, strict=True):
            mask = read_labels(path)
            with Image.open(digits / split / "images" / path.name) as image:
                assert np.array_equal(np.asarray(image), np.asarray(canvas.image))
            for each in canvas.objects:
                assert (mask[each.mask] == classes.index(each.name)).all()
            assert (mask > 0).sum() == sum(each.mask.sum() for each in canvas.objects)


def test_fake_is_the_same_every_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        prepare("fake", tmp_path / name)
    assert "256 train, 64 test images\n" in capsys.readouterr().out
    names = files(tmp_path / "a")
    assert names == files(tmp_path / "b")
    assert len(names) == 2 * (256 + 64) + 1
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    shown = {int(n) for p in (tmp_path / "a").rglob("masks/*") for n in np.unique(read_labels(p))}
    assert shown == {0, 1, 2, 3}
    assert len((tmp_path / "a" / "classes.txt").read_text().splitlines()) == 4


def write_list(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]))


def make_voc(root: Path) -> None:
    """A small tree in the layout of the download."""
    voc = root / "VOCdevkit" / "VOC2012"
    for name, level in (("2007_1", 15), ("2007_2", 1), ("2007_3", 20), ("unlisted", 2)):
        save(Image.new("RGB", (9, 7), "red"), voc / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(np.array([[0, level, 255]], np.uint8).repeat(7, 0).repeat(3, 1))
        mask.putpalette(palette().tobytes())
        save(mask, voc / "SegmentationClass" / f"{name}.png")
    write_list(voc / "ImageSets" / "Segmentation" / "train.txt", ["2007_1", "2007_3"])
    write_list(voc / "ImageSets" / "Segmentation" / "val.txt", ["2007_2"])


def make_pets(root: Path) -> None:
    """Likewise."""
    pets = root / "oxford-iiit-pet"
    for name in ("Abyssinian_1", "beagle_2", "pug_3"):
        save(Image.new("RGB", (9, 7), "red"), pets / "images" / f"{name}.jpg")
        trimap = np.array([[1, 2, 3]], np.uint8).repeat(7, 0).repeat(3, 1)
        save(Image.fromarray(trimap), pets / "annotations" / "trimaps" / f"{name}.png")
    write_list(pets / "annotations" / "trainval.txt", ["Abyssinian_1 1 1 1", "beagle_2 5 2 1"])
    write_list(pets / "annotations" / "test.txt", ["pug_3 26 2 19"])


DOWNLOADS: dict[str, Any] = {
    "voc": (make_voc, ["2007_1", "2007_3"], ["2007_2"], 21, {"2007_1": [0, 15, 255]}),
    "oxford_pets": (make_pets, ["Abyssinian_1", "beagle_2"], ["pug_3"], 2, {"pug_3": [1, 0, 255]}),
}


@pytest.mark.parametrize("dataset", DOWNLOADS)
def test_download_is_brought_to_our_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str
) -> None:
    make, train, test, count, rows = DOWNLOADS[dataset]
    original: list[bytes] = []

    def download(name: str, kind: str, root: Path, **keywords: str) -> None:
        assert (name, kind.lower()[:3]) == (dataset, dataset[:3])
        assert keywords in ({}, {"image_set": "trainval"})
        make(root)
        original.extend(path.read_bytes() for path in sorted(root.rglob("*.jpg")))

    monkeypatch.setattr(known_data, "download", download)
    prepare(dataset, tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    expected = ["classes.txt"]
    for split, names in (("train", train), ("test", test)):
        expected += [f"{split}/images/{name}.jpg" for name in names]
        expected += [f"{split}/masks/{name}.png" for name in names]
    assert files(tmp_path / "data") == sorted(expected)
    classes = (tmp_path / "data" / "classes.txt").read_text().splitlines()
    assert len(classes) == count
    assert classes[0] == "background"
    for name, row in rows.items():
        (path,) = (tmp_path / "data").rglob(f"masks/{name}.png")
        assert read_labels(path)[0, ::3].tolist() == row
    assert all(path.read_bytes() in original for path in (tmp_path / "data").rglob("*.jpg"))


def test_voc_classes_are_in_their_order(tmp_path: Path) -> None:
    classes, _ = prepare_data.find_examples("voc", tmp_path)
    assert (classes[1], classes[15], classes[20]) == ("aeroplane", "person", "tvmonitor")
    assert classes[1:] == sorted(classes[1:])


@pytest.mark.parametrize("dataset", DOWNLOADS)
def test_without_a_network_there_is_one_line_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    for module in ("voc", "oxford_iiit_pet"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", fail)
    with pytest.raises(UserError, match=rf"^cannot download {dataset}: no route; --dataset digits"):
        prepare(dataset, tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_missing_scikit_learn_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[demo\]'"):
        prepare("digits", tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_touched(tmp_path: Path) -> None:
    save(grey(1), tmp_path / "mine.png")
    with pytest.raises(UserError, match="is already there: delete it, or name another"):
        prepare("fake", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]
