"""What predict.py runs on: files and folders."""

import argparse
from pathlib import Path

import pytest
import torch
from conftest import SIZE, grey, run, save

import data
from engine.exits import UserError
from engine.images import BadImageError


def parse(*flags: str, size: int = SIZE) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    options = parser.parse_args(flags)
    options.img_size = size
    return options


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes of two images; an image's level tells its file."""
    for label, name in enumerate(("cat", "dog")):
        for number in range(2):
            path = tmp_path / "data" / "test" / name / f"{number}.png"
            save(grey(100 * label + number), path)
    return tmp_path / "data"


def named(*paths: Path) -> argparse.Namespace:
    return argparse.Namespace(paths=[str(path) for path in paths])


@pytest.mark.parametrize("channels", [1, 3])
def test_files_and_folders(tree: Path, channels: int) -> None:
    odd = save(grey(5), tree / "odd.png").rename(tree / "odd")
    options = parse(f"--channels={channels}", "--flip", size=5)
    inputs = list(data.read_inputs(named(odd, tree / "test"), options))
    names = [path.relative_to(tree).as_posix() for path, _ in inputs]
    folder = ["test/cat/0.png", "test/cat/1.png", "test/dog/0.png", "test/dog/1.png"]
    assert names == ["odd", *folder]
    assert [int(image[0, 0, 0]) for _, image in inputs] == [5, 0, 1, 100, 101]
    assert all(image.shape == (channels, 5, 5) for _, image in inputs)
    assert all(image.dtype == torch.uint8 for _, image in inputs)


def test_no_paths_no_images() -> None:
    assert list(data.read_inputs(named(), parse())) == []


def test_missing_path_is_refused_at_once(tree: Path) -> None:
    with pytest.raises(UserError, match="gone: no such file or folder"):
        data.read_inputs(named(tree, tree / "gone"), parse())


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images in this folder, nor in those below it"):
        data.read_inputs(named(tmp_path), parse())


def test_bad_file_is_named(tree: Path) -> None:
    (tree / "test" / "cat" / "1.png").write_text("no image")
    with pytest.raises(BadImageError, match=r"1\.png: not an image"):
        list(data.read_inputs(named(tree), parse()))


def test_nothing_to_run_on_is_refused_first(tmp_path: Path) -> None:
    process = run("predict.py", "--path_to_checkpoint=gone.pt")
    assert (process.returncode, process.stderr.count("\n")) == (2, 1)
    assert "name files or folders to run on, or --export MODEL.pt2" in process.stderr


def test_predict_takes_files_and_folders(trained: Path, path_to_data: str) -> None:
    images = sorted(Path(path_to_data, "test").rglob("*.png"))
    flags = f"--path_to_checkpoint={trained}", "--batch_size=5"
    process = run("predict.py", *flags, images[0], Path(path_to_data, "test"))
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert len(lines) == len(images) + 1
    assert lines[0].startswith(f"{images[0]}: ")
    assert lines[0] == lines[1]  # a file alone gives what it gives in a batch
