"""Tests of data.py: boxes that move along, batches that are padded, and what stops a run."""

import argparse
import functools
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

import data
from engine.exits import UserError
from engine.images import BadImageError

# Of each image its size, and its objects: category, and box as COCO has it.
TREE: dict[str, list[tuple[tuple[int, int], list[tuple[int, list[float]]]]]] = {
    "train": [
        ((64, 64), [(7, [8, 16, 20, 10]), (3, [40, 40, 24, 24])]),
        ((128, 64), [(3, [100, 0, 20, 64])]),
        ((20, 40), []),
        ((64, 64), [(7, [0, 0, 64, 32]), (7, [1, 2, 3, 4]), (3, [30, 30, 5, 9])]),
    ],
    "test": [((64, 64), [(3, [10, 10, 10, 10])]), ((32, 16), [])],
}
NAMES = {3: "cat", 7: "dög 犬"}


def parse(*flags: str, path: Path = Path("data"), size: int = 64) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    parser.set_defaults(zoom=1.0)
    options = parser.parse_args(flags)
    options.path_to_data = str(path)
    options.img_size = size
    options.device = "cpu"
    return options


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Images of both splits, white where the first object of each is."""
    root = tmp_path / "data"
    for split, pictures in TREE.items():
        images: list[dict[str, object]] = []
        annotations: list[dict[str, object]] = []
        for number, (size, objects) in enumerate(pictures):
            name = f"{'ab'[number % 2]}/{number}.png"
            pixels = np.zeros((size[1], size[0], 3), np.uint8)
            for _, (left, top, width, height) in objects[:1]:
                pixels[int(top) : int(top + height), int(left) : int(left + width)] = 255
            save(Image.fromarray(pixels), root / split / "images" / name)
            images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
            for category, box in objects:
                entry = {"image_id": number, "category_id": category, "bbox": box}
                annotations.append(entry | {"id": len(annotations)})
        categories = [{"id": number, "name": name} for number, name in NAMES.items()]
        write(root / split, images=images, annotations=annotations, categories=categories)
    return root


def write(folder: Path, **content: object) -> None:
    (folder / "annotations.json").write_text(json.dumps(content), encoding="utf-8")


def change(folder: Path, kind: str, place: int, **values: object) -> None:
    """Changes an entry of the annotations."""
    content = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    content[kind][place] |= values
    write(folder, **content)


def white(image: Tensor) -> list[int]:
    """Returns the box around the white pixels of an image, (C, H, W)."""
    rows, columns = ((image[0] > 127 + 64).any(dim=axis).nonzero() for axis in (1, 0))
    ends = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return [int(end) for end in ends]


def test_objects_come_with_their_images(tree: Path) -> None:
    training_set, test_set = data.build_datasets(parse(path=tree))
    assert training_set.classes == test_set.classes == ["cat", "dög 犬"]
    assert (len(training_set), len(test_set)) == (4, 2)
    image, boxes, labels = training_set[0]
    assert (image.dtype, image.shape) == (torch.uint8, (3, 64, 64))
    assert boxes.tolist() == [[8, 16, 28, 26], [40, 40, 64, 64], [0, 0, 0, 0]]
    assert labels.tolist() == [1, 0, -1]
    assert training_set[1][2].tolist() == [-1, -1, -1]  # sorted by name: a/2.png is next
    with pytest.raises(IndexError):
        training_set[4]
    assert default_collate([training_set[0], training_set[3]])[1].shape == (2, 3, 4)


@pytest.mark.parametrize("size", [32, 64, 96])
def test_boxes_move_into_the_square(tree: Path, size: int) -> None:
    for split in data.build_datasets(parse(path=tree, size=size)):
        for image, boxes, labels in (split[index] for index in range(len(split))):
            if labels[0] >= 0:
                first = torch.tensor(white(image)).float()
                torch.testing.assert_close(boxes[0], first, atol=1.0, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_are_padded_to_the_most_of_one_of_them(tree: Path, channels: int) -> None:
    training_set, _ = data.build_datasets(parse(f"--channels={channels}", path=tree))
    images, boxes, labels = training_set.get_batch(np.array([1, 2, 0]), draw_nothing)
    assert images.shape == (3, channels, 64, 64)
    assert (boxes.shape, labels.shape) == ((3, 2, 4), (3, 2))
    assert labels.tolist() == [[-1, -1], [0, -1], [1, 0]]
    _, boxes, labels = training_set.get_batch(np.array([1] * 3), draw_nothing)
    assert labels.tolist() == [[-1]] * 3
    assert not boxes.any()


def draw_nothing(count: int) -> np.ndarray:
    return np.zeros((3, count), np.float32)  # nor is it asked for what the flags do not change


def as_numpy(draws: Tensor, count: int) -> np.ndarray:
    assert draws.shape[1] == count
    return draws.numpy()


def draw(training_set: data.AnnotatedImages, draws: Tensor) -> data.Batch:
    indices = np.array([0, 2, 3, 0])[: len(draws)]
    return training_set.get_batch(indices, lambda _: draws.numpy())


@pytest.mark.parametrize("flag", ["--flip", "--zoom=1.5"])
def test_what_is_changed_keeps_its_box(tree: Path, flag: str) -> None:
    torch.manual_seed(0)
    training_set, _ = data.build_datasets(parse(flag, path=tree))
    for _ in range(20):
        images, boxes, labels = draw(training_set, torch.rand(3, data.Augmentation.draws))
        assert boxes.min() >= 0
        assert boxes.max() <= 64
        for image, own, names in zip(images, boxes, labels, strict=True):
            if names[0] >= 0:
                first = torch.tensor(white(image)).float()
                torch.testing.assert_close(own[0], first, atol=1.5, rtol=0)


def test_mosaic_is_of_this_image_and_three_others(tree: Path) -> None:
    training_set, _ = data.build_datasets(parse("--mosaic=1", path=tree))
    draws = torch.zeros(1, data.Augmentation.draws)
    draws[0, :6] = torch.tensor([0.3, 0.6, 0.9, 0.0, 0.5, 0.5])  # the others, and the center
    images, boxes, labels = draw(training_set, draws)
    plain = [training_set.store.read(np.array([index]))[0][0] for index in range(4)]
    expected = torch.cat(
        [
            torch.cat([plain[0][:, 32:, 32:], plain[1][:, 32:, :32]], dim=2),
            torch.cat([plain[2][:, :32, 32:], plain[3][:, :32, :32]], dim=2),
        ],
        dim=1,
    )
    assert torch.equal(images[0], expected)
    found = dict(zip(map(tuple, boxes[0].tolist()), labels[0].tolist(), strict=True))
    # Of the first image its second object; the wide one's is cut at the center, and of the last
    # one's objects one is cut in halves.
    assert found[8, 8, 32, 32] == 0
    assert found[0, 0, 0, 0] == -1
    assert len(labels[0]) == 4 * 3
    assert default_collate([training_set[0], training_set[3]])[1].shape == (2, 12, 4)


def test_share_of_mosaics(tree: Path) -> None:
    training_set, _ = data.build_datasets(parse("--mosaic=0.5", path=tree))
    draws = torch.full((2, data.Augmentation.draws), 0.4)
    draws[1, 3] = 0.6
    images, boxes, labels = draw(training_set, draws)
    training_set.augmentation = None
    expected = training_set.get_batch(np.array([2]), draw_nothing)
    there = labels[1] >= 0
    for ours, theirs in zip((images[1], boxes[1][there], labels[1][there]), expected, strict=True):
        assert torch.equal(ours, theirs[0])


def test_augmentation_is_the_same_for_any_batch(tree: Path) -> None:
    flags = "--mosaic=0.7", "--zoom=1.5", "--flip", "--color_jitter=0.4"
    training_set, _ = data.build_datasets(parse(*flags, path=tree))
    draws = torch.rand(4, data.Augmentation.draws)
    images, boxes, labels = draw(training_set, draws)
    for number, index in enumerate([0, 2, 3, 0]):
        own = draws[number : number + 1]
        one = training_set.get_batch(np.array([index]), functools.partial(as_numpy, own))
        assert torch.equal(one[0][0], images[number])
        there, others = one[2][0] >= 0, labels[number] >= 0
        assert torch.equal(one[1][0][there], boxes[number][others])
        assert torch.equal(one[2][0][there], labels[number][others])


def test_anchors_are_fitted_unless_they_are_given(tree: Path) -> None:
    options = parse(path=tree)
    data.build_datasets(options)
    assert len(options.anchors) == 18
    assert options.anchors[:2] == [3, 4]  # the smallest box, and the largest
    assert options.anchors[-2:] == [64, 32]
    given = parse("--anchors", *["8"] * 18, path=tree)
    data.build_datasets(given)
    assert given.anchors == [8.0] * 18


def test_first_fault_stops_the_run_and_all_are_listed(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(tree / "train", "annotations", 1, bbox=[60, 60, 10, 10])
    change(tree / "test", "images", 0, file_name="gone.png")
    (tree / "train" / "images" / "a" / "2.png").write_text("no image")
    line = r"train/annotations\.json: annotations, id 1: .* \(--check_data lists all faults\)$"
    with pytest.raises(UserError, match=line):
        data.build_datasets(parse(path=tree))
    with pytest.raises(UserError, match=r"3 faults in annotations and images, listed above"):
        data.check_data(parse(path=tree))
    lines = capsys.readouterr().out.splitlines()
    assert [part in line for part, line in zip(("id 1", "2.png", "gone.png"), lines, strict=True)]


def test_data_in_order_passes(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.check_data(parse(path=tree))
    assert capsys.readouterr().out == "6 files and their annotations in order\n"


def test_size_that_the_annotations_belie(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(tree / "train", "images", 0, width=65)
    with pytest.raises(UserError, match=r"a/0\.png: it has 64 x 64 pixels, .* say 65 x 64"):
        data.build_datasets(parse(path=tree))
    with pytest.raises(UserError, match="1 faults"):
        data.check_data(parse(path=tree))
    assert "0.png" in capsys.readouterr().out


def test_categories_of_the_test_are_those_of_the_training(tree: Path) -> None:
    change(tree / "test", "categories", 0, name="fox")
    with pytest.raises(UserError, match=r"test: .* lacking cat, surplus fox"):
        data.build_datasets(parse(path=tree))
    change(tree / "test", "categories", 0, name=NAMES[7])
    change(tree / "test", "categories", 1, name="cat")  # by other ids, they are still the same
    assert data.build_datasets(parse(path=tree))[1][0][2].tolist() == [1]
    with pytest.raises(UserError, match=r"train: its categories are not .* surplus cat"):
        data.build_datasets(parse(path=tree), classes=[NAMES[7], "fox"])


def test_nothing_to_find_is_an_error(tree: Path) -> None:
    content = json.loads((tree / "train" / "annotations.json").read_text(encoding="utf-8"))
    write(tree / "train", **content | {"annotations": []})
    with pytest.raises(UserError, match="train: no objects in any image"):
        data.build_datasets(parse(path=tree))


@pytest.mark.parametrize("split", ["train", "test"])
def test_missing_split(tree: Path, split: str) -> None:
    (tree / split).rename(tree / "elsewhere")
    with pytest.raises(UserError, match=rf"{split}: no such folder.*prepare_data\.py"):
        data.build_datasets(parse(path=tree))
    if split == "train":
        assert len(data.build_test_set(parse(path=tree), list(NAMES.values()))) == 2


@pytest.mark.parametrize(
    "flag", ["--zoom=0.5", "--zoom=4", "--mosaic=2", "--color_jitter=-1", "--skip_bad=-1"]
)
def test_number_out_of_range(tree: Path, flag: str) -> None:
    with pytest.raises(UserError, match=r"^--\w+ -?[\d.]+: give "):
        data.build_datasets(parse(flag, path=tree))


@pytest.mark.parametrize("cache", ["off", "ram"])
def test_replaced_image_brings_its_own_objects(tree: Path, cache: str) -> None:
    (tree / "train" / "images" / "a" / "0.png").write_text("no image")
    options = parse("--skip_bad=1", f"--cache={cache}", path=tree)
    training_set, _ = data.build_datasets(options)
    for _ in range(2):
        assert training_set[0][2].tolist() == training_set[1][2].tolist()
    with pytest.raises(BadImageError, match=r"0\.png: not an image.*--check_data lists"):
        data.build_datasets(parse(f"--cache={cache}", path=tree))[0][0]


def test_fingerprint_tells_files_objects_and_flags(tree: Path) -> None:
    def fingerprint(*flags: str) -> str:
        return data.build_datasets(parse(*flags, path=tree))[0].fingerprint

    flags = "--flip", "--zoom=1.5", "--channels=1", "--mosaic=1", "--color_jitter=0.1"
    prints = [fingerprint(), *map(fingerprint, flags)]
    assert fingerprint("--cache=ram") == prints[0]
    change(tree / "train", "annotations", 0, bbox=[8, 16, 20, 11])
    prints.append(fingerprint())
    change(tree / "train", "annotations", 0, category_id=3)
    assert len({*prints, fingerprint()}) == 8


def test_workers_take_a_copy(tree: Path) -> None:
    training_set, _ = data.build_datasets(parse(path=tree))
    assert torch.equal(pickle.loads(pickle.dumps(training_set))[0][1], training_set[0][1])
    loader = DataLoader(training_set, batch_size=2, num_workers=1)
    assert [labels.shape for _, _, labels in loader] == [(2, 3)] * 2
