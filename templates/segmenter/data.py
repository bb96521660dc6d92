"""The data: images, and masks that hold the number of each pixel's class, as uint8 pixels.

<path_to_data>/train/images/*.jpg and <path_to_data>/train/masks/*.png, and test likewise, and the
classes' names in <path_to_data>/classes.txt. An image and its mask have the same name, but for the
extension. Nothing is normalized here: pixels travel as uint8, a quarter of the bytes of float32,
and the model normalizes the whole batch at once on the device.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional

from engine import augment
from engine.checking import check_samples
from engine.exits import UserError, difference
from engine.files import find_inputs, find_pairs, find_split, read_names
from engine.images import (
    GREY,
    IGNORED,
    BadImageError,
    check_labels,
    decode_padded,
    placement,
    read_image,
    read_labels,
)
from engine.options import add_image_arguments
from engine.store import ImageStore, MaskStore

Uniform = Callable[[int], NDArray[np.float32]]  # (N, count) draws in [0, 1) for a count

CLASSES = "classes.txt"  # in the folder of the data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the data."""
    add_image_arguments(parser)
    add = parser.add_argument
    text = "shift training images and masks at random by up to N pixels; 0 turns it off"
    add("--crop_padding", type=int, default=8, metavar="N", help=text)
    text = "crop a random box, of at least this share of the image, and resize it; 1: off"
    add("--crop_scale", type=float, default=1.0, metavar="SHARE", help=text)
    text = "change brightness, contrast and saturation at random by up to this share; 0: off"
    add("--color_jitter", type=float, default=0.0, metavar="X", help=text)
    text = "paste the objects of N random training images, all but class 0, onto each; 0: off"
    add("--copy_paste", type=int, default=0, metavar="N", help=text)


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what predict.py runs on."""
    parser.add_argument("paths", nargs="*", help="files and folders of images, of any size")
    parser.add_argument(
        "--longer_side",
        type=int,
        default=0,
        metavar="N",
        help="resize images so, as training does to --img_size; 0: leave them as they are",
    )


class Augmentation:
    """Crop, shift, flip, color: what is done to decoded training pairs, a whole batch at once.

    A mask is moved as its image is. What comes in from beyond the border is grey, and ignored.
    Last, objects are pasted on from other pairs, changed likewise by draws of their own.
    """

    draws = 10  # random numbers for each pair

    def __init__(self, options: argparse.Namespace) -> None:
        self.copy_paste = options.copy_paste
        self.size = options.img_size
        self.padding = options.crop_padding
        self.scale = options.crop_scale
        self.flip = options.flip
        self.jitter = options.color_jitter
        self.is_slow = self.scale < 1 or self.jitter > 0 or self.copy_paste > 0

    def __call__(self, images: Tensor, masks: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Returns N pairs, images uint8 (N, C, S, S) and masks (N, 1, S, S).

        Args:
            images: uint8, (N * M, C, T, T), of each M = 1 + --copy_paste: those after the first are
                pasted onto it. They are larger than the result if boxes are cropped.
            masks: theirs, (N * M, 1, T, T).
            draws: in [0, 1), (N * M, 10).
        """
        if self.scale < 1:
            boxes = augment.draw_boxes(draws[:, 0:4], images.shape[-1], self.scale)
            images = augment.resized_crop(images, boxes, self.size)
            masks = augment.crop_nearest(masks, boxes, self.size)
        if self.padding:
            corners = (draws[:, 4:6] * (2 * self.padding + 1)).long()
            top, left = corners.unbind(1)
            images = augment.crop_padded(images, self.padding, top, left, GREY)
            masks = augment.crop_padded(masks, self.padding, top, left, IGNORED)
        if self.flip:
            images, masks = (augment.flip(each, draws[:, 6] < 0.5) for each in (images, masks))
        if self.jitter:
            factors = 1 + self.jitter * (2 * draws[:, 7:10] - 1)
            images = augment.adjust_color(images, *factors.unbind(1))
        images, masks = (each.unflatten(0, (-1, 1 + self.copy_paste)) for each in (images, masks))
        return augment.copy_paste(images, masks, IGNORED)


