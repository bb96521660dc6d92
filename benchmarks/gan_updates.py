#!/usr/bin/env python3
"""Compares the two ways of updating a GAN: both networks at once, as train.py does, or in turns.

    python benchmarks/gan_updates.py                # minutes a seed
    python benchmarks/gan_updates.py --quick        # whether it runs

A rendered `gan` project supplies the networks, the losses, the data and the metrics. Both ways see
the same batches, steps and seeds; in turns, the generator's loss is computed a second time, by the
discriminator that has just stepped.
"""

import argparse
import contextlib
import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rendered import Project, render
from torch import Tensor


def at_once(model: Any, optimizers: dict[str, Any], batch: Any) -> None:
    """Steps both networks by losses that were computed on the same weights."""
    terms = model(batch)
    for name, optimizer in optimizers.items():
        optimizer.zero_grad()
        parameters = list(getattr(model, name).parameters())
        terms[name].mean().backward(inputs=parameters, retain_graph=True)
    for optimizer in optimizers.values():
        optimizer.step()


def in_turns(model: Any, optimizers: dict[str, Any], batch: Any) -> None:
    """Steps the discriminator, then the generator by the new discriminator."""
    for name in ("discriminator", "generator"):
        optimizers[name].zero_grad()
        parameters = list(getattr(model, name).parameters())
        model(batch)[name].mean().backward(inputs=parameters)
        optimizers[name].step()


def batches(trainer: Any, steps: int) -> Iterator[Any]:
    """Yields as many batches, epoch after epoch."""
    loader, done = trainer.training_loader, 0
    for epoch in range(steps):
        loader.set_position(epoch, 0)
        for batch in loader:
            if done == steps:
                return
            done += 1
            yield batch


def train(project: Project, options: argparse.Namespace, update: Any, steps: int) -> Any:
    """Trains by one way of updating, and returns the test's metrics."""
    with contextlib.redirect_stdout(io.StringIO()):  # the table is what is printed
        trainer = project.train.Trainer(options)
    model, optimizers = trainer.model, trainer.state.optimizers
    model.train()
    for number, batch in enumerate(batches(trainer, steps)):
        torch.manual_seed(1000 * options.seed + number)
        update(model, optimizers, batch)
        trainer.state.ema.update_parameters(model)
    metrics = project.train.evaluate(
        trainer.state.tested_model, trainer.test_loader, trainer.device, options, trainer.stop
    )
    values: dict[str, Tensor] = metrics.compute()
    return values


def main() -> None:
    """Trains by both ways from each seed, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a few steps from one seed")
    arguments = parser.parse_args()
    steps, seeds = (4, 1) if arguments.quick else (arguments.steps, arguments.seeds)
    with tempfile.TemporaryDirectory() as name:
        path, data = render(Path(name), "gan"), Path(name) / "data"
        dataset = "fake" if arguments.quick else "digits"
        command = [sys.executable, "prepare_data.py", f"--dataset={dataset}"]
        subprocess.run([*command, f"--path_to_data={data}"], cwd=path, check=True)
        project = Project(path)
        print(f"{steps} steps of {dataset}, 32x32\n\nseed  updates     kid        fid")
        for seed in range(seeds):
            for title, update in (("at once", at_once), ("in turns", in_turns)):
                flags = "--channels=1", "--num_workers=0", f"--seed={seed}", "--cache=ram"
                run_dir = Path(name) / f"{title}-{seed}"
                options = project.parse(data, run_dir, *flags)
                values = train(project, options, update, steps)
                numbers = f"{values['kid'].item():<11.4f}{values['fid'].item():.4f}"
                print(f"{seed:<6}{title:<12}{numbers}", flush=True)


if __name__ == "__main__":
    main()
