"""What the benchmarks share: a rendered project, made-up data, and loops to compare it with."""

import argparse
import contextlib
import fcntl
import importlib
import inspect
import json
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from batches import Batch
from PIL import Image
from torch import nn
from torch.optim import Optimizer

TEMPLATE = Path(__file__).resolve().parent.parent
SETTINGS: dict[str, Any] = json.loads((TEMPLATE / "cookiecutter.json").read_text("utf-8"))
VARIANTS: list[str] = SETTINGS["variant"]
CLASSES = 4
SIDE = 32  # pixels, of the PNG files


def render(folder: Path, variant: str = "classifier") -> Path:
    """Renders a variant under the folder, and returns the project."""
    command = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), f"variant={variant}"]
    flags = ["--no-input", "--default-config", "--output-dir", str(folder)]
    subprocess.run(command + flags, check=True, stdout=subprocess.DEVNULL)
    (project,) = folder.iterdir()
    return project


def shown(name: str, output: str, first_epoch: int = 1) -> list[int]:
    """Returns the values of `name` that a train.py without a terminal has printed."""
    found = re.findall(rf"^epoch (\d+), .*{name} (\d+)", output, re.MULTILINE)
    return [int(value) for epoch, value in found if int(epoch) >= first_epoch]


def write_images(root: Path, split: str, count: int) -> None:
    """Writes `count` PNG files of random pixels under root/split, evenly over the classes."""
    random = np.random.default_rng(0)
    for number in range(count):
        folder = root / split / f"class_{number % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.png")


def write_data(root: Path, count: int) -> None:
    """Writes a training set of `count` files, and a test set that is there only to be there."""
    write_images(root, "train", count)
    write_images(root, "test", CLASSES)


class Project:
    """A rendered project, imported: its modules are on the path from here on.

    Args:
        path: folder of the project; it needs a model file that takes the classifier's flags.
    """

    def __init__(self, path: Path) -> None:
        sys.path.insert(0, str(path))
        self.train = importlib.import_module("train")
        self.options = importlib.import_module("engine.options")
        self.end_workers = importlib.import_module("engine.prefetch").end_workers
        self.model_class: Any = next(
            thing
            for thing in vars(self.train).values()
            if inspect.isclass(thing) and hasattr(thing, "build_optimizers")
        )

    def parser(self) -> Any:
        """Returns the parser of train.py."""
        parser = importlib.import_module("engine.parser").Parser("benchmark")
        self.options.add_training_arguments(parser)
        self.options.add_arguments_of("data.py", parser)
        self.options.add_arguments_of(f"{self.model_class.__module__}.py", parser)
        return parser

    def parse(self, path_to_data: Path, run_dir: Path, *flags: str) -> argparse.Namespace:
        """Parses flags as train.py does; what is not measured here is off."""
        # More epochs than ever run: the schedule stays near --lr, and no limit ends an epoch.
        off = ["--picture_every", "0", "--save_every", "0", "--epochs", "1000000"]
        where = ["--path_to_data", str(path_to_data), "--run_dir", str(run_dir), "--device", "cpu"]
        options: argparse.Namespace = self.parser().parse_args([*off, *where, *flags])
        return options

    def build_model(self, trainer: Any) -> tuple[nn.Module, Optimizer]:
        """Returns a model with the trainer's weights, and an optimizer with its settings."""
        model: nn.Module = self.model_class(trainer.options, trainer.classes)
        model.load_state_dict(trainer.model.state_dict())
        (optimizer,) = self.model_class.build_optimizers(model, trainer.options).values()
        return model, optimizer


def shortest_loop(model: nn.Module, optimizer: Optimizer, batches: Iterable[Batch]) -> None:
    """Trains one epoch by the fewest lines that train: the measure of every other loop.

    The model's own forward, and the mean of its loss, are work that any loop has to do.
    """
    model.train()
    for batch in batches:
        optimizer.zero_grad()
        model(batch)["classifier"].mean().backward()
        optimizer.step()


def train_epoch(trainer: Any) -> None:
    """Trains one epoch by the project's train.py, and goes to the next as its `run` does."""
    trainer.train_epoch()
    trainer.state.epoch, trainer.state.batch = trainer.state.epoch + 1, 0


@contextlib.contextmanager
def terminal() -> Iterator[None]:
    """Gives the block a terminal of 100 columns to print on, so that the bar is really drawn.

    Another process reads it, so that the reading does not count as CPU time of this one.
    """
    inner, outer = os.openpty()
    fcntl.ioctl(outer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    # At the hang-up, cat complains of an input error: that is its end of file.
    quiet = subprocess.DEVNULL
    reader = subprocess.Popen(["cat"], stdin=inner, stdout=quiet, stderr=quiet)
    os.close(inner)
    try:
        with (
            os.fdopen(outer, "w") as screen,
            contextlib.redirect_stdout(screen),
            contextlib.redirect_stderr(screen),
        ):
            yield
    finally:
        reader.wait()  # it ends with the terminal's last writer
