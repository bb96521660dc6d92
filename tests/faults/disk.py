"""Disks: full, failing, read-only; and two runs in one folder."""

import errno
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from kills import SAVES
from operations import LOG, Operations
from runs import AttackError, Range, expect, expect_equal, expect_line, expect_whole_files

WRITES = ("open", "write", "fsync", "link")  # what a full disk refuses


def fail(number: int, kind: str) -> None:
    """Fails an operation with an error number."""
    del kind
    raise OSError(number, os.strerror(number))


def watch(run: Path, **more: object) -> None:
    """Watches all files of a run, in its process."""
    Operations(run, kinds=WRITES, **more).install()  # type: ignore[arg-type]  # passed through


def failing_writes(place: Range, draw: random.Random, count: int) -> Iterator[str]:
    """Fails each write of a run once, or from there on for ever; then the run goes on.

    A run that has begun ends with 0 if its last checkpoint is saved, else with 1; the error names
    file and cause. Before step 1 a folder that cannot be written to is wrong use.
    """
    whole = place.unbroken(*SAVES)
    run = place.new("failing")
    log = place.folder / LOG
    victim = place.start(run, *SAVES, fault=partial(watch, run, log=log))
    expect(victim, victim.end(), 0)
    kinds = [line.split(" ", 1) for line in log.read_text().splitlines()]
    begun = next(n for n, (_, path) in enumerate(kinds, 1) if path.endswith("metrics.jsonl")) + 1
    cases = [
        (number, last, cause)
        for number in range(begun, len(kinds) + 1)
        for last in (number, 10**9)
        for cause in (errno.ENOSPC, errno.EIO)
    ]
    for number, last, cause in cases[:: max(1, len(cases) // count)]:
        run = place.new("failing")
        action = partial(fail, cause)
        fault = partial(watch, run, first=number, last=last, action=action, half=True, log=log)
        victim = place.start(run, *SAVES, fault=fault)
        status = victim.end()
        if status not in (0, 1):
            raise AttackError(f"status {status}: {victim.output(2)}")
        errors = expect(victim, status, status)
        linked = kinds[number - 1][0] == "link"  # where there are no links, there are copies
        reached = len(log.read_text().splitlines()) >= number  # two threads write, in any order
        if reached and not linked and not (os.strerror(cause) in errors and str(run) in errors):
            raise AttackError(f"{kinds[number - 1]}: {errors} does not name file and cause")
        expect_whole_files(run)
        place.finish(run, *SAVES)
        expect_equal_but_curves(whole, run)
        what = "once" if last == number else "from there on"
        yield f"{errno.errorcode[cause]} {what} at {kinds[number - 1]}"


def expect_equal_but_curves(first: Path, second: Path) -> None:
    """Compares as `expect_equal` does, but for curves: points that found no room are lost."""
    for run in (first, second):
        for events in run.glob("events*"):
            if run == second:
                events.unlink()
    for events in first.glob("events*"):
        shutil.copy(events, second)
    expect_equal(first, second)


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[bool]:
    """Mounts a file system of so many bytes; False where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        allowed = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    try:
        yield allowed
    finally:
        if allowed:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def small_disk(place: Range, draw: random.Random, count: int) -> Iterator[str]:
    """Trains on a disk that is too small, then on the same disk with more room."""
    whole = place.unbroken(*SAVES)
    needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    for number in range(count):
        size = draw.randrange(16, needed // 1024) * 1024
        folder = place.new("small")
        with mounted(folder, size) as allowed:
            if not allowed:
                yield "not done: no right to mount a file system"
                return
            victim = place.start(folder / "run", *SAVES)
            status = victim.end()
            expect(victim, status, 1 if status else 0, "No space left on device" if status else "")
            expect_whole_files(folder / "run")
            room = ["mount", "-o", "remount,size=1g", str(folder)]
            subprocess.run(room, check=True, capture_output=True)
            place.finish(folder / "run", *SAVES)
            expect_equal_but_curves(whole, folder / "run")
            yield f"disk {number} of {size} bytes: status {status}, then resumed"


def read_only(place: Range, draw: random.Random, count: int) -> Iterator[str]:
    """Starts in a folder that cannot be written to."""
    del draw, count
    with mounted(place.new("read-only"), 2**20) as allowed:
        if not allowed:
            yield "not done: no right to mount a file system"
            return
        folder = place.folder / "read-only"
        command = ["mount", "-o", "remount,ro", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        victim = place.start(folder / "run", *SAVES)
        expect_line(victim, victim.end(), 2, f"--run_dir {folder / 'run'} cannot be written to")
        if "step" in victim.output(1):
            raise AttackError("it trained before it looked")
        yield "a read-only folder is refused before step 1"


def two_runs(place: Range, draw: random.Random, count: int) -> Iterator[str]:
    """Starts a second run in the folder of one that is training."""
    del draw
    run = place.new("shared")
    first = place.start(run, "--epochs=100000")
    while not (run / "metrics.jsonl").exists():
        if first.wait(0.02) is not None:
            raise AttackError(first.output(2))
    for number in range(count):
        second = place.start(run, *SAVES)
        expect_line(second, second.end(), 2, f"--run_dir {run} is in use by another run")
        yield f"second run {number} is refused"
    os.kill(first.pid, signal.SIGTERM)
    expect(first, first.end(), 75)
