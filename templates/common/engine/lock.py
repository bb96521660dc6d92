"""One run at a time in a folder, and one process at a time in a block."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.exits import UserError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class RunLock:
    """Makes the run's folder, and keeps every other process from training in it.

    The system holds the lock for the process, so it ends with it, even by SIGKILL; workers do not
    inherit it, or those that outlive a killed run for seconds would keep it from being resumed.

    Args:
        run_dir: the run's folder.

    Raises:
        UserError: another run holds the lock, or nothing can be written to the folder.
    """

    def __init__(self, run_dir: Path) -> None:
        path = run_dir / "lock"
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            os.write(self._descriptor, b"\n")  # proves that there is room, before step 1
        except OSError as error:
            raise UserError(
                f"--run_dir {run_dir} cannot be written to ({error.strerror}): choose another"
            ) from error
        try:
            _lock(self._descriptor)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                print(f"{path}: no locks here ({error.strerror}): see that no other run uses it")
                return
            self.close()
            raise UserError(
                f"--run_dir {run_dir} is in use by another run: wait for it, or choose another"
            ) from error

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets the next run in."""
        os.close(self._descriptor)


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Has processes that enter the block for one folder do so one after the other; not on Windows.

    Raises:
        OSError: the folder cannot be opened.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
