"""Data that is drawn: images with a blob, and canvases on which objects are scattered."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # what is slow to import is imported where it is used: --help answers at once
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

BLOB_CLASSES = ("top_left", "top_right", "bottom_left", "bottom_right")
BLOB_SIDE = 32  # of an image, in pixels
BLOB_IMAGES = {"train": 64, "test": 16}  # per class
SEEN = 0.8  # share of an object that those drawn after it leave to be seen, at least
BENT = 4  # times as large as a glyph is a copy that is bent, so that its curves stay smooth
TURN = 0.2  # radians, at most, by which it is turned
SLANT = 0.2  # columns a row, at most
WIDER = 0.1  # share of its width, or of its height, at most
TRIES = 20  # places that are tried for an object, before there is one object less

Glyph = tuple[str, "NDArray[np.uint8]"]  # a class, and its ink from 0 to 255, in a small square


class CanvasObject(NamedTuple):
    """An object on a canvas."""

    name: str  # of its class
    box: tuple[int, int, int, int]  # left, top, right and bottom of the whole of it, in pixels
    mask: "NDArray[np.bool_]"  # (H, W): the pixels of it that are seen


class Canvas(NamedTuple):
    """A picture of several objects, which may hide parts of one another."""

    split: str
    image: "Image.Image"  # in color
    objects: list[CanvasObject]


class Scene(NamedTuple):
    """How canvases are drawn."""

    side: int  # of a canvas, in pixels
    sizes: Sequence[int]  # that a glyph is enlarged to
    most: int  # objects on a canvas
    canvases: dict[str, int]  # per split


def draw_blobs() -> "Iterator[tuple[str, str, Image.Image]]":
    """Yields split, class and image: noise with a blob, whose quarter of the image is the class."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:BLOB_SIDE, :BLOB_SIDE][..., None]  # each (size, size, 1)
    for split, count in BLOB_IMAGES.items():
        for label, name in enumerate(BLOB_CLASSES * count):
            corner = np.array([label % 4 // 2, label % 2])
            row, column = (corner * 0.5 + rng.uniform(0.15, 0.35, 2)) * BLOB_SIDE
            squares = (rows - row) ** 2 + (columns - column) ** 2
            blob = np.exp(-squares / rng.uniform(10, 40)) * rng.uniform(100, 200, 3)
            noise = rng.uniform(0, 55, (BLOB_SIDE, BLOB_SIDE, 3))
            yield split, name, Image.fromarray((blob + noise).astype("uint8"))


def draw_shapes() -> list[Glyph]:
    """Returns glyphs of three shapes."""
    import numpy as np

    y, x = np.abs(np.mgrid[-3.5:4, -3.5:4])
    shapes = {
        "cross": np.minimum(x, y) < 1,
        "disc": np.hypot(x, y) < 3.6,
        "frame": np.maximum(x, y) > 2,
    }
    return [(name, np.where(shape, 255, 0).astype(np.uint8)) for name, shape in shapes.items()]


def bend(glyphs: Sequence[Glyph], copies: int) -> list[Glyph]:
    """Returns copies of each glyph, turned, slanted, and made wider or narrower, a little.

    What is then beyond the square is cut off: a few hundredths of the ink.
    """
    import numpy as np
    from PIL import Image

    rng, bent = np.random.default_rng(0), list[Glyph]()
    for name, ink in copies * list(glyphs):
        side = BENT * len(ink)
        image = Image.fromarray(ink).resize((side, side), Image.Resampling.BICUBIC)
        turn, slant = rng.uniform(-TURN, TURN), rng.uniform(-SLANT, SLANT)
        width, height = 1 + rng.uniform(-WIDER, WIDER, 2)
        cosine, sine = np.cos(turn), np.sin(turn)
        turned = np.array([[cosine, -sine], [sine, cosine]])
        matrix = turned @ [[1, slant], [0, 1]] @ [[1 / width, 0], [0, 1 / height]]
        offset = side / 2 * (1 - matrix.sum(axis=1))  # the middle stays where it is
        row = np.column_stack([matrix, offset]).flatten().tolist()
        method = Image.Transform.AFFINE
        image = image.transform((side, side), method, row, Image.Resampling.BICUBIC)
        bent.append((name, np.asarray(image)))
    return bent


def scatter(scene: Scene, glyphs: Mapping[str, Sequence[Glyph]]) -> Iterator[Canvas]:
    """Yields textured canvases with glyphs of their split, each one at a random place and size."""
    import numpy as np

    for number, (split, count) in enumerate(scene.canvases.items()):
        rng = np.random.default_rng([number, scene.side])
        for _ in range(count):
            yield Canvas(split, *_draw_canvas(rng, scene, glyphs[split]))


def _draw_canvas(
    rng: "np.random.Generator", scene: Scene, glyphs: Sequence[Glyph]
) -> "tuple[Image.Image, list[CanvasObject]]":
    import numpy as np
    from PIL import Image

    pixels = _draw_texture(rng, scene.side)
    objects: list[CanvasObject] = []
    inks: list[int] = []  # pixels of each object, seen or not
    for _ in range(rng.integers(scene.most + 1)):
        name, glyph = glyphs[int(rng.integers(len(glyphs)))]
        for _ in range(TRIES):
            ink = _place(rng, scene, glyph)
            mask = ink >= 0.5
            seen = [each.mask & ~mask for each in objects]
            if all(s.sum() >= SEEN * n for s, n in zip(seen, inks, strict=True)):
                break
        else:
            continue
        # Brighter than any texture, or darker, in a color of its own.
        color = rng.uniform(205, 255, 3) if rng.integers(2) else rng.uniform(0, 50, 3)
        pixels += ink[..., None] * (color - pixels)
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
        objects = [each._replace(mask=left) for each, left in zip(objects, seen, strict=True)]
        objects.append(CanvasObject(name, box, mask))
        inks.append(int(mask.sum()))
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)), objects


def _draw_texture(rng: "np.random.Generator", side: int) -> "NDArray[np.float64]":
    """Returns clouds of middling brightness with some noise, (side, side, 3)."""
    import numpy as np
    from PIL import Image

    coarse = Image.fromarray(rng.integers(70, 185, (6, 6, 3)).astype(np.uint8))
    clouds = coarse.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(clouds) + rng.normal(0, 8, (side, side, 3))


def _place(
    rng: "np.random.Generator", scene: Scene, glyph: "NDArray[np.uint8]"
) -> "NDArray[np.float64]":
    """Returns how much of each pixel of a canvas an enlarged glyph covers, (side, side)."""
    import numpy as np
    from PIL import Image

    size = int(rng.choice(scene.sizes))
    top, left = rng.integers(scene.side - size + 1, size=2)
    enlarged = Image.fromarray(glyph).resize((size, size), Image.Resampling.BICUBIC)
    ink = np.zeros((scene.side, scene.side))
    # Steeper at its edge than the enlargement is, so that one can see which pixels are the glyph's.
    covered = np.asarray(enlarged) / 64.0 - 1.25
    ink[top : top + size, left : left + size] = covered.clip(0, 1)
    return ink
