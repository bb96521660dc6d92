"""Tests of engine/images.py: every kind of bad file, and the pixels of the good ones."""

import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import SIZE, grey, save
from PIL import Image

from engine.checking import find_faults
from engine.exits import UserError
from engine.images import (
    IGNORED,
    BadImageError,
    check_labels,
    decode_labels,
    decode_padded,
    palette,
    placement,
    read_image,
    read_labels,
    write_labels,
)


def write_truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:3000])


def write_link(path: Path) -> None:
    path.symlink_to(path.parent / "gone.png")


def write_wide(path: Path) -> None:
    Image.fromarray(np.full((SIZE, SIZE), 70_000, np.int32)).save(path, "TIFF")


def write_float(path: Path) -> None:
    Image.fromarray(np.full((SIZE, SIZE), 200.0, np.float32)).save(path, "TIFF")


def write_nan(path: Path) -> None:
    Image.fromarray(np.full((SIZE, SIZE), np.nan, np.float32)).save(path, "TIFF")


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut.jpg": (write_truncated, "image file is truncated"),
    "empty.png": (Path.touch, "empty file"),
    "page.jpg": (lambda path: path.write_text("<html></html>"), "not an image, cut short"),
    "link.png": (write_link, "broken link to"),
    "folder.png": (Path.mkdir, "not a file"),
    "gone.png": (lambda path: None, "no such file"),
    "wide.tif": (write_wide, "signed or 32-bit pixels have no known white"),
    "float.tif": (write_float, "float pixels outside 0 to 1"),
    "nan.tif": (write_nan, "float pixels outside 0 to 1"),
}


class TestReadImage:
    @pytest.mark.parametrize("name", BAD_FILES)
    def test_bad_file_is_named_in_one_line(self, tmp_path: Path, name: str) -> None:
        write, reason = BAD_FILES[name]
        write(tmp_path / name)
        with pytest.raises(BadImageError) as error:
            read_image(tmp_path / name, 3)
        assert str(error.value).startswith(f"{tmp_path / name}: {reason}")
        assert "\n" not in str(error.value)

    def test_failing_machine_is_not_a_bad_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(path: Path) -> None:
            raise OSError(24, "Too many open files")

        path = save(grey(1), tmp_path / "a.png")
        monkeypatch.setattr(Image, "open", fail)
        with pytest.raises(UserError, match=r"a\.png: Too many open files") as error:
            read_image(path, 3)
        assert not isinstance(error.value, BadImageError)

    @pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
    @pytest.mark.parametrize("source", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LA", "RGBA"])
    def test_every_mode_becomes_grey_or_color(
        self, tmp_path: Path, source: str, channels: int, mode: str
    ) -> None:
        suffix = "tif" if source in ("CMYK", "YCbCr") else "png"
        image = Image.new("RGB", (SIZE, SIZE), "white").convert(source)
        read = read_image(save(image, tmp_path / f"a.{suffix}"), channels)
        assert read.mode == mode
        assert read.getextrema() == ((255, 255) if channels == 1 else ((255, 255),) * 3)

    def test_color_survives_cmyk_and_palette(self, tmp_path: Path) -> None:
        red = Image.new("RGB", (SIZE, SIZE), (255, 0, 0))
        for name, image in (("a.tif", red.convert("CMYK")), ("a.gif", red.convert("P"))):
            assert read_image(save(image, tmp_path / name), 3).getpixel((0, 0)) == (255, 0, 0)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_orientation_is_applied(self, tmp_path: Path, orientation: int) -> None:
        upright = np.arange(12, dtype=np.uint8).reshape(3, 4)
        stored = {
            1: upright,
            2: upright[:, ::-1],
            3: upright[::-1, ::-1],
            4: upright[::-1],
            5: upright.T,
            6: np.rot90(upright),
            7: upright[::-1, ::-1].T,
            8: np.rot90(upright, 3),
        }[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(np.ascontiguousarray(stored))
        image.save(tmp_path / "a.png", exif=exif)
        assert np.array_equal(np.asarray(read_image(tmp_path / "a.png", 1)), upright)

    def test_broken_exif_does_not_spoil_the_pixels(self, tmp_path: Path) -> None:
        grey(7).save(tmp_path / "a.png", exif=b"garbage")
        assert read_image(tmp_path / "a.png", 1).getextrema() == (7, 7)

    @pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
    def test_16_bits_are_scaled(self, tmp_path: Path, suffix: str) -> None:
        pixels = np.array([[0, 128, 257, 32768], [40000, 65278, 65535, 1]], np.uint16)
        path = save(Image.fromarray(pixels), tmp_path / f"a.{suffix}")
        expected = (pixels / 65535 * 255).round()
        assert np.array_equal(np.asarray(read_image(path, 1)), expected)
        assert np.array_equal(np.asarray(read_image(path, 3))[..., 2], expected)

    def test_16_bits_with_white_as_zero_are_inverted(self, tmp_path: Path) -> None:
        pixels = np.array([[0, 65535, 32768, 257]], np.uint16)
        path = save(Image.fromarray(pixels), tmp_path / "a.tif")
        entry = struct.pack("<HHI", 262, 3, 1)  # the tag, its type and count; the value follows
        path.write_bytes(path.read_bytes().replace(entry + b"\1", entry + b"\0"))
        assert np.asarray(read_image(path, 1)).tolist() == [[255, 0, 127, 254]]

    def test_floats_are_scaled(self, tmp_path: Path) -> None:
        path = save(Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), tmp_path / "a.tif")
        assert np.asarray(read_image(path, 1)).tolist() == [[0, 128, 255]]

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_alpha_shows_white(self, tmp_path: Path, mode: str) -> None:
        image = grey(100).convert(mode)
        image.putalpha(Image.fromarray(np.tile(np.array([0, 128, 255, 255], np.uint8), (SIZE, 2))))
        read = np.asarray(read_image(save(image, tmp_path / "a.png"), 3))
        assert np.abs(read[0, :3, 0].astype(int) - [255, 177, 100]).max() <= 1

    @pytest.mark.parametrize("mode", ["P", "L", "RGB"])
    def test_transparent_value_shows_white(self, tmp_path: Path, mode: str) -> None:
        image = Image.new(mode, (SIZE, SIZE), 0)
        image.save(tmp_path / "a.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
        assert read_image(tmp_path / "a.png", 1).getextrema() == (255, 255)

    def test_transparent_16_bit_value_shows_white(self, tmp_path: Path) -> None:
        image = Image.fromarray(np.array([[300, 20000]], np.uint16))
        image.save(tmp_path / "a.png", transparency=300)
        assert np.asarray(read_image(tmp_path / "a.png", 1)).tolist() == [[255, 78]]


def test_checking_names_every_bad_file(tmp_path: Path) -> None:
    good = save(grey(1), tmp_path / "good.png")
    for name, (write, _) in BAD_FILES.items():
        write(tmp_path / name)
    lines = find_faults(
        [str(good), *(str(tmp_path / name) for name in BAD_FILES)], partial(read_image, channels=3)
    )
    expected = [f"{tmp_path / name}: {reason}" for name, (_, reason) in BAD_FILES.items()]
    assert len(lines) == len(expected)
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((8, 8), (16, 16, 0, 0)),
        ((40, 20), (16, 8, 0, 4)),
        ((20, 40), (8, 16, 4, 0)),
        ((1, 1000), (1, 16, 7, 0)),  # no side vanishes
    ],
)
def test_pictures_lie_in_the_middle_of_their_square(
    size: tuple[int, int], expected: tuple[int, ...]
) -> None:
    assert placement(*size, 16) == expected


