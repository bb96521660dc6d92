#!/usr/bin/env python3
"""Measures what it costs the first epoch to write the decoded images down.

    python benchmarks/first_epoch.py               # renders a project, minutes in all

Wall-clock time of the first epoch of a run with --cache off, as a share of that with --cache disk
in an empty folder: 1 says that the cache costs nothing, less than 1 that it does. In each round
every run begins anew, and another one is the first.
"""

import argparse
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from rendered import Project, render, terminal, train_epoch, write_data
from summaries import describe_machine, ratios, spread, summarize
from training_loop import BATCH_SIZE, NETWORKS, WORKERS, build_trainer, interleave


def train_first_epoch(project: Project, folder: Path, flags: list[str], cache: str) -> float:
    """Trains the first epoch of a new run, and returns its seconds."""
    shutil.rmtree(folder / "data" / ".cache", ignore_errors=True)
    shutil.rmtree(folder / "run", ignore_errors=True)
    options = project.parse(folder / "data", folder / "run", *flags, "--cache", cache)
    with terminal(), build_trainer(project, options) as trainer:
        started = time.perf_counter()
        train_epoch(trainer)
        return time.perf_counter() - started


def main() -> None:
    """Measures each network, without workers and with two, and prints a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--project", type=Path, help="a rendered classifier (default: renders one)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=10_048)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(", ".join(f"{name} {value}" for name, value in describe_machine().items()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = Project(arguments.project or render(folder / "project"))
        write_data(folder / "data", arguments.files)
        for network, its_flags in NETWORKS.items():
            for workers in WORKERS:
                flags = ["--batch_size", str(BATCH_SIZE), "--num_workers", str(workers)]
                train = partial(train_first_epoch, project, folder, flags + its_flags)
                epochs = {cache: partial(train, cache) for cache in ("off", "disk")}
                times = interleave(epochs, arguments.rounds, time.perf_counter)
                share = summarize(ratios(times["off"], times["disk"]))
                print(f"{network:<9}{workers} workers  {spread(share, 3)}", flush=True)


if __name__ == "__main__":
    main()
