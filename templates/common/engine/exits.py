"""How a script ends: the exit statuses, and one line in place of a traceback for wrong use."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

DONE, FAILED, WRONG_USE, STOPPED = 0, 1, 2, 75


class UserError(Exception):
    """Wrong use or bad input: one line that names the flag or file and says what to do."""


class FailedError(Exception):
    """The machine could not do it, memory or disk: one line that says what to change."""


class DivergenceError(FailedError):
    """The training left the finite numbers: one line that names the step and the term."""


class PreemptedError(Exception):
    """A signal asked the run to stop, and everything is saved: run it again with --resume."""


STATUSES: dict[type[Exception], int] = {
    UserError: WRONG_USE,
    FailedError: FAILED,
    PreemptedError: STOPPED,
}

# What torch says when the machine gives out, which no type of exception tells; what to do then.
ADVICE = {
    ("out of memory", "can't allocate memory", "Caught MemoryError"): (
        "out of memory: lower --batch_size (now {batch_size}), or --img_size; in training, "
        "--accumulate makes up for smaller batches"
    ),
    ("shared memory", "unable to write to file </torch"): (
        "the workers' shared memory is full: lower --num_workers (now {num_workers}) or "
        "--batch_size, or enlarge /dev/shm (docker run --shm-size=2g)"
    ),
    ("Connection closed by peer", "Connection reset by peer", "Broken pipe"): (
        "another process of this training has ended; what ended it stands in its own output"
    ),
    ("killed by signal", "exited unexpectedly"): (
        "a worker that loads data was killed, as the system does when memory runs out: lower "
        "--num_workers (now {num_workers}) or --batch_size; in a container, enlarge /dev/shm"
    ),
}


def run(main: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> int:
    """Runs `main(options)` and returns the exit status; a bug still shows its traceback."""
    try:
        main(options)
    except tuple(STATUSES) as error:
        # A loader's worker hands its error over as a whole traceback: its last line is the message.
        message = str(error).strip().splitlines()[-1].removeprefix(f"{_path(type(error))}: ")
        if not isinstance(error, PreemptedError) or os.environ.get("RANK", "0") == "0":
            print(message, file=sys.stderr)  # a stop is common to all processes: one says so
        return next(status for kind, status in STATUSES.items() if isinstance(error, kind))
    except (RuntimeError, MemoryError) as error:
        is_memory = isinstance(error, MemoryError)
        advice = find_advice("out of memory" if is_memory else str(error))
        if advice is None:
            raise
        print(advice.format_map(vars(options)), file=sys.stderr)
        return FAILED
    return DONE


def find_advice(message: str) -> str | None:
    """Returns what to do about a fault of the machine that torch speaks of; None for a bug."""
    for words, advice in ADVICE.items():
        if any(word in message for word in words):
            return advice
    return None


def shorten(names: Sequence[str]) -> str:
    """Returns the names as a list of at most five."""
    return ", ".join(names) if len(names) <= 5 else f"{', '.join(names[:5])} ... ({len(names)})"


def difference(expected: Sequence[str], found: Sequence[str]) -> str:
    """Returns in words how the names found differ from those expected."""
    lacking = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    if not lacking and not surplus:
        return "another order"
    return f"lacking {shorten(lacking) or 'none'}, surplus {shorten(surplus) or 'none'}"


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
