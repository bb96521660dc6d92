"""Image files read right: upright, scaled, opaque, and with the path in every error."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.v2 import functional

from engine.exits import UserError

# Numbers of tags, and what they say, in the TIFF 6.0 specification.
_BITS_PER_SAMPLE = 258
_PHOTOMETRIC = 262
_ORIENTATION = 274
_WHITE_IS_ZERO = 0

GREY = 128  # of the pixels around a picture, in [0, 255]
IGNORED = 255  # number of the pixels of a mask that belong to no class


class BadImageError(UserError):
    """A file that cannot become pixels: one line with its path and the reason."""


def read_image(
    path: str | os.PathLike[str], channels: int, least_side: int | None = None
) -> Image.Image:
    """Reads a file as 8-bit grey (`channels` 1, mode L) or color (`channels` 3, mode RGB).

    A JPEG file is read at a half, a quarter or an eighth of its size where that leaves both sides
    at least twice `least_side` pixels long, in less time.

    The EXIF orientation is applied. Transparent pixels show a white background. Of an animation or
    a stack of pages, the first is read. What has more than 8 bits is scaled, never clipped:
    unsigned integers from 0 to the highest value of their depth (65535 for 16 bits), floats from
    0 to 1. Other integers are refused, since nothing says which value is white.

    Raises:
        BadImageError: the file is missing, empty, cut short, or no image.
        UserError: the file may be fine, but the machine does not hand it out.
    """
    try:
        with Image.open(path) as image:
            if least_side and image.format == "JPEG":
                image.draft(None, (2 * least_side, 2 * least_side))
            image.load()
            return _convert(image, "L" if channels == 1 else "RGB")
    except MemoryError:
        raise
    except Exception as error:  # on broken bytes, Pillow's decoders raise nearly anything
        if isinstance(error, OSError) and error.errno and Path(path).is_file():
            # Not the file's fault: permissions, too many open files, a dying disk.
            raise UserError(f"{path}: {error.strerror}") from None
        raise BadImageError(f"{path}: {_explain(Path(path), error)}") from None


def decode(path: str, channels: int, side: int) -> NDArray[np.uint8]:
    """Reads an image file and resizes it to a square: uint8 of shape (C, side, side).

    Raises:
        BadImageError: the file is bad.
    """
    image = functional.resize(read_image(path, channels, side), [side, side], antialias=True)
    pixels = np.asarray(image).reshape(side, side, channels)  # (H, W, C)
    return pixels.transpose(2, 0, 1).copy()  # (C, H, W), contiguous


def read_pixels(path: str, channels: int) -> NDArray[np.uint8]:
    """Reads an image file as large as it is: uint8 of shape (C, H, W).

    Raises:
        BadImageError: the file is bad.
    """
    image = read_image(path, channels)
    pixels = np.asarray(image).reshape(image.height, image.width, channels)
    return pixels.transpose(2, 0, 1).copy()


def read_size(path: str) -> tuple[int, int] | None:
    """Returns width and height of an image held upright, without its pixels; None if it is bad."""
    try:
        with Image.open(path) as image:
            is_lying = image.getexif().get(_ORIENTATION, 1) >= 5
            return (image.height, image.width) if is_lying else image.size
    except Exception:  # on broken bytes, Pillow raises nearly anything; who reads it, says what
        return None


def placement(width: int, height: int, side: int) -> tuple[int, int, int, int]:
    """Returns where a picture lies in the square it is padded to, its sides in proportion.

    Args:
        width: of the picture, in pixels.
        height: likewise.
        side: of the square.

    Returns:
        Width and height of the resized picture, and the columns and rows before it.
    """
    longer = max(width, height)
    columns, rows = (max(1, round(length * side / longer)) for length in (width, height))
    return columns, rows, (side - columns) // 2, (side - rows) // 2


def decode_padded(path: str, channels: int, side: int) -> NDArray[np.uint8]:
    """Reads an image file into a square, its sides in proportion: uint8 of shape (C, side, side).

    What it leaves free is grey.

    Raises:
        BadImageError: the file is bad.
    """
    image = read_image(path, channels, side)
    columns, rows, left, top = placement(*image.size, side)
    resized = functional.resize(image, [rows, columns], antialias=True)
    pixels = np.full((side, side, channels), GREY, np.uint8)
    pixels[top : top + rows, left : left + columns] = np.asarray(resized).reshape(
        rows, columns, channels
    )
    return pixels.transpose(2, 0, 1).copy()  # (C, H, W), contiguous


def read_labels(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Reads a mask, (H, W): of each pixel the number of its class, as a palette or as 8-bit grey.

    Raises:
        BadImageError: the file is missing, cut short, no image, or its pixels are no numbers.
    """
    try:
        with Image.open(path) as image:
            if image.mode in ("P", "L"):
                return np.asarray(image)
            fault = f"mode {image.mode}; a mask has a palette, or 8 bits of grey, for classes"
    except Exception as error:  # on broken bytes, Pillow's decoders raise nearly anything
        fault = _explain(Path(path), error)
    raise BadImageError(f"{path}: {fault}")


