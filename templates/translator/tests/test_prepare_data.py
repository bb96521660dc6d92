"""Tests of prepare_data.py: pairs of two photographs, disjoint for training and test."""

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

import prepare_data
from engine.exits import UserError


def prepare(dataset: str, target: Path) -> None:
    prepare_data.main(argparse.Namespace(dataset=dataset, path_to_data=str(target)))


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    datasets = pytest.importorskip("sklearn.datasets", reason="the photographs need scikit-learn")
    return list(datasets.load_sample_images().images)


@pytest.fixture(scope="module")
def superres(photographs: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    del photographs  # they are there
    target = tmp_path_factory.mktemp("superres") / "data"
    prepare("superres", target)
    return target


def test_every_target_has_its_input(superres: Path) -> None:
    for split, count in (("train", 340), ("test", 16)):
        inputs, targets = (
            sorted((superres / split / kind).iterdir()) for kind in ("input", "target")
        )
        assert [path.name for path in inputs] == [path.name for path in targets]
        assert len(targets) == count
        for small, large in zip(inputs, targets, strict=True):
            target = Image.fromarray(read(large))
            assert target.size == (96, 96)
            shrunk = target.resize((24, 24), Image.Resampling.BICUBIC)
            assert np.array_equal(read(small), np.asarray(shrunk))


def test_no_pixel_is_in_both_splits(photographs: list[np.ndarray]) -> None:
    """Whatever the middle of the photographs shows, training tiles stay the same; and so on."""
    whole = list(prepare_data.cut_photographs())
    for kept in ("train", "test"):
        changed = [photograph.copy() for photograph in photographs]
        for photograph in changed:
            if kept == "train":
                photograph[:, 192:384] = 0
            else:
                photograph[:, :192] = photograph[:, 384:] = 0
        bunch = SimpleNamespace(images=changed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sklearn.datasets.load_sample_images", lambda bunch=bunch: bunch)
            again = list(prepare_data.cut_photographs())
        for (split, tile), (_, other) in zip(whole, again, strict=True):
            is_same = np.array_equal(np.asarray(tile), np.asarray(other))
            assert is_same == (split == kept)


def test_inputs_of_the_other_tasks(photographs: list[np.ndarray]) -> None:
    target = Image.fromarray(photographs[0]).crop((150, 100, 246, 196))
    grey = prepare_data.make_input(target, "colorize")
    assert (grey.mode, grey.size) == ("L", (96, 96))
    assert np.array_equal(np.asarray(grey), np.asarray(ImageOps.grayscale(target)))
    edges = np.asarray(prepare_data.make_input(target, "edges"))
    assert edges.shape == (96, 96)
    flat = np.asarray(prepare_data.make_input(Image.new("RGB", (96, 96), "red"), "edges"))
    assert flat[1:-1, 1:-1].min() == 255  # no edges, no lines
    assert edges.min() < 100


def test_fake_is_the_same_every_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        prepare("fake", tmp_path / name)
    assert "256 train, 64 test pairs\ntrain on it with --scale 4\n" in capsys.readouterr().out
    files = [
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*.png")
        }
        for name in ("a", "b")
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 2 * (256 + 64)


def test_missing_scikit_learn_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[demo\]'"):
        prepare("superres", tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is already there: delete it, or name another"):
        prepare("fake", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
