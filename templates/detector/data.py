"""The data: images and the boxes of their objects, as uint8 pixels and padded tensors.

<path_to_data>/train/images/*.png, in any format that Pillow reads, and train/annotations.json in
COCO's format, and test likewise. Each image is fitted into a square, its sides in proportion, and
boxes move along. Pixels travel as uint8 and are normalized by the model, on the device.
"""

import argparse
import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from engine import augment
from engine.checking import find_faults
from engine.exits import UserError, difference
from engine.files import find_inputs, find_split
from engine.images import decode_padded, read_image, read_pixels
from engine.options import add_image_arguments
from engine.store import SMALL, ImageStore

from annotations import boxes_in_squares, find_wrong_sizes, fit_anchors, read_annotations

Uniform = Callable[[int], NDArray[np.float32]]  # (N, count) draws in [0, 1) for a count
Batch = tuple[Tensor, Tensor, Tensor]  # images, boxes and labels

GREY = 128  # around an image, as `decode_padded` has it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the data."""
    add_image_arguments(parser)
    add = parser.add_argument
    add("--zoom", type=float, default=1.3, help="most that images are enlarged or shrunk; 1: off")
    laid = "share of images that are laid together with three others; 0: none"
    add("--mosaic", type=float, default=0.0, metavar="SHARE", help=laid)
    add(
        "--color_jitter",
        type=float,
        default=0.0,
        metavar="X",
        help="change brightness, contrast and saturation at random by up to this share; 0: off",
    )
    add(
        "--anchors",
        type=float,
        nargs="+",
        metavar="N",
        help="width and height of nine priors in pixels (default: fitted to the training boxes)",
    )


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what predict.py runs on."""
    parser.add_argument("paths", nargs="*", help="files and folders, images of any size")


class Augmentation:
    """Mosaic, zoom, flip, color: what is done to decoded training images, a whole batch at once."""

    draws = 13  # random numbers for each image

    def __init__(self, options: argparse.Namespace) -> None:
        self.mosaic = options.mosaic
        self.zoom = options.zoom
        self.flip = options.flip
        self.jitter = options.color_jitter
        self.is_slow = self.mosaic > 0 or self.zoom > 1 or self.jitter > 0

    def __call__(self, images: Tensor, boxes: Tensor, labels: Tensor, draws: Tensor) -> Batch:
        """Returns a batch, changed.

        Args:
            images: uint8 (N, 4, C, S, S), each with three others; without mosaic, (N, 1, C, S, S).
            boxes: theirs, (N, 4 or 1, M, 4).
            labels: likewise, (N, 4 or 1, M).
            draws: in [0, 1), (N, 13). The first three have said which are the others.
        """
        side = images.shape[-1]
        image, size = images[:, 0], augment.areas(boxes)
        if self.mosaic:
            which = (draws[:, 3] < self.mosaic)[:, None, None, None]
            centers = ((0.25 + 0.5 * draws[:, 4:6]) * side).round().long()
            image = torch.where(which, augment.mosaic(images, centers), image)
            boxes = torch.where(which, augment.mosaic_boxes(boxes, centers, side), boxes)
            is_first = torch.arange(4, device=boxes.device)[:, None] == 0
            labels = labels.where(which[..., 0] | is_first, -1)
        boxes, labels, size = (each.flatten(1, 2) for each in (boxes, labels, size))
        boxes, labels = augment.drop_cut(boxes, labels, size)
        if self.zoom > 1:
            crops = augment.draw_zooms(draws[:, 6:9], side, self.zoom)
            image = augment.resized_crop(image, crops, side, GREY)
            size = augment.areas(boxes) * (side / crops[:, 2:3]).square()
            boxes, labels = augment.drop_cut(augment.crop_boxes(boxes, crops, side), labels, size)
        if self.flip:
            which = draws[:, 9] < 0.5
            image, boxes = augment.flip(image, which), augment.flip_boxes(boxes, which, side)
        if self.jitter:
            factors = 1 + self.jitter * (2 * draws[:, 10:13] - 1)
            image = augment.adjust_color(image, *factors.unbind(1))
        return image, boxes, labels


class AnnotatedImages(Dataset[Batch]):
    """Images and their objects.

    Args:
        root: the folder of the split.
        options: the flags.
        classes: names that those of the annotations must be; by default, they are those.
        augmentation: of the decoded images, if any.

    Raises:
        UserError: the annotations have a fault, no objects, or other classes.
    """

    def __init__(
        self,
        root: Path,
        options: argparse.Namespace,
        classes: Sequence[str] | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        found, faults = read_annotations(root)
        for fault in faults or find_wrong_sizes(found, 1):
            raise UserError(f"{fault} (--check_data lists all faults)")
        self.classes = list(found.names if classes is None else classes)
        if set(self.classes) != set(found.names):
            what = difference(self.classes, found.names)
            raise UserError(f"{root}: its categories are not those of the training: {what}")
        if not len(found.labels):
            raise UserError(f"{root}: no objects in any image")
        self.augmentation = augmentation
        self.store = ImageStore(root, found.files, options.img_size, options, decode_padded)
        numbers = np.array([self.classes.index(name) for name in found.names])
        self.labels, self.counts = numbers[found.labels], found.counts
        self.starts = found.counts.cumsum() - found.counts
        self.boxes = boxes_in_squares(found, options.img_size)

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: int) -> Batch:
        """Returns the pixels, uint8 (C, S, S), and boxes and labels as a batch has them.

        Of those there are equally many for each index, for some of which there is no object.

        Raises:
            BadImageError: the file is bad, and none, or no more, may be replaced.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        batch = self.get_batch(np.array([index]), lambda n: torch.rand(1, n).numpy())
        image, boxes, labels = (part[0] for part in batch)
        missing = int(self.counts.max()) * (4 if self._lays() else 1) - len(labels)
        return image, pad(boxes, (0, 0, 0, missing)), pad(labels, (0, missing), value=-1)

    def get_batch(self, indices: NDArray[np.int64], uniform: Uniform) -> Batch:
        """Returns a batch.

        Args:
            indices: of the samples, (N,).
            uniform: gives the random numbers of the augmentation.

        Returns:
            Images, uint8 (N, C, S, S); boxes, (N, M, 4), left, top, right and bottom in pixels; and
            labels, (N, M), -1 where there is no object, whose box is then (0, 0, 0, 0).

        Raises:
            BadImageError: as above.
        """
        if self.augmentation is None:
            return self._read(indices)
        numbers = uniform(self.augmentation.draws)
        others = (numbers[:, : 3 * self._lays()] * len(self)).astype(np.int64)
        chosen = np.concatenate([indices[:, None], others], axis=1)
        parts = self._read(chosen.ravel())
        images, boxes, labels = (part.unflatten(0, chosen.shape) for part in parts)
        draws = torch.from_numpy(numbers).to(images.device, non_blocking=True)
        return self.augmentation(images, boxes, labels, draws)

    def _lays(self) -> bool:
        return self.augmentation is not None and self.augmentation.mosaic > 0

    def _read(self, indices: NDArray[np.int64]) -> Batch:
        """Returns images, and boxes and labels padded to the most that one has, or one."""
        images, indices = self.store.read(indices)
        counts = self.counts[indices]
        places = np.arange(max(1, counts.max()))
        is_there = places < counts[:, None]
        rows = np.where(is_there, self.starts[indices][:, None] + places, 0)
        boxes = self.boxes[rows] * is_there[..., None].astype(np.float32)
        labels = np.where(is_there, self.labels[rows], -1)
        device = images.device
        return images, torch.from_numpy(boxes).to(device), torch.from_numpy(labels).to(device)

    @property
    def sample_bytes(self) -> int:
        """Size of a decoded image; of small ones, several batches are made at once."""
        return self.store.sample_bytes

    @property
    def needs_workers(self) -> bool:
        """False once a batch takes less time to make than to fetch from another process."""
        is_slow = self.augmentation is not None and self.augmentation.is_slow
        is_slow = is_slow and self.sample_bytes > SMALL  # small images are changed in no time
        return is_slow or self.store.needs_workers

    @property
    def fingerprint(self) -> str:
        """What a resumed run must find again: the files, their objects, what is done to them."""
        objects = b"".join(each.tobytes() for each in (self.counts, self.boxes, self.labels))
        digest = hashlib.sha256(objects).hexdigest()
        augmentation = vars(self.augmentation) if self.augmentation else None
        return repr((self.store.files.digest(), digest, self.store.channels, augmentation))


