"""What is shown and predicted: sheets, masks, and files of any size."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Parse, grey, run, save
from PIL import Image
from torch import Tensor

import data
from engine.exits import UserError
from engine.images import BadImageError, palette, read_image, read_labels

from unetsegmenter import UNetSegmenter

# By this name, lines stay as long as they are, whatever the model is called.
Model = UNetSegmenter

CLASSES = ["sky", "sea", "land"]
OPTIONS = argparse.Namespace(channels=3)
SMALL = ("--width=4", "--depth=1")


@pytest.fixture
def model(parse: Parse) -> Model:
    torch.manual_seed(0)
    return Model(parse(*SMALL), CLASSES).eval()


def make_images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def parse_inputs(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    data.add_input_arguments(parser)
    parser.add_argument("--export")
    return parser.parse_args(flags)


def test_inputs_keep_their_size_unless_told_otherwise(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    save(Image.fromarray(pixels), tmp_path / "b" / "color.png")
    save(grey(7), tmp_path / "a.png")
    (first, small), (second, large) = data.read_inputs(parse_inputs(str(tmp_path)), OPTIONS)
    assert (first.name, second.name) == ("a.png", "color.png")
    assert torch.equal(small, torch.full((3, 8, 8), 7, dtype=torch.uint8))
    assert torch.equal(large.permute(1, 2, 0), torch.from_numpy(pixels))
    inputs = data.read_inputs(parse_inputs(str(tmp_path), "--longer_side=18"), OPTIONS)
    assert [tuple(image.shape) for _, image in inputs] == [(3, 18, 18), (3, 10, 18)]


def test_nothing_to_run_on_is_one_line() -> None:
    with pytest.raises(UserError, match="name files or folders to run on, or --export"):
        data.check_inputs(parse_inputs())
    data.check_inputs(parse_inputs("--export=x.pt2"))
    with pytest.raises(UserError, match="--longer_side -1: give 0 or more"):
        data.check_inputs(parse_inputs("a.png", "--longer_side=-1"))
    with pytest.raises(UserError, match=r"gone\.png: no such file"):
        data.read_inputs(parse_inputs("gone.png"), OPTIONS)


def test_bad_file_is_named_at_its_turn(tmp_path: Path) -> None:
    save(grey(7), tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    inputs = data.read_inputs(parse_inputs(str(tmp_path)), OPTIONS)
    next(inputs)
    with pytest.raises(BadImageError, match=r"b\.png: not an image"):
        next(inputs)


def test_predict_writes_masks_of_images_of_any_size(trained: Path, tmp_path: Path) -> None:
    sizes = {"a": (8, 8), "b": (8, 8), "c": (13, 1), "d": (30, 21)}
    for name, size in sizes.items():
        save(Image.new("RGB", size, "red"), tmp_path / "in" / f"{name}.png")
    flags = f"--path_to_checkpoint={trained}", "--device=cpu", f"--output_dir={tmp_path / 'out'}"
    process = run("predict.py", *flags, tmp_path / "in")
    assert process.returncode == 0, process.stderr
    for line, (name, (width, height)) in zip(
        process.stdout.splitlines(), sizes.items(), strict=True
    ):
        mask, overlay = (tmp_path / "out" / f"{name}_{what}.png" for what in ("mask", "overlay"))
        assert line.startswith(f"{tmp_path / 'in' / name}.png: {mask}, {overlay}, share of ")
        assert read_labels(mask).shape == (height, width)
        assert read_labels(mask).max() < 4
        assert read_image(overlay, 3).size == (width, height)
    with Image.open(mask) as image:
        assert image.mode == "P"


@pytest.mark.parametrize("channels", [1, 3])
def test_sheet_shows_image_prediction_and_target(parse: Parse, channels: int) -> None:
    model = Model(parse(*SMALL, f"--channels={channels}"), CLASSES).eval()
    images, masks = make_images(5, channels, 16, 16), make_images(5, 16, 16) % 3
    (sheet,) = model.pictures((images, masks)).values()
    assert sheet.shape == (3, 3 * 18 + 2, 6 * 18 + 2)
    assert 0 <= sheet.min() < sheet.max() <= 1
    shown = (images[0] / 255).expand(3, -1, -1)
    predicted = model.predict(images[:1])[0]["mask"]
    for column, mask in enumerate((torch.zeros(16, 16), predicted, masks[0])):
        picture = sheet[:, 2:18, 2 + 18 * column : 18 + 18 * column]
        colors = torch.from_numpy(palette())[mask.long()].permute(2, 0, 1) / 255
        expected = torch.where(mask == 0, shown, (shown + 2 * colors) / 3)
        torch.testing.assert_close(picture, expected)
    assert len(model.pictures((make_images(40, channels, 8, 8), make_images(40, 8, 8)))) == 1


@pytest.mark.parametrize("shape", [(1, 1), (7, 30), (16, 16)])
def test_prediction_is_what_the_exported_module_finds_likeliest(
    model: Model, shape: tuple[int, int]
) -> None:
    images = make_images(2, 3, *shape)
    results = model.predict(images)
    masks = torch.stack([result["mask"] for result in results])
    assert masks.dtype == torch.uint8
    assert torch.equal(masks, model.inference_module()(images).argmax(1).byte())
    for result, image in zip(results, images, strict=True):
        assert result["overlay"].shape == image.shape
        shares = {name: result.get(f"share of {name}", 0.0) for name in CLASSES}
        counts = [int((result["mask"] == number).sum()) for number in range(3)]
        assert list(shares.values()) == [count / result["mask"].numel() for count in counts]
        assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(("depth", "stride"), [(0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (0, 4)])
def test_tiles_give_the_probabilities_of_the_whole_image(
    parse: Parse, depth: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    flags = "--width=4", f"--depth={depth}", f"--stride={stride}"
    model = Model(parse(*flags), CLASSES).eval()
    image = make_images(1, 3, 333, 150)
    whole = model.segment(image)
    assert torch.equal(whole, model.inference_module()(image))
    sides = []
    monkeypatch.setattr("unetsegmenter.TILE", 128)
    monkeypatch.setattr("unetsegmenter.RAMP", 16)
    model.network.register_forward_hook(lambda *each: sides.extend(each[1][0].shape[2:]))
    tiled = model.segment(image)
    assert max(sides) == 128
    torch.testing.assert_close(tiled, whole, atol=1e-4, rtol=0)


def test_networks_that_see_farther_than_a_quarter_of_a_tile_still_fit(
    parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = Model(parse("--width=4", "--depth=4"), CLASSES).eval()
    image = make_images(1, 3, 200, 300)
    whole = model.segment(image)
    monkeypatch.setattr("unetsegmenter.TILE", 128)
    tiled = model.segment(image)
    assert torch.isfinite(tiled).all()
    assert (tiled - whole).abs().mean() < 0.02
