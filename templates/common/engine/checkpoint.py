"""Checkpoints that a kill cannot tear: written aside, flushed to disk, then renamed into place.

A checkpoint is a plain `torch.save` file, so `torch.load(path, weights_only=True)` reads it. The
zip archive that it is ends in a comment, which holds the digest of every byte before: a torn or
altered file is told from a good one without unpickling anything.
"""

import hashlib
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from tqdm import tqdm

from engine.exits import FailedError, UserError

_DIGEST_LENGTH = 64  # SHA-256 in hexadecimal digits
_CHUNK = 2**20  # bytes written or read at once
_MARK = b"sha256:"
_SEAL = (len(_MARK) + _DIGEST_LENGTH).to_bytes(
    2, "little"
) + _MARK  # the comment's length, its mark


class Checkpoints:
    """The folder of a run's checkpoints: `step_*.pt`, `last.pt` and `best.pt`.

    A checkpoint is written by a thread, while the training goes on.

    Args:
        folder: made if it is missing.
        keep: number of `step_*.pt` files that stay, the newest.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*.tmp"):  # of a save that was killed
            leftover.unlink()

    def save(
        self,
        state: dict[str, Any],
        first: Callable[[], None] = lambda: None,
    ) -> None:
        """Writes the state as `step_<n_iter>.pt`, names it last (and best), removes the oldest.

        It returns as soon as the state is copied, and a save before this one has ended. A save
        that fails is named on stderr, and leaves the checkpoints as they were.

        Args:
            state: plain types and tensors; `is_best` says whether to name it best, too.
            first: called before anything is written.
        """
        with suppress(FailedError):  # it has been named already
            self.wait()
        self._writing = self._thread.submit(self._write, copy_to_cpu(state), first)

    def _write(self, state: dict[str, Any], first: Callable[[], None]) -> None:
        path = self.folder / f"step_{state['n_iter']:08d}.pt"
        try:
            first()
            write_checkpoint(state, path)
            self._name(path, state)
            for old in sorted(self.folder.glob("step_*.pt"))[: -self.keep]:
                old.unlink(missing_ok=True)
        except OSError as error:
            line = f"{path} is not saved: {error.strerror}"
            tqdm.write(f"{line}; training goes on", file=sys.stderr)
            raise FailedError(f"{line}; an older checkpoint, if any, is whole") from error

    def _name(self, path: Path, state: dict[str, Any]) -> None:
        for name in ["last.pt", "best.pt"] if state.get("is_best") else ["last.pt"]:
            _name_also(path, self.folder / name)

    def wait(self) -> None:
        """Waits for the last save.

        Raises:
            FailedError: it could not be written.
        """
        if self._writing:
            self._writing.result()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.shutdown()  # once it has written what it has

    def newest(self) -> dict[str, Any] | None:
        """Returns the newest good checkpoint, naming on stderr those passed over; None if none."""
        for path in newest_first(self.folder):
            try:
                state = read_checkpoint(path)
            except FileNotFoundError:
                continue
            except UserError as error:
                print(f"{error}: passed over", file=sys.stderr)
            except OSError as error:
                print(f"{path} cannot be read ({error.strerror}): passed over", file=sys.stderr)
            else:
                if path.name != "last.pt":
                    with suppress(OSError):  # a kill may have come before its names
                        self._name(path, state)
                return state
        return None


def newest_first(folder: Path) -> list[Path]:
    """Lists a run's checkpoints, last.pt last: a kill may have come before it was renewed."""
    return [*sorted(folder.glob("step_*.pt"), reverse=True), folder / "last.pt"]


def copy_to_cpu(state: Any) -> Any:
    """Returns a copy of nested dicts, lists and tuples, with their tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: copy_to_cpu(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(copy_to_cpu, state))
    return state


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes the state under `path`, where there is the old file or the whole new one, never less.

    Args:
        state: plain types and tensors, which `torch.load(..., weights_only=True)` reads.
        path: the temporary file lies beside it, since a rename across disks would be a copy.

    Raises:
        OSError: it cannot be written; nothing has changed.
    """
    temporary = path.with_suffix(".tmp")
    try:
        _write_sealed(state, temporary)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):  # what is there of it takes room
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _write_sealed(state: dict[str, Any], path: Path) -> None:
    """Writes the state with its digest, and waits until all of it is on the disk."""
    with path.open("w+b", buffering=_CHUNK) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's own, over that of a write
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        # The last two bytes of a zip archive without a comment are the comment's length.
        file.seek(-2, os.SEEK_END)
        file.write(_SEAL)
        file.write(_digest(file, file.tell()))
        file.flush()
        os.fsync(file.fileno())


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Returns the state that `write_checkpoint` wrote, on the CPU, once its digest is checked.

    Its tensors are the file's own bytes, mapped into memory: what is not copied is never read.

    Raises:
        UserError: the file is torn, altered or no checkpoint of ours.
        OSError: there is no such file, or it cannot be read.
    """
    _check_bytes(path)
    try:  # weights_only: a checkpoint from elsewhere must not be able to run code
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} holds more than plain types and tensors: refused") from error
    except RuntimeError as error:
        raise UserError(f"{path} is no checkpoint of this project") from error
    if not isinstance(state, dict) or "model" not in state:
        raise UserError(f"{path} is no checkpoint of this project")
    return state


def _check_bytes(path: str | Path) -> None:
    """Raises UserError if the file is torn or altered, or would take more memory than it has."""
    with Path(path).open("rb") as file:
        length = file.seek(0, os.SEEK_END) - _DIGEST_LENGTH
        file.seek(max(0, length - len(_SEAL)))
        if file.read(len(_SEAL)) != _SEAL:
            raise UserError(f"{path} is torn, or no checkpoint of this project")
        if _digest(file, length) != file.read():
            raise UserError(f"{path} is damaged: its digest does not match its bytes")
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
        except zipfile.BadZipFile as error:
            raise UserError(f"{path} is no checkpoint of this project") from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UserError(f"{path} has compressed entries, which a checkpoint never has")
    if sum(entry.file_size for entry in entries) > length:
        raise UserError(f"{path} claims to hold more bytes than it has")


def require_checkpoint(path: str) -> dict[str, Any]:
    """Returns the checkpoint that a flag names.

    Raises:
        UserError: there is no such file, or it is not good.
    """
    try:
        return read_checkpoint(path)
    except OSError as error:
        raise UserError(f"--path_to_checkpoint {path}: {error.strerror}") from error


def _digest(file: BinaryIO, length: int) -> bytes:
    """Returns the hexadecimal digest of the file's first `length` bytes, and stands behind them."""
    digest = hashlib.sha256()
    file.seek(0)
    while length:
        chunk = file.read(min(length, _CHUNK))
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest().encode()


def _name_also(path: Path, name: Path) -> None:
    """Gives the file a second name, which keeps its content when the first one is removed."""
    if name.exists() and name.samefile(path):
        return  # a rename onto itself would leave the temporary name
    temporary = name.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(path)
    except OSError:  # not every file system has hard links
        shutil.copyfile(path, temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
    temporary.replace(name)
    _sync_folder(name.parent)


def _sync_folder(folder: Path) -> None:
    """Flushes the folder itself, so that a rename outlives a power cut; not a thing on Windows."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