def build_datasets(
    options: argparse.Namespace, classes: Sequence[str] | None = None
) -> tuple[AnnotatedImages, AnnotatedImages]:
    """Returns the training and the test set, both with the training set's classes.

    Where `options.anchors` is None, those that are fitted to the training set take its place.

    Args:
        options: the flags.
        classes: those of a checkpoint, which the data must have too.

    Raises:
        UserError: a folder or flag is wrong; the line says which, and what to do.
    """
    _check(options)
    root = find_split(options, "train")
    training_set = AnnotatedImages(root, options, classes, Augmentation(options))
    if options.anchors is None:
        options.anchors = fit_anchors(training_set.boxes)
    return training_set, build_test_set(options, training_set.classes)


def build_test_set(options: argparse.Namespace, classes: Sequence[str]) -> AnnotatedImages:
    """Returns the test set, with the given classes; the training set may be absent.

    Raises:
        UserError: a folder or flag is wrong; the line says which, and what to do.
    """
    _check(options)
    return AnnotatedImages(find_split(options, "test"), options, classes)


def check_inputs(inputs: argparse.Namespace) -> None:
    """Raises UserError, before anything else is done, if there is nothing to run on."""
    if not inputs.paths and not inputs.export:
        raise UserError("name files or folders to run on, or --export MODEL.pt2")


