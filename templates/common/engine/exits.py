"""How a script ends: the exit statuses, and one line in place of a traceback for wrong use."""

import argparse
import sys
from collections.abc import Callable

DONE, FAILED, WRONG_USE, STOPPED = 0, 1, 2, 75


class UserError(Exception):
    """Wrong use or bad input: one line that names the flag or file and says what to do."""


class DivergenceError(Exception):
    """The training left the finite numbers: one line that names the step and the term."""


class PreemptedError(Exception):
    """A signal asked the run to stop, and everything is saved: run it again with --resume."""


STATUSES: dict[type[Exception], int] = {
    UserError: WRONG_USE,
    DivergenceError: FAILED,
    PreemptedError: STOPPED,
}


def run(main: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> int:
    """Runs `main(options)` and returns the exit status; a bug still shows its traceback."""
    try:
        main(options)
    except tuple(STATUSES) as error:
        # A loader's worker hands its error over as a whole traceback: its last line is the message.
        message = str(error).strip().splitlines()[-1].removeprefix(f"{_path(type(error))}: ")
        print(message, file=sys.stderr)
        return next(status for kind, status in STATUSES.items() if isinstance(error, kind))
    return DONE


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
