"""What is set for speed reaches every thread that computes."""

import subprocess
import sys

import pytest
import torch

COUNT_DENORMALS = """
import sys

import numpy as np
import torch

from engine.speed import flush_denormals

torch.set_num_threads(2)
if sys.argv[1] == "flush":
    flush_denormals()
np.finfo(np.float32), np.finfo(np.float64)
small = torch.full((2**20,), 1e-37)  # so many numbers that both threads take a part
print((small * 0.01).count_nonzero().item())
"""


def count_denormals(how: str) -> int:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", COUNT_DENORMALS, how],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return int(result.stdout)


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this CPU always computes them")
def test_no_thread_computes_with_denormal_numbers() -> None:
    assert count_denormals("flush") == 0 < count_denormals("leave")
