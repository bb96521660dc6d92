"""The machine gives out: memory, workers."""

import os
import random
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runs import AttackError, Range, expect_line
from signals import before


def out_of_memory(place: Range, draw: random.Random, count: int) -> Iterator[str]:
    """Leaves the process too little memory for its batch."""
    del draw, count

    def fault() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        used = pages * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))

    victim = place.start(place.new("memory"), "--img_size=256", "--batch_size=128", fault=fault)
    expect_line(victim, victim.end(), 1, "lower --batch_size (now 128)")
    yield "out of memory is one line"


def killed_worker(place: Range, draw: random.Random, count: int) -> Iterator[str]:
    """Kills a worker, as the system does when memory runs out."""
    del draw
    for prefetch in range(count):

        def fault() -> None:
            main = os.getpid()

            def die(dataset: Any, keys: list[tuple[int, int]]) -> None:
                del dataset
                if os.getpid() != main and keys[0][0] == 1:
                    os.kill(os.getpid(), signal.SIGKILL)

            before("engine.reproducibility", "SeededDataset.__getitems__", die)

        flags = ("--num_workers=2", "--cache=off", f"--prefetch={prefetch % 2 * 2}")
        victim = place.start(place.new("worker"), *flags, fault=fault)
        expect_line(victim, victim.end(), 1, "--num_workers (now 2)")
        if left := victim.orphans():
            raise AttackError(f"{left} live on")
        yield "a killed worker is one line"
