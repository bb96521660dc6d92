"""Every operation on the files of a run, counted; and a fault at the one that is to be hit."""

import builtins
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOG = "operations.log"  # beside the run's folder

Action = Callable[[str], None]  # takes the kind of the operation that it stands before


def kill(kind: str) -> None:
    """Ends the process, as a power cut would."""
    del kind
    os.kill(os.getpid(), signal.SIGKILL)


class Operations:
    """Watches a folder: logs each operation below it, and acts before some of them.

    Args:
        folder: what lies elsewhere is not watched.
        first: number of the first operation that the action stands before, from 1; 0: none.
        last: number of the last one.
        action: called there; it may raise, or end the process.
        half: whether a write that is hit first writes half of its bytes.
        kinds: counts only operations of these kinds; all if empty.
        log: file to which each one is appended, as "kind path" a line.
    """

    def __init__(
        self,
        folder: Path,
        first: int = 0,
        last: int = 0,
        action: Action = kill,
        half: bool = False,
        kinds: tuple[str, ...] = (),
        log: Path | None = None,
    ) -> None:
        self.folder = str(folder)
        self.first, self.last = first, max(first, last)
        self.action = action
        self.half = half
        self.kinds = kinds
        self.count = 0
        self.process = os.getpid()
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if log else None

    def install(self) -> None:
        """Puts itself before the functions through which Python changes files."""
        for name, place in {"replace": 1, "link": 1, "unlink": 0}.items():
            setattr(os, name, self._before(name, getattr(os, name), place))
        sync = os.fsync

        def fsync(fd: Any) -> None:
            self.meet("fsync", str(Path(f"/proc/self/fd/{fd}").readlink()))
            sync(fd)

        os.fsync = fsync
        opening = io.open

        def open_file(file: Any, mode: str = "r", *others: Any, **more: Any) -> Any:
            if not self.watches(file) or not set(mode) & set("wa+"):
                return opening(file, mode, *others, **more)
            self.meet("open", str(file))
            if "b" not in mode:
                return opening(file, mode, *others, **more)
            raw = WatchedFile(file, mode.replace("b", ""), self)
            size = others[0] if others else more.get("buffering", -1)
            if size == 0:
                return raw
            buffered = io.BufferedRandom if "+" in mode else io.BufferedWriter
            return buffered(raw, size if size > 0 else io.DEFAULT_BUFFER_SIZE)

        io.open = builtins.open = open_file

    def watches(self, path: Any) -> bool:
        """Says whether the path lies below the folder."""
        return isinstance(path, str | os.PathLike) and str(path).startswith(self.folder)

    def meet(self, kind: str, path: str, write_half: Callable[[], object] = lambda: None) -> None:
        """Counts one operation, before it is done, and acts if it is one of those to hit."""
        if not self.watches(path) or os.getpid() != self.process:
            return
        if self.kinds and kind not in self.kinds:
            return
        self.count += 1
        if self.log is not None:
            os.write(self.log, f"{kind} {path}\n".encode())
        if self.first <= self.count <= self.last:
            if self.half:
                write_half()
            self.action(kind)

    def _before(self, kind: str, function: Callable[..., Any], place: int) -> Callable[..., Any]:
        def watched(*arguments: Any, **more: Any) -> Any:
            self.meet(kind, str(arguments[place]))
            return function(*arguments, **more)

        return watched


class WatchedFile(io.FileIO):
    """A file below its buffer, whose every write is an operation."""

    def __init__(self, path: Any, mode: str, operations: Operations) -> None:
        super().__init__(path, mode)
        self._operations = operations

    def write(self, content: Any) -> Any:
        """Writes, unless this is the operation that is hit."""

        def write_half() -> None:
            super(WatchedFile, self).write(bytes(content)[: len(content) // 2])

        self._operations.meet("write", str(self.name), write_half)
        return super().write(content)
