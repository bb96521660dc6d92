"""Bad data: each fault gives the right picture, or one line that names the file."""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from runs import AttackError, Range, expect, expect_line
from victim import Victim

FLAGS = ("--max_steps=2", "--batch_size=4", "--picture_every=0")
NAMES = ("cat", "dög 犬")  # names may hold spaces and any letters
PIXELS = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)


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
ARRANGE_OF = {"translator": make_pairs, "segmenter": write_masks}


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
