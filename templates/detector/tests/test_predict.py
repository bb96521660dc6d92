"""What is shown and predicted: boxes on images of any size, and lists of them."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Parse, grey, run, save
from PIL import Image

import data
from engine.exits import UserError
from engine.images import BadImageError, read_image
from ops import decode, make_priors

from yolov3 import YOLOv3

# By this name, lines stay as long as they are, whatever the model is called.
Model = YOLOv3
CLASSES = ["cross", "disc", "frame"]
OPTIONS = argparse.Namespace(channels=3)


@pytest.fixture
def model(parse: Parse) -> Model:
    torch.manual_seed(0)
    return Model(parse("--width=4"), CLASSES).eval()


def parse_inputs(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    data.add_input_arguments(parser)
    parser.add_argument("--export")
    return parser.parse_args(flags)


def test_inputs_keep_their_size(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    save(Image.fromarray(pixels), tmp_path / "b" / "color.png")
    save(grey(7), tmp_path / "a.png")
    (first, small), (second, large) = data.read_inputs(parse_inputs(str(tmp_path)), OPTIONS)
    assert (first.name, second.name) == ("a.png", "color.png")
    assert torch.equal(small, torch.full((3, 8, 8), 7, dtype=torch.uint8))
    assert torch.equal(large.permute(1, 2, 0), torch.from_numpy(pixels))


def test_nothing_to_run_on_is_one_line() -> None:
    with pytest.raises(UserError, match="name files or folders to run on, or --export"):
        data.check_inputs(parse_inputs())
    data.check_inputs(parse_inputs("--export=x.pt2"))
    with pytest.raises(UserError, match=r"gone\.png: no such file"):
        data.read_inputs(parse_inputs("gone.png"), OPTIONS)


def test_bad_file_is_named_at_its_turn(tmp_path: Path) -> None:
    save(grey(7), tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    inputs = data.read_inputs(parse_inputs(str(tmp_path)), OPTIONS)
    next(inputs)
    with pytest.raises(BadImageError, match=r"b\.png: not an image"):
        next(inputs)


def see_one(model: Model, monkeypatch: pytest.MonkeyPatch, place: int, label: int) -> None:
    """Has the model see one object in every image, as a prediction of zeros has it."""

    def forward(images: torch.Tensor) -> list[torch.Tensor]:
        maps = [torch.full((len(images), 3, 8, side**2), -20.0) for side in (4, 2, 1)]
        rows = torch.cat([each.permute(0, 1, 3, 2).flatten(1, 2) for each in maps], dim=1)
        rows[:, place, :4], rows[:, place, [4, 5 + label]] = 0, 20.0
        parts = rows.split([48, 12, 3], dim=1)
        return [
            part.unflatten(1, (3, side, side)).permute(0, 1, 4, 2, 3).flatten(1, 2)
            for part, side in zip(parts, (4, 2, 1), strict=True)
        ]

    monkeypatch.setattr(model.network, "forward", forward)


@pytest.mark.parametrize("size", [(32, 32), (64, 128), (100, 50)])
def test_boxes_are_in_pixels_of_the_original(
    model: Model, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    height, width = size
    see_one(model, monkeypatch, place=48 + 4 + 1, label=1)
    inputs = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    for result in model.predict(inputs):
        (found,) = result["objects"]
        assert found["class"] == "disc"
        assert found["score"] == 1
        prior = make_priors(model.anchors, 32)[48 + 4 + 1]
        left, top, right, bottom = decode(torch.zeros(4), prior).clamp(0, 32).tolist()
        scale = max(size) / 32
        x, y = (max(0.0, (max(size) - side) / 2) for side in (width, height))
        expected = [left * scale - x, top * scale - y, right * scale - x, bottom * scale - y]
        limits = [width, height] * 2
        cut = [min(max(0.0, a), b) for a, b in zip(expected, limits, strict=True)]
        assert found["box"] == pytest.approx(cut, abs=0.02)
        picture = result["image"]
        factor = picture.shape[1] // height
        assert picture.shape == (3, factor * height, factor * width)
        assert 0 == picture.min() < picture.max() <= 1


def test_threshold_decides_what_is_shown(parse: Parse) -> None:
    images = torch.randint(0, 256, (1, 3, 40, 50), dtype=torch.uint8)
    counts = []
    for score in (0.0, 0.9):
        torch.manual_seed(0)
        model = Model(parse("--width=4", f"--score={score}"), CLASSES).eval()
        counts.append(len(model.predict(images)[0]["objects"]))
    assert counts == [100, 0]


@pytest.mark.parametrize("channels", [1, 3])
def test_truth_stands_beside_what_was_found(
    parse: Parse, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(parse("--width=4", f"--channels={channels}"), CLASSES).eval()
    see_one(model, monkeypatch, place=0, label=2)
    images = torch.zeros(3, channels, 32, 32, dtype=torch.uint8)
    boxes = torch.tensor([[[4.0, 4, 20, 20]]] * 3)
    labels = torch.tensor([[1], [0], [-1]])
    (sheet,) = model.pictures((images, boxes, labels)).values()
    assert sheet.shape == (3, 2 + 258, 2 + 6 * 258)
    shown = [sheet[:, 2:258, 2 + 258 * number : 258 * (number + 1)] for number in range(6)]
    assert [bool(each.any()) for each in shown] == [True, True, True, True, False, True]
    assert shown[0][:, 32, 32:160].any(dim=0).all()  # eight times as large
    assert not torch.equal(shown[0], shown[2])  # another class has another color
    assert torch.equal(shown[1], shown[3])


def test_predict_writes_boxes_and_lists(trained: Path, tmp_path: Path) -> None:
    sizes = {"a": (8, 8), "b": (8, 8), "c": (13, 1), "d": (300, 210)}
    for name, size in sizes.items():
        save(Image.new("RGB", size, "red"), tmp_path / "in" / f"{name}.png")
    flags = f"--path_to_checkpoint={trained}", "--device=cpu", f"--output_dir={tmp_path / 'out'}"
    process = run("predict.py", *flags, tmp_path / "in")
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    for line, (name, (width, height)) in zip(lines, sizes.items(), strict=True):
        ends = "image.png", "objects.json"
        image, objects = (tmp_path / "out" / f"{name}_{end}" for end in ends)
        assert line == f"{tmp_path / 'in' / name}.png: {image}, {objects}"
        factor = -(-256 // max(width, height))
        assert read_image(image, 3).size == (factor * width, factor * height)
        for each in json.loads(objects.read_text(encoding="utf-8")):
            assert each.keys() == {"class", "score", "box"}
            assert each["class"] in CLASSES
            assert all(0 <= a <= b for a, b in zip(each["box"], (width, height) * 2, strict=True))
