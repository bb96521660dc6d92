"""A training that is attacked: a process of its own, forked from one that has imported torch.

A fresh interpreter would spend seconds on imports before there is anything to attack. The fork runs
the project's train.py as its main program; no module of the project is imported before.
"""

import contextlib
import os
import runpy
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

# What train.py imports, so that each fork has it.
import tensorboardX  # noqa: F401  # for the forks
import torch
import torch.optim
import torchmetrics.classification  # noqa: F401  # for the forks
import torchvision.transforms.v2  # noqa: F401  # for the forks

TIME_LIMIT = 90.0  # seconds; a victim that lives longer hangs
HANGS = -256  # in place of an exit status; no signal has this number

Fault = Callable[[], None]  # called in the fork, before train.py runs


class Victim:
    """One training of a rendered project.

    Args:
        project: the rendered project.
        flags: of train.py.
        fault: what to break in the process, if anything.
    """

    def __init__(self, project: Path, flags: list[str], fault: Fault | None = None) -> None:
        self._files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115  # they stay
        self.pid = os.fork()
        if not self.pid:
            self._run(project, flags, fault)

    def _run(self, project: Path, flags: list[str], fault: Fault | None) -> None:
        """Never returns: the fork ends here, as an interpreter would."""
        os.setsid()
        for descriptor, file in zip((1, 2), self._files, strict=True):
            os.dup2(file.fileno(), descriptor)
        sys.stdout, sys.stderr = (os.fdopen(each, "w", closefd=False) for each in (1, 2))
        os.chdir(project)
        sys.path.insert(0, str(project))
        sys.argv = ["train.py", *flags]
        torch.set_num_threads(1)
        # Not ours to change: torch's loader forks while the thread that saves may run.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        status: object = 0
        try:
            if fault:
                fault()
            runpy.run_path("train.py", run_name="__main__")
        except SystemExit as stop:
            status = stop.code
        except BaseException:
            traceback.print_exc()
            status = 1
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads as at any exit
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0)

    def wait(self, seconds: float = TIME_LIMIT) -> int | None:
        """Returns the exit status, or less than 0: a signal's number; None if it goes on."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        return None

    def end(self) -> int:
        """Waits for the end within the time limit; returns the exit status, or HANGS."""
        status = self.wait()
        if status is None:
            self.kill()
            return HANGS
        return status

    def kill(self) -> None:
        """Kills the main process, as the system does when memory runs out."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def output(self, stream: int) -> str:
        """Returns what it has printed on stdout (1) or stderr (2)."""
        file = self._files[stream - 1]
        file.seek(0)
        return file.read()

    def orphans(self, seconds: float = 10.0) -> list[int]:
        """Returns the processes of its session that still live after so many seconds."""
        end = time.monotonic() + seconds
        while (left := session(self.pid)) and time.monotonic() < end:
            time.sleep(0.02)
        return left


def session(leader: int) -> list[int]:
    """Returns the living processes of a session; zombies are dead."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] != "Z":
                    found.append(int(folder.name))
    return found
