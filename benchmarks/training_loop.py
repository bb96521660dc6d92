#!/usr/bin/env python3
"""Measures what the rendered train.py costs beside the least that any training loop must do.

    python benchmarks/training_loop.py             # renders a project, minutes in all
    python benchmarks/training_loop.py --part speed --rivals   # other libraries' loops, too
    python benchmarks/training_loop.py --quick     # seconds: does it run, not what does it cost

See benchmarks/README.md for what the numbers mean.
"""

import argparse
import gc
import importlib
import itertools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from batches import MemoryLoader, WorkersLoader, make_batches
from rendered import SIDE, Project, render, shortest_loop, terminal, write_data
from rendered import train_epoch as train_ours
from summaries import (
    Window,
    describe_machine,
    means_of_epochs,
    print_cost,
    print_saving,
    print_speed,
    ratios,
    summarize,
)
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

NETWORKS = {
    "tiny": ["--width", "4", "--stages", "0"],
    "small": [],  # as the flags' defaults have it
}
WORKERS = (0, 2)
BATCH_SIZE = 64  # of the images/s

# Of the loop's own cost: one convolution on a few pixels, a step so short that the loop shows.
LOOP_BATCH_SIZE, LOOP_SIDE, LOOP_NETWORK = 8, 8, ["--width", "4", "--stages", "0"]
SAVE_EVERY = 50  # steps
LAPS = 20  # short epochs of each loop in a round, by turns: what slows the machine slows all

Epochs = Mapping[str, Callable[[], float | None]]  # may return a time of their own
Rounds = dict[str, list[float]]
Rivals = Mapping[str, Callable[..., Callable[[], float | None]]]