def test_padded_picture_keeps_its_proportions(tmp_path: Path) -> None:
    path = save(Image.new("RGB", (40, 20), "red"), tmp_path / "a.png")
    pixels = decode_padded(str(path), 3, 16)
    assert (pixels[:, 4:12] == np.array([255, 0, 0])[:, None, None]).all()
    assert (pixels[:, :4] == 128).all()
    assert (pixels[:, 12:] == 128).all()
    assert decode_padded(str(path), 1, 16).shape == (1, 16, 16)


def test_mask_lies_where_its_picture_does(tmp_path: Path) -> None:
    labels = np.repeat([[7, 3]], 20, axis=1).repeat(20, axis=0).astype(np.uint8)  # (20, 40)
    write_labels(labels, tmp_path / "a.png")
    numbers = decode_labels(str(tmp_path / "a.png"), 1, 16)
    assert numbers.shape == (1, 16, 16)
    assert (numbers[0, 4:12, :8] == 7).all()
    assert (numbers[0, 4:12, 8:] == 3).all()
    assert (numbers[0, :4] == IGNORED).all()
    assert (numbers[0, 12:] == IGNORED).all()


@pytest.mark.parametrize("mode", ["L", "P"])
def test_numbers_of_a_mask_are_read_as_they_are(tmp_path: Path, mode: str) -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(labels)
    if mode == "P":
        image.putpalette(palette()[::-1].tobytes())  # whatever the colors
    assert np.array_equal(read_labels(save(image, tmp_path / "a.png")), labels)


def test_mask_that_holds_no_numbers_is_named(tmp_path: Path) -> None:
    path = save(Image.new("RGB", (4, 4)), tmp_path / "a.png")
    with pytest.raises(BadImageError, match=r"a\.png: mode RGB; a mask has a palette"):
        read_labels(path)
    with pytest.raises(BadImageError, match=r"gone\.png: no such file"):
        read_labels(tmp_path / "gone.png")


def test_colors_of_classes_differ() -> None:
    assert len(np.unique(palette(), axis=0)) == 256
    assert palette()[:3].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]


def test_mask_of_another_size_than_its_image_is_named(tmp_path: Path) -> None:
    mask, image = str(save(grey(1), tmp_path / "mask.png")), tmp_path / "image.jpg"
    note = Image.Exif()
    note[0x0112] = 6  # it lies on its side
    numbers = read_labels(mask)
    for size in ((SIZE, SIZE), (SIZE, SIZE + 1)):
        Image.new("RGB", size).save(image, exif=note)
        if size == (SIZE, SIZE):
            check_labels(mask, str(image), numbers, 2)
            continue
        with pytest.raises(BadImageError, match=r"mask\.png: 8x8 pixels, .*image\.jpg has 9x8$"):
            check_labels(mask, str(image), numbers, 2)


def test_number_beyond_the_classes_is_named(tmp_path: Path) -> None:
    path = str(save(grey(3), tmp_path / "mask.png"))
    numbers = np.array([[3, IGNORED]], np.uint8)
    check_labels(path, path, numbers, 4)
    check_labels(path, path, numbers[:, 1:], 2)  # nothing counts
    with pytest.raises(BadImageError, match=r"mask\.png: a pixel of class 3, .* 0 to 2;"):
        check_labels(path, path, numbers, 3)


def test_bad_image_is_not_named_for_its_mask(tmp_path: Path) -> None:
    path = str(save(grey(1), tmp_path / "mask.png"))
    for image in (tmp_path / "gone.png", tmp_path / "text.png"):
        (tmp_path / "text.png").write_text("no image")
        check_labels(path, str(image), read_labels(path), 2)
