"""Which objects are where in which image: COCO's JSON, and every fault in it by its name.

The format is that of cocodataset.org: lists of `images` (id, file_name, width, height), of
`annotations` (id, image_id, category_id, bbox as left, top, width and height in pixels) and of
`categories` (id, name). What else there is is passed over. Annotations of crowds (`iscrowd`), which
are no single object, are left out.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.exits import UserError
from engine.images import placement, read_size

FILE = "annotations.json"
FOLDER = "images"  # beside the file
KINDS = ("images", "annotations", "categories")
ANCHORS = 9
FITTED = 20000  # boxes, at most, that anchors are fitted to
TOLERANCE = 1.0  # pixels that a box may reach out of its image; what is rounded often does

Entry = dict[str, Any]
Entries = dict[Any, Entry]  # by their ids


class Annotations(NamedTuple):
    """The images of a split, K, and their objects, B, sorted by image."""

    names: list[str]  # of the categories, by their ids
    files: list[str]  # paths of the images, sorted, (K)
    sizes: NDArray[np.int64]  # width and height in pixels, (K, 2)
    counts: NDArray[np.int64]  # objects of each image, (K,)
    boxes: NDArray[np.float32]  # left, top, right and bottom in pixels, cut to the image, (B, 4)
    labels: NDArray[np.int64]  # places in `names`, (B,)


def read_annotations(root: Path) -> tuple[Annotations, list[str]]:
    """Reads <root>/annotations.json, and returns a line for each fault as well.

    What is faulty is left out.

    Raises:
        UserError: there is no such file, or it is not of the format at all.
    """
    path = root / FILE
    lists = _read_lists(path)
    known = {kind: {_id(entry) for entry in lists[kind]} for kind in KINDS}
    faults: list[str] = []

    def sift(kind: str, find_fault: Callable[[Entry], str]) -> Entries:
        """Returns the entries without a fault."""
        good: Entries = {}
        for place, entry in enumerate(lists[kind], 1):
            number = _id(entry)
            if number is None:
                fault = f"{kind}, number {place}: its id must be a number or a text"
            elif number in good:
                fault = f"{kind}, id {number}: another one has this id"
            elif fault := find_fault(entry):
                fault = f"{kind}, id {number}: {fault}"
            else:
                good[number] = entry
                continue
            faults.append(f"{path}: {fault}")
        return good

    names: set[Any] = set()
    files: set[Any] = set()
    categories = sift("categories", lambda entry: _find_fault_of_category(entry, names))
    images = sift("images", lambda entry: _find_fault_of_image(entry, root / FOLDER, files))
    objects = sift("annotations", lambda entry: _find_fault_of_object(entry, known, images))
    return _arrange(root, categories, images, objects), faults


def _read_lists(path: Path) -> dict[str, list[Entry]]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; it tells which objects are where") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    for kind in KINDS:
        entries = content.get(kind) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            raise UserError(f"{path}: it has no list of {kind}, as COCO's format asks for")
    if not content["images"]:
        raise UserError(f"{path}: no images are listed")
    return {kind: content[kind] for kind in KINDS}


def _id(entry: Entry) -> int | str | None:
    number = entry.get("id")
    return number if isinstance(number, int | str) else None


def _find_fault_of_category(entry: Entry, names: set[Any]) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        return "it has no name"
    if name in names:
        return f"another one has the name {name}"
    names.add(name)
    return ""


def _find_fault_of_image(entry: Entry, folder: Path, files: set[Any]) -> str:
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        return "it has no file_name"
    if name in files:
        return f"another one has the file {name}"
    files.add(name)
    for side in ("width", "height"):
        if not isinstance(entry.get(side), int) or entry[side] < 1:
            return f"its {side} must be a whole number above 0"
    path = folder / name
    return "" if path.exists() else f"{path}: no such file"


def _find_fault_of_object(entry: Entry, known: dict[str, set[Any]], images: Entries) -> str:
    for key, kind in (("image_id", "images"), ("category_id", "categories")):
        number = entry.get(key)
        if not isinstance(number, int | str) or number not in known[kind]:
            return f"its {key}, {number}, is none of the {kind}"
    box = entry.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        return "its bbox must be four numbers: left, top, width and height"
    left, top, width, height = box
    if width <= 0 or height <= 0:
        return f"its bbox {box} has no area"
    image = images.get(entry["image_id"])
    if image is None:  # it has a fault of its own
        return ""
    size = image["width"], image["height"]
    reach = max(-left, -top, left + width - size[0], top + height - size[1])
    if reach > TOLERANCE or left >= size[0] or top >= size[1]:
        return f"its bbox {box} reaches out of the image, {size[0]} x {size[1]} pixels"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _arrange(root: Path, categories: Entries, images: Entries, objects: Entries) -> Annotations:
    """Returns what is in order as arrays."""
    labels = {number: label for label, number in enumerate(sorted(categories, key=_order))}
    paths = {number: str(root / FOLDER / entry["file_name"]) for number, entry in images.items()}
    order = sorted(images, key=lambda number: paths[number])
    places = {number: place for place, number in enumerate(order)}
    kept = [
        entry
        for entry in objects.values()
        if not entry.get("iscrowd") and entry["image_id"] in images
        if entry["category_id"] in categories
    ]
    kept.sort(key=lambda entry: places[entry["image_id"]])
    sizes = [(images[number]["width"], images[number]["height"]) for number in order]
    owners = np.array([places[entry["image_id"]] for entry in kept], np.int64)
    boxes = np.array([entry["bbox"] for entry in kept], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    all_sizes = np.array(sizes, np.int64).reshape(-1, 2)
    boxes = boxes.clip(0, np.tile(all_sizes[owners], 2))
    return Annotations(
        names=[categories[number]["name"] for number in labels],
        files=[paths[number] for number in order],
        sizes=all_sizes,
        counts=np.bincount(owners, minlength=len(order)),
        boxes=boxes.astype(np.float32),
        labels=np.array([labels[entry["category_id"]] for entry in kept], np.int64),
    )


def _order(number: int | str) -> tuple[bool, int | str]:
    """Sorts numbers, then texts."""
    return isinstance(number, str), number


def boxes_in_squares(found: Annotations, side: int) -> NDArray[np.float32]:
    """Returns the boxes, (B, 4), where they lie once each image is fitted into a square."""
    sizes = found.sizes.tolist()
    places = np.array([placement(width, height, side) for width, height in sizes])  # (K, 4)
    scale, corner = (np.tile(each, 2) for each in (places[:, :2] / found.sizes, places[:, 2:]))
    owners = np.repeat(np.arange(len(found.sizes)), found.counts)
    boxes: NDArray[np.float32] = (found.boxes * scale[owners] + corner[owners]).astype(np.float32)
    return boxes


def find_wrong_sizes(found: Annotations, count: int | None = None) -> list[str]:
    """Returns a line for each image, of the first so many, that has another size than is said."""
    faults = []
    for path, said in zip(found.files[:count], found.sizes.tolist(), strict=False):
        size = read_size(path)
        if size is not None and size != tuple(said):
            sizes = f"{size[0]} x {size[1]} pixels, and the annotations say {said[0]} x {said[1]}"
            faults.append(f"{path}: it has {sizes}; boxes would be at wrong places")
    return faults


def fit_anchors(boxes: NDArray[np.float32]) -> list[float]:
    """Returns widths and heights of nine priors, small ones first, by k-means with 1 - IoU.

    Source: Redmon and Farhadi 2017, section 2. Nothing is drawn: it begins at boxes that are evenly
    spaced when sorted by their area.

    Args:
        boxes: of the training set, (B, 4), B at least 1.
    """
    sizes = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    sizes = sizes[np.argsort(sizes.prod(axis=1), kind="stable")]
    sizes = sizes[np.linspace(0, len(sizes) - 1, min(len(sizes), FITTED)).astype(int)]
    anchors = sizes[((np.arange(ANCHORS) + 0.5) / ANCHORS * len(sizes)).astype(int)]
    for _ in range(100):
        common = np.minimum(sizes[:, None], anchors).prod(axis=2)
        iou = common / (sizes.prod(axis=1)[:, None] + anchors.prod(axis=1) - common)
        nearest = iou.argmax(axis=1)
        groups = [sizes[nearest == number] for number in range(ANCHORS)]
        means = [g.mean(axis=0) if len(g) else a for g, a in zip(groups, anchors, strict=True)]
        if np.array_equal(means, anchors):
            break
        anchors = np.array(means)
    anchors = anchors[np.argsort(anchors.prod(axis=1), kind="stable")]
    return [round(number, 2) for number in anchors.ravel().tolist()]
