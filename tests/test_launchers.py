"""The scripts that start several processes: what they run, and what they say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Render
from refresh import RENDERED

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the scripts are for bash")

SCRIPTS = sorted(path.name for path in (RENDERED / "scripts").iterdir())
Start = Callable[..., "subprocess.Popen[str]"]

# In the place of Slurm's and torch's programs: each writes down how it was called.
SPY = """#!/usr/bin/env bash
echo "${0##*/} $*" >> "$LOG"
"""
TRAINS_UNTIL_TERM = """
trap 'echo saved >> "$LOG"; exit 75' TERM
for _ in $(seq 200); do sleep 0.1; done
"""


@pytest.fixture
def start(render: Render, tmp_path: Path) -> Start:
    """Starts a script with spies for the programs that it calls."""
    project = render()

    def call(script: str, srun: str = "", **environment: str) -> subprocess.Popen[str]:
        programs = {"torchrun": "", "srun": srun, "scontrol": "\necho node-1\necho node-2\n"}
        for name, more in programs.items():
            path = tmp_path / name
            path.write_text(SPY + more, encoding="utf-8")
            path.chmod(0o755)
        found = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment |= {"PATH": found, "LOG": str(tmp_path / "log")}
        flags = environment.pop("flags", "--run_dir runs/a --epochs 3").split()
        return subprocess.Popen(
            [str(project / "scripts" / script), *flags],
            env=os.environ | environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    return call


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_finds_nothing(name: str) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    process = subprocess.run(
        [str(shellcheck), str(RENDERED / "scripts" / name)], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_run_without_a_folder_is_refused(start: Start, name: str) -> None:
    """It could not go on after a restart."""
    with start(name, flags="--epochs 3") as process:
        assert process.stderr is not None
        assert process.stderr.read().count("\n") == 1
    assert process.returncode == 2


def test_one_machine(start: Start, tmp_path: Path) -> None:
    with start("torchrun.sh", PROCESSES="3") as process:
        pass
    assert process.returncode == 0
    command = "--nproc-per-node 3 --max-restarts 3 train.py --resume --run_dir runs/a --epochs 3"
    assert (tmp_path / "log").read_text() == f"torchrun --standalone {command}\n"


SLURM = {"SLURM_JOB_NODELIST": "node-[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "17"}


def test_slurm(start: Start, tmp_path: Path) -> None:
    with start("slurm.sbatch", srun="exit 3", **SLURM, SLURM_GPUS_ON_NODE="4") as process:
        pass
    assert process.returncode == 3  # a fault is not put back into the queue
    hosts, training = (tmp_path / "log").read_text().splitlines()
    assert hosts == "scontrol show hostnames node-[1-2]"
    assert training.startswith("srun torchrun --nnodes 2 --nproc-per-node 4 ")
    assert "--rdzv-endpoint node-1:29500 " in training
    assert training.endswith(" train.py --resume --run_dir runs/a --epochs 3")


def test_slurm_puts_the_job_back_once_all_is_saved(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with start("slurm.sbatch", srun=TRAINS_UNTIL_TERM, **SLURM) as process:
        while not log.exists() or "srun" not in log.read_text():
            time.sleep(0.05)
        time.sleep(0.3)  # for its trap
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert log.read_text().splitlines()[-2:] == ["saved", "scontrol requeue 17"]
