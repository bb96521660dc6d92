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
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional

from engine.exits import UserError
from engine.images import BadImageError, check_images, list_folders, list_images, read_image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the data."""
    parser.add_argument(
        "--channels",
        type=int,
        choices=(1, 3),
        default=3,
        help="1 reads the images as grey, 3 as color",
    )
    parser.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="mirror half of the training images; not for digits or letters",
    )
    parser.add_argument(
        "--crop_padding",
        type=int,
        default=4,
        metavar="N",
        help="pad training images by N pixels, then crop at random; 0 turns it off",
    )
    parser.add_argument(
        "--check_data",
        action="store_true",
        help="read every image first, list the bad ones, and train only if there are none",
    )
    parser.add_argument(
        "--skip_bad",
        type=int,
        default=0,
        metavar="N",
        help="replace up to N bad images of a split by their neighbors; 0 stops at the first",
    )


class Transform:
    """Resize, crop, flip, tensor: an image becomes pixels, uint8 of shape (C, size, size).

    The functions are those of torchvision's v2 transforms, called without their classes: on small
    images these take longer than reading the file. Random draws come from torch's global
    generator, which is seeded anew for each training sample.

    Args:
        size: side of the result, in pixels.
        padding: width of the black border added before the random crop, in pixels; 0: no crop.
        flip: whether to mirror every second image, at random.
    """

    def __init__(self, size: int, padding: int = 0, flip: bool = False) -> None:
        self.size = size
        self.padding = padding
        self.flip = flip

    def __call__(self, image: Image.Image) -> Tensor:
        """Returns the pixels of an image in mode L or RGB."""
        image = functional.resize(image, [self.size, self.size], antialias=True)
        if self.padding:
            top, left = torch.randint(-self.padding, self.padding + 1, (2,)).tolist()
            image = functional.crop(image, top, left, self.size, self.size)  # black beyond the edge
        if self.flip and torch.rand(()).item() < 0.5:
            image = functional.horizontal_flip(image)
        pixels = np.asarray(image).reshape(self.size, self.size, -1)  # (H, W, C)
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())  # (C, H, W), contiguous


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Images in one folder per class; a label is a place in the given list of classes.

    Args:
        root: the folder of the split.
        classes: names of the class folders. Both splits take the training set's list: numbered
            each by itself, a class that one of them lacks would shift the labels after it.
        channels: 1 for grey, 3 for color.
        transform: makes a uint8 tensor of an image.
        skip_bad: how many bad files are replaced before the next one is an error.

    Raises:
        UserError: the folder holds no images, or a class that is not in the list.
    """

    def __init__(
        self,
        root: Path,
        classes: Sequence[str],
        channels: int,
        transform: Callable[[Image.Image], Tensor],
        skip_bad: int = 0,
    ) -> None:
        for name in list_folders(root):
            if name not in classes:
                raise UserError(f"{root / name}: no such class in training; rename or remove it")
        self.root = root
        self.classes = list(classes)
        self.channels = channels
        self.transform = transform
        self.skip_bad = skip_bad
        self.samples = [
            (path, label)
            for label, name in enumerate(self.classes)
            if (root / name).is_dir()
            for path in list_images(root / name)
        ]
        if not self.samples:
            raise UserError(f"{root}: no images; they belong in {root / '<class>'}")
        # One byte per image, in memory that all workers share, so that they count together.
        self.bad = torch.zeros(len(self), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Returns the pixels, uint8 of shape (C, H, W), and the label.

        Raises:
            BadImageError: the file is bad, and none, or no more, may be replaced.
        """
        for step in range(len(self)):
            # Its next good neighbor is the same in any worker and epoch: the run can be repeated.
            # Without a step there is no wrapping around, so an index past the end is an error.
            neighbor = (index + step) % len(self) if step else index
            path, label = self.samples[neighbor]
            try:
                return self.transform(read_image(path, self.channels)), label
            except BadImageError as error:
                self.count_bad(neighbor, error)
        raise BadImageError("no good image is left; --check_data lists the bad ones")

    @property
    def fingerprint(self) -> str:
        """What a resumed run must find again: the files, their labels, what is done to them."""
        files = [(path.removeprefix(str(self.root)), label) for path, label in self.samples]
        return repr((files, self.channels, vars(self.transform)))

    def count_bad(self, index: int, error: BadImageError) -> None:
        """Counts a bad file and logs it when it is first met; raises if it is one too many."""
        known = bool(self.bad[index])
        self.bad[index] = True
        count = int(self.bad.sum())
        if count > self.skip_bad:
            limit = f"bad file {count}, --skip_bad is {self.skip_bad}"
            raise BadImageError(f"{error} ({limit}; --check_data lists all)")
        if not known:
            print(f"{error}: replaced, bad file {count} of {self.skip_bad}", file=sys.stderr)


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
        raise UserError(f"{root}: not the checkpoint's classes: {_difference(classes, found)}")
    transform = Transform(options.img_size, options.crop_padding, options.flip)
    training_set = _build_split(root, found, options, transform)
    for name in _classes_without_images(training_set):
        raise UserError(f"{root / name}: no images; add some, or remove the folder")
    return training_set, build_test_set(options, found)


def build_test_set(options: argparse.Namespace, classes: Sequence[str]) -> ImageFolder:
    """Returns the test set, numbered by the given classes; the training set may be absent.

    Raises:
        UserError: a folder or flag is wrong; the line says which, and what to do.
    """
    root = find_split(options, "test")
    test_set = _build_split(root, classes, options, Transform(options.img_size))
    missing = _classes_without_images(test_set)
    if missing:
        print(f"{root}: no images of {_shorten(missing)}; not tested", file=sys.stderr)
    return test_set


def read_inputs(paths: Sequence[str], options: argparse.Namespace) -> Iterator[tuple[Path, Tensor]]:
    """Yields each image in the given files and folders as the test set has it.

    Returns:
        An iterator over paths and pixels, uint8 of shape (C, img_size, img_size); folders are
        searched with all folders in them, in sorted order.

    Raises:
        UserError: a path is missing, or a folder holds no images. Raised at once; a file that
            turns out bad raises `BadImageError` at its turn.
    """
    files: list[str] = []
    for path in paths:
        if not Path(path).exists():
            raise UserError(f"{path}: no such file or folder")
        found = list_images(path) if Path(path).is_dir() else [path]
        if not found:
            raise UserError(f"{path}: no images in this folder, nor in those below it")
        files += found
    transform = Transform(options.img_size)
    return ((Path(file), transform(read_image(file, options.channels))) for file in files)


def check_data(options: argparse.Namespace) -> None:
    """Reads every image of both splits and prints one line for each that is bad.

    Raises:
        UserError: some are bad; the line says how many.
    """
    files = [path for split in build_datasets(options) for path, _ in split.samples]
    faults = check_images(files, options.channels)
    for fault in faults:
        print(fault)
    if faults:
        raise UserError(
            f"{options.path_to_data}: {len(faults)} of {len(files)} images are bad, listed above; "
            "mend or remove them"
        )
    print(f"{len(files)} files in order")


def _build_split(
    root: Path, classes: Sequence[str], options: argparse.Namespace, transform: Transform
) -> ImageFolder:
    if options.skip_bad < 0:
        raise UserError(f"--skip_bad {options.skip_bad}: give 0 or more")
    if not 0 <= options.crop_padding <= options.img_size:
        raise UserError(f"--crop_padding {options.crop_padding}: give 0 to --img_size")
    return ImageFolder(root, classes, options.channels, transform, options.skip_bad)


def _classes_without_images(split: ImageFolder) -> list[str]:
    present = {label for _, label in split.samples}
    return [name for label, name in enumerate(split.classes) if label not in present]


def _difference(expected: Sequence[str], found: Sequence[str]) -> str:
    """Returns in words how the classes found differ from those expected."""
    lacking = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    if not lacking and not surplus:
        return "another order"
    return f"lacking {_shorten(lacking) or 'none'}, surplus {_shorten(surplus) or 'none'}"


def _shorten(names: Sequence[str]) -> str:
    """Returns the names as a list of at most five."""
    return ", ".join(names) if len(names) <= 5 else f"{', '.join(names[:5])} ... ({len(names)})"
