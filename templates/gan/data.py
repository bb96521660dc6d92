"""The data: folders of images, without labels, as batches of uint8 pixels.

<path_to_data>/train/**/*.png and <path_to_data>/test/**/*.png, in any format that Pillow reads.
Nothing is scaled here: pixels travel as uint8, a quarter of the bytes of float32, and the model
brings the whole batch to [-1, 1] at once on the device.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from engine.augment import flip
from engine.checking import check_images
from engine.exits import UserError
from engine.files import find_split, list_images
from engine.options import add_image_arguments
from engine.reproducibility import uniform
from engine.store import ImageStore

Uniform = Callable[[int], NDArray[np.float32]]  # (N, count) draws in [0, 1) for a count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the data."""
    add_image_arguments(parser)


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what predict.py runs on: latents, drawn from a seed."""
    parser.add_argument("--samples", type=int, metavar="N", help="pictures to draw (default: 16)")
    parser.add_argument(
        "--interpolate",
        type=int,
        metavar="N",
        help="each picture is a strip of N images on the way from one latent to another",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the latents")


class ImageFolder(Dataset[tuple[Tensor, Tensor]]):
    """All images in a folder and in the folders below it, which say nothing, and their numbers.

    Args:
        root: the folder of the split.
        options: the flags.
        mirror: mirror half of the images, as drawn.

    Raises:
        UserError: the folder holds fewer than two images.
    """

    def __init__(self, root: Path, options: argparse.Namespace, mirror: bool = False) -> None:
        files = list_images(root)
        if len(files) < 2:  # between two sets of one there is no distance
            found = "one image only" if files else "no images"
            raise UserError(f"{root}: {found}; put two or more there, or in folders below it")
        self.mirror = mirror
        self.classes: list[str] = []  # what a checkpoint says of them
        self.store = ImageStore(root, files, options.img_size, options)

    def __len__(self) -> int:
        return len(self.store.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Returns the pixels, uint8 of shape (C, H, W), and the index.

        Raises:
            BadImageError: the file is bad, and none, or no more, may be replaced.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        images, numbers = self.get_batch(np.array([index]), lambda n: torch.rand(1, n).numpy())
        return images[0], numbers[0]

    def get_batch(self, indices: NDArray[np.int64], draws: Uniform) -> tuple[Tensor, Tensor]:
        """Returns the images, uint8 of shape (N, C, H, W), and their indices, (N,).

        Args:
            indices: of the samples, (N,).
            draws: gives the random numbers that decide which images are mirrored.

        Raises:
            BadImageError: as above.
        """
        images, _ = self.store.read(indices)
        if self.mirror:
            is_mirrored = torch.from_numpy(draws(1)[:, 0] < 0.5)
            images = flip(images, is_mirrored.to(images.device, non_blocking=True))
        return images, torch.from_numpy(indices)

    @property
    def sample_bytes(self) -> int:
        """Size of a decoded image; of small ones, several batches are made at once."""
        return self.store.sample_bytes

    @property
    def needs_workers(self) -> bool:
        """False once a batch takes less time to make than to fetch from another process."""
        return self.store.needs_workers

    @property
    def fingerprint(self) -> str:
        """What a resumed run must find again: the files, and what is done to them."""
        return repr((self.store.files.digest(), self.store.channels, self.mirror))


def build_datasets(options: argparse.Namespace) -> tuple[ImageFolder, ImageFolder]:
    """Returns the training and the test set, from which the samples' distance is measured.

    Raises:
        UserError: a folder or flag is wrong; the line says which, and what to do.
    """
    if options.skip_bad < 0:
        raise UserError(f"--skip_bad {options.skip_bad}: give 0 or more")
    training_set = ImageFolder(find_split(options, "train"), options, options.flip)
    return training_set, build_test_set(options)


def build_test_set(options: argparse.Namespace, classes: Sequence[str] = ()) -> ImageFolder:
    """Returns the test set; the training set may be absent.

    Raises:
        UserError: a folder or flag is wrong; the line says which, and what to do.
    """
    del classes  # there are none
    return ImageFolder(find_split(options, "test"), options)


def check_inputs(inputs: argparse.Namespace) -> None:
    """Refuses what `read_inputs` could not read, before anything else is done.

    Raises:
        UserError: a flag is out of its range.
    """
    for name, least in (("samples", 1), ("interpolate", 2), ("seed", 0)):
        value = getattr(inputs, name)
        if value is not None and value < least:
            raise UserError(f"--{name} {value}: give {least} or more")


def read_inputs(
    inputs: argparse.Namespace, options: argparse.Namespace
) -> Iterator[tuple[Path, Tensor]]:
    """Yields the latents of each picture to draw, under the name of its file.

    Args:
        inputs: the flags of `add_input_arguments`; an export alone draws nothing.
        options: the training's flags.

    Returns:
        An iterator over names and latents, (1, latent_size) in [-1, 1], or as many on a line as
        --interpolate says. Each follows from the seed and its number alone.
    """
    count = inputs.samples or (0 if inputs.export else 16)
    for number in range(count):
        ends = uniform(inputs.seed, number, np.arange(2), options.latent_size)
        start, end = 2 * torch.from_numpy(ends) - 1
        if options.kinds:
            end[0] = start[0]  # the number that names the kind: on the way, there are others
        shares = torch.linspace(0, 1, inputs.interpolate) if inputs.interpolate else torch.zeros(1)
        name = "strip" if inputs.interpolate else "sample"
        yield Path(f"{name}_{number:04}"), torch.lerp(start, end, shares[:, None])


def check_data(options: argparse.Namespace) -> None:
    """Reads every image of both splits, and raises UserError once all bad ones are listed."""
    files = [path for split in build_datasets(options) for path in split.store.files]
    check_images(files, options.channels, options.path_to_data)
