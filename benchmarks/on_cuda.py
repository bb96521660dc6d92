#!/usr/bin/env python3
"""Tests every variant on a GPU, measures what the flags for speed bring there, and writes it down.

    python benchmarks/on_cuda.py               # minutes; or `make cuda`
    python benchmarks/on_cuda.py --variant gan # this variant alone

Each variant is rendered, its tests marked `cuda` run, and its train.py is timed on made-up data
with each set of flags. What is printed is also written to benchmarks/results/, under date and
device. (Called cuda.py, this file would be imported in the place of NVIDIA's package of that name.)
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from rendered import TEMPLATE, render, shown_speeds
from summaries import describe_machine

RESULTS = Path(__file__).resolve().parent / "results"
VARIANTS: list[str] = json.loads((TEMPLATE / "cookiecutter.json").read_text("utf-8"))["variant"]
FLAGS = ["--device=cuda", "--epochs=40", "--log_every=20", "--picture_every=0", "--save_every=0"]
FLAGS += ["--test_every=99", "--batch_size=64", "--img_size=64"]
CASES = {
    "defaults": [],
    "an optimizer's step in many kernels": ["--no-fused"],
    "TF32 everywhere": ["--tf32"],
    "mixed precision": ["--amp"],
    "mixed precision, channels last": ["--amp", "--channels_last"],
    "mixed precision, channels last, compiled": ["--amp", "--channels_last", "--compile"],
}
WARM = 0.5  # share of the logs that are passed over: algorithms are chosen, models compiled


def main() -> None:
    """Runs all, and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", choices=VARIANTS, help="default: all of them")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("there is no CUDA device here: nothing was measured")
    name = torch.cuda.get_device_name()
    RESULTS.mkdir(exist_ok=True)
    machine = describe_machine() | {"device": name, "cuda": torch.version.cuda}
    path = RESULTS / f"{machine['date'][:10]}-{name.replace(' ', '-')}.txt"
    with path.open("w", encoding="utf-8") as file:

        def say(line: str) -> None:
            print(line, flush=True)
            file.write(f"{line}\n")

        say(", ".join(f"{key} {value}" for key, value in machine.items()))
        for variant in [arguments.variant] if arguments.variant else VARIANTS:
            say(f"\n{variant}")
            with tempfile.TemporaryDirectory() as folder:
                measure(variant, Path(folder), say)
    print(f"\nwritten to {path}")


def measure(variant: str, folder: Path, say: Callable[[str], None]) -> None:
    """Renders a variant, runs its tests on the GPU, and times it."""
    project = render(folder / "project", variant)
    tests = run(project, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider")
    say(f"  pytest -m cuda: {tests.stdout.strip().splitlines()[-1]}")
    if tests.returncode:
        say(tests.stdout + tests.stderr)
    run(project, "prepare_data.py", "--dataset=fake")
    for number, (case, flags) in enumerate(CASES.items()):
        done = run(project, "train.py", f"--run_dir=runs/{number}", *FLAGS, *flags)
        speeds = shown_speeds(done.stdout)
        if done.returncode or not speeds:
            say(f"  {case:<42}failed: {done.stderr.strip()[-300:]}")
            continue
        warm = speeds[int(WARM * len(speeds)) :]
        say(f"  {case:<42}{statistics.median(warm):.0f} images/s")


def run(project: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Runs Python in the project."""
    return subprocess.run(
        [sys.executable, *words], cwd=project, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    main()
