#!/usr/bin/env python3
"""Tests every variant on a GPU, measures what the flags for speed bring there, and writes it down.

    python benchmarks/on_cuda.py               # minutes; or `make cuda`
    python benchmarks/on_cuda.py --variant gan # this variant alone
    python benchmarks/on_cuda.py --part speed  # or tests

Each variant is rendered, its tests marked `cuda` run, and runs on the GPU are killed and stopped;
then train.py is timed on made-up data with each set of flags. What is printed is also written to
benchmarks/results/, under date, device and part. (Called cuda.py, this file would be imported in
the place of NVIDIA's package of that name.)
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import torch
from rendered import TEMPLATE, VARIANTS, render, shown
from summaries import describe_machine

RESULTS = Path(__file__).resolve().parent / "results"
FLAGS = ["--device=cuda", "--epochs=50", "--log_every=10", "--picture_every=0", "--save_every=0"]
FLAGS += ["--test_every=99", "--batch_size=64", "--img_size=128"]
CASES = {
    "defaults": [],
    "--amp --channels_last": ["--amp", "--channels_last"],
    "--amp": ["--amp"],
    "--tf32": ["--tf32"],
    "--no-fused": ["--no-fused"],
    "--amp --channels_last --compile": ["--amp", "--channels_last", "--compile"],
}
TESTS = ["-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider"]
ATTACK = ["tests/faults/attack.py", "--device=cuda", "--short", "--only", "kills", "signals"]


def main() -> None:
    """Runs all, and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", choices=VARIANTS, nargs="+", default=VARIANTS)
    parser.add_argument("--part", choices=PARTS, help="default: one after the other")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("there is no CUDA device here: nothing was measured")
    os.environ["OMP_NUM_THREADS"] = "1"  # the tests run side by side
    RESULTS.mkdir(exist_ok=True)
    device = torch.cuda.get_device_name()
    machine = describe_machine() | {"threads": 1, "device": device, "cuda": torch.version.cuda}
    with tempfile.TemporaryDirectory() as folder:
        projects = {name: render(Path(folder) / name, name) for name in arguments.variant}
        for part in [arguments.part] if arguments.part else PARTS:
            path = RESULTS / f"{machine['date'][:10]}-{device.replace(' ', '-')}-{part}.txt"
            with path.open("w", encoding="utf-8") as file:

                def say(line: str, file: TextIO = file) -> None:
                    print(line, flush=True)
                    print(line, file=file, flush=True)

                say(", ".join(f"{key} {value}" for key, value in machine.items()))
                PARTS[part](projects, say)
            print(f"\nwritten to {path}\n")


def test(projects: Mapping[str, Path], say: Callable[[str], None]) -> None:
    """Runs the tests and the attacks of all variants at once."""
    with ThreadPoolExecutor(2 * len(projects)) as pool:
        tests = pool.map(lambda each: run(each, *TESTS), projects.values())
        attacks = pool.map(lambda each: run(TEMPLATE, *ATTACK, "--variant", each), projects)
        for variant, tested, attacked in zip(projects, tests, attacks, strict=True):
            say(f"\n{variant}\npytest -m cuda: {tested.stdout.strip().splitlines()[-1]}")
            say(attacked.stdout.strip())
            if tested.returncode or attacked.returncode:
                say(tested.stdout + tested.stderr + attacked.stderr)


def time(projects: Mapping[str, Path], say: Callable[[str], None]) -> None:
    """Times the trainings: images/s, and compute efficiency."""
    say("".join(f"{title:<18}" for title in ("", "", *projects)).rstrip())
    for project in projects.values():
        run(project, "prepare_data.py", "--dataset=fake")
    for number, (case, flags) in enumerate(CASES.items()):
        cells = [
            speed(project, f"--run_dir=runs/{number}", *flags) for project in projects.values()
        ]
        say(f"{case:<36}" + "".join(f"{cell:<18}" for cell in cells).rstrip())


def speed(project: Path, *flags: str) -> str:
    """Returns the images/s of a training, and its compute efficiency, as far as it went."""
    done = run(project, "train.py", *FLAGS, *flags)
    if done.returncode:
        return f"failed with {done.returncode}"
    # In the first half, algorithms are chosen and models compiled.
    speeds, shares = (shown(each, done.stdout) for each in ("images/s", "efficiency"))
    speed, share = (statistics.median(each[len(each) // 2 :]) for each in (speeds, shares))
    return f"{speed:.0f} ({share:.0f}%)"


def run(project: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Runs Python in the project."""
    return subprocess.run(
        [sys.executable, *words], cwd=project, capture_output=True, text=True, check=False
    )


PARTS = {"tests": test, "speed": time}

if __name__ == "__main__":
    main()
