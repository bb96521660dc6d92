"""Every random draw is a function of the seed and of a place in the run, never of what came before.

A sample's draws follow from (seed, epoch, index), a step's from (seed, epoch, batch). So neither
the number of workers nor the place where a run was cut and resumed can change a result.
"""

import os
import random
from collections.abc import Iterator
from functools import lru_cache, partial, reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from engine.distributed import rank, world_size

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15
_ORDERS, _SAMPLES, _STEPS = range(3)  # so that sample 5 and step 5 draw different numbers
_BLOCK = 1024  # steps

SampleKey = tuple[int, int]  # (epoch, index of the sample)


def derive_seed(*parts: int) -> int:
    """Mixes integers into one seed in [0, 2**63) by SplitMix64's finalizer.

    Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
    """
    return _mix_all(*parts) >> 1


def _mix_all(*parts: int) -> int:
    return reduce(_mix, parts, 0)


def _mix(state: int, part: int) -> int:
    state = (state + part + _GAMMA) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def _mix_arrays(state: NDArray[np.uint64], part: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Does what `_mix` does, element by element."""
    state = state + (part.astype(np.uint64) + np.uint64(_GAMMA))
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def uniform(seed: int, epoch: int, indices: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Returns `count` numbers in [0, 1) for each sample of a batch, shape (N, count).

    Each follows from (seed, epoch, index, its column) alone, by the mix of `derive_seed`.
    """
    state = np.array(_mix_all(seed, _SAMPLES, epoch), np.uint64)
    state = _mix_arrays(_mix_arrays(state, indices[:, None]), np.arange(count))
    return (state >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)  # never rounds to 1


def seed_all(*parts: int) -> None:
    """Seeds Python, NumPy, and torch on every device from the mix of the given integers."""
    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    seed_torch(seed)


def seed_torch(seed: int) -> None:
    """Seeds torch on every device."""
    torch.default_generator.manual_seed(seed)  # `torch.manual_seed` also looks at every backend
    if torch.cuda.is_initialized():
        # Replicas of one model draw different dropout masks: each device has a seed of its own.
        for device, generator in enumerate(torch.cuda.default_generators):
            generator.manual_seed(derive_seed(seed, device))


def seed_step(seed: int, epoch: int, batch: int) -> None:
    """Seeds what the model draws in one batch, dropout and noise: from torch, not from NumPy."""
    block, place = divmod(batch, _BLOCK)
    seed_torch(_seeds_of_block(seed, epoch, block)[place])


@lru_cache(maxsize=1)
def _seeds_of_block(seed: int, epoch: int, block: int) -> list[int]:
    """Derives the seeds of many steps at once, which takes little longer than deriving one."""
    # No process draws what another does.
    state = np.array(_mix_all(seed, _STEPS + rank(), epoch), np.uint64)
    batches = np.arange(block * _BLOCK, (block + 1) * _BLOCK)
    seeds: list[int] = (_mix_arrays(state, batches) >> np.uint64(1)).tolist()
    return seeds


def set_deterministic(deterministic: bool) -> None:
    """Has cuDNN pick its fastest algorithms, or, if asked, torch refuse what may differ."""
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic)
    if deterministic:  # read by cuBLAS when CUDA starts
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def get_rng_state() -> dict[str, Any]:
    """Returns the states of all generators as plain types and tensors."""
    numpy = dict(np.random.get_state(legacy=False))
    numpy["state"] = {"key": torch.from_numpy(numpy["state"]["key"]), "pos": numpy["state"]["pos"]}
    return {
        "python": random.getstate(),
        "numpy": numpy,
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restores what `get_rng_state` returned."""
    random.setstate(state["python"])
    numpy = state["numpy"]["state"]
    np.random.set_state(state["numpy"] | {"state": numpy | {"key": numpy["key"].numpy()}})
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


class SeededDataset(Dataset[Any]):
    """A data set whose every sample is drawn under the seed of (seed, epoch, index).

    One that has `get_batch(indices, uniform)` makes whole batches at once, and draws from
    `uniform(count)`, which gives each sample its numbers.
    """

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitem__(self, key: SampleKey) -> Any:
        seed_all(self.seed, _SAMPLES, *key)
        return self.dataset[key[1]]

    def __getitems__(self, keys: list[SampleKey]) -> Any:
        get_batch = getattr(self.dataset, "get_batch", None)
        if get_batch is None:
            return [self[key] for key in keys]
        epoch = keys[0][0]
        indices = np.array([index for _, index in keys])
        return get_batch(indices, partial(uniform, self.seed, epoch, indices))


class ResumableBatchSampler(Sampler[list[SampleKey]]):
    """Shuffled batches of (epoch, index); starts at any batch without reading those before it.

    Of several processes, each gets its share of every batch: the batches are the same for any
    number of them.

    Args:
        size: number of samples in the data set.
        batch_size: samples per batch.
        seed: of the shuffle; each epoch's order follows from (seed, epoch).
        accumulate: batches that make one step. Samples that fill no whole step are left out of
            the epoch; the shuffle leaves out others in the next.
        at_once: batches that are given as one list.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, accumulate: int = 1, at_once: int = 1
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.at_once = at_once
        self.seed = seed
        self.batches = size // (batch_size * accumulate) * accumulate
        self.epoch = 0
        self.start = 0

    def set_position(self, epoch: int, start: int) -> None:
        """Has the next iteration give epoch `epoch` from batch `start` on."""
        self.epoch = epoch
        self.start = start

    def order(self) -> Tensor:
        """Returns the epoch's order of all samples, shape (size,)."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, _ORDERS, self.epoch))
        return torch.randperm(self.size, generator=generator)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch, order = self.epoch, self.order()
        shares = order[: self.batches * self.batch_size].view(self.batches, world_size(), -1)
        own = shares[:, rank()]  # (batches, samples of each that are this process's)
        for first in range(self.start, self.batches, self.at_once):
            chosen = own[first : first + self.at_once].flatten().tolist()
            yield [(epoch, index) for index in chosen]

    def __len__(self) -> int:
        """Batches in a whole epoch, wherever the next iteration starts."""
        return self.batches