def read_inputs(
    inputs: argparse.Namespace, options: argparse.Namespace
) -> Iterator[tuple[Path, Tensor]]:
    """Yields each image in the given files and folders, as large as it is.

    Pixels are uint8 of shape (C, H, W). A path that is missing, or a folder without images, raises
    `UserError` at once; a file that turns out bad raises `BadImageError` at its turn.
    """
    files = find_inputs(inputs.paths)
    return ((Path(file), torch.from_numpy(read_pixels(file, options.channels))) for file in files)


def check_data(options: argparse.Namespace) -> None:
    """Reads all annotations and images, and raises UserError once every fault is listed."""
    faults, count = [], 0
    for root in (find_split(options, "train"), find_split(options, "test")):
        found, own = read_annotations(root)
        read = partial(read_image, channels=options.channels)
        faults += [*own, *find_wrong_sizes(found), *find_faults(found.files, read)]
        count += len(found.files)
    print(*faults, sep="\n", end="\n" if faults else "")
    if faults:
        what = f"{len(faults)} faults in annotations and images, listed above"
        raise UserError(f"{options.path_to_data}: {what}; mend or remove them")
    print(f"{count} files and their annotations in order")


def _check(options: argparse.Namespace) -> None:
    allowed = {
        "skip_bad": (options.skip_bad >= 0, "0 or more"),
        "zoom": (1 <= options.zoom <= 2, "1 to 2"),
        "mosaic": (0 <= options.mosaic <= 1, "0 to 1"),
        "color_jitter": (0 <= options.color_jitter <= 1, "0 to 1"),
    }
    for name, (is_allowed, limits) in allowed.items():
        if not is_allowed:
            raise UserError(f"--{name} {getattr(options, name)}: give {limits}")
