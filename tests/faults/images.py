"""Bad data: each fault gives the right picture, or one line that names the file."""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from runs import AttackError, Range, expect, expect_line
from trees import (
    NAMES,
    PIXELS,
    annotate,
    annotation,
    another_scale,
    colored_mask,
    half_of_the_annotations,
    larger_mask,
    make_pairs,
    no_mask,
    no_names,
    no_twin,
    third_class,
    write_masks,
)
from victim import Victim

FLAGS = ("--max_steps=2", "--batch_size=4", "--picture_every=0")


def make_tree(root: Path) -> None:
    """Writes six images a class for training, and two for the test."""
    for split, count in {"train": 6, "test": 2}.items():
        for name in NAMES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(PIXELS + number).save(folder / f"a b {number}.png")


def write(content: bytes, name: str = "bad.png") -> Callable[[Path], None]:
    """Returns a fault: a file of these bytes among the training images."""

    def fault(root: Path) -> None:
        (root / "train" / "cat" / name).write_bytes(content)

    return fault


def add(image: Image.Image, name: str, **options: object) -> Callable[[Path], None]:
    """Returns what looks like a fault: an unusual image among the training images."""
    return lambda root: image.save(root / "train" / "cat" / name, **options)  # type: ignore[arg-type]  # by name


def truncate(root: Path) -> None:
    """Cuts an image in half."""
    path = root / "train" / "cat" / "bad.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])


def link_to_nothing(root: Path) -> None:
    """Adds a broken link."""
    (root / "train" / "cat" / "bad.png").symlink_to("gone.png")


def unreadable(root: Path) -> None:
    """Adds a folder in a file's place, which nobody can read as a file."""
    (root / "train" / "cat" / "bad.png").symlink_to(root)


def remove(*names: str) -> Callable[[Path], None]:
    """Returns a fault: a folder that is missing."""
    return lambda root: shutil.rmtree(root.joinpath(*names))


def remove_file(*names: str) -> Callable[[Path], None]:
    """Returns a fault: a file that is missing."""
    return lambda root: root.joinpath(*names).unlink()


def empty_class(root: Path) -> None:
    """Adds a class without images."""
    (root / "train" / "empty").mkdir()


def one_each(root: Path) -> None:
    """Leaves one image a class."""
    for name in NAMES:
        for path in sorted((root / "train" / name).iterdir())[1:]:
            path.unlink()


def surplus(root: Path) -> None:
    """Adds a class to the test set alone."""
    shutil.copytree(root / "test" / "cat", root / "test" / "fox")


def one_test_image(root: Path) -> None:
    """Leaves one image in the whole test set."""
    for path in sorted((root / "test").rglob("*.png"))[1:]:
        path.unlink()


def exif() -> bytes:
    """Returns the note of a camera that was held upright."""
    note = Image.Exif()
    note[0x0112] = 6
    return note.tobytes()


RGB = Image.fromarray(PIXELS)
BAD = "cat/bad"

# By name: the fault, the exit status, and the words on stderr.
FAULTS: dict[str, tuple[Callable[[Path], None], int, str]] = {
    "truncated": (truncate, 2, BAD),
    "empty file": (write(b""), 2, BAD),
    "a web page": (write(b"<html>not found</html>", "bad.jpg"), 2, BAD),
    "broken link": (link_to_nothing, 2, BAD),
    "unreadable": (unreadable, 2, BAD),
    "16 bits": (add(Image.fromarray(np.full((16, 16), 40000, np.uint16)), "x.png"), 0, ""),
    "CMYK": (add(RGB.convert("CMYK"), "x.jpg"), 0, ""),
    "palette": (add(RGB.convert("P"), "x.png", transparency=0), 0, ""),
    "alpha": (add(RGB.convert("RGBA"), "x.png"), 0, ""),
    "EXIF": (add(RGB.resize((24, 8)), "x.jpg", exif=exif()), 0, ""),
    "a text among the images": (write(b"hello", "notes.txt"), 0, ""),
    "a Mac's shadow": (write(b"\0\5\x16\7", "._x.png"), 0, ""),
    "no training set": (remove("train"), 2, "train: no such folder"),
    "no test set": (remove("test"), 2, "test: no such folder"),
    "one image a class": (one_each, 2, "--batch_size 4 x --accumulate 1 is more than the 2"),
}

