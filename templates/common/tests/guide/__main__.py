"""Checks the project that this folder lies in, and prints what departs from the guide."""

import gc
import sys
from pathlib import Path

from . import check

if __name__ == "__main__":
    gc.disable()  # of syntax trees there is no garbage, but looking for it takes long
    found = check(Path(__file__).resolve().parents[2])
    for finding in found:
        print(finding)
    sys.exit(1 if found else 0)
