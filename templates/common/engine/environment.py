"""What a run's numbers rest on beside its flags: versions, the machine, and the code as it was."""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from engine import TEMPLATE_VERSION
from engine.distributed import pick_device, world_size
from engine.loading import usable_cpus
from engine.parser import PROJECT

FILENAME = "environment.jsonl"
PACKAGES = ("torchvision", "numpy")
GIT_SECONDS = 5.0  # for one command; on a slow disk the training does not wait longer
DIFF_BYTES = 200_000  # kept of the diff
UNTRACKED = 100  # files named


def append_environment(run_dir: Path, options: argparse.Namespace, n_iter: int) -> None:
    """Appends a line for this start of the run to its environment.jsonl.

    Args:
        run_dir: the run's folder.
        options: of the training.
        n_iter: step from which the run goes on.

    Raises:
        OSError: the line cannot be written.
    """
    line = json.dumps(describe(options, n_iter)).encode() + b"\n"
    with (run_dir / FILENAME).open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a kill, or a full disk, cut the line before
                line = b"\n" + line
        file.write(line)


def describe(options: argparse.Namespace, n_iter: int) -> dict[str, Any]:
    """Returns what this start rests on, as plain types; None for what cannot be found out."""
    facts: dict[str, Callable[[], Any]] = {
        "n_iter": lambda: n_iter,
        "time": lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": lambda: shlex.join(sys.argv),
        "python": platform.python_version,
        "torch": lambda: str(torch.__version__),  # with the CUDA that it is built for
        **{name: partial(metadata.version, name) for name in PACKAGES},
        "template": lambda: TEMPLATE_VERSION,
        "platform": platform.platform,
        "cpus": usable_cpus,
        "threads": torch.get_num_threads,
        "processes": world_size,
        "device": lambda: str(pick_device(options.device)),
        "gpu": lambda: _gpu(pick_device(options.device)),
        "commit": lambda: git("rev-parse", "HEAD").decode().strip(),
        "diff": _diff,
        "untracked": _untracked,
    }
    if not _is_known():
        facts |= dict.fromkeys(("commit", "diff", "untracked"), lambda: None)
    found = {}
    for name, find in facts.items():
        try:
            found[name] = find()
        except Exception:  # whatever it is: the training does not depend on it
            found[name] = None
    return found


def _gpu(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def git(*arguments: str) -> bytes:
    """Returns the start of what a git command prints in the project's folder.

    It asks nothing, of nobody: it has no terminal, takes no lock, fetches nothing, and is ended
    when it takes too long.

    Raises:
        OSError: there is no git.
        subprocess.SubprocessError: it failed, as where there is no repository, or took too long.
    """
    settings = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1"}
    with tempfile.TemporaryFile() as output:  # not a pipe: a diff may be larger than the memory
        subprocess.run(
            ["git", "-c", "core.fsmonitor=false", *arguments],
            cwd=PROJECT,
            env=os.environ | settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            timeout=GIT_SECONDS,
            check=True,
        )
        output.seek(0)
        return output.read(DIFF_BYTES + 1)


def _is_known() -> bool:
    """Says whether git knows a file of the project; a repository around it need not."""
    try:
        return bool(git("ls-files", "--", "."))
    except (OSError, subprocess.SubprocessError):
        return False


def _diff() -> str:
    """Returns how the project's files differ from the commit; nothing where they do not."""
    diff = git("diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD", "--", ".")
    text = diff[:DIFF_BYTES].decode(errors="replace")
    if len(diff) > DIFF_BYTES:
        text += f"\n(cut: the diff has more than {DIFF_BYTES} bytes)\n"
    return text


def _untracked() -> list[str]:
    """Names files of the project that git does not know and is not told to ignore."""
    listed = git("ls-files", "--others", "--exclude-standard", "-z").decode(errors="replace")
    names = [name for name in listed.split("\0") if name]
    return [*names[:UNTRACKED], "..."] if len(names) > UNTRACKED else names