def interleave(epochs: Epochs, rounds: int, clock: Callable[[], float]) -> Rounds:
    """Runs every loop once a round, and returns its time in each, by its name.

    One round after the other, and each begins with another loop: what slows the machine for a
    while slows all of them. A first round is not counted; workers start in it, and caches fill.
    """
    names = list(epochs)
    times: Rounds = {name: [] for name in names}
    for number in range(-1, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            started = clock()
            own = epochs[name]()
            if number >= 0:
                times[name].append(clock() - started if own is None else own)
    return times


@contextmanager
def build_trainer(project: Project, options: argparse.Namespace) -> Iterator[Any]:
    """Builds train.py's trainer with its record open, and ends its workers afterwards."""
    trainer = project.train.Trainer(options)
    with trainer.lock, trainer.record, closing(trainer.training_loader):
        yield trainer


def measure_cost(
    project: Project, folder: Path, rounds: int, steps: int, rivals: Rivals
) -> dict[str, dict[str, float]]:
    """Measures the CPU time a step, in microseconds, over that of the shortest loop.

    Returns:
        By "shortest" (its whole step), "no thread", "thread" and each rival's name: median,
        minimum and maximum.
    """
    flags = ["--img_size", LOOP_SIDE, "--batch_size", LOOP_BATCH_SIZE, "--num_workers", 0]
    options = project.parse(folder / "data", folder / "run", *map(str, flags), *LOOP_NETWORK)
    batches = make_batches(steps, LOOP_BATCH_SIZE, LOOP_SIDE)
    with terminal(), build_trainer(project, options) as trainer:
        model, optimizer = project.build_model(trainer)
        built = {name: project.build_model(trainer) for name in rivals}
        loader = MemoryLoader(batches)
        sent = WorkersLoader(batches, trainer.training_loader)
        epochs: dict[str, Callable[[], float | None]] = {
            "shortest": lambda: shortest_loop(model, optimizer, batches),
            "no thread": lambda: train_from(trainer, loader),
            "thread": lambda: train_from(trainer, sent),
        }
        epochs |= {name: run(*built[name], loader) for name, run in rivals.items()}
        times = interleave(epochs, rounds * LAPS, time.process_time)
    shortest = times.pop("shortest")
    costs = {"shortest": summarize(medians_of_rounds(shortest, steps))}
    for name, laps in times.items():
        pairs = zip(laps, shortest, strict=True)
        costs[name] = summarize(medians_of_rounds([ours - least for ours, least in pairs], steps))
    return costs


def medians_of_rounds(laps: Sequence[float], steps: int) -> list[float]:
    """Returns each round's median lap, in microseconds a step."""
    rounds = [laps[start : start + LAPS] for start in range(0, len(laps), LAPS)]
    return [1e6 * statistics.median(round_) / steps for round_ in rounds]


def measure_saving(
    project: Project, folder: Path, rounds: int, network: str, saves: int
) -> dict[str, float]:
    """Measures the speed with a checkpoint every 50 steps, as a share of that without any.

    The end of the last save is waited for, within the time.
    """
    run_dir = folder / f"run-saving-{network}"
    flags = ["--batch_size", str(BATCH_SIZE), "--num_workers", "0", *NETWORKS[network]]
    options = project.parse(folder / "data", run_dir, *flags)
    batches = make_batches(16, BATCH_SIZE, SIDE) * (saves * SAVE_EVERY // 16 + 1)
    batches = batches[: saves * SAVE_EVERY + 1]  # an epoch's last step leaves its save to the end
    with terminal(), build_trainer(project, options) as trainer:

        def train(save_every: int) -> None:
            options.save_every = save_every
            trainer.state.n_iter = 0
            train_from(trainer, MemoryLoader(batches))
            trainer.checkpoints.wait()

        epochs = {"none": lambda: train(0), "saves": lambda: train(SAVE_EVERY)}
        times = interleave(epochs, rounds, time.perf_counter)
    return summarize(ratios(times["none"], times["saves"]))


def train_from(trainer: Any, loader: MemoryLoader) -> None:
    """Trains one epoch of train.py on the loader's batches."""
    trainer.training_loader = loader
    train_ours(trainer)


def measure_speed(
    project: Project, folder: Path, rounds: int, flags: Sequence[str], rivals: Rivals
) -> dict[str, dict[str, float]]:
    """Measures images/s of train.py on files, and its ratios to other loops.

    Returns:
        By "images/s", "of memory" (the same tensors in memory, the shortest loop), "of plain" (a
        DataLoader on the same files, the shortest loop), "of <rival>" (the same, by its loop) and
        "efficiency" (what train.py shows): median, minimum and maximum.
    """
    run_dir = Path(tempfile.mkdtemp(dir=folder))
    options = project.parse(folder / "data", run_dir, "--batch_size", str(BATCH_SIZE), *flags)
    with terminal(), build_trainer(project, options) as trainer:
        windows = collect_windows(trainer)
        loaders = {name: build_plain_loader(trainer) for name in ("plain", *rivals)}
        batches = list(loaders["plain"])
        built = {name: project.build_model(trainer) for name in ("memory", *loaders)}
        epochs: dict[str, Callable[[], float | None]] = {
            "ours": lambda: train_ours(trainer),
            "memory": lambda: shortest_loop(*built["memory"], batches),
            "plain": lambda: shortest_loop(*built["plain"], loaders["plain"]),
        }
        epochs |= {name: run(*built[name], loaders[name]) for name, run in rivals.items()}
        times = interleave(epochs, rounds, time.perf_counter)
        for loader in loaders.values():
            project.end_workers(loader._iterator)
        epochs.clear()
        gc.collect()  # a rival may have made workers of its own, which hold on to the terminal
    ours, images = times.pop("ours"), len(batches) * BATCH_SIZE
    return {
        "images/s": summarize([images / seconds for seconds in ours]),
        **{f"of {name}": summarize(ratios(theirs, ours)) for name, theirs in times.items()},
        "efficiency": summarize(means_of_epochs(windows) or [math.nan]),
    }


def collect_windows(trainer: Any) -> list[Window]:
    """Returns a list to which each efficiency that train.py shows is appended, once all is warm."""
    windows: list[Window] = []
    window = trainer.meter.window

    def watched(batch_size: int) -> dict[str, float]:
        speed: dict[str, float] = window(batch_size)
        if trainer.state.epoch > 1 and speed:
            windows.append((trainer.state.epoch, speed["efficiency"], 1 / speed["images/s"]))
        return speed

    trainer.meter.window = watched
    return windows


def build_plain_loader(trainer: Any) -> DataLoader[tuple[Tensor, Tensor]]:
    """Returns what a few lines of torch would load the trainer's files with."""
    workers = trainer.options.num_workers
    steps = [v2.RandomCrop(SIDE, padding=trainer.options.crop_padding), v2.PILToTensor()]
    folder = Path(trainer.options.path_to_data) / "train"
    return DataLoader(
        ImageFolder(str(folder), v2.Compose(steps)),
        BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measures and prints what the flags ask for, and returns all of it."""
    project = Project(arguments.project or render(folder / "project"))
    results: dict[str, Any] = describe_machine() | {"rounds": arguments.rounds}
    print(", ".join(f"{name} {value}" for name, value in results.items()), flush=True)
    write_data(folder / "data", arguments.files)
    if arguments.part in (None, "cost"):
        rivals = find_rivals(arguments, time.process_time)
        results["cost"] = measure_cost(project, folder, arguments.rounds, arguments.steps, rivals)
        print_cost(results["cost"])
    if arguments.part in (None, "saving"):
        saves = 1 if arguments.quick else 2
        results["saving"] = {
            network: measure_saving(project, folder, arguments.rounds, network, saves)
            for network in NETWORKS
        }
        print_saving(results["saving"], SAVE_EVERY)
    if arguments.part in (None, "speed"):
        rivals = find_rivals(arguments, time.perf_counter)
        results["speed"] = []
        for network, workers in itertools.product(NETWORKS, WORKERS):
            flags = [*NETWORKS[network], "--num_workers", str(workers), "--cache", arguments.cache]
            speed = measure_speed(project, folder, arguments.rounds, flags, rivals)
            results["speed"].append({"network": network, "workers": workers} | speed)
        print_speed(results["speed"])
    return results


def find_rivals(arguments: argparse.Namespace, clock: Callable[[], float]) -> Rivals:
    """Returns the other libraries' loops, if they are asked for."""
    if not arguments.rivals:
        return {}
    loops: Rivals = importlib.import_module("rivals").rivals(clock)
    return loops


def parse_arguments() -> argparse.Namespace:
    """Parses the flags; --quick fills in those that were not given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--project", type=Path, help="a rendered classifier (default: renders one)")
    parser.add_argument("--part", choices=["cost", "speed", "saving"], help="default: all")
    parser.add_argument("--rounds", type=int, help="default: 5, or 2 if --quick")
    parser.add_argument("--steps", type=int, help="an epoch, of the cost (default: 500, or 20)")
    parser.add_argument("--files", type=int, help="for the speed (default: 10048, or 256)")
    parser.add_argument("--rivals", action="store_true", help="of cost and speed: see rivals.py")
    parser.add_argument("--cache", default="auto", help="of the speed: train.py's flag")
    parser.add_argument("--quick", action="store_true", help="few of each: does it still run")
    parser.add_argument("--json", type=Path, help="write all numbers to this file, too")
    arguments = parser.parse_args()
    try:  # now, not once a project is rendered
        find_rivals(arguments, time.perf_counter)
    except ModuleNotFoundError as error:
        parser.error(f"argument --rivals: no {error.name} here: pip install -e '.[dev,rivals]'")
    defaults = {"rounds": (5, 2), "steps": (500, 20), "files": (10_048, 256)}
    for name, values in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, values[arguments.quick])
    return arguments


def main() -> None:
    """Measures, prints and writes."""
    arguments = parse_arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        results = measure(arguments, Path(folder))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
