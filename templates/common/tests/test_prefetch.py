"""Batches ahead of time: whole, in order, and nothing left behind however the loop ends."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from engine.parser import PROJECT
from engine.prefetch import BackgroundBatches, map_tensors
from engine.stopping import ignore_signals

CPU = torch.device("cpu")


class Numbers(Dataset[int]):
    """The numbers from 0; one of them may be bad."""

    def __init__(self, size: int = 12, bad: int = -1) -> None:
        self.size = size
        self.bad = bad

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        if index == self.bad:
            raise ValueError(f"number {index} is bad")
        return index


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No thread and no process outlives the loop for long; torch's own threads end unasked."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_batches_arrive_in_order(workers: int, ahead: int) -> None:
    loader = DataLoader(Numbers(), batch_size=4, num_workers=workers)
    with BackgroundBatches(loader, CPU, ahead) as batches:
        assert len(batches) == 3
        assert [batch.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


@pytest.mark.parametrize("workers", [0, 2])
def test_loop_may_end_early(workers: int) -> None:
    loader = DataLoader(Numbers(1000), batch_size=1, num_workers=workers)
    with BackgroundBatches(loader, CPU, 2) as batches:
        for batch in batches:
            if batch.item() == 3:
                break


@pytest.mark.parametrize("workers", [0, 2])
def test_error_in_the_loop_passes_through(workers: int) -> None:
    loader = DataLoader(Numbers(1000), batch_size=1, num_workers=workers)

    def fail_at_three() -> None:
        with BackgroundBatches(loader, CPU, 2) as batches:
            for batch in batches:
                _ = 1 // (3 - batch.item())

    with pytest.raises(ZeroDivisionError):
        fail_at_three()


@pytest.mark.parametrize("workers", [0, 1])
def test_error_in_the_data_reaches_the_loop(workers: int) -> None:
    loader = DataLoader(Numbers(bad=5), batch_size=2, num_workers=workers)
    with BackgroundBatches(loader, CPU, 2) as batches:
        numbers = iter(batches)
        assert [next(numbers).tolist(), next(numbers).tolist()] == [[0, 1], [2, 3]]
        with pytest.raises(ValueError, match="number 5 is bad"):
            next(numbers)


def interrupted(error: BaseException) -> Callable[[], Iterator[int]]:
    def numbers() -> Iterator[int]:
        yield 1
        raise error

    return numbers


class Source:
    """A loader with workers, as far as BackgroundBatches can see."""

    num_workers = 1
    persistent_workers = False

    def __init__(self, numbers: Callable[[], Iterator[int]]) -> None:
        self.numbers = numbers

    def __iter__(self) -> Iterator[int]:
        return self.numbers()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_interrupt_in_the_data_is_not_the_end_of_the_epoch(error: BaseException) -> None:
    with BackgroundBatches(Source(interrupted(error)), CPU, 2) as batches:
        numbers = iter(batches)
        assert next(numbers) == 1
        with pytest.raises(RuntimeError, match="the loader was ended by"):
            next(numbers)


@pytest.mark.parametrize("ahead", [1, 3])
def test_as_many_batches_are_kept_ready_as_asked_for(ahead: int) -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    with BackgroundBatches(Source(numbers), CPU, ahead) as batches:
        for taken, _ in enumerate(batches, start=1):
            expected = min(20, taken + ahead + 1)  # one more, for which there is no room yet
            deadline = time.monotonic() + 10
            while len(made) < expected and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.002)  # in which one too many would come
            assert len(made) == expected


class Pairs(Source):
    """A loader whose batches come two at once."""

    def chunks(self) -> Iterator[Any]:
        return iter([(0, 1), (2, 3), (4, 5), (6, 7)])

    def split(self, chunks: Iterator[Any]) -> Iterator[int]:
        for chunk in chunks:
            yield from chunk


@pytest.mark.parametrize("ahead", [0, 2])
def test_batches_that_come_several_at_once_pass_the_thread_as_one(
    monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    moved = []

    def note(chunk: Any, device: torch.device) -> Any:
        moved.append(chunk)
        return chunk

    monkeypatch.setattr("engine.prefetch.to_device", note)
    with BackgroundBatches(Pairs(lambda: iter([])), CPU, ahead) as batches:
        assert list(batches) == list(range(8))
    assert moved == ([(0, 1), (2, 3), (4, 5), (6, 7)] if ahead else [])


def test_tensors_are_found_in_nested_batches() -> None:
    batch = {"images": torch.ones(1), "targets": (torch.ones(1), [torch.ones(1)]), "name": "x"}
    doubled = map_tensors(lambda tensor: 2 * tensor, batch)
    assert doubled["images"].item() == doubled["targets"][0].item() == 2
    assert doubled["targets"][1][0].item() == 2
    assert [type(doubled["targets"]), type(doubled["targets"][1])] == [tuple, list]
    assert doubled["name"] == "x"


ENDINGS = {"break": ("break", 0), "exit": ("sys.exit(3)", 3), "error": ("1 / 0", 1)}
PROGRAM = """
import sys, torch
from torch.utils.data import DataLoader
from engine.prefetch import BackgroundBatches
if __name__ == "__main__":
    loader = DataLoader(torch.arange(1000.0), batch_size=1, num_workers={workers})
    with BackgroundBatches(loader, torch.device("cpu"), 2) as batches:
        for batch in batches:
            if batch.item() == 5:
                {ending}
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("ending", ENDINGS)
def test_exit_status_is_right(workers: int, ending: str) -> None:
    """A thread left inside torch would abort the interpreter: status 134."""
    statement, status = ENDINGS[ending]
    program = PROGRAM.format(workers=workers, ending=statement)
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, cwd=PROJECT, capture_output=True, check=False)
    assert process.returncode == status


@pytest.mark.cuda
def test_batches_are_copied_to_the_device() -> None:
    loader = DataLoader(Numbers(), batch_size=4, num_workers=2)
    with BackgroundBatches(loader, torch.device("cuda"), 2) as batches:
        received = list(batches)
    assert all(batch.is_cuda for batch in received)
    assert torch.cat(received).tolist() == list(range(12))


def meet_a_signal_first(worker: int) -> None:
    """Has a signal for the whole group come before the worker ignores it."""
    os.kill(os.getpid(), signal.SIGTERM)
    ignore_signals(worker)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_worker_survives_a_signal_at_its_start() -> None:
    loader = DataLoader(Numbers(), num_workers=1, worker_init_fn=meet_a_signal_first)
    with BackgroundBatches(loader, CPU, 2) as batches:
        assert [int(batch) for batch in batches] == list(range(12))


class NotForWorkers:
    """Like a tensor on a GPU that a reference cycle holds: ends the worker that frees it."""

    def __init__(self) -> None:
        self.itself, self.owner = self, os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self.owner:
            os._exit(1)


def collect_garbage(worker: int) -> None:
    gc.collect()
    ignore_signals(worker)


def test_worker_leaves_garbage_alone() -> None:
    loader = DataLoader(Numbers(), num_workers=1, worker_init_fn=collect_garbage)
    gc.disable()
    try:
        NotForWorkers()
        with BackgroundBatches(loader, CPU, 2) as batches:
            assert [int(batch) for batch in batches] == list(range(12))
    finally:
        gc.enable()
    assert not gc.get_freeze_count()