def check_labels(path: str, image: str, labels: NDArray[np.uint8], num_classes: int) -> None:
    """Raises BadImageError if a mask does not go with its image, or its numbers with the classes.

    A bad image raises nothing here: it is named when it is read.

    Args:
        path: of the mask.
        image: path of the image.
        labels: numbers that were read from the mask, whatever their shape.
        num_classes: numbers are below it, or `IGNORED`.
    """
    with suppress(OSError):
        given, wanted = ("{}x{}".format(*_find_size(each)) for each in (path, image))
        if given != wanted:
            raise BadImageError(f"{path}: {given} pixels, but its image {image} has {wanted}")
    highest = labels[labels != IGNORED].max(initial=0)
    if highest >= num_classes:
        known = f"{num_classes} classes, 0 to {num_classes - 1}"
        raise BadImageError(
            f"{path}: a pixel of class {highest}, but there are {known}; what does not count is "
            f"{IGNORED}"
        )


def _find_size(path: str) -> tuple[int, int]:
    """Returns width and height of an image, upright, from the beginning of its file."""
    with Image.open(path) as image:
        width, height = image.size
        with suppress(Exception):  # a broken note in a file does not spoil its pixels
            if image.getexif().get(ExifTags.Base.Orientation, 1) >= 5:  # it lies on its side
                return height, width
        return width, height


def decode_labels(path: str, channels: int, side: int) -> NDArray[np.uint8]:
    """Reads a mask into a square as `decode_padded` does its image: uint8 of shape (1, side, side).

    Each pixel takes its nearest's number. What the mask leaves free is `IGNORED`.

    Raises:
        BadImageError: the file is bad.
    """
    del channels  # of numbers there is one
    labels = Image.fromarray(read_labels(path))
    columns, rows, left, top = placement(*labels.size, side)
    resized = labels.resize((columns, rows), Image.Resampling.NEAREST)
    numbers = np.full((1, side, side), IGNORED, np.uint8)
    numbers[0, top : top + rows, left : left + columns] = np.asarray(resized)
    return numbers


def palette() -> NDArray[np.uint8]:
    """Returns a color for each number of a class, (256, 3), near numbers far apart.

    Bits of a number go to red, green and blue in turn, the last ones to the brightest: the colors
    of the masks of PASCAL VOC. 0 is black, `IGNORED` nearly white.
    """
    numbers = np.arange(256)
    colors = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colors[:, bit % 3] |= ((numbers >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colors


def write_labels(labels: NDArray[np.uint8], path: Path) -> None:
    """Writes the numbers of classes, (H, W), as a PNG with a palette, which `read_labels` reads."""
    image = Image.fromarray(labels)
    image.putpalette(palette().tobytes())
    image.save(path)


def _explain(path: Path, error: Exception) -> str:
    """Returns the reason why a file could not be read, in a few words."""
    if path.is_symlink() and not path.exists():
        return f"broken link to {path.readlink()}"
    if not path.exists():
        return "no such file"
    if not path.is_file():
        return "not a file"
    if not path.stat().st_size:
        return "empty file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, cut short, or of a kind that Pillow cannot read"
    return " ".join(str(error).split()) or type(error).__name__


def _convert(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    """Returns a loaded image upright, opaque, with 8 bits a channel, in the given mode."""
    with suppress(Exception):  # a broken note in a file does not spoil its pixels
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode[0] in "IF":
        image = _scale(image)
    elif image.has_transparency_data:
        color = image.convert("RGBA")
        white = Image.new("RGBA", color.size, "white")
        image = Image.alpha_composite(white, color)
    return image if image.mode == mode else image.convert(mode)


def _scale(image: Image.Image) -> Image.Image:
    """Scales a grey image of more than 8 bits (modes I, I;16 and F) to 8 bits, mode L.

    Raises:
        ValueError: nothing says which value is white.
    """
    pixels = np.asarray(image)
    if image.mode == "F":
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # false for NaN too
            raise ValueError("float pixels outside 0 to 1; scale them or save 8 bits a channel")
        return Image.fromarray((pixels * 255 + 0.5).astype(np.uint8))
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # these two hold 16 bits at most
        raise ValueError("signed or 32-bit pixels have no known white; save 8 or 16 bits unsigned")
    tags = getattr(image, "tag_v2", {})
    white = 2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1  # 4095 in a TIFF of 12 bits
    grey = (pixels.astype(np.uint32) * 255 + white // 2) // white
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts these up to 8 bits only
        grey = 255 - grey
    grey[pixels == image.info.get("transparency", -1)] = 255  # the one value a PNG calls clear
    return Image.fromarray(grey.astype(np.uint8))
