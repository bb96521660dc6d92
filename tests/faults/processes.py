"""One process of several dies, or the machine that it runs on; the others wait for its return."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runs import AttackError, Range, expect_equal

PROCESSES = 2
FLAGS = ["--epochs=16", "--save_every=2", "--test_every=3", "--picture_every=0", "--keep=2"]
PATIENCE = 300.0  # seconds without a new checkpoint after which a run is taken to hang
REBOOT = 3.0  # seconds after which a machine is back
ORPHANS = 10.0  # seconds in which all processes must be gone
MACHINES = ("attackA", "attackB")  # network namespaces; the first one holds the rendezvous


class Group:
    """One training in several processes, and the launchers that have started them.

    Args:
        place: gives project, data and flags.
        run: the run's folder.
        launchers: the words that start each launcher, up to those of train.py.
        keep_up: start a launcher again when it fails, as a service manager does.
    """

    def __init__(
        self, place: Range, run: Path, launchers: Sequence[Sequence[str]], keep_up: bool = False
    ) -> None:
        self.run = run
        self._keep_up = keep_up
        where = [f"--path_to_data={place.path_to_data}", f"--run_dir={run}", "--resume"]
        self._project = place.project
        self._commands = [[*each, "train.py", *place.flags, *where, *FLAGS] for each in launchers]
        self._log = run.with_suffix(".log").open("w+b")
        self._launchers = [self._launch(number) for number in range(len(launchers))]

    def _launch(self, number: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self._commands[number],
            cwd=self._project,
            stdout=self._log,
            stderr=self._log,
        )

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, *exception: object) -> None:
        for number in range(len(self._launchers)):
            self.kill(number)
        self._log.close()

    def workers(self) -> list[int]:
        """Returns the processes that train, whether or not their launcher still lives."""
        launchers = {each.pid for each in self._launchers}
        return [pid for pid in _processes(f"--run_dir={self.run}") if pid not in launchers]

    def kill(self, number: int) -> None:
        """Kills a launcher with all that it has started."""
        launcher = self._launchers[number]
        started = [pid for pid in self.workers() if _parent(pid) == launcher.pid]
        for pid in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        launcher.kill()
        launcher.wait()

    def _tend(self) -> bool:
        """Says whether launchers still run; starts those again that failed, if they are kept up."""
        for number, launcher in enumerate(self._launchers):
            if self._keep_up and launcher.poll():
                self.start_again(number)
        return any(launcher.poll() is None for launcher in self._launchers)

    def kill_one(self, draw: random.Random) -> None:
        """Kills a process that trains; waits for one where all are just being started."""
        while self._launchers[0].poll() is None:
            for pid in draw.sample(live := self.workers(), len(live)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    return
            time.sleep(0.01)

    def start_again(self, number: int) -> None:
        """Starts a launcher that was killed."""
        self._launchers[number] = self._launch(number)

    def await_checkpoint(self, last: str) -> str:
        """Waits for a newer checkpoint, and for all to train again; returns its name.

        Raises:
            AttackError: none comes, or the training has ended.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            names = sorted(path.name for path in self.run.glob("checkpoints/step_*.pt"))
            if names and names[-1] > last and len(self.workers()) == PROCESSES:
                return names[-1]
            if not self._tend():
                raise AttackError(f"{self.run}: it ended at {names[-1:]}\n{self.output()}")
            time.sleep(0.01)
        raise AttackError(f"{self.run}: it hangs after {last}\n{self.output()}")

    def end(self) -> None:
        """Waits for the end; raises AttackError for a failure, and for what lives on."""
        end = time.monotonic() + PATIENCE
        while self._tend():
            if time.monotonic() > end:
                raise AttackError(f"{self.run}: it hangs\n{self.output()}")
            time.sleep(0.1)
        if any(each.returncode for each in self._launchers):
            raise AttackError(f"{self.run}: it failed\n{self.output()}")
        end = time.monotonic() + ORPHANS
        while left := self.workers():
            if time.monotonic() > end:
                raise AttackError(f"{self.run}: {left} live on")
            time.sleep(0.1)

    def output(self) -> str:
        """Returns the end of what all have printed."""
        return self.run.with_suffix(".log").read_text(errors="replace")[-3000:]


