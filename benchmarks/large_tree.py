#!/usr/bin/env python3
"""Measures what a large data set costs: time to the first step, and memory of each worker.

    python benchmarks/large_tree.py                # 2,000 and 200,000 files, minutes in all
    python benchmarks/large_tree.py --files 2000 20000

For each tree, train.py is started on its decoded images (the first start, which decodes, is not
measured) until its first step, and once more with a worker, until that has read as many images as
the largest tree has.
"""

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rendered import CLASSES, Project, render
from summaries import describe_machine

SIDE = 16  # pixels: it is the number of files that counts
ROUNDS = 3
BATCH_SIZE = 64


def write_tree(root: Path, count: int) -> None:
    """Writes a training set of `count` files with the same few pixels, and a small test set."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(buffer, "PNG")
    for split, files in (("train", count), ("test", CLASSES)):
        for number in range(CLASSES):
            (root / split / f"class_{number}").mkdir(parents=True)
        for number in range(files):
            path = root / split / f"class_{number % CLASSES}" / f"{number:08d}.png"
            path.write_bytes(buffer.getvalue())


class _MeasuredError(Exception):
    """Ends a run of which all is known."""


def train(arguments: argparse.Namespace) -> None:
    """Trains until the first step, or for an epoch, and prints the seconds or the bytes."""
    project = Project(arguments.project)
    torch.set_num_threads(1)
    # Jitter has the worker go on when all images are decoded.
    flags = ["--color_jitter", "0.01", "--img_size", SIDE, "--crop_padding", "0", "--width", "4"]
    flags += ["--stages", "0", "--batch_size", BATCH_SIZE, "--num_workers", arguments.train]
    with tempfile.TemporaryDirectory() as run_dir:
        options = project.parse(arguments.data, Path(run_dir), *map(str, flags))
        trainer = project.train.Trainer(options)

        def after_step(_: Any) -> None:
            if not arguments.train:
                print("\nmeasured", time.time() - float(os.environ["STARTED"]))
                raise _MeasuredError
            if trainer.state.n_iter == arguments.steps:
                (worker,) = trainer.training_loader._iterator._workers
                print("\nmeasured", private_bytes(worker.pid))
                raise _MeasuredError

        trainer.after_step = after_step
        with contextlib.suppress(_MeasuredError):
            trainer.run()


def private_bytes(pid: int) -> int:
    """Returns the memory that a process has written, and shares with no other.

    What it maps of a file can be read again, and is not counted.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))


def measure(project: Path, data: Path, workers: int, steps: int) -> float:
    """Returns what a run of `train` in a process of its own prints."""
    command = [sys.executable, __file__, "--train", str(workers), "--data", str(data)]
    command += ["--steps", str(steps), "--project", str(project)]
    environment = os.environ | {"STARTED": str(time.time())}
    output = subprocess.run(
        command,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return float(output.split("measured")[1].split()[0])


def main() -> None:
    """Measures each tree, and prints what the larger ones cost over the first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, nargs="+", default=[2_000, 200_000])
    parser.add_argument("--project", type=Path, help="a rendered classifier (default: renders one)")
    parser.add_argument("--train", type=int, help=argparse.SUPPRESS)  # in a process of its own
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train is not None:
        train(arguments)
        return
    print(", ".join(f"{name} {value}" for name, value in describe_machine().items()))
    with tempfile.TemporaryDirectory() as folder:
        project = arguments.project or render(Path(folder) / "project")
        first: list[float] = []
        for count in arguments.files:
            data = Path(folder) / str(count)
            write_tree(data, count)
            measure(project, data, 1, count // BATCH_SIZE)  # decodes the images
            steps = max(arguments.files) // BATCH_SIZE
            seconds = min(measure(project, data, 0, steps) for _ in range(ROUNDS))
            memory = min(measure(project, data, 1, steps) for _ in range(ROUNDS))
            line = f"{count:>9,} files: first step after {seconds:.2f} s, "
            line += f"a worker's own memory {memory / 2**20:.1f} MiB"
            if first:
                each = (memory - first[2]) / (count - first[0])
                line += f"; {seconds - first[1]:+.2f} s, {each:+.1f} bytes a file"
            else:
                first = [count, seconds, memory]
            print(line, flush=True)


if __name__ == "__main__":
    main()
