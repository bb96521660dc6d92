#!/usr/bin/env python3
"""Measures what the detector's loss costs: its share of the network's forward and backward.

    python benchmarks/detector_loss.py              # both networks, minutes in all
    python benchmarks/detector_loss.py --quick      # whether it runs

A rendered `detector` project is imported. Its network runs on random images with random boxes;
then what decides who is to find what, and the loss, on what the network says, forward and backward.
"""

import argparse
import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rendered import render
from summaries import describe_machine
from torch import Tensor

BATCH, SIDE, BOXES, CLASSES = 16, 416, 50, 80
WIDTHS = {"tiny": 16, "darknet53": 32}  # as by default, and as in the paper


def make_batch(count: int, side: int, boxes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns random floats for images, and boxes from 4 pixels to a third of the side."""
    images = torch.randn(count, 3, side, side)
    sizes = 4 + torch.rand(count, boxes, 2) * side / 3
    corners = torch.rand(count, boxes, 2) * (side - sizes)
    labels = torch.randint(0, CLASSES, (count, boxes))
    return images, torch.cat([corners, corners + sizes], dim=-1), labels


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Returns the CPU seconds of this process that a function takes, and what it returns."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def measure(backbone: str, rounds: int, batch: tuple[Tensor, Tensor, Tensor]) -> str:
    """Returns a line: CPU seconds of the network and of the loss, and the share, medians."""
    networks, losses, ops = map(importlib.import_module, ("networks", "losses", "ops"))
    images, boxes, labels = batch
    width, side = WIDTHS[backbone], images.shape[-1]
    network = networks.Detector(
        networks.Darknet(3, width, networks.DARKNETS[backbone]),
        CLASSES,
        width,
        0 if backbone == "tiny" else 2,
    )
    loss = losses.DetectionLoss(CLASSES, 0.4, 0.5, neighbors=True)
    anchors = side / 8 * torch.linspace(0.3, 2.6, 9)[:, None].expand(9, 2).reshape(3, 3, 2)
    priors = ops.make_priors(anchors, side)

    def lose(said: Tensor) -> None:
        terms = loss(said, priors, anchors, boxes, labels)
        torch.stack([*terms.values()]).sum().backward()

    seconds: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        forward, predicted = timed(lambda: ops.flatten(network(images)))
        said = predicted.detach().requires_grad_()
        own, _ = timed(partial(lose, said))
        backward, _ = timed(partial(predicted.backward, said.grad))
        seconds.append((forward + backward, own))
    network_time, loss_time = (statistics.median(each) for each in zip(*seconds[1:], strict=True))
    shares = [own / rest for rest, own in seconds[1:]]
    spread = f"{min(shares):.1%} to {max(shares):.1%}"
    share = f"{statistics.median(shares):.1%} ({spread})"
    return f"{backbone:<12}{network_time:>8.2f} s{loss_time:>9.3f} s   {share}"


def main() -> None:
    """Measures each network in turn, and prints a line for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small images, one round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(", ".join(f"{name} {value}" for name, value in describe_machine().items()), flush=True)
    batch = make_batch(2, 64, 5) if arguments.quick else make_batch(BATCH, SIDE, BOXES)
    rounds = 1 if arguments.quick else arguments.rounds
    shape = "x".join(map(str, batch[0].shape))
    print(f"CPU time a step, images {shape}, {batch[1].shape[1]} boxes each, {rounds} rounds")
    print("backbone     network      loss   loss / network")
    with tempfile.TemporaryDirectory() as name:
        sys.path.insert(0, str(render(Path(name), "detector")))
        for backbone in WIDTHS:
            print(measure(backbone, rounds, batch), flush=True)


if __name__ == "__main__":
    main()
