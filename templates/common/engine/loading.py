"""The loaders: a training set in a resumable shuffle, a test set in its order."""

import argparse
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from engine.distributed import rank, share_of_batch, world_size
from engine.exits import UserError
from engine.prefetch import end_workers
from engine.reproducibility import ResumableBatchSampler, SeededDataset
from engine.stopping import ignore_signals

CHUNK_BYTES = 2**20  # of samples that are made at once, if they are small


def _batches_at_once(dataset: Dataset[Any], batch_size: int) -> int:
    """Returns how many batches a call of `get_batch` makes.

    Of small images it makes several: it takes hardly longer, and one message from a worker brings
    them all.
    """
    sample_bytes = getattr(dataset, "sample_bytes", None)
    return min(8, max(1, CHUNK_BYTES // (batch_size * sample_bytes))) if sample_bytes else 1


def usable_cpus() -> int:
    """Returns how many CPUs this process may use."""
    # The affinity sees a job's share of the machine, where the CPU count sees the whole of it.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def default_workers() -> int:
    """Returns one worker per CPU this process may use, less the one that trains; at most 4."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # of this training, on this machine
    return max(0, min(4, usable_cpus() // processes - 1))


class TrainingLoader(DataLoader[Any]):
    """Shuffled batches, the same whatever the number of workers, from any place in any epoch.

    Args:
        dataset: gives a sample for an index. One that makes whole batches, by `get_batch`, may say
            how large a sample is (`sample_bytes`), and when workers are of no more use to it
            (`needs_workers`).
        options: gives batch_size, accumulate, num_workers and seed.

    Raises:
        UserError: the set has fewer samples than one step takes, or a batch cannot be split evenly
            over the processes.
    """

    def __init__(self, dataset: Dataset[Any], options: argparse.Namespace) -> None:
        size = len(dataset)  # type: ignore[arg-type]  # torch leaves __len__ to map-style sets
        self._samples, self._size = dataset, share_of_batch(options)
        sampler = ResumableBatchSampler(
            size,
            options.batch_size,
            options.seed,
            options.accumulate,
            _batches_at_once(dataset, self._size),
        )
        if not len(sampler):
            raise UserError(
                f"--batch_size {options.batch_size} x --accumulate {options.accumulate} is more "
                f"than the {size} training samples in {options.path_to_data}: lower one of them"
            )
        super().__init__(
            SeededDataset(dataset, options.seed),
            batch_sampler=sampler,
            # Workers live through all epochs: each sample is seeded, so they carry nothing over.
            persistent_workers=_workers(options) > 0,
            **_common(options),
        )
        self.set_position = sampler.set_position

    def __iter__(self) -> Any:
        return self.split(self.chunks())

    def chunks(self) -> Iterator[Any]:
        """Starts an epoch, and returns its batches as they are made, several at once."""
        if self.num_workers and not getattr(self._samples, "needs_workers", True):
            self.close()
            self.num_workers = 0  # from here on, batches are made in this process
        return super().__iter__()  # its workers start here, not at the first

    def split(self, chunks: Iterator[Any]) -> Iterator[Any]:
        """Yields the batches out of what `chunks` gave."""
        for chunk in chunks:
            if isinstance(chunk, tuple):
                yield from zip(*(part.split(self._size) for part in chunk), strict=True)
            else:
                yield chunk

    def close(self) -> None:
        """Ends the workers, which outlive an epoch; they would wait for the next one for ever."""
        end_workers(self._iterator)


class _InOrder(Dataset[Any]):
    """A data set whose batches are made at once, if it can."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # torch leaves it to map-style sets

    def __getitems__(self, indices: list[int]) -> Any:
        get_batch = getattr(self.dataset, "get_batch", None)
        if get_batch is None:
            return [self.dataset[index] for index in indices]
        return get_batch(np.array(indices), None)  # a test draws nothing


def collate(samples: Any) -> Any:
    """Returns a list of samples as a batch; a tuple is one already."""
    return samples if isinstance(samples, tuple) else default_collate(samples)


def test_loader(dataset: Dataset[Any], options: argparse.Namespace) -> DataLoader[Any]:
    """Returns every sample once, in order; the last batch may be smaller.

    Of several processes, each gets some of the batches, in a row: as they are tested in the same
    batches, the numbers that come of it are the same, too.
    """
    size, end = options.batch_size, len(dataset)  # type: ignore[arg-type]  # as above
    batches = [list(range(start, min(start + size, end))) for start in range(0, end, size)]
    bounds = [len(batches) * number // world_size() for number in (rank(), rank() + 1)]
    return DataLoader(_InOrder(dataset), batch_sampler=batches[slice(*bounds)], **_common(options))


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the flags that were given, which take the place of the training's."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    return {"num_workers": default_workers()} | given


def _workers(options: argparse.Namespace) -> int:
    """Returns --num_workers, or none if the images are on the device, where this process works."""
    return 0 if getattr(options, "cache", None) == "device" else int(options.num_workers)


def _common(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "num_workers": _workers(options),
        "worker_init_fn": ignore_signals,
        "collate_fn": collate,
        # Without a generator of its own, a loader draws from the global one at every epoch.
        "generator": torch.Generator().manual_seed(options.seed),
    }
