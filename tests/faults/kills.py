"""SIGKILL: at random moments, and before every file operation of the saves."""

import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from operations import LOG, Operations
from runs import AttackError, Range, expect_equal, expect_whole_files

LONG = ("--epochs=4", "--save_every=2", "--picture_every=5", "--ema=0.9", "--accumulate=2")
CACHES = ("auto", "disk", "ram", "device", "off")
SAVES = ("--max_steps=3", "--save_every=1", "--picture_every=0")


def random_moments(place: Range, draw: random.Random, count: int) -> Iterator[str]:
    """Kills runs again and again until each one is through; with any workers, and any cache."""
    began = time.monotonic()
    whole = place.unbroken(*LONG)
    longest = time.monotonic() - began  # on a busy machine, a run gets as far as on a quiet one
    kills = 0
    for number in itertools.count():
        run = place.new(f"killed-{number}")
        shutil.rmtree(place.path_to_data / ".cache", ignore_errors=True)  # to be built anew
        while True:
            # What may change at a resume, changes: the end has to be the same.
            free = [f"--num_workers={draw.choice((0, 2))}", f"--cache={draw.choice(CACHES)}"]
            victim = place.start(run, *LONG, *free)
            status = victim.wait(draw.uniform(0.05, longest))
            if status == 0:
                break
            if status is not None:
                raise AttackError(f"ended with {status}: {victim.output(2)}")
            os.kill(victim.pid, signal.SIGKILL)
            os.waitpid(victim.pid, 0)
            kills += 1
            expect_whole_files(run)
            yield f"kill {kills} of run {number}"
        expect_equal(whole, run)
        yield f"{kills} kills, {number + 1} runs, each ends as if it had never been killed"
        if kills >= count:
            return


def watch(run: Path, **more: object) -> None:
    """Watches the checkpoints of a run, in its process."""
    Operations(run / "checkpoints", **more).install()  # type: ignore[arg-type]  # passed through


def every_operation(place: Range, draw: random.Random, count: int) -> Iterator[str]:
    """Kills a run before each file operation of its saves, and in the middle of each write."""
    del draw
    whole = place.unbroken(*SAVES)
    run = place.new("operations")
    log = place.folder / LOG
    victim = place.start(run, *SAVES, fault=partial(watch, run, log=log))
    if victim.end():
        raise AttackError(f"watched run failed: {victim.output(2)}")
    kinds = [line.split(" ", 1) for line in log.read_text().splitlines()]
    expect_synced(kinds)
    hits = [(number, False) for number in range(1, len(kinds) + 1)]
    hits += [(number, True) for number, (kind, _) in enumerate(kinds, 1) if kind == "write"]
    for number, half in hits[:: max(1, len(hits) // count)]:
        run = place.new("operations")
        fault = partial(watch, run, first=number, half=half)
        victim = place.start(run, *SAVES, fault=fault)
        if victim.end() != -signal.SIGKILL:
            raise AttackError(f"operation {number} was never reached")
        expect_whole_files(run)
        place.finish(run, *SAVES)
        if list((run / "checkpoints").glob("*.tmp")):
            raise AttackError("a temporary file is left")
        expect_equal(whole, run)
        yield f"killed {'within' if half else 'before'} operation {number}, {kinds[number - 1]}"


def expect_synced(operations: list[list[str]]) -> None:
    """Raises AttackError unless each rename has its file's fsync before, its folder's after.

    A second name for a file that has its own safe name needs no fsync of its own.
    """
    synced: set[str] = set()
    for place, (kind, path) in enumerate(operations):
        if kind in ("fsync", "link"):
            synced.add(path)
        if kind == "replace":
            temporary = str(Path(path).with_suffix(".tmp"))
            if temporary not in synced:
                raise AttackError(f"{path} is renamed without an fsync")
            after = [each for each in operations[place + 1 :] if each[0] in ("fsync", "replace")]
            if not after or after[0] != ["fsync", str(Path(path).parent)]:
                raise AttackError(f"the folder is not synced after the rename of {path}")
            synced.discard(temporary)
