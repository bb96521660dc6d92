"""Decoded images, kept: what one epoch has read from files, the next one reads from memory.

On disk, the pixels lie in a file of NumPy's own format, mapped into memory and shared by workers,
ranks and runs, in which each image has a checksum. Whoever decodes an image stores it there, so
the first epoch fills the cache while it trains, at the price of a write an image. An image is taken
from the cache only if its checksum fits: a build that was killed, a full disk, a flipped byte and
two builders at once cost a second decoding, never a wrong picture.
"""

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from engine.distributed import pick_device
from engine.exits import UserError

Pixels = NDArray[np.uint8]  # (N, C, H, W)
FOLDER = ".cache"  # in the folder of the data


class NoCache:
    """Keeps nothing: each image is decoded whenever it is read."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    def read(self, indices: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.bool_]]:
        """Returns room for the images, (N, C, H, W), and which of them are found, (N,)."""
        images = torch.empty((len(indices), *self._shape[1:]), dtype=torch.uint8)
        return images, np.zeros(len(indices), bool)

    def write(self, index: int, pixels: Pixels) -> None:
        """Takes a decoded image, (C, H, W)."""


class MemoryCache(NoCache):
    """Keeps images in memory that the workers share."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        # NumPy's zeros take no memory until they are written, so the copy is all there is.
        self._pixels = torch.from_numpy(np.zeros(shape, np.uint8)).share_memory_()
        self._sums = torch.from_numpy(np.zeros(shape[0], np.int64)).share_memory_()

    def read(self, indices: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.bool_]]:
        """Returns the images, (N, C, H, W), and which of them are found, (N,)."""
        return _check(self._pixels.numpy()[indices], indices, self._sums.numpy()[indices])

    def write(self, index: int, pixels: Pixels) -> None:
        """Takes a decoded image, (C, H, W)."""
        self._pixels.numpy()[index] = pixels
        self._sums[index] = _checksum(pixels, index)


class DeviceCache(NoCache):
    """Keeps images in the device's memory, from where they need not travel.

    A batch is gathered and changed there, too. It belongs to one process: a data loader's workers
    cannot use it, so `engine.loading` starts none.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        super().__init__(shape)
        self._pixels = torch.empty(shape, dtype=torch.uint8, device=device)
        self._found = np.zeros(shape[0], bool)

    def read(self, indices: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.bool_]]:
        """Returns the images on the device, (N, C, H, W), and which of them are found, (N,)."""
        places = torch.from_numpy(indices).to(self._pixels.device, non_blocking=True)
        return self._pixels[places], self._found[indices]

    def write(self, index: int, pixels: Pixels) -> None:
        """Takes a decoded image, (C, H, W)."""
        self._pixels[index] = torch.from_numpy(pixels)
        self._found[index] = True


class DiskCache(NoCache):
    """Keeps images in two files, `<path>.npy` and `<path>.sums.npy`.

    Args:
        path: names what is in it: another set of files, or another decoding, is another path.
        shape: (number of images, C, H, W).

    Raises:
        OSError: the files cannot be made.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self._path = path
        self._open()

    def _open(self) -> None:
        files = {
            self._path.with_suffix(".npy"): (self._shape, np.uint8),
            self._path.with_suffix(".sums.npy"): (self._shape[:1], np.int64),
        }
        for path, (shape, kind) in files.items():
            if not _has_room_for(path, shape, kind):
                _make_empty(path, shape, kind)
        arrays = [np.load(path, mmap_mode="r") for path in files]
        self._pixels, self._sums = arrays
        self._starts = [array.offset for array in arrays]
        # Written by system calls: on a full disk, to write into a mapped file ends the process.
        self._files = [os.open(path, os.O_RDWR) for path in files]
        self._is_full = False

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_shape": self._shape}  # a spawned worker opens its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._open()

    def read(self, indices: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.bool_]]:
        """Returns the images, (N, C, H, W), and which of them are found, (N,)."""
        return _check(self._pixels[indices], indices, self._sums[indices])

    def write(self, index: int, pixels: Pixels) -> None:
        """Takes a decoded image, (C, H, W); on a full disk, none from then on."""
        if self._is_full:
            return
        checksum = np.int64(_checksum(pixels, index)).tobytes()
        try:
            for file, start, content in zip(
                self._files, self._starts, (pixels.tobytes(), checksum), strict=True
            ):
                os.pwrite(file, content, start + index * len(content))
        except OSError as error:
            self._is_full = True
            line = f"{self._path.parent}: no more is cached: {error.strerror}"
            tqdm.write(f"{line}; training goes on", file=sys.stderr)


