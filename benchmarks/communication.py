#!/usr/bin/env python3
"""Measures what processes of one training send one another, beside what is to be expected.

    python benchmarks/communication.py                   # every variant, minutes in all
    python benchmarks/communication.py --variant gan     # this one alone

Each variant is rendered and trained on made-up data, by train.py under torchrun, with gloo, in two
and in three processes of one thread, over the loopback interface, whose counter gives the bytes:
those of a longer run less those of a shorter one. Nothing else may use the interface meanwhile.
A second table works out what that comes to on many GPUs.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from rendered import SETTINGS, VARIANTS, render
from summaries import describe_machine

PROCESSES = 2, 3
GPUS = 2, 8, 64, 1024  # of the second table
BACKWARD = 0.01  # seconds: what a backward pass is taken to last on a GPU
STEPS = 10, 40  # of the shorter and the longer run
BATCH_SIZE = 24
FLAGS = ["--device=cpu", "--num_workers=0", "--cache=off", "--epochs=99", "--test_every=100"]
FLAGS += ["--picture_every=0", "--save_every=0", f"--batch_size={BATCH_SIZE}", "--log_every=1000"]
COUNTER = Path("/proc/net/dev")

# Run in the project: the number of trained parameters, and the time of a step without its update.
PROBE = """
import statistics, sys, time, torch
from engine import options as flags
from engine import parser as parsing
from train import Trainer, data, loading
torch.set_num_threads(1)
parser = parsing.Parser("probe")
flags.add_training_arguments(parser)
for name in ("data.py", sys.argv[1]):
    flags.add_arguments_of(name, parser)
options = parser.parse_args(sys.argv[2:])
trainer = Trainer(options)
batch = next(iter(trainer.training_loader))
times = []
for _ in range(8):
    started = time.perf_counter()
    trainer.backward(batch)
    times.append(time.perf_counter() - started)
parameters = sum(each.numel() for own in trainer.state.parameters.values() for each in own)
print("probed", parameters, statistics.median(times[2:]))
"""


class Variant(NamedTuple):
    """What a step of a variant holds."""

    parameters: int  # that are trained
    seconds: float  # of forward and backward of a batch, on one thread


def expected_bytes(parameters: int, processes: int) -> float:
    """Returns the bytes each process sends in a step: a ring's all-reduce of float32 gradients.

    Each of N processes sends N - 1 parts of N to be summed, and as many sums (Patarasu and Yuan
    2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations").
    """
    return 2 * (processes - 1) / processes * 4 * parameters


def probe(project: Path) -> Variant:
    """Looks at the variant's model."""
    models = {f"{name.lower()}.py" for name in SETTINGS["_models"].values()}
    (model,) = [path.name for path in project.iterdir() if path.name in models]
    output = run(project, [sys.executable, "-c", PROBE, model, *FLAGS, "--run_dir=runs/probe"])
    _, parameters, seconds = output.split("probed")[1].split(" ", 2)
    return Variant(int(parameters), float(seconds))


def sent_bytes(project: Path, processes: int, steps: int) -> int:
    """Trains under torchrun, and returns what went over the loopback interface."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    with tempfile.TemporaryDirectory() as folder:
        flags = [*FLAGS, f"--run_dir={folder}/run", f"--max_steps={steps}"]
        before = read_counter()
        run(project, [sys.executable, *launcher, "train.py", *flags])
        return read_counter() - before


def read_counter() -> int:
    """Returns the bytes that the loopback interface has sent."""
    found = re.search(r"\blo:\s*(.*)", COUNTER.read_text())
    assert found
    return int(found[1].split()[8])


def run(project: Path, command: list[str]) -> str:
    """Runs a command in the project with one thread a process; returns what it prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


def main() -> None:
    """Measures variant by variant, and prints a line of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", choices=VARIANTS, help="default: all of them")
    arguments = parser.parse_args()
    if not COUNTER.exists():
        sys.exit(f"{COUNTER} is not there: the bytes are counted on Linux alone")
    print(", ".join(f"{name} {value}" for name, value in describe_machine().items()), flush=True)
    print(f"\nof each process, in a step; milliseconds: a batch of {BATCH_SIZE} on one thread")
    columns = "parameters milliseconds processes expected_kB sent_kB ratio"
    print(f"  {'':<18}" + "".join(f"{column:>14}" for column in columns.split()))
    names = [arguments.variant] if arguments.variant else VARIANTS
    probed = {name: measure(name) for name in names}
    print("\nmegabytes that a GPU sends in a step, by the number of GPUs; megabytes a second that")
    print(f"hide them behind a backward pass of {1000 * BACKWARD:.0f} milliseconds, on any number")
    print(f"  {'':<18}" + "".join(f"{count:>14,}" for count in GPUS) + f"{'MB/s':>14}")
    for name, variant in probed.items():
        sent = [expected_bytes(variant.parameters, count) / 1e6 for count in GPUS]
        sent.append(sent[-1] / BACKWARD)
        print(f"  {name:<18}" + "".join(f"{each:>14,.2f}" for each in sent))


def measure(name: str) -> Variant:
    """Renders, probes and trains one variant, and prints its lines."""
    with tempfile.TemporaryDirectory() as folder:
        project = render(Path(folder) / "project", name)
        run(project, [sys.executable, "prepare_data.py", "--dataset=fake"])
        variant = probe(project)
        print_sent(name, project, variant)
    return variant


def print_sent(name: str, project: Path, variant: Variant) -> None:
    """Prints what each process has sent, in a line for each number of them."""
    for processes in PROCESSES:
        short, long = (sent_bytes(project, processes, steps) for steps in STEPS)
        sent = (long - short) / (STEPS[1] - STEPS[0]) / processes
        expected = expected_bytes(variant.parameters, processes)
        texts = [f"{variant.parameters:,}", f"{1000 * variant.seconds:.1f}", str(processes)]
        texts += [f"{expected / 1000:.1f}", f"{sent / 1000:.1f}", f"{sent / expected:.3f}"]
        print(f"  {name:<18}" + "".join(f"{text:>14}" for text in texts), flush=True)


if __name__ == "__main__":
    main()
