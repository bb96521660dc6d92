"""Data read as a whole before it is trained on, every fault of it listed."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import Any

from tqdm import tqdm

from engine.exits import UserError
from engine.images import read_image


def check_images(paths: Sequence[str], channels: int, where: str) -> None:
    """Reads every file and prints one line for each that is bad.

    Raises:
        UserError: some are bad; the line says how many.
    """
    check_samples(paths, partial(read_image, channels=channels), where)


def check_samples(samples: Sequence[Any], read: Callable[[Any], object], where: str) -> None:
    """Reads every sample, such as a file or a pair, and prints one line for each that is bad.

    Args:
        samples: what `read` takes.
        read: raises UserError, with the path and the reason, if a sample is bad.
        where: the data, in words.

    Raises:
        UserError: some are bad; the line says how many.
    """
    faults = find_faults(samples, read)
    for fault in faults:
        print(fault)
    if faults:
        raise UserError(
            f"{where}: {len(faults)} of {len(samples)} images are bad, listed above; "
            "mend or remove them"
        )
    print(f"{len(samples)} files in order")


def find_faults(samples: Sequence[Any], read: Callable[[Any], object]) -> list[str]:
    """Reads every sample and returns one line for each that `read` finds bad."""
    # Pillow's decoders let go of the GIL, so threads are enough and start at once everywhere.
    with ThreadPool(min(32, os.cpu_count() or 1)) as pool:
        reasons = pool.imap(partial(_find_fault, read), samples, chunksize=16)
        bar = tqdm(reasons, total=len(samples), desc="checking", unit="file", disable=None)
        return [reason for reason in bar if reason]


def _find_fault(read: Callable[[Any], object], sample: Any) -> str:
    """Returns what is wrong with a sample, or nothing."""
    try:
        read(sample)
    except UserError as error:
        return str(error)
    return ""
