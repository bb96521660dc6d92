#!/usr/bin/env python3
"""Tests a trained ResNetClassifier: prints its metrics, writes pictures."""

import argparse
import sys
from pathlib import Path

from engine.options import add_checkpoint_arguments
from engine.parser import Parser

if __name__ == "__main__":  # flags before torch, whose import takes seconds
    parser = Parser(description="Tests a trained ResNetClassifier.")
    add_checkpoint_arguments(parser)
    parser.add_argument("--path_to_data", help="folder with test/ (default: the training's)")
    parser.add_argument("--output_dir", help="for the pictures (default: test/ in the run)")
    OPTIONS = parser.parse_args()

from torch import Tensor
from torchmetrics import MetricCollection
from torchvision.utils import save_image

import data
from engine import exits, loading
from engine.checkpoint import require_checkpoint
from engine.distributed import pick_device
from engine.evaluation import evaluate, evenly_spaced
from engine.prefetch import to_device
from engine.stopping import StopRequest
from engine.weights import restore_model

from resnetclassifier import ResNetClassifier

READABLE = 20  # classes up to which a matrix is printed, and its picture has numbers


def main(options: argparse.Namespace) -> None:
    """Tests the checkpoint on the test set."""
    device = pick_device(options.device)
    checkpoint = require_checkpoint(options.path_to_checkpoint)
    model = restore_model(ResNetClassifier, checkpoint).to(device)
    settings = argparse.Namespace(**checkpoint["options"] | loading.settings(options))
    test_set = data.build_test_set(settings, checkpoint["classes"])
    loader = loading.test_loader(test_set, settings)
    metrics = evaluate(model, loader, device, settings, StopRequest())
    values = metrics.compute()
    print_numbers(values)
    print_per_class(values, checkpoint["classes"])

    folder = Path(options.output_dir or Path(options.path_to_checkpoint).parent.parent / "test")
    folder.mkdir(parents=True, exist_ok=True)
    write_plots(metrics, values, checkpoint["classes"], folder)
    batch = to_device(evenly_spaced(test_set), device)  # the first would be of one class alone
    for name, picture in model.pictures(batch).items():
        save_image(picture, folder / f"{name}.png")
    print(f"\npictures are in {folder}")


def print_numbers(values: dict[str, Tensor]) -> None:
    """Prints the metrics that are one number each."""
    for name, value in values.items():
        if value.ndim == 0:
            print(f"{name:<20}{value.item():.4f}")


def print_per_class(values: dict[str, Tensor], classes: list[str]) -> None:
    """Prints the metrics with a number per class as columns, and matrices over the classes."""
    width = max((len(name) for name in classes), default=0) + 2
    for name, value in values.items():
        if value.ndim == 1:
            print(f"\n{name}")
            for label, number in zip(classes, value.tolist(), strict=True):
                print(f"{label:<{width}}{number:.4f}")
        if value.shape == (len(classes), len(classes)) and len(classes) <= READABLE:
            print(f"\n{name}: a row for each true class, a column for each prediction")
            digits = 0 if value.equal(value.round()) else 2  # counts, or shares
            rows = [[f"{number:.{digits}f}" for number in row] for row in value.tolist()]
            cells = max(width, 2 + max(len(text) for row in rows for text in row))
            print(" " * width + "".join(f"{label:>{cells}}" for label in classes))
            for label, row in zip(classes, rows, strict=True):
                print(f"{label:<{width}}" + "".join(f"{text:>{cells}}" for text in row))


def write_plots(
    metrics: MetricCollection, values: dict[str, Tensor], classes: list[str], folder: Path
) -> None:
    """Writes a picture of each metric with a row per class, such as a matrix or curves."""
    for name, value in values.items():
        if value.ndim == 2:
            figure, _ = metrics[name].plot(labels=classes, add_text=len(classes) <= READABLE)
            figure.savefig(folder / f"{name}.png", dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    sys.exit(exits.run(main, OPTIONS))
