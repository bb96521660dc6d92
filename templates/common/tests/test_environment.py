"""What environment.jsonl says of each start of a run, and that nothing there can end one."""

import argparse
import json
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Parse

from engine import environment
from engine.record import Record

CPU = argparse.Namespace(device="cpu")
ALWAYS = ("time", "command", "python", "torch", "torchvision", "numpy", "platform", "cpus")


def starts(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "environment.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line]


def commit_all(folder: Path) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "first"]):
        subprocess.run(["git", *who, *command], cwd=folder, check=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project under git, with one file, in which environment.py looks."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # as where the tests run in a hook of git's
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text("lr = 1\n", encoding="utf-8")
    commit_all(folder)
    monkeypatch.setattr(environment, "PROJECT", folder)
    return folder


def test_each_start_of_a_run_adds_its_line(parse: Parse, tmp_path: Path) -> None:
    for n_iter in (0, 7):
        with Record(tmp_path, parse(), n_iter, 0):
            pass
    first, second = starts(tmp_path)
    assert (first["n_iter"], second["n_iter"]) == (0, 7)
    assert all(first[name] for name in ALWAYS)
    assert first["torch"] == torch.__version__
    assert (first["device"], first["gpu"], first["processes"]) == ("cpu", "", 1)
    assert first["time"].endswith("Z")


def test_line_after_a_torn_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "environment.jsonl"
    path.write_text('{"n_iter": 0, "ti', encoding="utf-8")
    environment.append_environment(tmp_path, CPU, 3)
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[1])["n_iter"] == 3


def test_code_is_named_by_its_commit_and_what_differs_from_it(repository: Path) -> None:
    found = environment.describe(CPU, 0)
    assert len(found["commit"]) == 40
    assert (found["diff"], found["untracked"]) == ("", [])
    (repository / "train.py").write_bytes(b"lr = 2  # \xff\n")
    (repository / "n\u00f6te.txt").write_text("new", encoding="utf-8")
    found = environment.describe(CPU, 0)
    assert "-lr = 1\n+lr = 2" in found["diff"]
    assert found["untracked"] == ["n\u00f6te.txt"]


def test_a_repository_around_it_that_ignores_it_says_nothing_of_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / ".gitignore").write_text("demo/\n", encoding="utf-8")
    (repository / "demo").mkdir()
    (repository / "demo" / "train.py").touch()
    monkeypatch.setattr(environment, "PROJECT", repository / "demo")
    found = environment.describe(CPU, 0)
    assert (found["commit"], found["diff"], found["untracked"]) == (None, None, None)


def test_large_differences_are_cut_and_say_so(repository: Path) -> None:
    (repository / "train.py").write_text("x" * 10**6, encoding="utf-8")
    for number in range(environment.UNTRACKED + 1):
        (repository / f"{number}.txt").touch()
    found = environment.describe(CPU, 0)
    assert len(found["diff"]) < environment.DIFF_BYTES + 100
    assert found["diff"].endswith("(cut: the diff has more than 200000 bytes)\n")
    assert len(found["untracked"]) == environment.UNTRACKED + 1
    assert found["untracked"][-1] == "..."


def test_no_repository_no_git_and_no_commit_leave_it_open(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(repository / ".git")
    subprocess.run(["git", "init", "--quiet"], cwd=repository, check=True)
    assert environment.describe(CPU, 0)["commit"] is None
    shutil.rmtree(repository / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.parent))
    found = environment.describe(CPU, 0)
    assert (found["commit"], found["diff"], found["untracked"]) == (None, None, None)
    monkeypatch.setenv("PATH", str(repository))
    assert environment.describe(CPU, 0)["commit"] is None


@pytest.mark.skipif(os.name != "posix", reason="the program in git's place is for a shell")
def test_git_that_hangs_is_ended(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = repository / "git"
    slow.write_text("#!/bin/sh\nread answer\nexec sleep 60\n", encoding="utf-8")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(repository), prepend=os.pathsep)
    monkeypatch.setattr(environment, "GIT_SECONDS", 0.2)
    begun = time.monotonic()
    assert environment.describe(CPU, 0)["commit"] is None
    assert time.monotonic() - begun < 30  # not the minute for which it would sleep


def test_what_cannot_be_found_out_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> str:
        raise RuntimeError("no such thing here")

    monkeypatch.setattr(platform, "platform", broken)
    with Record(tmp_path, argparse.Namespace(device="none such"), 0, 0):
        pass
    (line,) = starts(tmp_path)
    assert (line["platform"], line["device"]) == (None, None)
    (tmp_path / "environment.jsonl").unlink()
    (tmp_path / "environment.jsonl").mkdir()  # a place that cannot be written to
    options = argparse.Namespace(device="cpu")
    with Record(tmp_path, options, 0, 0) as record:
        record.scalars("train", 1, 0, {"loss": 1.0})
    message = f"{tmp_path}: environment.jsonl cannot be written: Is a directory"
    assert capsys.readouterr().err == f"{message}; training goes on\n"
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
