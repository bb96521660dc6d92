#!/usr/bin/env python3
"""Compares the two ways of updating a GAN: both networks at once, as train.py does, or in turns.

    python benchmarks/gan_updates.py                # three seeds by both ways, an hour in all
    python benchmarks/gan_updates.py --quick        # whether it runs

A rendered `gan` project is prepared and trained as its README says, by its own `Trainer.run()`. In
turns, the step alone is another: the discriminator steps first, and then the generator's loss is
computed once more, on the same latents, by the discriminator that has just stepped.
"""

import argparse
import contextlib
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rendered import Project, render
from summaries import describe_machine
from torch import Tensor
from torchvision.utils import save_image

SAMPLES, SAMPLE_SEED = 1000, 2  # of which the confident ones are counted
CONFIDENT = 0.9
COLUMNS = {"kid": 4, "fid": 2, "confident": 3, "classes": 0, "cpu minutes": 1}  # digits of each
WAYS = ("at once", "in turns")


def backward_in_turns(trainer: Any) -> Callable[[Any], dict[str, Tensor]]:
    """Returns what takes the place of `Trainer.backward`, and leaves `step` to the generator.

    The discriminator has stepped here, and without gradients its optimizer does nothing there.
    """
    model, optimizers = trainer.model, trainer.state.optimizers

    def backward(batch: Any) -> dict[str, Tensor]:
        state = torch.get_rng_state()
        for name in ("discriminator", "generator"):
            torch.set_rng_state(state)  # the same latents
            terms: dict[str, Tensor] = model(batch)
            terms[name].mean().backward(inputs=trainer.state.parameters[name])
            if name == "discriminator":
                optimizers[name].step()
                optimizers[name].zero_grad()
        return {name: values.detach() for name, values in terms.items()}

    return backward


def measure(project: Project, trainer: Any) -> dict[str, float]:
    """Returns the test's metrics, confidence and classes among them those of `SAMPLES` samples."""
    model = trainer.state.tested_model
    metrics = project.train.evaluate(
        model, trainer.test_loader, trainer.device, trainer.options, trainer.stop
    )
    values = {name: value.item() for name, value in metrics.compute().items()}
    with torch.no_grad():
        samples = model.sample(model.fixed_latents(SAMPLE_SEED, np.arange(SAMPLES)))
        _, scores = model.judge[0](sys.modules["ops"].to_bytes(samples))
    probabilities, labels = scores.softmax(dim=1).max(dim=1)
    is_sure = probabilities >= CONFIDENT
    values["confident"] = is_sure.float().mean().item()
    return values | {"classes": float(len(set(labels[is_sure].tolist())))}


def train(
    project: Project, options: argparse.Namespace, way: str, picture: Path
) -> dict[str, float]:
    """Trains by one way of updating, writes a picture of samples, and returns the columns."""
    started = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):  # the table is what is printed
        trainer = project.train.Trainer(options)
        if way == "in turns":
            trainer.backward = backward_in_turns(trainer)
        trainer.run()
    minutes = (time.process_time() - started) / 60
    save_image(trainer.state.tested_model.pictures(())["samples"], picture)
    return measure(project, trainer) | {"cpu minutes": minutes}


def show(title: str, row: dict[str, float]) -> None:
    """Prints a line of the table."""
    cells = [f"{row[name]:<13.{digits}f}" for name, digits in COLUMNS.items()]
    print(f"{title:<18}" + "".join(cells).rstrip(), flush=True)


def main() -> None:
    """Trains by both ways from each seed, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pictures", type=Path, help="folder for pictures of each run's samples")
    parser.add_argument("--flags", default="", help="more flags for train.py, in one word")
    parser.add_argument("--quick", action="store_true", help="a few steps from one seed")
    arguments = parser.parse_args()
    seeds = [0] if arguments.quick else arguments.seeds
    print(", ".join(f"{name} {value}" for name, value in describe_machine().items()), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path, data = render(Path(folder), "gan"), Path(folder) / "data"
        dataset = "fake" if arguments.quick else "digits"
        command = [sys.executable, "prepare_data.py", f"--dataset={dataset}"]
        subprocess.run([*command, f"--path_to_data={data}"], cwd=path, check=True)
        project, rows = Project(path), dict[tuple[int, str], dict[str, float]]()
        pictures = arguments.pictures or Path(folder)
        pictures.mkdir(parents=True, exist_ok=True)
        print(f"{'seed, updates':<18}" + "".join(f"{column:<13}" for column in COLUMNS).rstrip())
        epochs = 1 if arguments.quick else project.parser().get_default("epochs")
        for seed in seeds:
            for way in WAYS:
                name = f"{seed}-{way.replace(' ', '-')}"
                flags = [
                    f"--seed={seed}",
                    f"--epochs={epochs}",
                    "--test_every=1000000",
                    "--num_workers=0",
                ]
                options = project.parse(data, path / name, *flags, *arguments.flags.split())
                rows[seed, way] = train(project, options, way, pictures / f"{name}.png")
                show(f"{seed}, {way}", rows[seed, way])
        for way in WAYS:
            own = [rows[seed, way] for seed in seeds]
            show(f"median {way}", {c: statistics.median(row[c] for row in own) for c in COLUMNS})


if __name__ == "__main__":
    main()
