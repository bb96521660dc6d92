"""Freed memory is taken again without asking the system for it."""

import os
import subprocess
import sys

import pytest

COUNT_PAGE_FAULTS = """
import resource
import sys

import torch

from engine.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
for step in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(2 * 2**20) for _ in range(4)]  # 8 MiB each
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    del tensors
print(faults)
"""


# What glibc begins with; it raises these by itself as it sees fit, unless they are set.
RETURNS_ALL = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}


def count_page_faults(how: str) -> int:
    result = subprocess.run(
        [sys.executable, "-c", COUNT_PAGE_FAULTS, how],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=os.environ | RETURNS_ALL,
    )
    return int(result.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is not glibc")
def test_a_step_takes_again_what_the_last_one_freed() -> None:
    assert count_page_faults("keep") < 100 < count_page_faults("leave")
