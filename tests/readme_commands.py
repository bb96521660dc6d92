"""The commands that stand in the READMEs, and which of them a test changes before it runs them.

A command is each line of a fenced block without a language, and what stands between backquotes if
it begins with a program and goes on. Blocks of another kind name their language: text, python ...

What no table below names is run as it stands. So a new command needs no entry if it takes seconds,
and fails the test if it does not work.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from refresh import SETTINGS

TOKENS = re.compile(
    r"^```(?P<language>\w*)\n(?P<block>.*?)^```$"
    r"|^<!-- variant: (?P<variant>\w+) -->$|^(?P<heading>#+ [^\n]+)$|`(?P<span>[^`]+)`",
    re.MULTILINE | re.DOTALL,
)
PROGRAMS = (
    "python pip make cookiecutter pytest ruff mypy pre-commit tensorboard torchrun sbatch git for"
)
PROGRAM = rf"(?:[\w./]+/)?(?:{PROGRAMS.replace(' ', '|')}|\w+\.py|\w+\.sh)"
COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ )*{PROGRAM} \S", re.DOTALL)
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")

# Not run, for this reason.
NOT_RUN = {
    r"^pip install": "it needs a network; the extras that it names are looked up",
    r"^git clone": "it needs a network",
    r"^cd cookiecutter-pytorch-styleguide$": "the test runs in a copy, and does not clone one",
    r"^cookiecutter -f$": "it names a flag; test_hooks.py renders over a project",
    r"^sbatch scripts/slurm\.sbatch": "it needs Slurm; test_launchers.py has a stand-in for it",
    r"^pytest$": "test_rendered.py runs it in each variant",
    r"^ruff check && ruff format --check$": "test_rendered.py runs it in each variant",
    r"^mypy \.$": "test_rendered.py runs it in each variant",
    r"^(\.venv/bin/)?python -m pytest ": "continuous integration runs all tests",
    r"^cruft |^git (switch|add)|^cookiecutter TEMPLATE": "test_updates.py runs it",
    r"^python report\.py .* runs/low-rate$": "it is of a project, whose README has it, too",
    r"^prepare_data\.py --dataset$": "it names a flag",
    # Of these, the flags are looked up.
    r"^python benchmarks/training_loop\.py --(part|project|quick)": "all parts run, by --quick",
    r"^python benchmarks/training_loop\.py --rivals": "it needs libraries that nothing else needs",
    r"^python benchmarks/(communication|large_tree|newcomer|scaling)\.py$": (
        "it takes minutes at any size"
    ),
}

# Run for the first variant alone: of the others, they would show the same once more.
ONCE = (
    r"^tensorboard|report\.py .*first|torchrun|--resume|--export|--debug|^git|^pre-commit|--help$"
    r"|--path_to_data data$"
)

# What is changed in those that are run, so that they take seconds and need no network.
CHANGES = {
    r"^make (\w+)": r"make --dry-run \1",  # continuous integration runs `make test` itself
    r"^cookiecutter gh:\S+$": "cookiecutter . --output-dir asked",
    r"\bin 1 2 3 4 5 6 7; do (.*) -o /\S+;": r"in 1; do \1 -o timed;",
    r"^(\w+\.py )": r"python \1",
    r"--export \S+$": r"\g<0> --path_to_checkpoint runs/first/checkpoints/best.pt",
    r"--pretrained.*": r"\g<0> --batch_size 4 --img_size 64",
    r"^(python report\.py --run_dir runs/first) runs/second": r"\1 runs/first",
    # Pairs of one size, which that README has of the reader's own.
    r"^(python train\.py --path_to_data )data --scale 1$": (
        r"python prepare_data.py --dataset colorize --path_to_data pairs && \1pairs --scale 1"
    ),
    # A step more each time, so that a resumed run has something to do; --debug has own numbers.
    r"\b(train\.py|torchrun\.sh)(?! --help| --debug (one_batch|profile)).*": (
        r"\g<0> --max_steps {steps}"
    ),
    r"\b(train\.py|torchrun\.sh)(?! --help).*": (
        r"\g<0> --num_workers 0 --device cpu --log_every 1"
    ),
    r"benchmarks/(training_loop|detector_loss|gan_updates)\.py$": r"\g<0> --quick",
    r"^python benchmarks/on_cuda\.py$": r"CUDA_VISIBLE_DEVICES= \g<0>",
    r"benchmarks/first_epoch\.py$": r"\g<0> --rounds 1 --files 128",
}
# For all variants but the first, on less data than stand in their READMEs.
SMALLER = {r"^python prepare_data\.py$": r"\g<0> --dataset fake"}

# Programs that take the place of Slurm's.
STAND_INS = {"srun": 'test -z "$STATUS" && exec "$@"; exit "$STATUS"', "scontrol": "echo $* >&2"}

# A part of what a command prints.
PRINTS = {
    r"^python prepare_data\.py(?!.* own$)": r"^\w+ is in .*/data: \d+ train, \d+ test",
    r"^python train\.py(?!.*--(resume|help|path_to_checkpoint))": r"^new run in runs/",
    r"^(python|torchrun|scripts).*--resume": r"^resumed runs/first at step [1-9]",
    r"^scripts/torchrun\.sh": r"^resumed runs/first at step [1-9]",
    r"^python test\.py": r"^pictures are in runs/",
    r"^python train\.py --debug overfit": r"^overfit: ",
    r"^python train\.py --debug one_batch": r"^one_batch: .* works$",
    r"^python train\.py --debug profile": r"^profile: the trace in ",
    r"^python train\.py --help": r"--path_to_data",
    r"^python report\.py": r"\.html written: open it in a browser$",
    r"^cookiecutter": r"Rendered with these choices:$",
    r"^python benchmarks/training_loop\.py": r"train\.py adds, without workers",
    r"^python benchmarks/on_cuda\.py": r"^there is no CUDA device here",
}
STATUS = {r"^CUDA_VISIBLE_DEVICES= ": 1}  # of those that do not end with 0


@dataclass(frozen=True)
class Command:
    """A command, and where it stands."""

    text: str
    block: int  # commands of one block share a folder, which `cd` changes
    variant: str  # of the section that it stands in; "" if that is of none

    def is_in(self, table: dict[str, str]) -> bool:
        """Says whether a table has an entry for the command."""
        return any(re.search(pattern, self.text) for pattern in table)


def lines(block: str) -> Iterator[str]:
    """Yields the commands of a block, without comments; quotes may hold several lines."""
    begun = ""
    for line in block.splitlines():
        begun = f"{begun}\n{line}" if begun else line
        try:
            words = shlex.split(begun, comments=True)
        except ValueError:  # a quote is open
            continue
        if words:
            yield begun if "\n" in begun else re.sub(r"\s+# .*", "", begun)
        begun = ""
    assert not begun, f"a quote is not closed: {begun}"


def commands(text: str) -> list[Command]:
    """Lists the commands of a README, each once, in their order."""
    found: dict[str, Command] = {}
    variant = ""
    for number, token in enumerate(TOKENS.finditer(text)):
        span = re.sub(r"\s+", " ", token["span"] or "")
        if token["heading"]:
            variant = ""
        elif token["variant"]:
            variant = token["variant"]
        elif token["block"] and not token["language"]:
            for line in lines(token["block"]):
                found.setdefault(line, Command(line, number, variant))
        elif COMMAND.match(span):
            found.setdefault(span, Command(span, number, variant))
    return list(found.values())


def blocks(text: str, language: str) -> list[str]:
    """Lists the blocks of another language."""
    found = (each for each in TOKENS.finditer(text) if each["language"] == language)
    return [each["block"] for each in found]


def flags(text: str) -> set[str]:
    """Lists the flags that a README names in sentences, and in commands that are not run."""
    spans = [each["span"] for each in TOKENS.finditer(text) if each["span"]]
    not_run = [each.text for each in commands(text) if each.is_in(NOT_RUN)]
    texts = [each for each in spans if not COMMAND.match(each)]
    texts += [each for each in not_run if re.search(r"^python|^\w+\.py", each)]
    return {flag for each in texts for flag in FLAG.findall(each)}


def changed(command: str, steps: int, smaller: bool) -> str:
    """Returns what is run in a command's place."""
    for pattern, text in (SMALLER if smaller else {}).items():
        command = re.sub(pattern, text, command)
    for pattern, text in CHANGES.items():
        command = re.sub(pattern, text.replace("{steps}", str(steps)), command, count=1)
    return command


