"""Tests of data.py: folders, classes, bad files, and what the transforms draw."""

import argparse
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SIZE, grey, save
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import data
from engine.exits import UserError
from engine.images import BadImageError
from engine.loading import TrainingLoader


def parse(*flags: str, path: Path = Path("data"), size: int = SIZE) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    options = parser.parse_args(flags)
    options.path_to_data = str(path)
    options.img_size = size
    options.device = "cpu"
    return options


def everything(split: data.ImageFolder) -> list[tuple[torch.Tensor, int]]:
    return [split[index] for index in range(len(split))]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes of four training and two test images; an image's level tells its file."""
    root = tmp_path / "data"
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            for number in range(count):
                save(grey(100 * label + number), root / split / name / f"{number}.png")
    return root


class TestBuildDatasets:
    def test_samples_have_their_labels(self, tree: Path) -> None:
        training_set, test_set = data.build_datasets(parse("--crop_padding=0", path=tree))
        assert training_set.classes == test_set.classes == ["cat", "dog"]
        assert (len(training_set), len(test_set)) == (8, 4)
        pixels = [(int(image[0, 4, 4]), label) for image, label in everything(training_set)]
        assert pixels == [(0, 0), (1, 0), (2, 0), (3, 0), (100, 1), (101, 1), (102, 1), (103, 1)]

    def test_index_past_the_end_is_an_error(self, tree: Path) -> None:
        training_set, _ = data.build_datasets(parse("--skip_bad=1", path=tree))
        with pytest.raises(IndexError):
            training_set[8]

    @pytest.mark.parametrize("channels", [1, 3])
    def test_pixels_are_resized_uint8(self, tree: Path, channels: int) -> None:
        options = parse(f"--channels={channels}", path=tree, size=20)
        for split in data.build_datasets(options):
            image, label = split[0]
            assert type(image) is torch.Tensor
            assert (image.dtype, image.shape) == (torch.uint8, (channels, 20, 20))
            assert image.is_contiguous()
            assert type(label) is int

    def test_class_missing_in_test_keeps_the_labels(
        self, tree: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tree / "test" / "cat").rename(tree / "cat")
        _, test_set = data.build_datasets(parse(path=tree))
        assert {label for _, label in everything(test_set)} == {1}
        assert capsys.readouterr().err == f"{tree / 'test'}: no images of cat; not tested\n"

    def test_unknown_class_in_test_is_refused(self, tree: Path) -> None:
        (tree / "test" / "bird").mkdir()
        with pytest.raises(UserError, match="bird: no such class in training; rename or remove"):
            data.build_datasets(parse(path=tree))

    def test_classes_must_be_the_checkpoints(self, tree: Path) -> None:
        options = parse(path=tree)
        assert data.build_datasets(options, ["cat", "dog"])[0].classes == ["cat", "dog"]
        with pytest.raises(UserError, match="classes: lacking bird, fox, surplus dog"):
            data.build_datasets(options, ["bird", "cat", "fox"])
        with pytest.raises(UserError, match="classes: another order"):
            data.build_datasets(options, ["dog", "cat"])

    def test_test_set_needs_no_training_set(self, tree: Path) -> None:
        (tree / "train").rename(tree / "elsewhere")
        test_set = data.build_test_set(parse(path=tree), ["ant", "cat", "dog"])
        assert test_set.labels.tolist() == [1, 1, 2, 2]

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_missing_folder(self, tree: Path, split: str) -> None:
        (tree / split).rename(tree / "elsewhere")
        with pytest.raises(UserError, match=rf"{split}: no such .*prepare_data\.py.*path_to_data"):
            data.build_datasets(parse(path=tree))

    def test_no_class_folders(self, tmp_path: Path) -> None:
        save(grey(1), tmp_path / "train" / "a.png")
        (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
        with pytest.raises(UserError, match="train: no class folders; images belong in two"):
            data.build_datasets(parse(path=tmp_path))

    def test_one_class(self, tmp_path: Path) -> None:
        save(grey(1), tmp_path / "train" / "cat" / "a.png")
        with pytest.raises(UserError, match="train: one class folder only, cat; images belong"):
            data.build_datasets(parse(path=tmp_path))

    def test_empty_class(self, tree: Path) -> None:
        (tree / "train" / "bird").mkdir()
        (tree / "train" / "bird" / "._mac.png").touch()
        with pytest.raises(UserError, match="bird: no images; add some, or remove the folder"):
            data.build_datasets(parse(path=tree))

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_no_images_at_all(self, tree: Path, split: str) -> None:
        for path in (tree / split).glob("*/*.png"):
            path.unlink()
        with pytest.raises(UserError, match=f"{split}: no images; they belong in .*<class>"):
            data.build_datasets(parse(path=tree))

    @pytest.mark.parametrize("flag", ["--skip_bad=-1", "--crop_padding=-1", "--crop_padding=9"])
    def test_number_out_of_range(self, tree: Path, flag: str) -> None:
        with pytest.raises(UserError, match=f"{flag.replace('=', ' ')}: give 0"):
            data.build_datasets(parse(flag, path=tree))

    def test_names_in_any_script(self, tmp_path: Path) -> None:
        for split in ("train", "test"):
            for name in ("größe 2", "狐 fox"):
                save(grey(9), tmp_path / split / name / "Ünder the moon 月.png")
        training_set, _ = data.build_datasets(parse(path=tmp_path))
        assert training_set.classes == ["größe 2", "狐 fox"]
        assert [label for _, label in everything(training_set)] == [0, 1]


class TestAugmentation:
    def images(self, count: int) -> torch.Tensor:
        noise = np.random.default_rng(1).integers(1, 256, (3, SIZE, SIZE), dtype=np.uint8)
        return torch.from_numpy(noise).expand(count, -1, -1, -1)

    def test_crops_and_flips_cover_their_range(self) -> None:
        padded = v2.functional.pad(self.images(1)[0], [1])
        expected = set()
        for view in (padded, padded.flip(-1)):
            for top in range(3):
                for left in range(3):
                    crop = view[:, top : top + SIZE, left : left + SIZE]
                    expected.add(crop.numpy().tobytes())
        augmentation = data.Augmentation(parse("--crop_padding=1", "--flip"))
        draws = torch.rand(300, data.Augmentation.draws, generator=torch.manual_seed(0))
        drawn = [image.numpy().tobytes() for image in augmentation(self.images(300), draws)]
        assert set(drawn) == expected
        assert all(5 < drawn.count(each) < 40 for each in expected)  # of 300, 17 expected

    def test_all_of_it_keeps_shape_and_type(self) -> None:
        flags = ["--crop_padding=2", "--flip", "--crop_scale=0.3", "--color_jitter=0.4"]
        augmentation = data.Augmentation(parse(*flags))
        images = augmentation(self.images(50), torch.rand(50, data.Augmentation.draws))
        assert (images.dtype, images.shape) == (torch.uint8, (50, 3, SIZE, SIZE))
        assert len({image.numpy().tobytes() for image in images}) == 50

    def test_flags_reach_the_training_set_alone(self, tree: Path) -> None:
        options = parse("--flip", "--crop_padding=3", path=tree)
        training_set, test_set = data.build_datasets(options)
        assert training_set.augmentation is not None
        assert (training_set.augmentation.flip, training_set.augmentation.padding) == (True, 3)
        assert test_set.augmentation is None
        assert parse().flip is False

    def test_random_box_comes_from_more_pixels(self, tree: Path) -> None:
        training_set, test_set = data.build_datasets(parse("--crop_scale=0.5", path=tree))
        assert (training_set.store.side, test_set.store.side) == (SIZE * 5 // 4, SIZE)
        assert training_set[0][0].shape == (3, SIZE, SIZE)


def spoil(tree: Path, *names: str) -> None:
    for name in names:
        (tree / "train" / name).write_text("no image")


class TestBadFiles:
    def test_path_and_advice_are_in_the_error(self, tree: Path) -> None:
        spoil(tree, "cat/1.png")
        training_set, _ = data.build_datasets(parse(path=tree))
        for _ in range(2):  # the second time too
            with pytest.raises(BadImageError, match=r"1\.png: not an image.*--check_data lists"):
                training_set[1]

    def test_neighbor_replaces_and_is_logged_once(
        self, tree: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        spoil(tree, "cat/3.png", "dog/0.png", "dog/3.png")
        options = parse("--skip_bad=3", "--channels=1", "--crop_padding=0", path=tree)
        training_set, _ = data.build_datasets(options)
        for _ in range(2):
            samples = [
                (int(training_set[index][0][0, 0, 0]), training_set[index][1])
                for index in (3, 4, 7)
            ]
            assert samples == [(101, 1), (101, 1), (0, 0)]
        log = capsys.readouterr().err.splitlines()
        assert [line.split(": ")[0] for line in log] == [
            str(tree / "train" / name) for name in ("cat/3.png", "dog/0.png", "dog/3.png")
        ]
        assert log[2].endswith("replaced, bad file 3 of 3")

    def test_one_more_than_allowed_stops(self, tree: Path) -> None:
        spoil(tree, "cat/0.png", "cat/2.png", "dog/0.png")
        training_set, _ = data.build_datasets(parse("--skip_bad=2", path=tree))
        training_set[0], training_set[2]
        with pytest.raises(UserError, match=r"dog/0\.png: .*bad file 3, --skip_bad is 2"):
            training_set[4]

    def test_nothing_good_is_left(self, tree: Path) -> None:
        spoil(tree, *(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(4)))
        training_set, _ = data.build_datasets(parse("--skip_bad=99", path=tree))
        with pytest.raises(BadImageError, match="no good image is left"):
            training_set[0]

    @pytest.mark.parametrize(("method", "workers"), [("spawn", 1), (None, 2)])
    def test_workers_count_together(self, tree: Path, method: str | None, workers: int) -> None:
        spoil(tree, "cat/0.png", "dog/0.png", "dog/3.png")
        options = parse("--skip_bad=2", path=tree)
        training_set, _ = data.build_datasets(options)
        loader = DataLoader(
            training_set,
            sampler=[0, 1, 4, 5],
            batch_size=2,
            num_workers=workers,
            multiprocessing_context=method,
        )
        assert torch.cat([label for _, label in loader]).tolist() == [0, 0, 1, 1]
        with pytest.raises(UserError, match="bad file 3, --skip_bad is 2"):
            training_set[7]

    def test_pickled_by_value(self, tree: Path) -> None:
        training_set, _ = data.build_datasets(parse("--crop_padding=0", path=tree))
        copy = pickle.loads(pickle.dumps(training_set))
        assert torch.equal(copy[5][0], training_set[5][0])
        assert pickle.loads(pickle.dumps(BadImageError("a.png: bad"))).args == ("a.png: bad",)


class TestTrainingLoader:
    """Where each image is changed at length, by flags of this data alone."""

    def build(self, tree: Path, workers: int, *flags: str) -> TrainingLoader:
        options = parse(*flags, path=tree)
        vars(options).update(batch_size=2, accumulate=1, seed=5, num_workers=workers)
        return TrainingLoader(data.build_datasets(options)[0], options)

    @pytest.mark.parametrize("flag", ["--color_jitter=0.1", "--crop_scale=0.5"])
    def test_workers_stay_once_all_is_cached(self, tree: Path, flag: str) -> None:
        loader = self.build(tree, 1, flag, "--cache=ram")
        for _ in range(2):
            assert len(list(loader)) == 4
            assert loader.num_workers == 1
        loader.close()

    def test_images_on_the_device_are_the_same(self, tree: Path) -> None:
        flags = "--color_jitter=0.1", "--crop_scale=0.5"
        expected = self.build(tree, 0, *flags, "--cache=off")
        on_device = self.build(tree, 2, *flags, "--cache=device")
        for batch, other in zip(on_device, expected, strict=True):
            assert torch.equal(batch[0], other[0])


class TestCheckData:
    def test_every_bad_file_is_listed(self, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
        spoil(tree, "cat/1.png", "dog/3.png")
        with pytest.raises(UserError, match=r"2 of 12 images are bad, listed above; mend or"):
            data.check_data(parse("--cache=off", path=tree))
        lines = capsys.readouterr().out.splitlines()
        bad = [tree / "train" / "cat" / "1.png", tree / "train" / "dog" / "3.png"]
        assert [line.partition(":")[0] for line in lines] == [str(path) for path in bad]

    def test_good_files_are_counted(self, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data.check_data(parse("--cache=off", path=tree))
        assert capsys.readouterr().out == "12 files in order\n"
