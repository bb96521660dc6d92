"""The data: folders of images, one folder per class, as batches of uint8 pixels.

<path_to_data>/train/<class>/*.png and <path_to_data>/test/<class>/*.png, in any format that Pillow
reads. Nothing is normalized here: pixels travel as uint8, a quarter of the bytes of float32, and
the model normalizes the whole batch at once on the device.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from engine.augment import adjust_color, crop_padded, draw_boxes, flip, resized_crop
from engine.checking import check_images
from engine.exits import UserError, difference, shorten
from engine.files import find_inputs, find_split, list_folders, list_images
from engine.images import decode
from engine.options import add_image_arguments
from engine.store import ImageStore

Uniform = Callable[[int], NDArray[np.float32]]  # (N, count) draws in [0, 1) for a count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the data."""
    add_image_arguments(parser)
    parser.add_argument(
        "--crop_padding",
        type=int,
        default=4,
        metavar="N",
        help="pad training images by N pixels, then crop at random; 0 turns it off",
    )
    parser.add_argument(
        "--crop_scale",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="crop a random box, of at least this share of the image, and resize it; 1: off",
    )
    parser.add_argument(
        "--color_jitter",
        type=float,
        default=0.0,
        metavar="X",
        help="change brightness, contrast and saturation at random by up to this share; 0: off",
    )


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what predict.py runs on."""
    parser.add_argument("paths", nargs="*", help="files and folders")


class Augmentation:
    """Crop, flip, color: what is done to decoded training images, a whole batch at once."""

    draws = 10  # random numbers for each image

    def __init__(self, options: argparse.Namespace) -> None:
        self.size = options.img_size
        self.padding = options.crop_padding
        self.scale = options.crop_scale
        self.flip = options.flip
        self.jitter = options.color_jitter
        self.is_slow = self.scale < 1 or self.jitter > 0

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Returns the images, uint8 (N, C, size, size), changed by draws in [0, 1), (N, 10)."""
        if self.scale < 1:
            boxes = draw_boxes(draws[:, 0:4], images.shape[-1], self.scale)
            images = resized_crop(images, boxes, self.size)
        if self.padding:
            corners = (draws[:, 4:6] * (2 * self.padding + 1)).long()
            images = crop_padded(images, self.padding, *corners.unbind(1))
        if self.flip:
            images = flip(images, draws[:, 6] < 0.5)
        if self.jitter:
            factors = 1 + self.jitter * (2 * draws[:, 7:10] - 1)
            images = adjust_color(images, *factors.unbind(1))
        return images


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Images in one folder per class; a label is a place in the given list of classes.

    Args:
        root: the folder of the split.
        classes: names of the class folders. Both splits take the training set's list: numbered
            each by itself, a class that one of them lacks would shift the labels after it.
        options: the flags.
        augmentation: of the decoded images, if any.

    Raises:
        UserError: the folder holds no images, or a class that is not in the list.
    """

    def __init__(
        self,
        root: Path,
        classes: Sequence[str],
        options: argparse.Namespace,
        augmentation: Augmentation | None = None,
    ) -> None:
        for name in list_folders(root):
            if name not in classes:
                raise UserError(f"{root / name}: no such class in training; rename or remove it")
        self.root = root
        self.classes = list(classes)
        self.augmentation = augmentation
        folders = [root / name for name in self.classes]
        files = [list_images(folder) if folder.is_dir() else [] for folder in folders]
        counts = [len(of_class) for of_class in files]
        self.labels = np.repeat(np.arange(len(files), dtype=np.int32), counts)
        if not len(self):
            raise UserError(f"{root}: no images; they belong in {root / '<class>'}")
        # A random box is taken from more pixels than it is resized to.
        enlarged = augmentation is not None and augmentation.scale < 1
        side = options.img_size * 5 // 4 if enlarged else options.img_size
        self.store = ImageStore(root, [path for some in files for path in some], side, options)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Returns the pixels, uint8 of shape (C, H, W), and the label.

        Raises:
            BadImageError: the file is bad, and none, or no more, may be replaced.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        images, labels = self.get_batch(np.array([index]), lambda n: torch.rand(1, n).numpy())
        return images[0], int(labels[0])

    def get_batch(self, indices: NDArray[np.int64], uniform: Uniform) -> tuple[Tensor, Tensor]:
        """Returns the images, uint8 of shape (N, C, H, W), and their labels, (N,).

        Args:
            indices: of the samples, (N,).
            uniform: gives the random numbers of the augmentation.

        Raises:
            BadImageError: as above.
        """
        images, used = self.store.read(indices)
        if self.augmentation:
            draws = torch.from_numpy(uniform(self.augmentation.draws))
            images = self.augmentation(images, draws.to(images.device, non_blocking=True))
        return images, torch.from_numpy(self.labels[used]).long()

    @property
    def sample_bytes(self) -> int:
        """Size of a decoded image; of small ones, several batches are made at once."""
        return self.store.sample_bytes

    @property
    def needs_workers(self) -> bool:
        """False once a batch takes less time to make than to fetch from another process."""
        is_slow = self.augmentation is not None and self.augmentation.is_slow
        return is_slow or self.store.needs_workers

    @property
    def fingerprint(self) -> str:
        """What a resumed run must find again: the files, their labels, what is done to them."""
        counts = np.bincount(self.labels).tolist()
        augmentation = vars(self.augmentation) if self.augmentation else None
        return repr((self.store.files.digest(), counts, self.store.channels, augmentation))


def find_classes(root: Path) -> list[str]:
    """Returns the sorted names of the class folders.

    Raises:
        UserError: there are fewer than two.
    """
    classes = list_folders(root)
    if len(classes) < 2:
        found = f"one class folder only, {classes[0]}" if classes else "no class folders"
        raise UserError(f"{root}: {found}; images belong in two or more folders, one per class")
    return classes


def build_datasets(
    options: argparse.Namespace, classes: Sequence[str] | None = None
) -> tuple[ImageFolder, ImageFolder]:
    """Returns the training and the test set, both with the training set's classes.

    Args:
        options: the flags.
        classes: those of a checkpoint, which the data must have too.

    Raises:
        UserError: a folder or flag is wrong; the line says which, and what to do.
    """
    root = find_split(options, "train")
    found = find_classes(root)
    if classes is not None and list(classes) != found:
        raise UserError(f"{root}: not the checkpoint's classes: {difference(classes, found)}")
    training_set = _build_split(root, found, options, Augmentation(options))
    for name in _classes_without_images(training_set):
        raise UserError(f"{root / name}: no images; add some, or remove the folder")
    return training_set, build_test_set(options, found)


def build_test_set(options: argparse.Namespace, classes: Sequence[str]) -> ImageFolder:
    """Returns the test set, numbered by the given classes; the training set may be absent.

    Raises:
        UserError: a folder or flag is wrong; the line says which, and what to do.
    """
    root = find_split(options, "test")
    test_set = _build_split(root, classes, options)
    if missing := _classes_without_images(test_set):
        print(f"{root}: no images of {shorten(missing)}; not tested", file=sys.stderr)
    return test_set


def check_inputs(inputs: argparse.Namespace) -> None:
    """Raises UserError, before anything else is done, if there is nothing to run on."""
    if not inputs.paths and not inputs.export:
        raise UserError("name files or folders to run on, or --export MODEL.pt2")


def read_inputs(
    inputs: argparse.Namespace, options: argparse.Namespace
) -> Iterator[tuple[Path, Tensor]]:
    """Yields each image in the given files and folders as the test set has it.

    Pixels are uint8 of shape (C, img_size, img_size). Folders are searched with all folders in
    them, in sorted order. A path that is missing, or a folder without images, raises `UserError` at
    once; a file that turns out bad raises `BadImageError` at its turn.
    """
    files = find_inputs(inputs.paths)
    shape = options.channels, options.img_size
    return ((Path(file), torch.from_numpy(decode(file, *shape))) for file in files)


def check_data(options: argparse.Namespace) -> None:
    """Reads every image of both splits, and raises UserError once all bad ones are listed."""
    files = [path for split in build_datasets(options) for path in split.store.files]
    check_images(files, options.channels, options.path_to_data)


def _build_split(
    root: Path,
    classes: Sequence[str],
    options: argparse.Namespace,
    augmentation: Augmentation | None = None,
) -> ImageFolder:
    allowed = {
        "skip_bad": (options.skip_bad >= 0, "0 or more"),
        "crop_padding": (0 <= options.crop_padding <= options.img_size, "0 to --img_size"),
        "crop_scale": (0 < options.crop_scale <= 1, "more than 0, at most 1"),
        "color_jitter": (0 <= options.color_jitter <= 1, "0 to 1"),
    }
    for name, (is_allowed, limits) in allowed.items():
        if not is_allowed:
            raise UserError(f"--{name} {getattr(options, name)}: give {limits}")
    return ImageFolder(root, classes, options, augmentation)


def _classes_without_images(split: ImageFolder) -> list[str]:
    present = set(np.unique(split.labels).tolist())
    return [name for label, name in enumerate(split.classes) if label not in present]