class Reader:
    """Somebody who types the commands of a README one after another.

    Args:
        folder: where every block of commands begins.
        tmp: for what lies elsewhere.
        smaller: on less data than the README has.
    """

    def __init__(self, folder: Path, tmp: Path, smaller: bool = False) -> None:
        self.base = self.folder = folder
        self.block, self.steps, self.smaller = -1, 2, smaller
        self.run_dir = ""  # of the newest run, in place of runs/NAME
        programs = tmp / "programs"
        programs.mkdir()
        for name, text in STAND_INS.items():
            (programs / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
            (programs / name).chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COOKIECUTTER_CONFIG": str(tmp / "cookiecutter.yaml"),
            "TORCH_HOME": str(tmp / "torch"),
            "PRE_COMMIT_HOME": str(tmp / "pre-commit"),
            "COLUMNS": "200",
            "STATUS": "",
        }
        settings = {"replay_dir": str(tmp / "replay")}
        (tmp / "cookiecutter.yaml").write_text(json.dumps(settings), encoding="utf-8")

    def shell(self, text: str, status: int = 0) -> str:
        """Runs a text in bash; returns what it printed, if it ended as it should."""
        done = subprocess.run(
            ["bash", "-c", text],
            cwd=self.folder,
            env=self.environment,
            input="\n" * len(SETTINGS),  # an answer to each question
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        assert done.returncode == status, f"{text}\nended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def run(self, command: Command) -> str:
        """Runs a command, changed as the tables say, and compares with what they say it prints."""
        if command.block != self.block:
            self.block, self.folder = command.block, self.base
        if command.text.startswith("cd "):
            self.folder = self.folder / command.text.removeprefix("cd ")
            assert self.folder.is_dir()
            return ""
        text = command.text.replace("runs/NAME", self.run_dir)
        text = changed(text, self.steps, self.smaller)
        (status,) = [each for name, each in STATUS.items() if re.search(name, text)] or [0]
        output = self.shell(text, status)
        for pattern, printed in PRINTS.items():
            if re.search(pattern, command.text):
                assert re.search(printed, output, re.MULTILINE), f"{text}\nprinted {output}"
        if found := re.search(r"^new run in (\S+)", output, re.MULTILINE):
            self.run_dir = found[1]
        self.steps += "--max_steps" in text
        return output
