#!/usr/bin/env python3
"""Writes a data set as folders of images, and a network that tells how good samples are.

<path_to_data>/train/<class>/*.png, and test likewise. The training needs no classes. They are there
to train a small classifier, <path_to_data>/features.pt, by whose features FID and KID compare
samples with real images.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engine import exits, known_data
from engine.parser import Parser

if TYPE_CHECKING:  # what is slow to import is imported where it is used: --help answers at once
    from torch import Tensor, nn

EPOCHS, MOST_STEPS, BATCH_SIZE = 60, 1500, 64
SHIFT = 2  # pixels by which training images are moved at random
SEED = 0  # the same network every time


def main(options: argparse.Namespace) -> None:
    """Writes the data set and the network, or the network alone for images of one's own.

    Raises:
        UserError: the place is taken, or the data cannot be had, read or written.
    """
    if options.dataset == "own":
        write_features(Path(options.path_to_data))
    else:
        known_data.write(options.dataset, options.path_to_data, write_features)


def write_features(root: Path) -> None:
    """Trains the classifier on <root>/train and writes <root>/features.pt.

    Raises:
        UserError: there are no two folders of images to tell apart, or one cannot be read.
    """
    import torch

    from engine.files import list_folders
    from networks import FeatureNetwork

    classes = list_folders(root / "train")
    if len(classes) < 2:
        raise exits.UserError(
            f"{root / 'train'}: a classifier needs two or more folders of images, one per class; "
            "without, train with --features random"
        )
    images, labels = read_split(root / "train", classes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        network = FeatureNetwork(len(classes))
        train(network, images, labels)
    test_images, test_labels = read_split(root / "test", classes)
    probabilities, labels = predict(network, test_images).max(dim=1)
    right = (labels == test_labels).float().mean().item()
    sure = (probabilities >= 0.9).float().mean().item()
    torch.save({"classes": classes, "model": network.state_dict()}, root / "features.pt")
    print(
        f"features.pt tells {len(classes)} classes apart: {right:.1%} of the test images right, "
        f"{sure:.1%} with a probability of 0.9 or more"
    )


def read_split(root: Path, classes: list[str]) -> "tuple[Tensor, Tensor]":
    """Returns all images of the class folders, uint8 (N, 3, 32, 32), and labels (N,)."""
    import numpy as np
    import torch

    from engine.files import list_images
    from engine.images import decode
    from networks import FeatureNetwork

    files = [
        (path, label)
        for label, name in enumerate(classes)
        if (root / name).is_dir()
        for path in list_images(root / name)
    ]
    if not files:
        raise exits.UserError(f"{root}: no images of the classes {exits.shorten(classes)}")
    pixels = np.stack([decode(path, 3, FeatureNetwork.size) for path, _ in files])
    return torch.from_numpy(pixels), torch.tensor([label for _, label in files])


def train(network: "nn.Module", images: "Tensor", labels: "Tensor") -> None:
    """Trains a classifier on images, (N, 3, H, W), and labels, (N,), for a minute at most.

    It is trained to the end, by plain cross-entropy: one that stops early, or that is taught to
    doubt, is not sure of real images either, and would call good samples bad.
    """
    import torch
    from torch.nn import functional

    from engine.augment import crop_padded

    steps = min(MOST_STEPS, EPOCHS * -(-len(images) // BATCH_SIZE))
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for _ in range(steps):
        chosen = torch.randint(len(images), (BATCH_SIZE,))
        corners = torch.randint(2 * SHIFT + 1, (2, BATCH_SIZE))
        _, scores = network(crop_padded(images[chosen], SHIFT, *corners))
        optimizer.zero_grad()
        functional.cross_entropy(scores, labels[chosen]).backward()
        optimizer.step()
        schedule.step()


def predict(network: "nn.Module", images: "Tensor") -> "Tensor":
    """Returns the classifier's probabilities, (N, classes), of images (N, 3, H, W)."""
    import torch

    network.eval()
    with torch.no_grad():
        return torch.cat([network(part)[1].softmax(dim=1) for part in images.split(256)])


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--dataset",
        choices=["digits", "fake", *known_data.DOWNLOADS, "own"],
        default="digits",
        help="digits and fake need no network, others are downloaded; own: your class folders, "
        "for which features.pt is made",
    )
    parser.add_argument("--path_to_data", default="data", help="folder for train/ and test/")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(exits.run(main, parse_arguments()))
