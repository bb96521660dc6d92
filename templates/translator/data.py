"""The data: pairs of images, an input and the target that belongs to it, as uint8 pixels.

<path_to_data>/train/input/*.png and <path_to_data>/train/target/*.png, and test likewise, in any
format that Pillow reads. An input and its target have the same name, but for the extension. Nothing
is scaled here: pixels travel as uint8, a quarter of the bytes of float32, and the model brings the
whole batch to [-1, 1] at once on the device.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from engine.augment import flip
from engine.checking import check_images
from engine.exits import UserError
from engine.files import find_inputs, find_pairs, find_split
from engine.images import BadImageError, read_image
from engine.options import add_image_arguments
from engine.store import ImageStore

Uniform = Callable[[int], NDArray[np.float32]]  # (N, count) draws in [0, 1) for a count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the data."""
    add_image_arguments(parser)
    parser.add_argument(
        "--scale", type=int, default=4, metavar="N", help="sides of a target, in sides of its input"
    )
    parser.add_argument(
        "--crop_size",
        type=int,
        default=64,
        metavar="N",
        help="train on random crops of N pixels of the target; --img_size or more: on all of it",
    )
    parser.add_argument(
        "--turn",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="turn training pairs by quarter turns; where up and down look much the same",
    )


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what predict.py runs on."""
    parser.add_argument("paths", nargs="*", help="files and folders of inputs, of any size")


class Augmentation:
    """Crop, flip, turn: what is done to decoded training pairs, a whole batch at once.

    Both images of a pair are changed by the same draws.
    """

    draws = 4  # random numbers for each pair

    def __init__(self, options: argparse.Namespace) -> None:
        self.scale = options.scale
        self.crop = min(options.crop_size, options.img_size)
        self.flip = options.flip
        self.turn = options.turn

    def __call__(self, inputs: Tensor, targets: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the pairs, uint8 (N, C, H, W) and scale times larger, changed by draws (N, 4)."""
        side, kept = inputs.shape[-1], self.crop // self.scale  # in pixels of the input
        if kept < side:
            corners = (draws[:, :2] * (side - kept + 1)).long()
            inputs = crop(inputs, corners, kept)
            targets = crop(targets, corners * self.scale, kept * self.scale)
        if self.flip:
            inputs, targets = (flip(images, draws[:, 2] < 0.5) for images in (inputs, targets))
        if self.turn:
            turns = (draws[:, 3] * 4).long()
            inputs, targets = (turn(images, turns) for images in (inputs, targets))
        return inputs, targets


def turn(images: Tensor, turns: Tensor) -> Tensor:
    """Turns each square image, (N, C, S, S), to the left by its number of quarter turns, (N,)."""
    turns = turns[:, None, None, None]
    images = torch.where(turns % 2 == 1, images.rot90(1, (2, 3)), images)
    return torch.where(turns >= 2, images.flip(2, 3), images)


