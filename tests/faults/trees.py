"""How variants want the tree of images, and faults of what they add to it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

NAMES = ("cat", "dög 犬")  # names may hold spaces and any letters
PIXELS = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)


def no_twin(root: Path) -> None:
    """Takes one target away."""
    (root / "train" / "target" / "cat" / "a b 0.png").unlink()


def another_scale(root: Path) -> None:
    """Makes the first target twice as large."""
    path = root / "train" / "target" / "cat" / "a b 0.png"
    Image.fromarray(PIXELS).resize((32, 32)).save(path)


def make_pairs(root: Path) -> None:
    """Makes of each image its own target."""
    for split in root.iterdir():
        names = [path.name for path in split.iterdir()]
        for name in names:
            shutil.copytree(split / name, split / "target" / name, symlinks=True)
            (split / "input").mkdir(exist_ok=True)
            (split / name).rename(split / "input" / name)


def annotate(root: Path) -> None:
    """Makes of the classes' folders one of images, with an object in each that one can see."""
    for split in root.iterdir():
        names = sorted(path.name for path in split.iterdir())
        for name in names:
            (split / "images").mkdir(exist_ok=True)
            (split / name).rename(split / "images" / name)
        folder = split / "images"
        files = [path.relative_to(folder) for path in sorted(folder.glob("*/[!.]*.[pj][np]g"))]
        images = [
            {"id": number, "file_name": file.as_posix(), "width": 16, "height": 16}
            for number, file in enumerate(files)
        ]
        categories = [{"id": number, "name": name} for number, name in enumerate(NAMES)]
        boxes = [
            {"id": each["id"], "image_id": each["id"], "category_id": 0, "bbox": [2, 2, 9, 9]}
            for each in images
        ]
        content = {"images": images, "annotations": boxes, "categories": categories}
        (split / "annotations.json").write_text(json.dumps(content), encoding="utf-8")


def annotation(**values: object) -> Callable[[Path], None]:
    """Returns a fault: other values in the second annotation of the training."""

    def fault(root: Path) -> None:
        path = root / "train" / "annotations.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        content["annotations"][1] |= values
        path.write_text(json.dumps(content), encoding="utf-8")

    return fault


def half_of_the_annotations(root: Path) -> None:
    """Cuts the annotations in half."""
    path = root / "train" / "annotations.json"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_masks(root: Path) -> None:
    """Gives each image a mask of its two classes, and names them; faults have none of their own."""
    (root / "classes.txt").write_text("\n".join(NAMES), encoding="utf-8")
    for split in [path for path in root.iterdir() if path.is_dir()]:
        for path in [*split.rglob("*.*")]:
            name = path.relative_to(split)
            image, mask = split / "images" / name, split / "masks" / name.with_suffix(".png")
            for folder in (image.parent, mask.parent):
                folder.mkdir(parents=True, exist_ok=True)
            path.rename(image)
            if path.suffix != ".txt":
                write_mask(mask, 1, size_of(image))


def size_of(path: Path) -> tuple[int, int]:
    """Returns width and height of an image as it is to be seen; of what is none, any."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).size
    except OSError:
        return 16, 16


def write_mask(path: Path, highest: int, size: tuple[int, int] = (16, 16)) -> None:
    """Writes a mask: half of it is class 0, half the other."""
    mask = Image.new("L", size)
    mask.paste(highest, (0, 0, size[0] // 2, size[1]))
    mask.save(path)


def no_mask(root: Path) -> None:
    """Takes one mask away."""
    (root / "train" / "masks" / "cat" / "a b 0.png").unlink()


def larger_mask(root: Path) -> None:
    """Makes a mask wider than its image."""
    write_mask(root / "train" / "masks" / "cat" / "a b 0.png", 1, (17, 16))


def third_class(root: Path) -> None:
    """Has a mask hold a number beyond the two classes."""
    write_mask(root / "train" / "masks" / "cat" / "a b 0.png", 2)


def colored_mask(root: Path) -> None:
    """Puts a picture in the place of a mask."""
    Image.fromarray(PIXELS).save(root / "train" / "masks" / "cat" / "a b 0.png")


def no_names(root: Path) -> None:
    """Takes the names of the classes away."""
    (root / "classes.txt").unlink()