def _processes(words: str) -> list[int]:
    """Returns the living processes that have words in the command that started them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ends as it is looked at
            if words.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def _parent(pid: int) -> int:
    """Returns the process that started another; 0 once that has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def killed_processes(place: Range, draw: random.Random, count: int) -> Iterator[str]:
    """Kills either of two processes, again and again; their launcher starts both anew."""
    place.folder.mkdir(parents=True, exist_ok=True)
    run, last = place.new("killed-group"), ""
    with Group(
        place, run, [_launcher(f"--max-restarts={count}", "--standalone", processes=PROCESSES)]
    ) as group:
        for _ in range(count):
            last = group.await_checkpoint(last)
            time.sleep(draw.uniform(0, 0.3))
            group.kill_one(draw)
            yield f"a process after {last}"
        group.end()
    expect_equal(_undisturbed(place), run)


def killed_machines(place: Range, draw: random.Random, count: int) -> Iterator[str]:
    """Cuts one of two machines off, ends all that runs there, and brings it back."""
    place.folder.mkdir(parents=True, exist_ok=True)
    run, last = place.new("killed-machine"), ""
    with ExitStack() as stack:
        stack.enter_context(_two_machines())
        launchers = [_on_machine(number) for number in range(len(MACHINES))]
        group = stack.enter_context(Group(place, run, launchers, keep_up=True))
        for _ in range(count):
            last = group.await_checkpoint(last)
            time.sleep(draw.uniform(0, 0.3))
            _ip(f"-n {MACHINES[1]} link set {MACHINES[1]} down")
            group.kill(1)
            time.sleep(REBOOT)
            _ip(f"-n {MACHINES[1]} link set {MACHINES[1]} up")
            group.start_again(1)
            yield f"a machine after {last}"
        group.end()
    expect_equal(_undisturbed(place), run)


def _undisturbed(place: Range) -> Path:
    """Returns the run of two processes that nobody attacks."""
    run = place.folder / "whole-group"
    if not run.exists():
        with Group(place, run, [_launcher("--standalone", processes=PROCESSES)]) as group:
            group.end()
    return run


def _launcher(*flags: str, processes: int) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    return [*launcher, f"--nproc-per-node={processes}", *flags]


def _on_machine(number: int) -> list[str]:
    """Returns the words that start a launcher in a namespace, with one process of two.

    It does not restart by itself: a launcher that waits for a dead machine's process to come back
    takes a minute to give up.
    """
    rendezvous = ["--rdzv-backend=c10d", "--rdzv-endpoint=10.77.0.1:29400", "--rdzv-id=attack"]
    return [
        *["ip", "netns", "exec", MACHINES[number]],
        *["env", f"GLOO_SOCKET_IFNAME={MACHINES[number]}"],
        *_launcher("--nnodes=2", "--max-restarts=0", *rendezvous, processes=1),
        f"--rdzv-conf=is_host={1 - number}",
        f"--local-addr=10.77.0.{number + 1}",
    ]


@contextmanager
def _two_machines() -> Iterator[None]:
    """Two network namespaces, joined by a cable; needs root, and the command `ip`."""
    first, second = MACHINES
    try:
        for name in MACHINES:
            _ip(f"netns add {name}")
        _ip(f"link add {first} netns {first} type veth peer name {second} netns {second}")
        for number, name in enumerate(MACHINES, 1):
            _ip(f"-n {name} addr add 10.77.0.{number}/24 dev {name}")
            _ip(f"-n {name} link set {name} up")
            _ip(f"-n {name} link set lo up")
        yield
    finally:
        for name in MACHINES:  # the cable goes with them
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _ip(words: str) -> None:
    """Runs `ip`, or raises AttackError with what it said."""
    process = subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=False)
    if process.returncode:
        raise AttackError(f"ip {words}: {process.stderr.strip()}")
