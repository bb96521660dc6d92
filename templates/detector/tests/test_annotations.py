"""Annotations in COCO's format: what is read of them, and every fault by its name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import save
from PIL import Image

from engine.exits import UserError

from annotations import boxes_in_squares, find_wrong_sizes, fit_anchors, read_annotations

ORIENTATION = 274  # the tag that says how a camera was held


def content() -> dict[str, Any]:
    """Two images, of which the second one by name has no objects, and categories in disorder."""
    return {
        "images": [
            {"id": "wide", "file_name": "b/wide.png", "width": 40, "height": 20},
            {"id": 2, "file_name": "a.png", "width": 8, "height": 8},
        ],
        "annotations": [
            {"id": 1, "image_id": "wide", "category_id": 9, "bbox": [30.5, 0, 10, 20]},
            {"id": 2, "image_id": "wide", "category_id": 4, "bbox": [1, 2, 3, 4], "iscrowd": 0},
            {"id": 3, "image_id": "wide", "category_id": 4, "bbox": [0, 0, 40, 20], "iscrowd": 1},
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "猫"}],
    }


def write(root: Path, value: object) -> Path:
    for name, size in (("b/wide.png", (40, 20)), ("a.png", (8, 8))):
        save(Image.new("L", size), root / "images" / name)
    (root / "annotations.json").write_text(json.dumps(value), encoding="utf-8")
    return root


def test_objects_are_read_in_the_order_of_their_images(tmp_path: Path) -> None:
    found, faults = read_annotations(write(tmp_path, content()))
    assert not faults
    assert found.names == ["猫", "dog"]
    assert found.files == [str(tmp_path / "images" / name) for name in ("a.png", "b/wide.png")]
    assert found.sizes.tolist() == [[8, 8], [40, 20]]
    assert found.counts.tolist() == [0, 2]  # a crowd is no object
    assert found.boxes.tolist() == [[30.5, 0, 40, 20], [1, 2, 4, 6]]  # cut to the image
    assert found.labels.tolist() == [1, 0]


# What is changed in which entry of which list, and what is then said of it.
FAULTS: list[tuple[str, int, dict[str, Any], str]] = [
    ("categories", 0, {"id": None}, "categories, number 1: its id must be a number or a text"),
    ("categories", 1, {"id": 9}, "categories, id 9: another one has this id"),
    ("categories", 1, {"name": "dog"}, "categories, id 4: another one has the name dog"),
    ("categories", 0, {"name": ""}, "categories, id 9: it has no name"),
    ("images", 1, {"id": "wide"}, "images, id wide: another one has this id"),
    ("images", 1, {"file_name": None}, "images, id 2: it has no file_name"),
    ("images", 1, {"file_name": "b/wide.png"}, "images, id 2: another one has the file b/wide.png"),
    ("images", 1, {"file_name": "gone.png"}, "images/gone.png: no such file"),
    ("images", 0, {"width": 0}, "images, id wide: its width must be a whole number above 0"),
    ("images", 0, {"height": "20"}, "images, id wide: its height must be a whole number above 0"),
    ("annotations", 0, {"id": [1]}, "annotations, number 1: its id must be"),
    ("annotations", 1, {"id": 1}, "annotations, id 1: another one has this id"),
    (
        "annotations",
        0,
        {"image_id": 7},
        "id 1: its image_id, 7, is none of the images",
    ),
    ("annotations", 0, {"category_id": None}, "its category_id, None, is none of the categories"),
    ("annotations", 0, {"bbox": [1, 2, 3]}, "annotations, id 1: its bbox must be four numbers"),
    ("annotations", 0, {"bbox": [1, 2, float("nan"), 3]}, "its bbox must be four numbers"),
    ("annotations", 0, {"bbox": "1234"}, "its bbox must be four numbers"),
    ("annotations", 1, {"bbox": [1, 2, 0, 3]}, "id 2: its bbox [1, 2, 0, 3] has no area"),
    ("annotations", 1, {"bbox": [1, 2, 3, -3]}, "id 2: its bbox [1, 2, 3, -3] has no area"),
    ("annotations", 1, {"bbox": [38, 2, 4, 4]}, "reaches out of the image, 40 x 20 pixels"),
    ("annotations", 1, {"bbox": [0, -2, 4, 4]}, "reaches out of the image, 40 x 20 pixels"),
    ("annotations", 1, {"bbox": [40, 2, 0.5, 4]}, "reaches out of the image, 40 x 20 pixels"),
]


@pytest.mark.parametrize(("kind", "place", "values", "said"), FAULTS)
def test_fault_is_named_and_left_out(
    tmp_path: Path, kind: str, place: int, values: dict[str, Any], said: str
) -> None:
    value = content()
    value[kind][place] |= values
    found, faults = read_annotations(write(tmp_path, value))
    # Who then refers to an entry that has lost its id has a fault as well.
    assert len(faults) == 1 or "id" in values
    assert said in faults[0]
    assert faults[0].startswith(f"{tmp_path / 'annotations.json'}: {kind}, ")
    assert "\n" not in faults[0]
    counts = {"categories": len(found.names), "images": len(found.files)}
    assert counts.get(kind, len(found.labels)) == 1 or "id" in values


def test_all_faults_are_found_at_once(tmp_path: Path) -> None:
    value = content()
    value["images"][1]["width"] = -1
    value["annotations"][0]["bbox"] = []
    value["annotations"][1]["image_id"] = 2  # whose own fault is enough
    _, faults = read_annotations(write(tmp_path, value))
    assert [fault.split(": ")[1] for fault in faults] == ["images, id 2", "annotations, id 1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON: "),
        ("[" * 100_000, "not JSON: "),
        ("\xff", "not JSON: "),
        ("[]", "it has no list of images, as COCO's format asks for"),
        ('{"images": [1]}', "it has no list of images"),
        ('{"images": [{}], "annotations": {}}', "it has no list of annotations"),
        ('{"images": [], "annotations": [], "categories": []}', "no images are listed"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "annotations.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError) as error:
        read_annotations(tmp_path)
    assert str(error.value).startswith(f"{path}: {said}")
    assert "\n" not in str(error.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"annotations\.json: No such file or directory; it tells"):
        read_annotations(tmp_path)


def test_sizes_are_those_of_upright_images(tmp_path: Path) -> None:
    root = write(tmp_path, content())
    note = Image.Exif()
    note[ORIENTATION] = 6
    Image.new("L", (20, 40)).save(root / "images" / "b" / "wide.png", exif=note)
    found, _ = read_annotations(root)
    assert find_wrong_sizes(found) == []
    save(Image.new("L", (9, 8)), root / "images" / "a.png")
    (line,) = find_wrong_sizes(found)
    assert "a.png: it has 9 x 8 pixels, and the annotations say 8 x 8" in line
    (root / "images" / "a.png").write_text("no image")  # whoever reads it says so
    assert find_wrong_sizes(found, 1) == []


def test_boxes_move_into_the_squares(tmp_path: Path) -> None:
    found, _ = read_annotations(write(tmp_path, content()))
    expected = [[30.5 * 0.8, 8, 32, 24], [0.8, 8 + 1.6, 3.2, 8 + 4.8]]
    np.testing.assert_allclose(boxes_in_squares(found, 32), expected, rtol=1e-6)


def test_anchors_are_the_middles_of_nine_heaps() -> None:
    rng = np.random.default_rng(0)
    middles = np.array([(w, h) for w in (10, 40, 160) for h in (12, 50, 200)], np.float64)
    sizes = np.repeat(middles, 50, axis=0) * rng.uniform(0.9, 1.1, (450, 2))
    corners = rng.uniform(0, 100, (450, 2))
    boxes = np.concatenate([corners, corners + sizes], axis=1).astype(np.float32)
    anchors = np.array(fit_anchors(boxes)).reshape(9, 2)
    areas = anchors.prod(axis=1)
    assert (np.diff(areas) >= 0).all()
    expected = middles[np.lexsort((middles[:, 1], middles[:, 0]))]
    ordered = anchors[np.lexsort((anchors[:, 1].round(-1), anchors[:, 0].round(-1)))]
    np.testing.assert_allclose(ordered, expected, rtol=0.05)
    assert fit_anchors(boxes) == fit_anchors(boxes)
    assert all(type(number) is float for number in fit_anchors(boxes))


def test_few_boxes_make_anchors_as_well() -> None:
    assert fit_anchors(np.array([[1, 2, 4, 6]], np.float32)) == [3, 4] * 9
