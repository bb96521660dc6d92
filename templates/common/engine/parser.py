"""What parses the flags: refuses in one line, and knows numbers within limits."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from engine.exits import WRONG_USE

PROJECT = Path(__file__).resolve().parent.parent


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows each default, but for flags whose default is 'none given'."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that refuses in one line and takes no abbreviated flags."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description, formatter_class=_HelpFormatter, allow_abbrev=False
        )

    def error(self, message: str) -> NoReturn:
        """Prints one line, without the usage of thirty flags before it, and exits with status 2."""
        self.exit(WRONG_USE, f"{self.prog}: {message} (see --help)\n")


def number(
    kind: Callable[[str], Any], low: float, high: float = float("inf")
) -> Callable[[str], Any]:
    """Returns an argparse type: a number of the given kind from `low` to `high`."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high:
            limits = f"at least {low}" if high == float("inf") else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{text} is not {limits}")
        return value

    parse.__name__ = kind.__name__  # argparse names the type in "invalid int value"
    return parse
