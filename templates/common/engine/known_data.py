"""Known data sets, as folders of images: <path_to_data>/train/<class>/*.png, and test likewise."""

import contextlib
import http.client
import io
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from engine.drawn_data import Canvas, Glyph, Scene, bend, draw_blobs, draw_shapes, scatter
from engine.exits import UserError

if TYPE_CHECKING:  # what is slow to import is imported where it is used: --help answers at once
    from PIL import Image

# The split, the class, and the image or the file that holds it.
Example = tuple[str, str, "Image.Image | Path"]
Counts = dict[str, int]  # of images, per split

# Of torchvision.datasets; each downloads both splits.
DOWNLOADS = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "imagenette": "Imagenette",
}
DIGITS = Scene(128, (20, 28, 40), 12, {"train": 1000, "test": 200})
SHAPES = Scene(32, (10, 14), 3, {"train": 256, "test": 64})


def write(dataset: str, place: str, complete: Callable[[Path], None] | None = None) -> None:
    """Writes a data set as folders of images.

    Args:
        dataset: "digits", "fake", or one of `DOWNLOADS`.
        place: where the folder will be.
        complete: adds to the tree what else belongs there, before it is renamed.

    Raises:
        UserError: the place is taken, or the data cannot be had or written.
    """

    def fill(tree: Path) -> Counts:
        counts = write_tree(find_examples(dataset, tree.parent / "downloads"), tree)
        if complete:
            complete(tree)
        return counts

    counts = write_whole(place, fill)
    written = ", ".join(f"{count} {split}" for split, count in counts.items())
    print(f"{dataset} is in {Path(place).absolute()}: {written} images")


def write_whole(place: str, fill: Callable[[Path], Counts]) -> Counts:
    """Writes a tree beside its place, then renames it: it is there as a whole or not at all.

    Args:
        place: where the tree will be.
        fill: writes the tree, and what it needs for that beside it; what it returns is returned.

    Raises:
        UserError: the place is taken, or cannot be written.
    """
    target = Path(place).absolute()
    refuse_taken(target)
    try:
        # On the same disk as the target, so that the last step is a rename.
        nearest = next(parent for parent in target.parents if parent.is_dir())
        with tempfile.TemporaryDirectory(dir=nearest, prefix=".unfinished-") as folder:
            tree = Path(folder) / "tree"
            counts = fill(tree)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():  # and is empty: Windows does not rename over a folder
                target.rmdir()
            tree.rename(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from None
    return counts


def refuse_taken(target: Path) -> None:
    """Refuses to mix with what is there, or to delete it.

    Raises:
        UserError: the target is a file or a folder with something in it.
    """
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists() or target.is_symlink():
        raise UserError(
            f"{target} is already there: delete it, or name another place with --path_to_data"
        )


def find_examples(dataset: str, folder: Path) -> Iterable[Example]:
    """Returns the examples of a data set; what is downloaded lands in the folder."""
    if dataset == "digits":
        return read_digits()
    if dataset == "fake":
        return draw_blobs()
    if dataset == "imagenette":
        return download_imagenette(folder)
    return download_arrays(dataset, folder)


def write_tree(examples: Iterable[Example], tree: Path) -> Counts:
    """Writes <tree>/<split>/<class>/, images as PNG, and returns the number of files per split."""
    counts = dict.fromkeys(("train", "test"), 0)
    for split, name, image in tqdm(examples, desc="writing", unit="image", disable=None):
        folder = tree / split / name
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(image, Path):
            image.rename(folder / image.name)  # the original bytes; encoding them anew loses some
        else:
            image.save(folder / f"{counts[split]:05}.png")
        counts[split] += 1
    return counts


def read_digits() -> "Iterator[tuple[str, str, Image.Image]]":
    """Yields scikit-learn's 1,797 handwritten digits, 8x8, every fifth one for the test.

    Raises:
        UserError: scikit-learn is not installed.
    """
    from PIL import Image

    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("the digits come with scikit-learn: pip install -e '.[demo]'") from None
    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype("uint8")  # (1797, 8, 8), from 0 to 16
    for index, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
        yield ("train" if index % 5 else "test", str(label), Image.fromarray(image))


def draw_canvases(dataset: str, times: int = 1, copies: int = 0) -> Iterator[Canvas]:
    """Yields canvases on which digits are scattered, a split's own, or, for "fake", shapes.

    Args:
        dataset: "digits" or "fake".
        times: of digits, how many thousands of canvases there are to train on.
        copies: of each digit to train on, how many are scattered with it, each one bent a little.

    Raises:
        UserError: scikit-learn is not installed.
    """
    if dataset == "fake":
        shapes = draw_shapes()
        return scatter(SHAPES, {"train": shapes, "test": shapes})
    import numpy as np

    glyphs: dict[str, list[Glyph]] = {"train": [], "test": []}
    for split, name, image in read_digits():
        glyphs[split].append((name, np.asarray(image)))
    glyphs["train"] += bend(glyphs["train"], copies)
    canvases = DIGITS.canvases | {"train": times * DIGITS.canvases["train"]}
    return scatter(DIGITS._replace(canvases=canvases), glyphs)


def download_arrays(dataset: str, folder: Path) -> Iterator[Example]:
    """Yields a data set that torchvision downloads as arrays."""
    for split in ("train", "test"):
        images = download(dataset, DOWNLOADS[dataset], root=folder, train=split == "train")
        names = [folder_name(name) for name in images.classes]
        for image, label in images:
            yield split, names[label], image


def download_imagenette(folder: Path) -> Iterator[Example]:
    """Yields the JPEG files of Imagenette, a tenth of ImageNet's classes at a hundredth."""
    for split, source in (("train", "train"), ("test", "val")):
        images = download("imagenette", "Imagenette", root=folder, split=source, size="160px")
        for code, names in zip(images.wnids, images.classes, strict=True):
            for path in sorted((folder / "imagenette2-160" / source / code).iterdir()):
                yield split, folder_name(names[0]), path


def download(dataset: str, kind: str, **keywords: Any) -> Any:
    """Returns a data set of torchvision, downloaded unless it is there.

    Args:
        dataset: its name in a message.
        kind: its class in `torchvision.datasets`.
        **keywords: of the class.

    Raises:
        UserError: it cannot be downloaded.
    """
    from torchvision import datasets

    try:
        # What torchvision prints, mirror by mirror, is for the one line below to say.
        with contextlib.redirect_stdout(io.StringIO()):
            return getattr(datasets, kind)(download=True, **keywords)
    except (OSError, RuntimeError, EOFError, http.client.HTTPException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UserError(
            f"cannot download {dataset}: {reason}; --dataset digits or fake needs no network"
        ) from None


def folder_name(name: str) -> str:
    """Returns a class's name without what folders' names may not hold: "T-shirt_top", "7"."""
    return re.sub(r"[^\w-]+", "_", name.split(" - ")[0])  # MNIST's are "7 - seven"
