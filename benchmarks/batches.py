"""Batches in memory, and what has train.py take them for those of a loader."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

Batch = Sequence[Tensor]  # images, uint8 (N, 3, H, W), and labels (N,)


def make_batches(count: int, size: int, side: int) -> list[Batch]:
    """Returns `count` batches of random images, uint8 (N, 3, H, W), and labels (N,)."""
    generator = torch.Generator().manual_seed(0)
    return [
        [
            torch.randint(256, (size, 3, side, side), dtype=torch.uint8, generator=generator),
            torch.arange(size) % 4,
        ]
        for _ in range(count)
    ]


class MemoryLoader:
    """Batches in memory, with all that train.py asks of its loader.

    Args:
        batches: those of each epoch.
    """

    num_workers = 0
    persistent_workers = False

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches

    def set_position(self, epoch: int, start: int) -> None:
        """Takes the place in the run, which says nothing here: every epoch is the same."""

    def close(self) -> None:
        """Has nothing to end."""

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class WorkersLoader(MemoryLoader):
    """Batches in memory as workers would send them, so that train.py starts its thread.

    Args:
        batches: those of each epoch.
        loader: the trainer's own, which says how many come in a chunk, and parts it.
    """

    num_workers = 1

    def __init__(self, batches: Sequence[Batch], loader: Any) -> None:
        super().__init__(batches)
        self.split = loader.split
        at_once = loader.batch_sampler.at_once
        starts = range(0, len(batches), at_once)
        parts = [zip(*batches[start : start + at_once], strict=True) for start in starts]
        self._chunks = [tuple(map(torch.cat, part)) for part in parts]

    def chunks(self) -> Iterator[Batch]:
        """Begins an epoch."""
        return iter(self._chunks)
