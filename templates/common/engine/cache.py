"""Decoded images, kept: what one epoch has read from files, the next one reads from memory.

On disk, the pixels lie in a file of NumPy's own format, mapped into memory and shared by workers,
ranks and runs, in which each image has a checksum. Whoever decodes an image stores it there, so
the first epoch fills the cache while it trains, at the price of a write an image. An image is taken
from the cache only if its checksum fits: a build that was killed, a full disk, a flipped byte and
two builders at once cost a second decoding, never a wrong picture.
"""

import os
import sys
import tempfile
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

Pixels = NDArray[np.uint8]  # (N, C, H, W)
Found = NDArray[np.bool_]  # (N,)
_ODD = np.uint64(0x9E3779B97F4A7C15)  # mixes well: 2**64 over the golden ratio


class Rows:
    """How images lie in a cache: each in a row of 8-byte words, so that a batch is checked at once.

    The checksum weighs each word by an odd number of its own, modulo 2**64: a word that changes,
    or a place, changes it.

    Args:
        shape: (number of images, C, H, W).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._image_shape = shape[1:]
        self._size = int(np.prod(shape[1:]))
        words = -(-self._size // 8)
        self.shape = (shape[0], words)
        mixed = np.arange(1, words + 1, dtype=np.uint64) * _ODD
        self._weights = (mixed ^ (mixed >> np.uint64(32))) * _ODD | np.uint64(1)

    def pack(self, pixels: Pixels) -> NDArray[np.uint64]:
        """Returns images, (N, C, H, W), as rows, (N, words)."""
        rows = np.zeros((len(pixels), self.shape[1]), np.uint64)
        rows.view(np.uint8)[:, : self._size] = pixels.reshape(len(pixels), -1)
        return rows

    def unpack(self, rows: NDArray[np.uint64]) -> Tensor:
        """Returns rows, (N, words), as images, (N, C, H, W)."""
        pixels = rows.view(np.uint8)[:, : self._size]
        return torch.from_numpy(pixels.reshape(len(rows), *self._image_shape))

    def checksums(self, rows: NDArray[np.uint64], indices: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Returns the checksums, (N,), never 0: that stands where nothing was written."""
        sums: NDArray[np.uint64] = np.einsum("nw,w->n", rows, self._weights)
        return np.maximum(sums + indices.astype(np.uint64) * _ODD, np.uint64(1))


class NoCache:
    """Keeps nothing: each image is decoded whenever it is read.

    Args:
        shape: (number of images, C, H, W).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    def read(self, indices: NDArray[np.int64]) -> tuple[Tensor, Found]:
        """Returns room for the images, (N, C, H, W), and which of them are found, (N,)."""
        images = torch.empty((len(indices), *self._shape[1:]), dtype=torch.uint8)
        return images, np.zeros(len(indices), bool)

    def write(self, indices: NDArray[np.int64], pixels: Pixels) -> None:
        """Takes decoded images, (N, C, H, W)."""

    def is_complete(self) -> bool:
        """Says whether every image has been written."""
        return False


class DeviceCache(NoCache):
    """Keeps images in the device's memory, from where they need not travel.

    A batch is gathered and changed there, too. It belongs to one process: a data loader's workers
    cannot use it, so `engine.loading` starts none.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        super().__init__(shape)
        self._pixels = torch.empty(shape, dtype=torch.uint8, device=device)
        self._found = np.zeros(shape[0], bool)

    def read(self, indices: NDArray[np.int64]) -> tuple[Tensor, Found]:
        """Returns the images on the device, (N, C, H, W), and which of them are found, (N,)."""
        places = torch.from_numpy(indices.copy()).to(self._pixels.device, non_blocking=True)
        return self._pixels[places], self._found[indices]

    def write(self, indices: NDArray[np.int64], pixels: Pixels) -> None:
        """Takes decoded images, (N, C, H, W)."""
        places = torch.from_numpy(indices).to(self._pixels.device)
        self._pixels[places] = torch.from_numpy(pixels).to(self._pixels.device)
        self._found[indices] = True


