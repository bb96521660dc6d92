"""The images of a list of files, by index: decoded once, bad ones replaced."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine import images
from engine.cache import open_cache
from engine.files import FileList
from engine.images import BadImageError, decode


class ImageStore:
    """Decoded images, from the cache where they are in it, else from their files.

    Args:
        root: folder of the split.
        files: paths of the images.
        side: of the squares that they are resized to, in pixels.
        options: gives channels, skip_bad, cache and device.
    """

    def __init__(
        self, root: Path, files: Sequence[str], side: int, options: argparse.Namespace
    ) -> None:
        self.files = FileList(root, files)
        self.side = side
        self.channels = options.channels
        self.skip_bad = options.skip_bad
        shape = (len(files), self.channels, side, side)
        # Whatever decides the pixels: the files, and the code that reads them.
        code = f"{PIL.__version__} {Path(images.__file__).read_text(encoding='utf-8')}"
        self.cache = open_cache(options, root, shape, lambda: self.files.state() + code)
        # One byte per image, in memory that all workers share, so that they count together.
        self.bad = torch.zeros(len(files), dtype=torch.bool).share_memory_()

    def read(self, indices: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        """Returns the pixels, uint8 (N, C, side, side), and which image each one really is, (N,).

        They are on the device if the cache is, else in memory.

        Raises:
            BadImageError: a file is bad, and none, or no more, may be replaced.
        """
        images, found = self.cache.read(indices)
        used = indices.copy()
        if not found.all():
            numbers, pixels = zip(*map(self._decode, indices[~found].tolist()), strict=True)
            used[~found] = numbers
            images[torch.from_numpy(~found)] = torch.from_numpy(np.stack(pixels)).to(images.device)
        return images, used

    def _decode(self, index: int) -> tuple[int, NDArray[np.uint8]]:
        """Reads an image from its file; returns its index and pixels, (C, side, side).

        If it is bad and may be replaced, its next good neighbor takes its place: in any worker and
        epoch the same, so that the run can be repeated.
        """
        for step in range(len(self.files)):
            neighbor = (index + step) % len(self.files)
            try:
                pixels = decode(self.files[neighbor], self.channels, self.side)
            except BadImageError as error:
                self._count_bad(neighbor, error)
                continue
            self.cache.write(neighbor, pixels)
            return neighbor, pixels
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
