"""Image files read right: upright, scaled, opaque, and with the path in every error."""

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.v2 import functional
from tqdm import tqdm

from engine.exits import UserError

_NETPBM = (".pbm", ".pgm", ".pnm", ".ppm")
IMAGE_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp", *_NETPBM)

# Numbers of tags, and what they say, in the TIFF 6.0 specification.
_BITS_PER_SAMPLE = 258
_PHOTOMETRIC = 262
_WHITE_IS_ZERO = 0


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


class FileList(Sequence[str]):
    """Paths in two arrays: workers share their memory, as they would not share a list's.

    A list's items count how often they are used, and every count is a write, which takes a copy of
    the page: a worker would grow by the whole list.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        """Returns the path at an index; an IndexError ends a loop over all."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, end = self._ends[index], self._ends[index + 1]
        return os.fsdecode(self._bytes[start:end].tobytes())


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


def check_images(paths: Sequence[str], channels: int, where: str) -> None:
    """Reads every file and prints one line for each that is bad.

    Raises:
        UserError: some are bad; the line says how many.
    """
    faults = find_faults(paths, channels)
    for fault in faults:
        print(fault)
    if faults:
        raise UserError(
            f"{where}: {len(faults)} of {len(paths)} images are bad, listed above; "
            "mend or remove them"
        )
    print(f"{len(paths)} files in order")


def find_faults(paths: Sequence[str], channels: int) -> list[str]:
    """Reads every file and returns one line, path and reason, for each that cannot be read."""
    # Pillow's decoders let go of the GIL, so threads are enough and start at once everywhere.
    with ThreadPool(min(32, os.cpu_count() or 1)) as pool:
        reasons = pool.imap(partial(_find_fault, channels=channels), paths, chunksize=16)
        bar = tqdm(reasons, total=len(paths), desc="checking", unit="file", disable=None)
        return [reason for reason in bar if reason]


def _find_fault(path: str, channels: int) -> str:
    """Returns what is wrong with a file, or nothing."""
    try:
        read_image(path, channels)
    except UserError as error:
        return str(error)
    return ""


def is_hidden(name: str) -> bool:
    """Whether a name is one that people do not see: `.x`, `._mac.jpg`, `.ipynb_checkpoints`."""
    return name.startswith(".")


def is_image_name(name: str) -> bool:
    """Whether a visible file's name has an image's extension, in lower or upper case."""
    return name.lower().endswith(IMAGE_EXTENSIONS) and not is_hidden(name)


def list_folders(folder: str | os.PathLike[str]) -> list[str]:
    """Returns the sorted names of the visible folders in a folder, links to folders included.

    Raises:
        UserError: the folder cannot be listed, or a link in it is broken.
    """
    return sorted(entry.name for entry in _scan(folder) if entry.is_dir())


def find_inputs(paths: Sequence[str]) -> list[str]:
    """Returns the paths of files, and of all images in folders and the folders below them.

    Raises:
        UserError: a path is missing, or a folder holds no images.
    """
    files: list[str] = []
    for path in paths:
        if not Path(path).exists():
            raise UserError(f"{path}: no such file or folder")
        found = list_images(path) if Path(path).is_dir() else [path]
        if not found:
            raise UserError(f"{path}: no images in this folder, nor in those below it")
        files += found
    return files


def list_images(folder: str | os.PathLike[str]) -> list[str]:
    """Returns the sorted paths of all visible images in a folder and the folders below it.

    Raises:
        UserError: a folder cannot be listed, or a link is broken or leads back up.
    """
    images = []
    for entry in _scan(folder):
        if entry.is_dir():
            if entry.is_symlink() and Path(folder).resolve().is_relative_to(Path(entry).resolve()):
                raise UserError(f"{entry.path}: this link leads back up; remove it")
            images += list_images(entry.path)
        elif is_image_name(entry.name):
            images.append(entry.path)
    return sorted(images)


def _scan(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """Returns a folder's visible entries; a broken link is an error, unless it is to an image.

    A link to an image that is gone is left for `read_image` to report, so that one run of
    `check_images` names them all.
    """
    try:
        with os.scandir(os.fspath(folder)) as found:
            entries = [entry for entry in found if not is_hidden(entry.name)]
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from None
    for entry in entries:
        if entry.is_symlink() and not is_image_name(entry.name) and not Path(entry).exists():
            raise UserError(f"{entry.path}: broken link; mend or remove it")
    return entries
