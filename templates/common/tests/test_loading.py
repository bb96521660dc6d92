"""The training loader on the data: several batches at once, workers, images on the device."""

import multiprocessing
import threading
from collections.abc import Callable

import pytest
import torch
from conftest import Parse
from torch import Tensor

import data
from engine.loading import TrainingLoader
from engine.prefetch import BackgroundBatches

Builder = Callable[..., TrainingLoader]


@pytest.fixture
def build(parse: Parse) -> Builder:
    """Builds a loader of four batches."""

    def build_loader(workers: int, *flags: str) -> TrainingLoader:
        given = "--batch_size=64", "--seed=5", f"--num_workers={workers}"
        options = parse("--flip", "--cache=ram", "--img_size=8", *given, *flags)
        return TrainingLoader(data.build_datasets(options)[0], options)

    return build_loader


def read(loader: TrainingLoader, start: int = 0) -> list[Tensor]:
    loader.set_position(1, start)
    return [batch[0] for batch in loader]


@pytest.mark.parametrize("workers", [0, 1])
def test_several_batches_at_once_are_the_same(
    build: Builder, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = build(workers)
    monkeypatch.setattr("engine.loading.CHUNK_BYTES", 1)
    single = build(0)
    first, all_at_once = (next(iter(each.batch_sampler or ())) for each in (single, several))
    assert len(all_at_once) == 256
    assert first == all_at_once[:64]
    for start in (0, 1, 3):
        batches = read(several, start)
        assert len(batches) == 4 - start
        for batch, expected in zip(batches, read(single, start), strict=True):
            assert torch.equal(batch, expected)
    several.close()


def test_a_thread_hands_over_the_same_batches_while_there_are_workers(build: Builder) -> None:
    loader, expected = build(1), read(build(0))
    for workers in (1, 0):  # once all is cached, there are none
        loader.set_position(1, 0)
        with BackgroundBatches(loader, torch.device("cpu"), 1) as batches:
            threads = [type(each).__name__ for each in threading.enumerate()]
            assert loader.num_workers == threads.count("BackgroundGenerator") == workers
            assert all(map(torch.equal, [batch[0] for batch in batches], expected))


def test_workers_end_once_all_is_cached(build: Builder) -> None:
    loader = build(1)
    first = read(loader)
    assert loader.num_workers == 1
    second = read(loader)
    assert loader.num_workers == 0
    assert not multiprocessing.active_children()
    assert all(map(torch.equal, first, second))


def test_workers_stay_where_nothing_is_cached(build: Builder) -> None:
    loader = build(1, "--cache=off")
    for _ in range(2):
        read(loader)
        assert loader.num_workers == 1
    loader.close()


def test_images_on_the_device_are_the_same(build: Builder) -> None:
    loader = build(2, "--cache=device")
    assert loader.num_workers == 0
    expected = read(build(0, "--cache=off"))
    for _ in range(2):
        assert all(map(torch.equal, read(loader), expected))
