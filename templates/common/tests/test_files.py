"""Tests of engine/files.py: what is found, and what is kept of it."""

import os
import pickle
from pathlib import Path

import pytest
from conftest import grey, save

from engine.exits import UserError
from engine.files import FileList, list_folders, list_images, read_names


class TestListing:
    def test_hidden_and_other_files_are_skipped(self, tmp_path: Path) -> None:
        names = ["b.JPG", "a b.png", "日本/é.webp", ".x.png", "._mac.jpg", "a.txt", "c.Tiff"]
        for name in [*names, ".ipynb_checkpoints/d.png"]:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        found = [str(Path(path).relative_to(tmp_path)) for path in list_images(tmp_path)]
        assert found == ["a b.png", "b.JPG", "c.Tiff", str(Path("日本/é.webp"))]
        assert list_folders(tmp_path) == ["日本"]

    def test_links_are_followed_but_not_in_circles(self, tmp_path: Path) -> None:
        save(grey(1), tmp_path / "elsewhere" / "a.png")
        root = tmp_path / "root"
        root.mkdir()
        (root / "cat").symlink_to(tmp_path / "elsewhere")
        assert list_images(root) == [str(root / "cat" / "a.png")]
        (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(UserError, match="loop: this link leads back up"):
            list_images(root)

    def test_broken_link_to_a_folder_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "cat").symlink_to(tmp_path / "gone")
        with pytest.raises(UserError, match="cat: broken link"):
            list_folders(tmp_path)

    def test_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="gone: No such file or directory"):
            list_images(tmp_path / "gone")


class TestFileList:
    NAMES = ("cat/a.png", "cat/日本.png", "cat/old/a.png", "dog/a.png", "z.png")

    def build(self, root: Path, names: tuple[str, ...] = NAMES) -> FileList:
        return FileList(root, [str(root / name) for name in names])

    def test_gives_back_the_paths(self, tmp_path: Path) -> None:
        files = self.build(tmp_path)
        assert list(files) == [str(tmp_path / name) for name in self.NAMES]
        assert len(files) == len(self.NAMES)
        for index in (-1, len(files)):
            with pytest.raises(IndexError):
                files[index]
        assert list(FileList(tmp_path, [])) == []

    def test_gives_back_bytes_that_are_no_text(self) -> None:
        path = os.fsdecode(b"data/caf\xe9.png")
        assert list(pickle.loads(pickle.dumps(FileList("data", [path])))) == [path]

    def test_digest_follows_the_paths_wherever_they_lie(self, tmp_path: Path) -> None:
        digest = self.build(tmp_path / "here").digest()
        assert self.build(tmp_path / "there").digest() == digest
        for other in (
            self.NAMES[1:],
            ("cat/a.png", "dog/日本.png", *self.NAMES[2:]),  # in another folder
            ("cat/b.png", *self.NAMES[1:]),
        ):
            assert self.build(tmp_path / "here", other).digest() != digest

    def test_a_file_takes_its_name_and_five_bytes(self) -> None:
        long = "/very/long/path" * 20
        few, many = (
            len(pickle.dumps(FileList("/", [f"{long}/{n:08d}.png" for n in range(count)])))
            for count in (1_000, 11_000)
        )
        assert (many - few) / 10_000 == pytest.approx(len("00000000.png") + 5, abs=0.1)


def test_names_of_classes_come_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("sky\n the sea \nland\n\n", encoding="utf-8")
    assert read_names(path, 3) == ["sky", "the sea", "land"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sky\n\nsea", "line 2 is empty; name each class once"),
        ("sky\nsea\nsky", "sky is there twice; name each class once"),
        ("sky", "1 classes; name 2 to 3, one a line"),
        ("a\nb\nc\nd", "4 classes; name 2 to 3, one a line"),
        ("b\xe4r\nfox", "not in UTF-8; it names the classes"),
        (None, "No such file or directory; it names the classes"),
    ],
)
def test_names_that_will_not_do_are_one_line(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "classes.txt"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=rf"classes\.txt: {reason}"):
        read_names(path, 3)