def open_cache(
    options: argparse.Namespace, root: Path, shape: tuple[int, ...], contents: Callable[[], str]
) -> NoCache:
    """Returns the cache that --cache asks for, of one split.

    Args:
        options: gives cache, and device for that on the device.
        root: folder of the split.
        shape: (number of images, C, H, W).
        contents: gives whatever decides the pixels; another text is another cache on disk.

    Raises:
        UserError: --cache asks for more room than there is.
    """
    size = int(np.prod(shape))
    if options.cache == "off" or not hasattr(os, "pwrite"):  # Windows has no such call
        return NoCache(shape)
    if options.cache == "ram":
        _check_room(size, _free_memory(), f"--cache ram: {root}")
        return MemoryCache(shape)
    if options.cache == "device":
        device = pick_device(options.device)
        is_cuda = device.type == "cuda"
        free = torch.cuda.mem_get_info(device)[0] if is_cuda else _free_memory()
        _check_room(size, free, f"--cache device: {root}")
        return DeviceCache(shape, device)
    return _open_on_disk(options.cache, root, shape, contents)


def _check_room(size: int, free: int, what: str) -> None:
    if size > free:
        line = f"{what} takes {size >> 20} MiB, and {free >> 20} MiB are free"
        raise UserError(f"{line}; try --cache auto")


def _open_on_disk(
    kind: str, root: Path, shape: tuple[int, ...], contents: Callable[[], str]
) -> NoCache:
    size = int(np.prod(shape))
    folder = root.parent / FOLDER
    digest = hashlib.sha256(repr((contents(), shape)).encode()).hexdigest()[:32]
    path = folder / f"{root.name}-{digest}"
    try:
        folder.mkdir(exist_ok=True)
        left = [each for each in folder.glob(f"{root.name}-*") if digest not in each.name]
        for old in left:  # of files that have changed since, or of another decoding
            old.unlink(missing_ok=True)
        is_new = not path.with_suffix(".npy").exists()
        if is_new and size > _limit(kind, shutil.disk_usage(folder).free):
            raise OSError(28, f"{size >> 20} MiB are more than --cache {kind} takes")
        cache = DiskCache(path, shape)
    except OSError as error:
        if kind == "disk":
            raise UserError(f"--cache disk: {folder}: {error.strerror}") from error
        print(f"{root}: images are decoded in every epoch: {folder}: {error.strerror}")
        return NoCache(shape)
    if is_new:
        print(f"{root}: decoded images are kept in {folder}, {size / 2**20:.0f} MiB (see --cache)")
    return cache


def _limit(cache: str, free: int) -> int:
    return free // 2 if cache == "auto" else free


def _free_memory() -> int:
    """Returns the bytes that shared memory may still take."""
    folder = "/dev/shm"
    return shutil.disk_usage(folder if Path(folder).is_dir() else tempfile.gettempdir()).free


def _checksum(pixels: Pixels, index: int) -> int:
    """Returns a number above 0 that follows from the pixels and their place."""
    return zlib.crc32(pixels.data, index & 0xFFFFFFFF) + 1


def _check(
    images: Pixels, indices: NDArray[np.int64], sums: NDArray[np.int64]
) -> tuple[Tensor, NDArray[np.bool_]]:
    """Returns the images, and which have their checksums; 0 stands where nothing was written."""
    pairs = zip(images, indices.tolist(), sums.tolist(), strict=True)
    found = [total != 0 and _checksum(image, index) == total for image, index, total in pairs]
    return torch.from_numpy(images), np.array(found, bool)


def _has_room_for(path: Path, shape: tuple[int, ...], kind: type) -> bool:
    """Says whether the file is there, with all the bytes that it should have."""
    try:
        array = np.load(path, mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):
        return False
    return bool(array.shape == shape and array.dtype == kind)


def _make_empty(path: Path, shape: tuple[int, ...], kind: type) -> None:
    """Makes a file of zeros, as a whole or not at all; it takes room as it fills."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.") as file:
        header = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + int(np.prod(shape)) * np.dtype(kind).itemsize)
        file.flush()
        Path(file.name).chmod(0o644)  # for everyone who may read the images
        path.unlink(missing_ok=True)
        with suppress(FileExistsError):  # another run was faster; the file is as good
            os.link(file.name, path)
