#!/usr/bin/env python3
"""Writes images and masks: <path_to_data>/train/images/*, train/masks/*.png, and test likewise.

<path_to_data>/classes.txt names the classes, in the order of their numbers in the masks.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from engine import exits, known_data
from engine.drawn_data import draw_shapes
from engine.parser import Parser

if TYPE_CHECKING:  # what is slow to import is imported where it is used: --help answers at once
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

# The split, the file's name without its extension, the image or the file that holds it, the mask.
Example = tuple[str, str, "Image.Image | Path", "NDArray[np.uint8]"]

# In the order of the numbers in its masks, from 1 on.
VOC_OBJECTS = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
)
PET_CLASSES = ["background", "pet"]
# Of the 1,437 digits to train on, seen again and again, a network learns each one by heart.
THOUSANDS = 5  # of canvases
COPIES = 10  # of each digit, bent a little


def main(options: argparse.Namespace) -> None:
    """Writes the data set.

    Raises:
        UserError: the place is taken, or the data cannot be had or written.
    """

    def fill(tree: Path) -> known_data.Counts:
        classes, examples = find_examples(options.dataset, tree.parent / "downloads")
        return write_tree(classes, examples, tree)

    counts = known_data.write_whole(options.path_to_data, fill)
    written = ", ".join(f"{count} {split}" for split, count in counts.items())
    print(f"{options.dataset} is in {Path(options.path_to_data).absolute()}: {written} images")


def find_examples(dataset: str, folder: Path) -> tuple[list[str], Iterator[Example]]:
    """Returns the classes and the examples of a data set; what is downloaded lands in the folder.

    Raises:
        UserError: it cannot be had.
    """
    if dataset == "voc":
        return ["background", *VOC_OBJECTS.split()], download_voc(folder)
    if dataset == "oxford_pets":
        return PET_CLASSES, download_pets(folder)
    if dataset == "fake":
        names = [name for name, _ in draw_shapes()]
    else:
        names = [str(digit) for digit in range(10)]
    classes = ["background", *names]
    return classes, draw(dataset, classes)


def write_tree(classes: list[str], examples: Iterator[Example], tree: Path) -> known_data.Counts:
    """Writes classes, images and masks, and returns the number of pairs per split."""
    from engine.images import write_labels

    counts = dict.fromkeys(("train", "test"), 0)
    for split, name, image, mask in tqdm(examples, desc="writing", unit="image", disable=None):
        for kind in ("images", "masks"):
            (tree / split / kind).mkdir(parents=True, exist_ok=True)
        place = tree / split / "images" / name
        if isinstance(image, Path):
            image.rename(f"{place}{image.suffix}")  # the original bytes; encoding loses some
        else:
            image.save(f"{place}.png")
        write_labels(mask, tree / split / "masks" / f"{name}.png")
        counts[split] += 1
    (tree / "classes.txt").write_text("\n".join([*classes, ""]), encoding="utf-8")
    return counts


def draw(dataset: str, classes: list[str]) -> Iterator[Example]:
    """Yields canvases of digits or, for "fake", of shapes; what is none of them is background.

    Raises:
        UserError: scikit-learn is not installed.
    """
    import numpy as np

    for number, canvas in enumerate(known_data.draw_canvases(dataset, THOUSANDS, COPIES)):
        mask = np.zeros(canvas.image.size[::-1], np.uint8)
        for each in canvas.objects:
            mask[each.mask] = classes.index(each.name)
        yield canvas.split, f"{number:05}", canvas.image, mask


def download_voc(folder: Path) -> Iterator[Example]:
    """Yields PASCAL VOC 2012 (Everingham et al. 2015); its validation set becomes the test set."""
    known_data.download("voc", "VOCSegmentation", root=folder, image_set="trainval")
    for split, source in (("train", "train"), ("test", "val")):
        yield from read_voc(folder / "VOCdevkit" / "VOC2012", split, source)


def read_voc(root: Path, split: str, source: str) -> Iterator[Example]:
    """Yields one split of the download; its masks are as ours, with 255 around each object."""
    from engine.images import read_labels

    for name in read_names(root / "ImageSets" / "Segmentation" / f"{source}.txt"):
        mask = read_labels(root / "SegmentationClass" / f"{name}.png")
        yield split, name, root / "JPEGImages" / f"{name}.jpg", mask


def download_pets(folder: Path) -> Iterator[Example]:
    """Yields the Oxford-IIIT pets (Parkhi et al. 2012): cats and dogs, told from the background."""
    known_data.download("oxford_pets", "OxfordIIITPet", root=folder)
    for split, source in (("train", "trainval"), ("test", "test")):
        yield from read_pets(folder / "oxford-iiit-pet", split, source)


def read_pets(root: Path, split: str, source: str) -> Iterator[Example]:
    """Yields one split of the download.

    In its masks, 1 is the pet, 2 the background, and 3 the line between them, which was not
    decided: it does not count.
    """
    import numpy as np

    from engine.images import IGNORED, read_labels

    numbers = np.full(256, IGNORED, np.uint8)
    numbers[1], numbers[2] = PET_CLASSES.index("pet"), PET_CLASSES.index("background")
    for name in read_names(root / "annotations" / f"{source}.txt"):
        mask = numbers[read_labels(root / "annotations" / "trimaps" / f"{name}.png")]
        yield split, name, root / "images" / f"{name}.jpg", mask


def read_names(path: Path) -> list[str]:
    """Returns the first word of each line of a list of files."""
    return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line]


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--dataset",
        choices=["digits", "fake", "oxford_pets", "voc"],
        default="digits",
        help="digits and fake are drawn and need no network, the others are downloaded",
    )
    parser.add_argument("--path_to_data", default="data", help="new folder for train/ and test/")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(exits.run(main, parse_arguments()))
