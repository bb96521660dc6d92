#!/usr/bin/env python3
"""Writes pairs of images: <path_to_data>/train/input/*.png, train/target/*.png, and test likewise.

The targets are tiles of two photographs that come with scikit-learn. The middle of each photograph
is held out for the test; no pixel, and nothing computed from one, is in both splits.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from engine import exits, known_data
from engine.drawn_data import draw_blobs
from engine.parser import Parser

if TYPE_CHECKING:  # what is slow to import is imported where it is used: --help answers at once
    from PIL import Image

SCALE = 4  # of superres and fake: sides of a target, in sides of its input
TILE = 96  # side of a target, in pixels
STEP = 32  # between training tiles, which overlap; those of the test do not
SHRUNK = 1.0, 0.75, 0.5  # sizes of a photograph at which it is cut into training tiles
HELD_OUT = 192, 384  # columns of the photographs, 640 pixels wide, that the test is made of

Tile = tuple[str, "Image.Image"]  # the split, and a target


def main(options: argparse.Namespace) -> None:
    """Writes the pairs.

    Raises:
        UserError: the place is taken, or the data cannot be had or written.
    """
    task = "superres" if options.dataset == "fake" else options.dataset
    tiles = cut_blobs() if options.dataset == "fake" else cut_photographs()
    counts = known_data.write_whole(
        options.path_to_data, lambda tree: write_pairs(tiles, task, tree)
    )
    written = ", ".join(f"{count} {split}" for split, count in counts.items())
    print(f"{options.dataset} is in {Path(options.path_to_data).absolute()}: {written} pairs")
    scale = SCALE if task == "superres" else 1
    print(f"train on it with --scale {scale}")


def write_pairs(tiles: Iterator[Tile], task: str, tree: Path) -> known_data.Counts:
    """Writes each tile as a target, with its input, and returns the number of pairs per split."""
    counts = dict.fromkeys(("train", "test"), 0)
    for split, target in tqdm(tiles, desc="writing", unit="pair", disable=None):
        for kind, image in (("input", make_input(target, task)), ("target", target)):
            folder = tree / split / kind
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{counts[split]:05}.png")
        counts[split] += 1
    return counts


def make_input(target: "Image.Image", task: str) -> "Image.Image":
    """Returns what the target is to be made of.

    Args:
        target: in color.
        task: "superres": the target at a quarter of its side, as it is: to enlarge an image is the
            model's own affair. "colorize": its luma. "edges": dark lines where it changes.
    """
    from PIL import Image, ImageFilter, ImageOps

    if task == "superres":
        size = target.width // SCALE, target.height // SCALE
        return target.resize(size, Image.Resampling.BICUBIC)
    grey = target.convert("L")
    return grey if task == "colorize" else ImageOps.invert(grey.filter(ImageFilter.FIND_EDGES))


def cut_photographs() -> Iterator[Tile]:
    """Yields square tiles of scikit-learn's two photographs.

    Raises:
        UserError: scikit-learn is not installed.
    """
    from PIL import Image

    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        raise exits.UserError(
            "the photographs come with scikit-learn: pip install -e '.[demo]'"
        ) from None
    for pixels in load_sample_images().images:  # (427, 640, 3)
        photograph = Image.fromarray(pixels)
        width, height = photograph.size
        for left, right in ((0, HELD_OUT[0]), (HELD_OUT[1], width)):
            part = photograph.crop((left, 0, right, height))
            for share in SHRUNK:
                size = round(share * part.width), round(share * part.height)
                smaller = part.resize(size, Image.Resampling.BICUBIC)
                yield from (("train", tile) for tile in cut(smaller, STEP))
        middle = photograph.crop((HELD_OUT[0], 0, HELD_OUT[1], height))
        yield from (("test", tile) for tile in cut(middle, TILE))


def cut(image: "Image.Image", step: int) -> Iterator["Image.Image"]:
    """Yields the square tiles of an image, so many pixels apart; what is left over is left out."""
    for left in range(0, image.width - TILE + 1, step):
        for top in range(0, image.height - TILE + 1, step):
            yield image.crop((left, top, left + TILE, top + TILE))


def cut_blobs() -> Iterator[Tile]:
    """Yields the images of the fake data set, 32x32."""
    for split, _, image in draw_blobs():
        yield split, image


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--dataset",
        choices=["superres", "colorize", "edges", "fake"],
        default="superres",
        help="what is to be made of an input: four times its size, its colors, or an image of its "
        "edges; fake needs no scikit-learn. None needs a network",
    )
    parser.add_argument("--path_to_data", default="data", help="folder for train/ and test/")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(exits.run(main, parse_arguments()))