class MaskFolder(Dataset[tuple[Tensor, Tensor]]):
    """Images and their masks: those of one name in <root>/images and <root>/masks.

    Args:
        root: the folder of the split.
        classes: names of the classes, in the order of their numbers.
        options: the flags.
        augmentation: of the decoded pairs, if any.

    Raises:
        UserError: there are no pairs, or an image or a mask has no twin.
    """

    def __init__(
        self,
        root: Path,
        classes: Sequence[str],
        options: argparse.Namespace,
        augmentation: Augmentation | None = None,
    ) -> None:
        images, masks = find_pairs(root, "images", "masks")
        self.classes, self.augmentation = list(classes), augmentation
        # A random box is taken from more pixels than it is resized to.
        enlarged = augmentation is not None and augmentation.scale < 1
        side = options.img_size * 5 // 4 if enlarged else options.img_size
        self.images = ImageStore(root / "images", images, side, options, decode_padded)
        self.masks = MaskStore(root / "masks", masks, self.images, len(classes), options)

    def __len__(self) -> int:
        return len(self.images.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Returns image, uint8 (C, H, W), and mask, uint8 (H, W).

        Raises:
            BadImageError: a file is bad, and none, or no more, may be replaced.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        images, masks = self.get_batch(np.array([index]), lambda n: torch.rand(1, n).numpy())
        return images[0], masks[0]

    def get_batch(self, indices: NDArray[np.int64], uniform: Uniform) -> tuple[Tensor, Tensor]:
        """Returns images, uint8 (N, C, H, W), and their masks, uint8 (N, H, W).

        Args:
            indices: of the samples, (N,).
            uniform: gives the random numbers of the augmentation.

        Raises:
            BadImageError: as above.
        """
        if self.augmentation is None:
            images, masks = self._read(indices)
            return images, masks[:, 0]
        others = self.augmentation.copy_paste
        draws = uniform(others + self.augmentation.draws * (1 + others))
        pasted = (draws[:, :others] * len(self)).astype(np.int64)
        images, masks = self._read(np.column_stack([indices, pasted]).ravel())
        changes = torch.from_numpy(draws[:, others:]).reshape(len(images), -1)
        images, masks = self.augmentation(
            images, masks, changes.to(images.device, non_blocking=True)
        )
        return images, masks[:, 0]

    def _read(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Returns whole pairs: where one of the two is bad, its twin gives way as well."""
        for _ in range(len(self)):
            images, used = self.images.read(indices)
            masks, indices = self.masks.read(used)
            if np.array_equal(indices, used):
                return images, masks
        raise BadImageError("no good pair is left; --check_data lists the bad images")

    @property
    def sample_bytes(self) -> int:
        """Size of a decoded pair; of small ones, several batches are made at once."""
        return self.images.sample_bytes + self.masks.sample_bytes

    @property
    def needs_workers(self) -> bool:
        """False once a batch takes less time to make than to fetch from another process."""
        is_slow = self.augmentation is not None and self.augmentation.is_slow
        return is_slow or self.images.needs_workers or self.masks.needs_workers

    @property
    def fingerprint(self) -> str:
        """What a resumed run must find again: the files, and what is done to them."""
        digests = self.images.files.digest(), self.masks.files.digest()
        augmentation = vars(self.augmentation) if self.augmentation else None
        return repr((digests, self.images.channels, augmentation))


def build_datasets(options: argparse.Namespace) -> tuple[MaskFolder, MaskFolder]:
    """Returns the training and the test set.

    Raises:
        UserError: a folder or flag is wrong; the line says which, and what to do.
    """
    _check(options)
    root = find_split(options, "train")
    classes = read_names(root.parent / CLASSES, IGNORED)
    training_set = MaskFolder(root, classes, options, Augmentation(options))
    return training_set, build_test_set(options, classes)


def build_test_set(options: argparse.Namespace, classes: Sequence[str]) -> MaskFolder:
    """Returns the test set, whose masks hold numbers of the given classes.

    The training set may be absent, and so may the file that names the classes.

    Raises:
        UserError: a folder or flag is wrong; the line says which, and what to do.
    """
    _check(options)
    root = find_split(options, "test")
    path = root.parent / CLASSES
    if path.exists() and (found := read_names(path, IGNORED)) != list(classes):
        raise UserError(f"{path}: not the checkpoint's classes: {difference(classes, found)}")
    return MaskFolder(root, classes, options)


def check_inputs(inputs: argparse.Namespace) -> None:
    """Raises UserError, before anything else is done, if there is nothing to run on."""
    if not inputs.paths and not inputs.export:
        raise UserError("name files or folders to run on, or --export MODEL.pt2")
    if inputs.longer_side < 0:
        raise UserError(f"--longer_side {inputs.longer_side}: give 0 or more")


def read_inputs(
    inputs: argparse.Namespace, options: argparse.Namespace
) -> Iterator[tuple[Path, Tensor]]:
    """Yields each image in the given files and folders, as large as it is or as the flag says.

    Pixels are uint8 of shape (C, H, W). Folders are searched with all folders in them, in sorted
    order. A path that is missing, or a folder without images, raises `UserError` at once; a file
    that turns out bad raises `BadImageError` at its turn.
    """
    files = find_inputs(inputs.paths)
    return (
        (Path(each), _read_pixels(each, options.channels, inputs.longer_side)) for each in files
    )


def _read_pixels(path: str, channels: int, longer_side: int) -> Tensor:
    image = read_image(path, channels, longer_side or None)
    if longer_side:
        width, height, *_ = placement(*image.size, longer_side)
        image = functional.resize(image, [height, width], antialias=True)
    pixels = np.asarray(image).reshape(image.height, image.width, channels)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def check_data(options: argparse.Namespace) -> None:
    """Reads every image and mask of both splits, and raises UserError once all bad are listed."""
    samples: list[tuple[str, str | None]] = []
    for split in build_datasets(options):
        samples += ((image, None) for image in split.images.files)
        samples += zip(split.images.files, split.masks.files, strict=True)
    read = partial(_read_sample, options.channels, len(split.classes))
    check_samples(samples, read, options.path_to_data)


def _read_sample(channels: int, num_classes: int, sample: tuple[str, str | None]) -> None:
    """Reads an image, or the mask that is named beside it."""
    image, mask = sample
    if mask is None:
        read_image(image, channels)
    else:
        check_labels(mask, image, read_labels(mask), num_classes)


def _check(options: argparse.Namespace) -> None:
    allowed = {
        "skip_bad": (options.skip_bad >= 0, "0 or more"),
        "crop_padding": (0 <= options.crop_padding <= options.img_size, "0 to --img_size"),
        "crop_scale": (0 < options.crop_scale <= 1, "more than 0, at most 1"),
        "color_jitter": (0 <= options.color_jitter <= 1, "0 to 1"),
        "copy_paste": (options.copy_paste >= 0, "0 or more"),
    }
    for name, (is_allowed, limits) in allowed.items():
        if not is_allowed:
            raise UserError(f"--{name} {getattr(options, name)}: give {limits}")
