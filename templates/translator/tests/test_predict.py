"""What is shown and predicted: sheets, styles, and files of any size."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Parse, grey, run, save
from PIL import Image

import data
from engine.exits import UserError
from engine.images import BadImageError, read_image
from ops import enlarge, to_bytes, to_floats

from pix2pixhd import Pix2PixHD

# By this name, lines stay as long as they are, whatever the model is called.
Model = Pix2PixHD

OPTIONS = argparse.Namespace(channels=3)


@pytest.fixture
def model(parse: Parse) -> Model:
    torch.manual_seed(0)
    return Model(parse(), []).eval()


def make_batch(count: int, channels: int = 3, side: int = 16, scale: int = 4) -> list[torch.Tensor]:
    shapes = [(count, channels, each, each) for each in (side // scale, side)]
    return [torch.randint(0, 256, shape, dtype=torch.uint8) for shape in shapes]


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


def test_predict_writes_images_of_any_size(trained: Path, tmp_path: Path) -> None:
    sizes = {"a": (8, 8), "b": (8, 8), "c": (13, 1), "d": (30, 21)}
    for name, size in sizes.items():
        save(Image.new("RGB", size, "red"), tmp_path / "in" / f"{name}.png")
    flags = f"--path_to_checkpoint={trained}", "--device=cpu", f"--output_dir={tmp_path / 'out'}"
    process = run("predict.py", *flags, tmp_path / "in")
    assert process.returncode == 0, process.stderr
    for line, (name, (width, height)) in zip(
        process.stdout.splitlines(), sizes.items(), strict=True
    ):
        path = tmp_path / "out" / f"{name}_image.png"
        assert line == f"{tmp_path / 'in' / name}.png: {path}"
        assert read_image(path, 3).size == (4 * width, 4 * height)


@pytest.mark.parametrize("channels", [1, 3])
def test_sheet_shows_input_output_and_target(parse: Parse, channels: int) -> None:
    model = Model(parse(f"--channels={channels}"), []).eval()
    inputs, targets = make_batch(5, channels)
    (sheet,) = model.pictures((inputs, targets)).values()
    assert sheet.shape == (3, 3 * 18 + 2, 6 * 18 + 2)
    assert 0 <= sheet.min() < sheet.max() <= 1
    base = to_bytes(enlarge(to_floats(inputs), 4))
    for column, images in ((0, base), (2, targets)):
        shown = sheet[:, 2:18, 2 + 18 * column : 18 + 18 * column]
        torch.testing.assert_close(shown, (images[0] / 255).expand(3, -1, -1))
    assert len(model.pictures(make_batch(40, channels))) == 1


@pytest.mark.parametrize("shape", [(1, 1), (7, 30), (16, 16)])
def test_predictions_are_as_large_as_the_scale_says(
    model: Model, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = torch.randint(0, 256, (2, 3, *shape), dtype=torch.uint8)
    whole = model.predict(inputs)
    assert [result["image"].shape for result in whole] == [(3, 4 * shape[0], 4 * shape[1])] * 2
    monkeypatch.setattr("pix2pixhd.TILE", 16)
    for result, expected in zip(model.predict(inputs), whole, strict=True):
        torch.testing.assert_close(result["image"], expected["image"], atol=1.1 / 255, rtol=0)


def test_prediction_of_an_image_is_its_translation(model: Model) -> None:
    inputs, _ = make_batch(1)
    expected = to_bytes(model.generator(to_floats(inputs)))[0] / 255
    torch.testing.assert_close(model.predict(inputs)[0]["image"], expected)


def test_styles_are_shown_beside_the_mean_one(parse: Parse) -> None:
    model = Model(parse("--style_size=3", "--scale=1"), []).eval()
    inputs, _ = make_batch(2, scale=1)
    results = model.predict(inputs)
    assert [result.keys() for result in results] == [{"image", "style_1", "style_2", "style_3"}] * 2
    assert not torch.equal(results[0]["style_1"], results[0]["style_2"])
    again = model.predict(inputs[1:])
    assert torch.equal(results[1]["style_3"], again[0]["style_3"])
