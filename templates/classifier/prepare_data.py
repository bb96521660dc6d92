#!/usr/bin/env python3
"""Writes a data set as folders of images: <path_to_data>/train/<class>/*.png, and test likewise."""

import argparse
import sys

from engine import exits, known_data
from engine.parser import Parser


def main(options: argparse.Namespace) -> None:
    """Writes the data set.

    Raises:
        UserError: the place is taken, or the data cannot be had or written.
    """
    known_data.write(options.dataset, options.path_to_data)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--dataset",
        choices=["digits", "fake", *known_data.DOWNLOADS],
        default="digits",
        help="digits and fake need no network, the others are downloaded",
    )
    parser.add_argument("--path_to_data", default="data", help="new folder for train/ and test/")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(exits.run(main, parse_arguments()))
