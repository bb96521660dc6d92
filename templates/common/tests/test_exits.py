"""How a script ends, and what keeps it from beginning."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from engine import exits
from engine.lock import RunLock
from engine.parser import PROJECT


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (exits.UserError("a.png: bad"), 2, "a.png: bad"),
        (
            exits.UserError("Caught it\nTraceback:\nengine.exits.UserError: a.png: bad"),
            2,
            "a.png: bad",
        ),
        (exits.DivergenceError("step 3"), 1, "step 3"),
        (exits.PreemptedError("saved"), 75, "saved"),
    ],
)
def test_error_becomes_status_and_line(
    capsys: pytest.CaptureFixture[str], error: Exception, status: int, line: str
) -> None:
    def main(_: argparse.Namespace) -> None:
        raise error

    assert exits.run(main, argparse.Namespace()) == status
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate"), "lower --batch_size (now 64)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), "--accumulate makes up"),
        (MemoryError("Unable to allocate 9 TiB"), "out of memory"),
        (MemoryError(), "out of memory: lower --batch_size (now 64)"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "--num_workers"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "(now 3)"),
        (RuntimeError("unable to write to file </torch_1_2>: No space"), "/dev/shm"),
        (RuntimeError("It might be insufficient shared memory (shm)."), "--shm-size"),
    ],
)
def test_fault_of_the_machine_becomes_advice(
    capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    def main(_: argparse.Namespace) -> None:
        raise error

    assert exits.run(main, argparse.Namespace(batch_size=64, num_workers=3)) == exits.FAILED
    message = capsys.readouterr().err
    assert line in message
    assert message.count("\n") == 1


def test_bug_keeps_its_traceback() -> None:
    def main(_: argparse.Namespace) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        exits.run(main, argparse.Namespace())


def test_second_run_in_a_folder_is_refused(tmp_path: Path) -> None:
    program = "import sys, pathlib; from engine.lock import RunLock; RunLock(pathlib.Path("
    program += "sys.argv[1])); print('locked', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=PROJECT, stdin=pipe, stdout=pipe) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"locked\n"
        with pytest.raises(exits.UserError, match=r"--run_dir .* is in use by another run"):
            RunLock(tmp_path)
        first.kill()
        first.wait()
    RunLock(tmp_path).close()  # a killed run locks nobody out


def test_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(exits.UserError, match=r"--run_dir .*cannot be written to \(Not a dir"):
        RunLock(tmp_path / "file" / "run")
