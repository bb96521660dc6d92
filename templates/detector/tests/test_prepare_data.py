"""Tests of prepare_data.py: canvases, and what is made of folders of VOC and of COCO."""

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import grey, save

import prepare_data
from engine.exits import UserError

from annotations import read_annotations

XML = """<annotation><size><width>8</width><height>8</height></size>
<object><name>dog</name><part><name>head</name></part><bndbox><xmin>1</xmin><ymin>2</ymin>
<xmax>8</xmax><ymax>4</ymax></bndbox></object></annotation>"""


def prepare(dataset: str, target: Path, source: Path | None = None) -> None:
    folder = None if source is None else str(source)
    prepare_data.main(argparse.Namespace(dataset=dataset, path_to_data=str(target), source=folder))


def test_fake_is_the_same_every_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        prepare("fake", tmp_path / name)
    assert "256 train, 64 test images" in capsys.readouterr().out
    files = [
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*.*")
        }
        for name in ("a", "b")
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 256 + 64 + 2


def test_digits_are_of_ten_classes_and_without_a_fault(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the digits need scikit-learn")
    prepare("digits", tmp_path / "data")
    for split, count in (("train", 1000), ("test", 200)):
        found, faults = read_annotations(tmp_path / "data" / split)
        assert not faults
        assert found.names == [str(number) for number in range(10)]
        assert len(found.files) == count
        assert set(found.labels.tolist()) == set(range(10))
        assert found.counts.min() == 0
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        assert 4 < sides.min() < sides.max() <= 40


def test_voc_becomes_cocos_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(name: str, kind: str, root: Path, **keywords: Any) -> SimpleNamespace:
        asked.append((kind, keywords))
        image = save(grey(7), root / f"{keywords['image_set']}.jpg")
        annotation = root / f"{keywords['image_set']}.xml"
        annotation.write_text(XML)
        return SimpleNamespace(images=[str(image)], annotations=[str(annotation)])

    monkeypatch.setattr("engine.known_data.download", download)
    prepare("voc", tmp_path / "data")
    assert [(name, each["image_set"]) for name, each in asked] == [
        ("VOCDetection", "trainval"),
        ("VOCDetection", "test"),
    ]
    found, faults = read_annotations(tmp_path / "data" / "train")
    assert not faults
    assert found.names == ["dog"]
    assert found.boxes.tolist() == [[0, 1, 8, 4]]  # counted from 0, to the last pixel's far side
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """A folder as COCO's files are unpacked, with an image a split."""
    for part in ("train2017", "val2017"):
        save(grey(7), tmp_path / "coco" / part / "1.png")
        content = {
            "images": [{"id": 5, "file_name": "1.png", "width": 8, "height": 8}],
            "annotations": [
                {"id": 1, "image_id": 5, "category_id": 9, "bbox": [1, 2, 3, 4], "iscrowd": 0},
                {"id": 2, "image_id": 5, "category_id": 9, "bbox": [0, 0, 8, 8], "iscrowd": 1},
                {"id": 3, "image_id": 5, "category_id": 9, "bbox": [1, 2, 0, 4], "iscrowd": 0},
            ],
            "categories": [{"id": 9, "name": "cat"}],
        }
        path = tmp_path / "coco" / "annotations" / f"instances_{part}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return tmp_path / "coco"


def test_folder_of_coco_becomes_two_splits(coco: Path, tmp_path: Path) -> None:
    prepare("coco", tmp_path / "data", coco)
    for split in ("train", "test"):
        found, faults = read_annotations(tmp_path / "data" / split)
        assert not faults
        assert found.names == ["cat"]
        assert found.boxes.tolist() == [[1, 2, 4, 6]]
        assert [Path(file).name for file in found.files] == ["1.png"]
    assert (coco / "train2017" / "1.png").exists()


def test_another_folder_is_not_cocos(coco: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--dataset coco: name the folder of COCO with --source"):
        prepare("coco", tmp_path / "data")
    (coco / "annotations" / "instances_val2017.json").unlink()
    with pytest.raises(UserError, match=r"--source .*coco: no annotations/instances_val2017"):
        prepare("coco", tmp_path / "data", coco)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco"]


def test_faulty_folder_of_coco_is_one_line(coco: Path, tmp_path: Path) -> None:
    (coco / "val2017" / "1.png").unlink()
    with pytest.raises(UserError, match=r"val2017/1\.png is missing"):
        prepare("coco", tmp_path / "data", coco)
    (coco / "annotations" / "instances_train2017.json").write_text('{"images": []}')
    with pytest.raises(UserError, match=r"instances_train2017\.json: not one of COCO's files"):
        prepare("coco", tmp_path / "data", coco)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco"]


def test_without_a_network_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.VOCDetection.__init__", fail)
    with pytest.raises(UserError, match=r"cannot download voc: no route to host; --data"):
        prepare("voc", tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_missing_scikit_learn_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[demo\]'"):
        prepare("digits", tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is already there: delete it, or name another"):
        prepare("fake", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
