#!/usr/bin/env python3
"""Attacks the training of a rendered project, and says what it withstood.

    python tests/faults/attack.py                    # every attack on every variant
    python tests/faults/attack.py --short            # a few of each
    python tests/faults/attack.py --only kills --seed 7

The attacks draw from --seed, so that a failure can be had again. Linux only.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import damage
import disk
import images
import kills
import machine
import processes
import signals
from runs import AttackError, Range

TEMPLATE = Path(__file__).resolve().parent.parent.parent

Attack = Callable[[Range, random.Random, int], Iterator[str]]

# By name: the attack, and how many of it, in full and in short.
ATTACKS: dict[str, tuple[Attack, int, int]] = {
    "kills": (kills.random_moments, 100, 4),
    "operations": (kills.every_operation, 10**9, 6),
    "signals": (signals.all_signals, 72, 4),
    "second signal": (signals.second_signal, 3, 1),
    "failing writes": (disk.failing_writes, 10**9, 6),
    "small disk": (disk.small_disk, 10, 1),
    "read-only": (disk.read_only, 1, 1),
    "two runs": (disk.two_runs, 10, 2),
    "damage": (damage.passed_over, 20, 1),
    "another model": (damage.another_model, 1, 1),
    "bad images": (images.bad_images, 1, 1),
    "out of memory": (machine.out_of_memory, 1, 1),
    "killed worker": (machine.killed_worker, 6, 1),
    "killed process": (processes.killed_processes, 20, 1),
    "killed machine": (processes.killed_machines, 10, 0),
}


def render(variant: str, folder: Path) -> Path:
    """Renders a variant, and returns the project."""
    command = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), f"variant={variant}"]
    flags = ["--no-input", "--default-config", "--output-dir", str(folder)]
    subprocess.run([*command, *flags, f"project_slug={variant}"], check=True, capture_output=True)
    return folder / variant


def make_data(project: Path, folder: Path) -> Path:
    """Makes the small data of the project's own `prepare_data.py`."""
    command = [sys.executable, "prepare_data.py", "--dataset=fake", f"--path_to_data={folder}"]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    return folder


def attack(name: str, place: Range, seed: int, short: bool) -> bool:
    """Runs one attack, prints its line of the table, and says whether it was withstood."""
    function, full, few = ATTACKS[name]
    started, done, last = time.monotonic(), 0, "none"
    error = ""
    try:
        for what in function(place, random.Random(seed), few if short else full):
            done, last = done + 1, what
    except AttackError as failure:
        error = str(failure)
    except Exception:
        error = traceback.format_exc()
    seconds = time.monotonic() - started
    outcome = "FAILED" if error else "ok"
    print(f"{name:<16}{done:>6}  {outcome:<8}{seconds:>6.0f} s  {last}", flush=True)
    if error:
        print(f"  after that, with --seed {seed}: {error}", flush=True)
    return not error


def parse_arguments() -> argparse.Namespace:
    """Parses the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    variants = json.loads((TEMPLATE / "cookiecutter.json").read_text())["variant"]
    parser.add_argument("--variant", choices=variants, nargs="+", default=variants)
    parser.add_argument("--only", choices=list(ATTACKS), nargs="+", default=list(ATTACKS))
    parser.add_argument("--short", action="store_true", help="a few of each attack")
    parser.add_argument("--cache", choices=kills.CACHES, default="auto", help="unless varied")
    parser.add_argument("--device", default="cpu", help="of the runs; a GPU's are --deterministic")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    """Attacks, prints the table, and returns the exit status."""
    arguments = parse_arguments()
    os.environ["OMP_NUM_THREADS"] = "1"
    flags = [f"--cache={arguments.cache}", f"--device={arguments.device}"]
    flags += [] if arguments.device == "cpu" else ["--deterministic"]
    withstood = []
    with tempfile.TemporaryDirectory() as name:
        for variant in arguments.variant:
            print(f"\n{variant}: attack, how many, outcome, time, the last of them", flush=True)
            folder = Path(name) / f"{variant}-runs"
            project = render(variant, Path(name))
            data = make_data(project, Path(name) / f"{variant}-data")
            place = Range(project, data, folder, flags)
            seed, short = arguments.seed, arguments.short
            names = [each for each in arguments.only if not short or ATTACKS[each][2]]
            withstood += [attack(each, place, seed, short) for each in names]
    print(f"\n{sum(withstood)} of {len(withstood)} attacks were withstood")
    return 0 if all(withstood) else 1


if __name__ == "__main__":
    sys.exit(main())