def crop(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """Cuts a square out of each image.

    Args:
        images: (N, C, H, W).
        corners: first row and first column of each square, (N, 2).
        side: of the squares, in pixels.
    """
    places = torch.arange(side, device=images.device)
    rows, columns = (corner[:, None] + places for corner in corners.unbind(1))  # each (N, side)
    samples = torch.arange(len(images), device=images.device)[:, None, None]
    cut = images[samples, :, rows[:, :, None], columns[:, None, :]]  # (N, side, side, C)
    return cut.permute(0, 3, 1, 2).contiguous()


class PairFolder(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of images: those of one name in <root>/input and <root>/target.

    Args:
        root: the folder of the split.
        options: the flags.
        augmentation: of the decoded pairs, if any.

    Raises:
        UserError: there are no pairs, an image has no twin, or the sizes do not fit --scale.
    """

    def __init__(
        self, root: Path, options: argparse.Namespace, augmentation: Augmentation | None = None
    ) -> None:
        inputs, targets = find_pairs(root, "input", "target")
        _check_scale(inputs[0], targets[0], options.scale)
        self.augmentation = augmentation
        self.classes: list[str] = []  # what a checkpoint says of them
        self.inputs = ImageStore(root / "input", inputs, options.img_size // options.scale, options)
        self.targets = ImageStore(root / "target", targets, options.img_size, options)
        self.targets.bad = self.inputs.bad  # a pair is bad as a whole, and counted once

    def __len__(self) -> int:
        return len(self.inputs.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Returns the pixels of input and target, uint8 (C, H, W) and scale times larger.

        Raises:
            BadImageError: a file is bad, and none, or no more, may be replaced.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        pair = self.get_batch(np.array([index]), lambda n: torch.rand(1, n).numpy())
        return pair[0][0], pair[1][0]

    def get_batch(self, indices: NDArray[np.int64], uniform: Uniform) -> tuple[Tensor, Tensor]:
        """Returns inputs and targets, uint8 (N, C, H, W) and scale times larger.

        Args:
            indices: of the samples, (N,).
            uniform: gives the random numbers of the augmentation.

        Raises:
            BadImageError: as above.
        """
        inputs, targets = self._read(indices)
        if self.augmentation:
            draws = torch.from_numpy(uniform(self.augmentation.draws))
            inputs, targets = self.augmentation(
                inputs, targets, draws.to(inputs.device, non_blocking=True)
            )
        return inputs, targets

    def _read(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Returns whole pairs: where one image is bad, its twin gives way as well."""
        for _ in range(len(self)):
            inputs, used = self.inputs.read(indices)
            targets, indices = self.targets.read(used)
            if np.array_equal(indices, used):
                return inputs, targets
        raise BadImageError("no good pair is left; --check_data lists the bad images")

    @property
    def sample_bytes(self) -> int:
        """Size of a decoded pair; of small ones, several batches are made at once."""
        return self.inputs.sample_bytes + self.targets.sample_bytes

    @property
    def needs_workers(self) -> bool:
        """False once a batch takes less time to make than to fetch from another process."""
        return self.inputs.needs_workers or self.targets.needs_workers

    @property
    def fingerprint(self) -> str:
        """What a resumed run must find again: the files, and what is done to them."""
        digests = self.inputs.files.digest(), self.targets.files.digest()
        augmentation = vars(self.augmentation) if self.augmentation else None
        return repr((digests, self.inputs.side, self.inputs.channels, augmentation))


def build_datasets(options: argparse.Namespace) -> tuple[PairFolder, PairFolder]:
    """Returns the training and the test set.

    Raises:
        UserError: a folder or flag is wrong; the line says which, and what to do.
    """
    _check(options)
    root = find_split(options, "train")
    return PairFolder(root, options, Augmentation(options)), build_test_set(options)


def build_test_set(options: argparse.Namespace, classes: Sequence[str] = ()) -> PairFolder:
    """Returns the test set; the training set may be absent.

    Raises:
        UserError: a folder or flag is wrong; the line says which, and what to do.
    """
    del classes  # there are none
    _check(options)
    return PairFolder(find_split(options, "test"), options)


def check_inputs(inputs: argparse.Namespace) -> None:
    """Raises UserError, before anything else is done, if there is nothing to run on."""
    if not inputs.paths and not inputs.export:
        raise UserError("name files or folders to run on, or --export MODEL.pt2")


def read_inputs(
    inputs: argparse.Namespace, options: argparse.Namespace
) -> Iterator[tuple[Path, Tensor]]:
    """Yields each image in the given files and folders, as large as it is.

    Pixels are uint8 of shape (C, H, W). Folders are searched with all folders in them, in sorted
    order. A path that is missing, or a folder without images, raises `UserError` at once; a file
    that turns out bad raises `BadImageError` at its turn.
    """
    files = find_inputs(inputs.paths)
    return ((Path(file), _read_pixels(file, options.channels)) for file in files)


def check_data(options: argparse.Namespace) -> None:
    """Reads every image of both splits, and raises UserError once all bad ones are listed."""
    splits = build_datasets(options)
    stores = chain.from_iterable((split.inputs, split.targets) for split in splits)
    files = [path for store in stores for path in store.files]
    check_images(files, options.channels, options.path_to_data)


def _read_pixels(path: str, channels: int) -> Tensor:
    image = read_image(path, channels)
    pixels = np.asarray(image).reshape(image.height, image.width, channels)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def _check(options: argparse.Namespace) -> None:
    scale = options.scale
    allowed = {
        "skip_bad": (options.skip_bad >= 0, "0 or more"),
        "scale": (scale >= 1, "1 or more"),
        "img_size": (options.img_size % max(1, scale) == 0, "a multiple of --scale"),
        "crop_size": (
            options.crop_size >= 1 and options.crop_size % max(1, scale) == 0,
            "a multiple of --scale, 1 or more",
        ),
    }
    for name, (is_allowed, limits) in allowed.items():
        if not is_allowed:
            raise UserError(f"--{name} {getattr(options, name)}: give {limits}")


def _check_scale(input_path: str, target_path: str, scale: int) -> None:
    """Refuses a --scale that the first pair belies; bad files are named when they are read."""
    try:
        with Image.open(input_path) as image, Image.open(target_path) as target:
            widths = image.width, target.width
    except Exception:  # on broken bytes, Pillow raises nearly anything
        return
    found = max(1, round(widths[1] / widths[0]))
    if found != scale:
        raise UserError(
            f"--scale {scale}: {input_path} is {widths[0]} pixels wide, its target {widths[1]}: "
            f"give {found}"
        )