# Likewise, of the variant alone.
FAULTS_OF: dict[str, dict[str, tuple[Callable[[Path], None], int, str]]] = {
    "classifier": {
        "empty class": (empty_class, 2, "train/empty: no images"),
        "class only in training": (remove("test", "cat"), 0, "no images of cat; not tested"),
        "class only in the test": (surplus, 2, "test/fox: no such class in training"),
    },
    "gan": {
        "empty folder": (empty_class, 0, ""),
        "folder only in the test": (surplus, 0, ""),
        "one test image": (one_test_image, 2, "test: one image only; put two or more there"),
    },
    "translator": {
        "image without its twin": (no_twin, 2, "cat/a b 0.png: no image of this name in"),
        "no targets": (remove("test", "target"), 2, "test/target: no images"),
        "another scale": (another_scale, 2, "its target 32: give 2"),
    },
    "detector": {
        "no annotations": (remove_file("train", "annotations.json"), 2, ".json: No such file"),
        "half of the annotations": (half_of_the_annotations, 2, "annotations.json: not JSON"),
        "box outside": (annotation(bbox=[12, 2, 9, 9]), 2, "id 1: its bbox [12, 2, 9, 9] reaches"),
        "box without area": (annotation(bbox=[1, 2, 0, 9]), 2, "its bbox [1, 2, 0, 9] has no area"),
        "unknown category": (annotation(category_id=7), 2, "id 1: its category_id, 7, is none"),
        "unknown image": (annotation(image_id=99), 2, "id 1: its image_id, 99, is none of the"),
        "id twice": (annotation(id=0), 2, "annotations, id 0: another one has this id"),
        "image missing": (remove_file("train", "images", "cat", "a b 0.png"), 2, "no such file"),
    },
    "segmenter": {
        "image without its mask": (no_mask, 2, "cat/a b 0.png: no image of this name in"),
        "no masks": (remove("test", "masks"), 2, "test/masks: no images"),
        "another size": (larger_mask, 2, "masks/cat/a b 0.png: 17x16 pixels, but its image"),
        "another class": (third_class, 2, "masks/cat/a b 0.png: a pixel of class 2"),
        "picture for a mask": (colored_mask, 2, "masks/cat/a b 0.png: mode RGB"),
        "no names": (no_names, 2, "classes.txt: No such file"),
    },
}


# Flags that a variant needs on this tree: its samples are measured without a network made for it,
# its inputs are as large as their targets.
FLAGS_OF = {"gan": ("--features=random",), "translator": ("--scale=1",)}

# How a variant wants the tree; faults of its own come after that, those of all before it.
ARRANGE_OF = {"translator": make_pairs, "detector": annotate, "segmenter": write_masks}


def start(place: Range, root: Path, *flags: str) -> Victim:
    """Starts a training on the tree."""
    flags = (*FLAGS, *FLAGS_OF.get(place.project.name, ()), f"--path_to_data={root}", *flags)
    return place.start(place.new("on-bad-data"), *flags)


def tree_with(place: Range, fault: Callable[[Path], None], last: bool) -> Path:
    """Makes a tree as the variant wants it, with a fault, which comes first or last."""
    root = place.new("tree")
    make_tree(root)
    arrange = ARRANGE_OF.get(place.project.name, lambda _: None)
    for change in (arrange, fault) if last else (fault, arrange):
        change(root)
    return root


def bad_images(place: Range, draw: random.Random, count: int) -> Iterator[str]:
    """Trains on a small tree with each fault in turn, with workers and without."""
    del draw, count
    own = FAULTS_OF[place.project.name]
    for name, (fault, status, words) in (FAULTS | own).items():
        for workers in ("--num_workers=0", "--num_workers=2"):
            root = tree_with(place, fault, name in own)
            victim = start(place, root, workers, "--max_steps=100", "--epochs=2")
            end = victim.end()
            if status:
                expect_line(victim, end, status, words)
            else:
                expect(victim, end, 0, words)
            if left := victim.orphans():
                raise AttackError(f"{name}: {left} live on")
            yield f"{name}, {workers}"
    yield from removed_while_training(place)


def removed_while_training(place: Range) -> Iterator[str]:
    """Removes the images once the training runs."""
    root = tree_with(place, lambda _: None, last=False)
    flags = ["--max_steps=0", "--epochs=100000", "--num_workers=2", "--cache=off"]
    victim = start(place, root, *flags)
    while not (place.folder / "on-bad-data" / "metrics.jsonl").exists():
        if victim.wait(0.02) is not None:
            raise AttackError(victim.output(2))
    for folder in [path for path in (root / "train").rglob("cat") if path.is_dir()]:
        shutil.rmtree(folder)
    expect_line(victim, victim.end(), 2, "/cat/a b ")
    yield "files removed while training"
