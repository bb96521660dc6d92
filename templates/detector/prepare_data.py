#!/usr/bin/env python3
"""Writes images and their objects: <path_to_data>/train/images/, train/annotations.json, and test.

The annotations are in COCO's format.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from engine import exits, known_data
from engine.parser import Parser

if TYPE_CHECKING:  # what is slow to import is imported where it is used: --help answers at once
    from PIL import Image

Box = tuple[float, float, float, float]  # left, top, right and bottom in pixels
CLASSIC = "2007"  # the last year of PASCAL VOC whose test is public


class Picture(NamedTuple):
    """An image and its objects."""

    split: str
    image: "Image.Image | Path"
    size: tuple[int, int]  # width and height, in pixels
    objects: list[tuple[str, Box]]  # class and box of each


def main(options: argparse.Namespace) -> None:
    """Writes the data set.

    Raises:
        UserError: the place is taken, or the data cannot be had or written.
    """

    def fill(tree: Path) -> known_data.Counts:
        return write_tree(find_pictures(options, tree.parent / "downloads"), tree)

    counts = known_data.write_whole(options.path_to_data, fill)
    written = ", ".join(f"{count} {split}" for split, count in counts.items())
    print(f"{options.dataset} is in {Path(options.path_to_data).absolute()}: {written} images")


def find_pictures(options: argparse.Namespace, folder: Path) -> Iterable[Picture]:
    """Returns the pictures of a data set; what is downloaded lands in the folder."""
    if options.dataset == "voc":
        return download_voc(folder)
    if options.dataset == "coco":
        if options.source is None:
            raise exits.UserError("--dataset coco: name the folder of COCO with --source")
        return read_coco(Path(options.source))
    return draw(options.dataset)


def write_tree(pictures: Iterable[Picture], tree: Path) -> known_data.Counts:
    """Writes <tree>/<split>/images/ and annotations.json; returns the images of each split.

    Both splits have the classes of either.
    """
    found: dict[str, list[tuple[str, Picture]]] = {"train": [], "test": []}
    for picture in tqdm(pictures, desc="writing", unit="image", disable=None):
        own = found[picture.split]
        folder = tree / picture.split / "images"
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(picture.image, Path):
            name = picture.image.name  # the original bytes; encoding them anew loses some
            link(picture.image, folder / name)
        else:
            name = f"{len(own):05}.png"
            picture.image.save(folder / name)
        own.append((name, picture._replace(image=Path(name))))
    names = sorted({name for own in found.values() for _, each in own for name, _ in each.objects})
    for split, own in found.items():
        text = json.dumps(to_coco(own, names), ensure_ascii=False)
        (tree / split / "annotations.json").write_text(text, encoding="utf-8")
    return {split: len(own) for split, own in found.items()}


def link(source: Path, target: Path) -> None:
    """Gives a file a second name, or copies it where the disk has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def to_coco(pictures: list[tuple[str, Picture]], names: list[str]) -> dict[str, Any]:
    """Returns the contents of annotations.json for named files."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (file, picture) in enumerate(pictures, 1):
        width, height = picture.size
        images.append({"id": number, "file_name": file, "width": width, "height": height})
        for name, (left, top, right, bottom) in picture.objects:
            box = [left, top, right - left, bottom - top]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": names.index(name) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def draw(dataset: str) -> Iterator[Picture]:
    """Yields canvases on which digits, or shapes for "fake", are scattered."""
    for canvas in known_data.draw_canvases(dataset):
        objects: list[tuple[str, Box]] = [(each.name, each.box) for each in canvas.objects]
        yield Picture(canvas.split, canvas.image, canvas.image.size, objects)


def download_voc(folder: Path) -> Iterator[Picture]:
    """Yields the images of PASCAL VOC 2007: `trainval` to train on, `test` for the test."""
    for split, part in (("train", "trainval"), ("test", "test")):
        voc = known_data.download("voc", "VOCDetection", root=folder, year=CLASSIC, image_set=part)
        for image, annotation in zip(voc.images, voc.annotations, strict=True):
            yield Picture(split, Path(image), *read_voc(Path(annotation)))


def read_voc(path: Path) -> tuple[tuple[int, int], list[tuple[str, Box]]]:
    """Returns size and objects of an image by its XML file of PASCAL VOC."""
    from xml.etree import ElementTree

    root = ElementTree.parse(path).getroot()
    width, height = (int(root.findtext(f"size/{side}", "0")) for side in ("width", "height"))
    objects = []
    for each in root.iter("object"):
        ends = ("xmin", "ymin", "xmax", "ymax")
        left, top, right, bottom = (float(each.findtext(f"bndbox/{end}", "nan")) for end in ends)
        # Its pixels count from 1, and the last one belongs to the box.
        objects.append((each.findtext("name", ""), (left - 1, top - 1, right, bottom)))
    return (width, height), objects


def read_coco(source: Path) -> Iterator[Picture]:
    """Yields the images of a folder of COCO: its `train` to train on, its `val` for the test.

    Crowds, which are no single object, and boxes without an area are left out.

    Raises:
        UserError: the folder is not as it is unpacked.
    """
    for split, part in (("train", "train"), ("test", "val")):
        found = sorted((source / "annotations").glob(f"instances_{part}*.json"))
        if not found:
            raise exits.UserError(
                f"--source {source}: no annotations/instances_{part}2017.json, nor of another year"
            )
        folder = source / found[-1].stem.removeprefix("instances_")
        try:
            pictures = list(read_instances(found[-1], split, folder))
        except (ValueError, KeyError, TypeError) as error:
            raise exits.UserError(f"{found[-1]}: not one of COCO's files ({error!r})") from None
        for picture in pictures:
            if not Path(str(picture.image)).is_file():
                raise exits.UserError(f"--source {source}: {picture.image} is missing")
        yield from pictures


def read_instances(path: Path, split: str, folder: Path) -> Iterator[Picture]:
    """Yields the images of one of COCO's files, which lie in the folder."""
    content = json.loads(path.read_bytes())
    names = {each["id"]: each["name"] for each in content["categories"]}
    objects: dict[int, list[tuple[str, Box]]] = {each["id"]: [] for each in content["images"]}
    for each in content["annotations"]:
        left, top, width, height = each["bbox"]
        if not each.get("iscrowd") and width > 0 and height > 0:
            box = left, top, left + width, top + height
            objects[each["image_id"]].append((names[each["category_id"]], box))
    for each in content["images"]:
        size = each["width"], each["height"]
        yield Picture(split, folder / each["file_name"], size, objects[each["id"]])


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--dataset",
        choices=["digits", "fake", "voc", "coco"],
        default="digits",
        help="digits and fake need no network, voc is downloaded, coco is read from --source",
    )
    parser.add_argument(
        "--source",
        help="for coco: the folder into which you have unpacked its train2017.zip, val2017.zip and "
        "annotations_trainval2017.zip",
    )
    parser.add_argument("--path_to_data", default="data", help="new folder for train/ and test/")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(exits.run(main, parse_arguments()))
