"""Which files make a data set: found in folders, and kept in little memory."""

import argparse
import hashlib
import os
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.exits import UserError, shorten

_NETPBM = (".pbm", ".pgm", ".pnm", ".ppm")
IMAGE_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp", *_NETPBM)


class FileList(Sequence[str]):
    """Paths of files in two arrays: workers share their memory, as they would not share a list's.

    A list's items count how often they are used, and every count is a write, which takes a copy of
    the page: a worker would grow by the whole list. The folder is kept once for all the files in
    it, so a file takes the bytes of its name, and five more.

    Args:
        root: folder of the split, which `digest` leaves out of the paths.
        paths: of files below it, sorted by folder.
    """

    def __init__(self, root: str | os.PathLike[str], paths: Sequence[str]) -> None:
        self._root = f"{Path(root)}{os.sep}"
        self._folders: list[str] = []
        self._firsts: list[int] = []  # number of each folder's first file
        names = []
        for number, path in enumerate(paths):
            cut = path.rfind(os.sep) + 1
            if not self._folders or path[:cut] != self._folders[-1]:
                self._folders.append(path[:cut])
                self._firsts.append(number)
            names.append(path[cut:])
        encoded = os.fsencode("\0".join([*names, ""]))
        self._names = np.frombuffer(encoded, np.uint8)
        ends = np.flatnonzero(self._names == 0)
        self._ends = ends.astype(np.uint32 if len(encoded) < 2**32 else np.uint64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        """Returns the path at an index; an IndexError ends a loop over all."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = int(self._ends[index - 1]) + 1 if index else 0
        name = os.fsdecode(self._names[start : int(self._ends[index])].tobytes())
        return self._folders[bisect_right(self._firsts, index) - 1] + name

    def digest(self) -> str:
        """Returns a hash of the paths, wherever the root lies."""
        folders = [folder.removeprefix(self._root) for folder in self._folders]
        places = repr((folders, self._firsts)).encode("utf-8", "surrogateescape")
        return hashlib.sha256(places + self._names.tobytes()).hexdigest()

    def state(self) -> str:
        """Returns a hash of the paths, sizes and times, by which a changed file is known."""
        numbers = np.array([_size_and_time(path) for path in self], np.int64)
        return hashlib.sha256(self.digest().encode() + numbers.tobytes()).hexdigest()


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116  # a Path takes ten times as long
    except OSError:  # a broken link; it is named when it is read
        return -1, -1
    return status.st_size, status.st_mtime_ns


def find_split(options: argparse.Namespace, split: str) -> Path:
    """Returns the folder of a split, "train" or "test".

    Raises:
        UserError: it does not exist.
    """
    root = Path(options.path_to_data) / split
    if not root.is_dir():
        advice = "run `python prepare_data.py`, or name your data with --path_to_data"
        raise UserError(f"{root}: no such folder; {advice}")
    return root


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


def find_pairs(root: Path, first: str, second: str) -> tuple[list[str], list[str]]:
    """Returns the paths of images of the same names, in the same order, in two folders of a split.

    Extensions may differ.

    Args:
        root: the folder of the split.
        first: name of a folder in it.
        second: likewise.

    Raises:
        UserError: there are none, two bear one name, or an image has no twin.
    """
    found = {}
    for kind in (first, second):
        folder = root / kind
        paths = list_images(folder) if folder.is_dir() else []
        if not paths:
            raise UserError(
                f"{folder}: no images; they belong in {first}/, their twins in {second}/"
            )
        start = len(f"{folder}{os.sep}")
        found[kind] = {path[start:].rpartition(".")[0]: path for path in paths}
        if twice := set(paths) - set(found[kind].values()):
            raise UserError(f"{min(twice)}: another image there has this name; rename one")
    ones, others = found[first], found[second]
    for kind, own, twins in ((second, ones, others), (first, others, ones)):
        if single := [own[name] for name in own if name not in twins]:
            raise UserError(f"{shorten(single)}: no image of this name in {root / kind}")
    return list(ones.values()), [others[name] for name in ones]


def read_names(path: Path, most: int) -> list[str]:
    """Returns the names of the classes, two or more: the class of line k has number k, from 0 on.

    Raises:
        UserError: the file is missing, or a name in it, two are equal, or there are too many.
    """
    try:
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not in UTF-8"
        line = f"{path}: {reason}; it names the classes, one a line, from number 0 on"
        raise UserError(line) from None
    names = [line.strip() for line in lines]
    for number, name in enumerate(names):
        if not name or name in names[:number]:
            fault = f"{name} is there twice" if name else f"line {number + 1} is empty"
            raise UserError(f"{path}: {fault}; name each class once, in the order of the numbers")
    if not 2 <= len(names) <= most:
        raise UserError(f"{path}: {len(names)} classes; name 2 to {most}, one a line")
    return names


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
