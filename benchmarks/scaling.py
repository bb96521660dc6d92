#!/usr/bin/env python3
"""Measures what a second process brings: images/s of two, over twice those of one.

    python benchmarks/scaling.py               # renders a project, minutes in all

Each has one thread. As many samples a process (--batch_size 64 of one, 128 of two), and as many a
step (64 of both). The speed is what train.py itself shows, from the second epoch on. One process
and two take turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rendered import render, shown, write_data
from summaries import describe_machine, spread, summarize

BATCH_SIZE = 64
EPOCHS = 3
LOGS = 10  # steps between two
LEAST = 2 * BATCH_SIZE * LOGS  # files: with fewer, an epoch may show no speed
FLAGS = ["--device=cpu", "--num_workers=0", "--picture_every=0", "--save_every=0", "--test_every=9"]
CASES = {"samples a process": 2 * BATCH_SIZE, "samples a step": BATCH_SIZE}  # --batch_size of two


def measure(project: Path, data: Path, processes: int, batch_size: int) -> float:
    """Trains, and returns the median of the images/s that are shown after the first epoch."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    with tempfile.TemporaryDirectory() as run:
        flags = [f"--path_to_data={data}", f"--run_dir={run}/run", f"--batch_size={batch_size}"]
        flags += [f"--epochs={EPOCHS}", f"--log_every={LOGS}", *FLAGS]
        command = [sys.executable, *(launcher if processes > 1 else []), "train.py", *flags]
        process = subprocess.run(
            command,
            cwd=project,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if process.returncode:
        sys.exit(process.stderr)
    return statistics.median(shown("images/s", process.stdout, first_epoch=2))


def main() -> None:
    """Measures round by round, and prints a line a case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=5120)
    arguments = parser.parse_args()
    if arguments.files < LEAST:
        parser.error(f"argument --files: {arguments.files} is less than {LEAST}")
    print(", ".join(f"{name} {value}" for name, value in describe_machine().items()), flush=True)
    with tempfile.TemporaryDirectory() as name:
        project, data = render(Path(name) / "project"), Path(name) / "data"
        write_data(data, arguments.files)
        shares: dict[str, list[float]] = {case: [] for case in CASES}
        for _ in range(arguments.rounds):
            alone = measure(project, data, 1, BATCH_SIZE)
            for case, batch_size in CASES.items():
                shares[case].append(measure(project, data, 2, batch_size) / (2 * alone))
    for case, values in shares.items():
        print(f"two processes over twice one, as many {case}: {spread(summarize(values), 2)}")


if __name__ == "__main__":
    main()
