"""How the benchmarks put numbers together, and print them."""

import datetime
import itertools
import operator
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch

Window = tuple[int, float, float]  # epoch, efficiency, and time an image


def summarize(values: Sequence[float]) -> dict[str, float]:
    """Returns median, minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Returns how many times as fast as theirs ours was, round by round."""
    return [their / our for their, our in zip(theirs, ours, strict=True)]


def means_of_epochs(windows: Sequence[Window]) -> list[float]:
    """Returns each epoch's mean efficiency: windows that took longer weigh more."""
    means = []
    for _, group in itertools.groupby(windows, key=operator.itemgetter(0)):
        _, efficiencies, times = zip(*group, strict=True)
        means.append(statistics.fmean(efficiencies, times))
    return means


def describe_machine() -> dict[str, Any]:
    """Returns what the numbers depend on."""
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def spread(summary: Mapping[str, float], digits: int) -> str:
    """Writes a summary as "median (minimum to maximum)"."""
    median, low, high = (f"{summary[name]:.{digits}f}" for name in ("median", "min", "max"))
    return f"{median} ({low} to {high})"


def print_cost(costs: Mapping[str, Mapping[str, float]]) -> None:
    """Prints the loop's own cost."""
    print("\nCPU time a step, microseconds: median (minimum to maximum)")
    labels = {
        "shortest": "the shortest loop, whole step",
        "no thread": "train.py adds, without workers",
        "thread": "train.py adds, by a background thread",
    }
    for name, cost in costs.items():
        print(f"  {labels.get(name, f'{name} adds'):<38}{spread(cost, 0)}")


def print_saving(shares: Mapping[str, Mapping[str, float]], save_every: int) -> None:
    """Prints what is left of the speed where checkpoints are saved."""
    print(f"\nspeed with --save_every {save_every}, as a share of that without saving")
    for network, share in shares.items():
        print(f"  {network:<9}{spread(share, 3)}")


def print_speed(cells: Sequence[Mapping[str, Any]]) -> None:
    """Prints the images/s, a line a cell."""
    print("\nimages/s of train.py, and as a share of the shortest loop's")
    columns = [name for name in cells[0] if name not in ("network", "workers")]
    print(f"  {'network':<9}{'workers':<9}" + "".join(f"{column:<24}" for column in columns))
    for cell in cells:
        texts = [spread(cell[column], 0 if column == "images/s" else 3) for column in columns]
        line = f"  {cell['network']:<9}{cell['workers']:<9}" + "".join(f"{t:<24}" for t in texts)
        print(line.rstrip(), flush=True)
