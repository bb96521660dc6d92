"""What may differ between a run and the one that it resumes, and what may not."""

import argparse
import hashlib
from collections.abc import Mapping
from typing import Any

from engine.distributed import world_size
from engine.exits import UserError

# They decide which samples a step sees, and what is drawn for them.
EXACT = ("seed", "batch_size", "accumulate", "img_size")
ANYWHERE = ("resume", "allow_changes", "run_dir", "path_to_checkpoint", "check_data")


def fingerprint(dataset: Any) -> str:
    """Returns what tells a data set from another: its own fingerprint, or else its length."""
    parts = getattr(dataset, "fingerprint", None) or str(len(dataset))
    return hashlib.sha256(str(parts).encode()).hexdigest()


def check_changes(
    checkpoint: Mapping[str, Any],
    options: argparse.Namespace,
    classes: list[str],
    training_set: str,
) -> None:
    """Names every flag that has changed since the checkpoint was saved.

    Args:
        checkpoint: gives options, classes and fingerprint of the run that is resumed.
        options: the flags now.
        classes: those of the data now.
        training_set: the fingerprint of the training set now.

    Raises:
        UserError: the run could not go on exactly as if it had never stopped, and
            --allow_changes was not given; or it cannot go on at all.
    """
    if checkpoint["classes"] != classes:
        raise UserError(
            f"--path_to_data {options.path_to_data} has the classes {', '.join(classes)}; "
            f"the run began with {', '.join(checkpoint['classes'])}"
        )
    for name, value in vars(options).items():
        before = checkpoint["options"].get(name)
        if value == before or name in ANYWHERE:
            continue
        change = f"--{name} is {value}; the checkpoint was saved with {before}"
        if name in EXACT and not options.allow_changes:
            raise UserError(f"{change}: give that, or --allow_changes to go on inexactly")
        print(change)
    if (before := checkpoint.get("processes", 1)) != world_size():
        print(f"resumed by {world_size()} processes, saved by {before}: the batches are the same")
    if checkpoint["fingerprint"] != training_set:
        change = (
            f"--path_to_data {options.path_to_data}: the training set is not the run's, in its "
            "files or in what the data's flags do to them"
        )
        if not options.allow_changes:
            raise UserError(f"{change}: give that, or --allow_changes to go on inexactly")
        print(change)


def place_in_epoch(checkpoint: Mapping[str, Any], options: argparse.Namespace) -> int:
    """Returns the batch to go on from, which differs from the saved one with the batch's size."""
    samples: int = checkpoint["batch"] * checkpoint["options"]["batch_size"]
    steps = samples // (options.batch_size * options.accumulate)
    batch: int = steps * options.accumulate
    return batch
