"""Checkpoints that are torn, altered, foreign or hostile."""

import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import torch
from kills import SAVES
from runs import AttackError, Range, expect, expect_equal, expect_line
from signals import Sender, before

MARK = b"sha256:"


def stop(place: Range, run: Path, step: int) -> None:
    """Trains to a step at which a signal arrives."""

    def fault() -> None:
        before("engine.divergence", "StepGuard.allows", Sender(signal.SIGTERM, False, step))

    victim = place.start(run, *SAVES, fault=fault)
    expect(victim, victim.end(), 75)


def newest(run: Path) -> Path:
    """Returns the newest checkpoint, freed of its other names."""
    path = max(run.glob("checkpoints/step_*.pt"))
    (run / "checkpoints" / "last.pt").unlink()
    return path


def passed_over(place: Range, draw: random.Random, count: int) -> Iterator[str]:
    """Damages the newest checkpoint; the one before it is used, and the end is the same."""
    whole = place.unbroken(*SAVES)
    source = place.new("to-damage")
    stop(place, source, step=2)
    cases = ["empty", "foreign", "zeros", "hostile"]
    cases += ["cut"] * count + ["flipped"] * count
    for case in cases:
        run = place.new("damaged")
        shutil.copytree(source, run)
        path = newest(run)
        content = bytearray(path.read_bytes())
        at = draw.randrange(len(content))
        if case == "flipped":
            content[at] ^= 1 << draw.randrange(8)
        path.write_bytes(
            {
                "empty": b"",
                "foreign": b"PK\x03\x04 not a checkpoint",
                "zeros": bytes(len(content)),
                "hostile": hostile(place.folder),
                "cut": bytes(content[:at]),
                "flipped": bytes(content),
            }[case]
        )
        victim = place.start(run, *SAVES)
        errors = expect(victim, victim.end(), 0, f"{path} ")
        if len(errors.splitlines()) != 1 or "passed over" not in errors:
            raise AttackError(f"not one line: {errors}")
        if (place.folder / "executed").exists():
            raise AttackError("the file's code was run")
        expect_equal(whole, run)
        yield f"{case} at {at}"


class Hostile:
    """A pickle that makes a folder when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


def hostile(folder: Path) -> bytes:
    """Returns a checkpoint that runs code, with a digest that is right, as an attacker's is."""
    import hashlib

    path = folder / "hostile.pt"
    torch.save({"model": Hostile(str(folder / "executed"))}, path)
    content = path.read_bytes()[:-2] + (len(MARK) + 64).to_bytes(2, "little") + MARK
    return content + hashlib.sha256(content).hexdigest().encode()


def another_model(place: Range, draw: random.Random, count: int) -> Iterator[str]:
    """Puts another model's checkpoint into the run."""
    del draw, count
    run, other = place.new("mixed"), place.new("other")
    stop(place, run, step=1)
    place.finish(other, *SAVES, "--max_steps=2", *OTHER_MODEL[place.project.name])
    foreign = max(other.glob("checkpoints/step_*.pt"))
    shutil.copy(foreign, run / "checkpoints")
    victim = place.start(run, *SAVES)
    expect_line(victim, victim.end(), 2, "the checkpoint is another model's")
    yield "another model's is refused"


# Flags that make another model, by the variant.
OTHER_MODEL = dict.fromkeys(
    ("classifier", "gan", "translator", "detector", "segmenter"), ("--width=12",)
)