class CheckedCache(NoCache, ABC):
    """Keeps images in rows of words, each with its checksum; a subclass says where they lie."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self._rows = Rows(shape)

    @abstractmethod
    def _arrays(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Returns the words, one row an image, and the checksums."""

    def read(self, indices: NDArray[np.int64]) -> tuple[Tensor, Found]:
        """Returns the images, (N, C, H, W), and which of them are found, (N,)."""
        all_words, all_sums = self._arrays()
        sums = all_sums[indices]
        if not sums.any():  # in the first epoch: an empty place is not touched
            return super().read(indices)
        words = all_words[indices]
        return self._rows.unpack(words), self._rows.checksums(words, indices) == sums

    def is_complete(self) -> bool:
        """Says whether every image has been written."""
        return bool(self._arrays()[1].all())


class MemoryCache(CheckedCache):
    """Keeps images in memory that the workers share."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        # NumPy's zeros take no memory until they are written, so the copy is all there is.
        self._words = torch.from_numpy(np.zeros(self._rows.shape, np.int64)).share_memory_()
        self._sums = torch.from_numpy(np.zeros(shape[0], np.int64)).share_memory_()

    def _arrays(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        return self._words.numpy().view(np.uint64), self._sums.numpy().view(np.uint64)

    def write(self, indices: NDArray[np.int64], pixels: Pixels) -> None:
        """Takes decoded images, (N, C, H, W)."""
        words, sums = self._arrays()
        rows = self._rows.pack(pixels)
        words[indices], sums[indices] = rows, self._rows.checksums(rows, indices)


class DiskCache(CheckedCache):
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
            self._path.with_suffix(".npy"): self._rows.shape,
            self._path.with_suffix(".sums.npy"): self._shape[:1],
        }
        for path, shape in files.items():
            if not _has_room_for(path, shape):
                _make_empty(path, shape)
        arrays = [np.load(path, mmap_mode="r") for path in files]
        self._starts = [array.offset for array in arrays]
        self._words, self._sums = map(np.asarray, arrays)  # a memmap is slower to index
        # Written by system calls: on a full disk, to write into a mapped file ends the process.
        self._files = [os.open(path, os.O_RDWR) for path in files]
        self._is_full = False

    def __getstate__(self) -> dict[str, Any]:
        names = "_path", "_shape", "_rows"
        return {name: getattr(self, name) for name in names}  # a spawned worker opens its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._open()

    def _arrays(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        return self._words, self._sums

    def write(self, indices: NDArray[np.int64], pixels: Pixels) -> None:
        """Takes decoded images, (N, C, H, W); on a full disk, none from then on."""
        if self._is_full:
            return
        rows = self._rows.pack(pixels)
        try:
            for file, start, contents in zip(
                self._files, self._starts, (rows, self._rows.checksums(rows, indices)), strict=True
            ):
                size = contents[:1].nbytes
                for index, content in zip(indices.tolist(), contents, strict=True):
                    os.pwrite(file, content, start + index * size)
        except OSError as error:
            self._is_full = True
            line = f"{self._path.parent}: no more is cached: {error.strerror}"
            tqdm.write(f"{line}; training goes on", file=sys.stderr)


def _has_room_for(path: Path, shape: tuple[int, ...]) -> bool:
    """Says whether the file is there, with all the bytes that it should have."""
    try:
        array = np.load(path, mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):
        return False
    return bool(array.shape == shape and array.dtype == np.uint64)


def _make_empty(path: Path, shape: tuple[int, ...]) -> None:
    """Makes a file of zeros, as a whole or not at all; it takes room as it fills."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.") as file:
        header = {"descr": np.dtype(np.uint64).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + int(np.prod(shape)) * 8)
        file.flush()
        Path(file.name).chmod(0o644)  # for everyone who may read the images
        path.unlink(missing_ok=True)
        with suppress(FileExistsError):  # another run was faster; the file is as good
            os.link(file.name, path)
