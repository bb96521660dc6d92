#!/usr/bin/env python3
"""Runs a trained ResNetClassifier on what you give it, and exports it."""

import argparse
import json
import sys
from itertools import groupby, islice
from pathlib import Path

from engine.options import add_arguments_of, add_checkpoint_arguments
from engine.parser import Parser

if __name__ == "__main__":  # flags before torch, whose import takes seconds
    parser = Parser(description="Runs a trained ResNetClassifier.")
    add_arguments_of("data.py", parser, "add_input_arguments")
    add_checkpoint_arguments(parser)
    parser.add_argument("--output_dir", default="predictions", help="for results that are files")
    parser.add_argument("--export", help="write the model as MODEL.pt2 or MODEL.onnx")
    OPTIONS = parser.parse_args()

import torch
from torch import Tensor
from torchvision.utils import save_image

import data
from engine import exits
from engine.checkpoint import require_checkpoint
from engine.distributed import pick_device
from engine.export import export
from engine.images import write_labels
from engine.weights import restore_model

from resnetclassifier import ResNetClassifier


def main(options: argparse.Namespace) -> None:
    """Exports the checkpoint if asked, then runs it on every input."""
    data.check_inputs(options)
    device = pick_device(options.device)
    checkpoint = require_checkpoint(options.path_to_checkpoint)
    model = restore_model(ResNetClassifier, checkpoint)
    if options.export:
        export(model, Path(options.export))
    model.to(device)
    inputs = data.read_inputs(options, argparse.Namespace(**checkpoint["options"]))
    for _, alike in groupby(inputs, key=lambda pair: pair[1].shape):  # they may differ in size
        while chunk := list(islice(alike, options.batch_size)):
            results = model.predict(torch.stack([each for _, each in chunk]).to(device))
            for (path, _), result in zip(chunk, results, strict=True):
                print(f"{path}: {describe(result, path, Path(options.output_dir))}")


def describe(result: dict[str, object], path: Path, folder: Path) -> str:
    """Returns a result in words, of which what no words can say is written to the folder."""
    words = []
    for name, value in result.items():
        if isinstance(value, Tensor | list):
            folder.mkdir(parents=True, exist_ok=True)
            words.append(str(write(value, folder / f"{path.stem}_{name}")))
        else:
            words.append(f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(words)


def write(value: Tensor | list[object], place: Path) -> Path:
    """Writes a picture (3, H, W) in [0, 1], a mask of class numbers (H, W), or a list as JSON."""
    if isinstance(value, list):
        path = place.with_name(f"{place.name}.json")
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path
    path = place.with_name(f"{place.name}.png")
    if value.ndim == 2:
        write_labels(value.cpu().numpy(), path)
    else:
        save_image(value, path)
    return path


if __name__ == "__main__":
    sys.exit(exits.run(main, OPTIONS))
