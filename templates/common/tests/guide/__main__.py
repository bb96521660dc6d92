"""Checks the project that this folder lies in, and prints what departs from the guide."""

import sys
from pathlib import Path

from . import check

if __name__ == "__main__":
    found = check(Path(__file__).resolve().parents[2])
    for finding in found:
        print(finding)
    sys.exit(1 if found else 0)
