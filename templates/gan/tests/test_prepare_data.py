"""Tests of prepare_data.py: the network it trains; its data are tested beside known_data.py."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import grey, save

import prepare_data
from engine.exits import UserError
from engine.images import BadImageError
from networks import FeatureNetwork


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Dark and bright images, eight and two of each, of one's own."""
    for level in (40, 200):
        for number in range(10):
            split = "train" if number < 8 else "test"
            save(grey(level + number), tmp_path / "own" / split / str(level) / f"{number}.png")
    return tmp_path / "own"


def prepare(dataset: str, target: Path) -> None:
    prepare_data.main(argparse.Namespace(dataset=dataset, path_to_data=str(target)))


def test_features_tell_the_classes_apart(path_to_data: str) -> None:
    content = torch.load(Path(path_to_data) / "features.pt", weights_only=True)
    assert content["classes"] == sorted(content["classes"])
    network = FeatureNetwork(len(content["classes"]))
    network.load_state_dict(content["model"])
    images, labels = prepare_data.read_split(Path(path_to_data) / "test", content["classes"])
    assert (images.shape, images.dtype) == ((64, 3, 32, 32), torch.uint8)
    assert (prepare_data.predict(network, images).argmax(dim=1) == labels).float().mean() > 0.9


def test_own_images_get_features(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    prepare("own", tree)
    assert torch.equal(state, torch.get_rng_state())
    assert "features.pt tells 2 classes apart: 100.0% of the test" in capsys.readouterr().out
    first = torch.load(tree / "features.pt", weights_only=True)
    assert first["classes"] == ["200", "40"]
    prepare("own", tree)  # again: the same network
    second = torch.load(tree / "features.pt", weights_only=True)
    assert all(torch.equal(first["model"][key], value) for key, value in second["model"].items())


def test_one_folder_has_nothing_to_tell_apart(tree: Path) -> None:
    for split in ("train", "test"):
        (tree / split / "40").rename(tree / f"{split}-40")
    with pytest.raises(UserError, match=r"needs two or more folders .* --features random"):
        prepare("own", tree)


def test_bad_image_is_named(tree: Path) -> None:
    (tree / "train" / "40" / "3.png").write_text("no image")
    with pytest.raises(BadImageError, match=r"3\.png: not an image"):
        prepare("own", tree)
    assert not (tree / "features.pt").exists()


def test_no_images_for_the_test(tree: Path) -> None:
    for path in (tree / "test").rglob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match="test: no images of the classes 200, 40"):
        prepare("own", tree)


def test_missing_folder_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, prepare_data.__file__, "--dataset=own", "--path_to_data=gone"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert "gone/train: No such file" in process.stderr
