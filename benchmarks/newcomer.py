#!/usr/bin/env python3
"""Measures how long it is from nothing to a first result, as a newcomer meets it.

    python benchmarks/newcomer.py                  # minutes; installs PyTorch in a new environment

Seconds from `git clone` to the first accuracy that `make demo` prints, all of its set-up included;
and, with that environment there, from `cookiecutter` to the first step of training. The clone is
of this repository's last commit. How fast packages arrive is the network's affair: the seconds
until the environment stands are given by themselves.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from summaries import describe_machine

ROOT = Path(__file__).resolve().parent.parent
FIRST_ACCURACY = "test after epoch 1"
FIRST_STEP = "epoch 1, step 1:"


def time_until(command: str, folder: Path, words: Sequence[str]) -> list[float]:
    """Returns the seconds until a line of shell prints each of some words; then ends it.

    Raises:
        RuntimeError: it ended before it printed them all.
    """
    started, seconds = time.perf_counter(), list[float]()
    with subprocess.Popen(
        ["bash", "-c", command],
        cwd=folder,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        printed = []
        try:
            for line in process.stdout:
                printed.append(line)
                if words[len(seconds)] in line:
                    seconds.append(time.perf_counter() - started)
                    if len(seconds) == len(words):
                        return seconds
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.stdout.read()  # until the last of its processes has ended
    raise RuntimeError("".join(printed[-20:]))


def main() -> None:
    """Walks both paths, and prints their seconds."""
    print(", ".join(f"{name} {value}" for name, value in describe_machine().items()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        demo = f"git clone --quiet {shlex.quote(str(ROOT))} clone && make -C clone demo"
        ready, first = time_until(demo, folder, ["touch .venv/ready", FIRST_ACCURACY])
        print(f"git clone to the first accuracy      {first:6.1f} s")
        print(f"  of these, until packages are there {ready:6.1f} s")
        programs = shlex.quote(str(folder / "clone" / ".venv" / "bin"))
        steps = (
            f"{programs}/cookiecutter clone --no-input project_slug=first && cd first && "
            f"{programs}/python prepare_data.py && {programs}/python train.py --log_every 1"
        )
        (first,) = time_until(steps, folder, [FIRST_STEP])
        print(f"cookiecutter to the first step       {first:6.1f} s")


if __name__ == "__main__":
    main()
