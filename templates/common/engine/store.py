"""The images of a list of files, by index: decoded once, bad ones replaced."""

import argparse
import hashlib
import inspect
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.cache import DeviceCache, DiskCache, MemoryCache, NoCache
from engine.distributed import pick_device
from engine.exits import UserError
from engine.files import FileList
from engine.images import BadImageError, decode
from engine.lock import one_at_a_time

FOLDER = ".cache"  # in the folder of the data
SMALL = 2**14  # bytes: an image that is read in less time than it travels between processes

Decode = Callable[[str, int, int], NDArray[np.uint8]]  # of a path, channels and side


class ImageStore:
    """Decoded images, from the cache where they are in it, else from their files.

    Args:
        root: folder of the split.
        files: paths of the images.
        side: of the squares that they are resized to, in pixels.
        options: gives channels, skip_bad, cache and device.
        decode: reads a file, as one of the functions of `engine.images` does.
        channels: of what it returns, if they are not those of the flags.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        side: int,
        options: argparse.Namespace,
        decode: Decode = decode,
        channels: int | None = None,
    ) -> None:
        self.files = FileList(root, files)
        self.side = side
        self.channels = channels or options.channels
        self.decode = decode
        self.skip_bad = options.skip_bad
        shape = (len(files), self.channels, side, side)
        self.sample_bytes: int = self.channels * side**2
        # Whatever decides the pixels: the files, and the code that reads them.
        source = Path(inspect.getfile(decode)).read_text(encoding="utf-8")
        code = f"{PIL.__version__} {decode.__name__} {source}"
        self.cache = open_cache(options, root, shape, lambda: self.files.state() + code)
        # One byte per image, in memory that all workers share, so that they count together.
        self.bad = torch.zeros(len(files), dtype=torch.bool).share_memory_()

    @property
    def needs_workers(self) -> bool:
        """False once all images are decoded, and so small that others need not fetch them."""
        return self.sample_bytes > SMALL or not self.cache.is_complete()

    def read(self, indices: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        """Returns the pixels, uint8 (N, C, side, side), and which image each one really is, (N,).

        They are on the device if the cache is, else in memory.

        Raises:
            BadImageError: a file is bad, and none, or no more, may be replaced.
        """
        images, found = self.cache.read(indices)
        used = indices.copy()
        if not found.all():
            numbers, decoded = zip(*map(self._decode, indices[~found].tolist()), strict=True)
            pixels = np.stack(decoded)
            used[~found] = numbers
            self.cache.write(used[~found], pixels)
            images[torch.from_numpy(~found)] = torch.from_numpy(pixels).to(images.device)
        return images, used

    def _decode(self, index: int) -> tuple[int, NDArray[np.uint8]]:
        """Reads an image from its file; returns its index and pixels, (C, side, side).

        If it is bad and may be replaced, its next good neighbor takes its place: in any worker and
        epoch the same, so that the run can be repeated.
        """
        for step in range(len(self.files)):
            neighbor = (index + step) % len(self.files)
            try:
                return neighbor, self.decode(self.files[neighbor], self.channels, self.side)
            except BadImageError as error:
                self._count_bad(neighbor, error)
        raise BadImageError("no good image is left; --check_data lists the bad ones")

    def _count_bad(self, index: int, error: BadImageError) -> None:
        """Counts a bad file and logs it when it is first met; raises if it is one too many."""
        known = bool(self.bad[index])
        self.bad[index] = True
        count = int(self.bad.sum())
        if count > self.skip_bad:
            limit = f"bad file {count}, --skip_bad is {self.skip_bad}"
            raise BadImageError(f"{error} ({limit}; --check_data lists all)")
        if not known:
            print(f"{error}: replaced, bad file {count} of {self.skip_bad}", file=sys.stderr)


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
        with one_at_a_time(folder):  # of several processes of one training, say
            left = [each for each in folder.glob(f"{root.name}-*") if digest not in each.name]
            for old in left:  # of files that have changed since, or of another decoding
                old.unlink(missing_ok=True)
            is_new = not path.with_suffix(".npy").exists()
            if is_new and size > _limit(kind, _free_disk(folder)):
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


def _free_disk(folder: Path) -> int:
    """Returns the bytes that are free, without what the caches there have yet to fill."""
    files = [path.stat() for path in folder.iterdir()]
    blocks = [getattr(file, "st_blocks", file.st_size) * 512 for file in files]
    unfilled = [max(0, file.st_size - used) for file, used in zip(files, blocks, strict=True)]
    return shutil.disk_usage(folder).free - sum(unfilled)


def _free_memory() -> int:
    """Returns the bytes that shared memory may still take."""
    folder = "/dev/shm"
    return shutil.disk_usage(folder if Path(folder).is_dir() else tempfile.gettempdir()).free
