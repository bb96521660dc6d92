#!/usr/bin/env python3
"""Reports on a run of ResNetClassifier, or on two, in one page of HTML."""

import argparse
import sys
from pathlib import Path

from engine.parser import Parser

if __name__ == "__main__":  # flags before torch, whose import takes seconds
    parser = Parser(description="Reports on runs of ResNetClassifier.")
    parser.add_argument(
        "--run_dir",
        required=True,
        nargs="+",
        metavar="RUN_DIR",
        help="folder of a run; of two runs, to compare them",
    )
    parser.add_argument("--output", help="the page (default: report.html in the first folder)")
    OPTIONS = parser.parse_args()

from engine import exits

from resnetclassifier import ResNetClassifier


def main(options: argparse.Namespace) -> None:
    """Reads the runs and writes the page."""
    try:
        from engine.history import read_history
        from engine.report_page import page
    except ImportError as error:
        raise exits.UserError(f"pip install -e '.[report]' ({error})") from error
    folders = options.run_dir
    if len(folders) > 2:
        raise exits.UserError(f"--run_dir takes one folder, or two to compare, not {len(folders)}")
    runs = [read_history(Path(folder)) for folder in folders]
    text = page(runs, ResNetClassifier)
    output = Path(options.output or Path(folders[0]) / "report.html")
    try:
        output.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise exits.UserError(f"--output {output}: {error.strerror}") from error
    print(f"{output} written: open it in a browser")


if __name__ == "__main__":
    sys.exit(exits.run(main, OPTIONS))
