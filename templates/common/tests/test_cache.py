"""The cache: the same pixels as without it, whatever happens to its files."""

import argparse
import os
import pickle
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SIZE, save
from PIL import Image

from engine.cache import DiskCache, MemoryCache, NoCache, Rows
from engine.exits import UserError
from engine.files import list_images
from engine.lock import one_at_a_time
from engine.store import FOLDER, ImageStore

COUNT = 12
ALL = np.arange(COUNT)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A split of noise in PNG files."""
    noise = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        save(Image.fromarray(pixels), tmp_path / "data" / "train" / f"{number:02d}.png")
    return tmp_path / "data" / "train"


def open_store(
    root: Path, cache: str = "disk", size: int = SIZE, channels: int = 3, device: str = "cpu"
) -> ImageStore:
    options = argparse.Namespace(channels=channels, skip_bad=0, cache=cache, device=device)
    return ImageStore(root, list_images(root), size, options)


def read(root: Path, cache: str = "disk") -> tuple[np.ndarray, int]:
    """Returns all pixels, and how many images were decoded for them."""
    store = open_store(root, cache)
    found = int(store.cache.read(ALL)[1].sum())
    return store.read(ALL)[0].numpy(), COUNT - found


@pytest.mark.parametrize("cache", ["auto", "disk", "ram", "device", "off"])
def test_pixels_are_the_same_with_it_and_without(root: Path, cache: str) -> None:
    plain, _ = read(root, "off")
    store = open_store(root, cache)
    for _ in range(2):
        np.testing.assert_array_equal(store.read(ALL)[0], plain)
        np.testing.assert_array_equal(store.read(ALL[::-1])[0], plain[::-1])
    expected = 0 if cache == "off" else COUNT
    assert store.cache.read(ALL)[1].sum() == expected
    assert store.cache.is_complete() == (cache in ("auto", "disk", "ram"))


@pytest.mark.parametrize("cache", ["disk", "ram", "device"])
def test_images_need_not_fill_whole_words(root: Path, cache: str) -> None:
    plain = open_store(root, "off", size=5, channels=1).read(ALL)[0]  # 25 bytes each
    store = open_store(root, cache, size=5, channels=1)
    store.read(ALL[:5])
    assert not store.cache.is_complete()
    for _ in range(2):
        assert torch.equal(store.read(ALL)[0], plain)


@pytest.mark.cuda
def test_images_stay_on_the_gpu(root: Path) -> None:
    plain = open_store(root, "off").read(ALL)[0]
    store = open_store(root, "device", device="cuda")
    for _ in range(2):
        images = store.read(ALL)[0]
        assert images.is_cuda
        assert torch.equal(images.cpu(), plain)


def test_every_single_bit_changes_the_checksum() -> None:
    rows = Rows((COUNT, 3, 4, 4))  # 6 words
    row = rows.pack(np.random.default_rng(0).integers(0, 256, (1, 3, 4, 4), dtype=np.uint8))
    flips = np.vstack([np.eye(6, dtype=np.uint64) << np.uint64(bit) for bit in range(64)])
    sums = rows.checksums(row ^ flips, np.zeros(len(flips), np.int64))
    assert len(flips) == 6 * 64
    assert rows.checksums(row, ALL[:1])[0] not in sums
    assert len(np.unique(rows.checksums(row.repeat(COUNT, 0), ALL))) == COUNT  # the place counts
    assert rows.checksums(np.zeros((1, 6), np.uint64), ALL[:1])[0] != 0  # as where nothing is


def test_next_run_decodes_nothing(root: Path) -> None:
    assert read(root)[1] == COUNT
    assert read(root)[1] == 0


def add_a_file(root: Path) -> None:
    (root / "00.png").rename(root / "0.png")


def change_a_file(root: Path) -> None:
    save(Image.new("RGB", (SIZE, SIZE), "red"), root / "05.png")


def change_within_its_size(root: Path) -> None:
    path = root / "05.png"
    os.utime(path, (0, 0))


@pytest.mark.parametrize("change", [add_a_file, change_a_file, change_within_its_size])
def test_changed_files_make_a_new_cache(root: Path, change: Callable[[Path], None]) -> None:
    read(root)
    before = set((root.parent / FOLDER).iterdir())
    change(root)
    pixels, decoded = read(root)
    assert decoded == COUNT
    np.testing.assert_array_equal(pixels, read(root, "off")[0])
    after = set((root.parent / FOLDER).iterdir())
    assert len(after) == 2  # the old one is gone
    assert not before & after


def test_other_code_makes_a_new_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(root)
    monkeypatch.setattr("PIL.__version__", "0")
    assert read(root)[1] == COUNT


def test_another_size_is_another_cache(root: Path) -> None:
    read(root)
    store = open_store(root, channels=1)
    assert not store.cache.read(ALL)[1].any()


def pixel_file(root: Path) -> Path:
    (path,) = (path for path in (root.parent / FOLDER).iterdir() if ".sums" not in path.name)
    return path


@pytest.mark.parametrize("place", [0, 1000, -1])
def test_flipped_bit_is_decoded_again(root: Path, place: int) -> None:
    plain, _ = read(root)
    path = pixel_file(root)
    content = bytearray(path.read_bytes())
    header = len(content) - plain.nbytes
    content[header + place if place >= 0 else place] ^= 4
    path.write_bytes(content)
    pixels, decoded = read(root)
    np.testing.assert_array_equal(pixels, plain)
    assert decoded == 1
    assert read(root)[1] == 0  # and is mended


def test_image_in_anothers_place_is_decoded_again(root: Path) -> None:
    plain, _ = read(root)
    store = open_store(root)
    assert isinstance(store.cache, DiskCache)
    folder = root.parent / FOLDER
    for path in folder.iterdir():  # swap two images, and their sums with them
        array = np.load(path, mmap_mode="r+")
        array[[0, 1]] = array[[1, 0]]
        array.flush()
    pixels, decoded = read(root)
    np.testing.assert_array_equal(pixels, plain)
    assert decoded == 2


@pytest.mark.parametrize("length", [0, 50, 500])
def test_cut_file_is_made_anew(root: Path, length: int) -> None:
    plain, _ = read(root)
    os.truncate(pixel_file(root), length)
    pixels, decoded = read(root)
    np.testing.assert_array_equal(pixels, plain)
    assert decoded == COUNT


def test_killed_build_goes_on(root: Path) -> None:
    plain, _ = read(root, "off")
    open_store(root).read(ALL[:5])  # and no more
    pixels, decoded = read(root)
    np.testing.assert_array_equal(pixels, plain)
    assert decoded == COUNT - 5


def test_two_builders_at_once(root: Path) -> None:
    plain, _ = read(root, "off")
    stores = [open_store(root) for _ in range(4)]
    results: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda store=store: results.append(store.read(ALL)[0]))
        for store in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for pixels in results:
        np.testing.assert_array_equal(pixels, plain)
    assert read(root)[1] == 0


def test_full_disk_ends_the_caching_only(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, _ = read(root, "off")

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)
    np.testing.assert_array_equal(read(root)[0], plain)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("no more is cached: No space left on device; training goes on")


def test_auto_takes_half_of_the_free_space_and_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    size = COUNT * 3 * SIZE * SIZE
    usage = type("Usage", (), {"free": 2 * size - 2})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert type(open_store(root, "auto").cache) is NoCache
    assert "images are decoded in every epoch" in capsys.readouterr().out
    usage.free = 2 * size  # type: ignore[attr-defined]  # made above
    assert type(open_store(root, "auto").cache) is DiskCache
    assert f"decoded images are kept in {root.parent / FOLDER}" in capsys.readouterr().out
    open_store(root, "auto")
    assert capsys.readouterr().out == ""  # it is there


def test_two_splits_do_not_count_the_same_room_twice(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(root, root.parent / "test")
    usage = type("Usage", (), {"free": 5 * COUNT * 3 * 64**2 // 2})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert type(open_store(root, "auto", size=64).cache) is DiskCache
    assert type(open_store(other, "auto", size=64).cache) is NoCache


@pytest.mark.parametrize("cache", ["disk", "ram", "device"])
def test_too_little_room_is_one_line(
    root: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=f"--cache {cache}: "):
        open_store(root, cache)


def test_folder_that_cannot_be_written_is_done_without(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root.parent / FOLDER).touch()
    assert type(open_store(root, "auto").cache) is NoCache
    assert "File exists" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--cache disk: .*File exists"):
        open_store(root, "disk")


@pytest.mark.parametrize("kind", ["disk", "ram"])
def test_spawned_worker_shares_it(root: Path, kind: str) -> None:
    """As far as pickling goes; memory itself is passed on by torch's own pickler."""
    store = open_store(root, kind)
    store.read(ALL)
    copy = pickle.loads(pickle.dumps(store.cache))
    assert copy.read(ALL)[1].all()
    assert isinstance(copy, DiskCache | MemoryCache)


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such locks, and no cache")
def test_one_process_at_a_time_makes_a_cache(tmp_path: Path) -> None:
    """Each opens the folder anew, so threads stand for processes here."""
    events: list[str] = []

    def wait() -> None:
        with one_at_a_time(tmp_path):
            events.append("second")

    with one_at_a_time(tmp_path):
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.2)
        events.append("first")
    thread.join(10)
    assert events == ["first", "second"]
    assert not list(tmp_path.iterdir())
