"""Every command of the READMEs does what they say, run as they have it or made short.

tests/readme_commands.py says which are changed and which are not run, and why.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
import torchvision
from conftest import Render
from PIL import Image
from readme_commands import (
    CHANGES,
    NOT_RUN,
    ONCE,
    PRINTS,
    SMALLER,
    STATUS,
    Reader,
    blocks,
    changed,
    commands,
    flags,
)
from refresh import ROOT, SETTINGS, VARIANTS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

README = (ROOT / "README.md").read_text(encoding="utf-8")
OURS = README + "".join(
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("benchmarks/README.md", "CONTRIBUTING.md")
)
SCRIPTS = ["train.py", "test.py", "predict.py", "prepare_data.py"]
OTHERS = {"--max-restarts", "--accept-hooks"}  # torchrun's, and cookiecutter's
IN_PROJECT = re.compile(r"(^| )(train|test|predict|prepare_data)\.py")  # not in this repository


@pytest.fixture(scope="module")
def projects(render: Render) -> dict[str, Path]:
    return {variant: render(variant=variant) for variant in VARIANTS}


@pytest.fixture(scope="module")
def readmes(projects: dict[str, Path]) -> dict[str, str]:
    return {name: (path / "README.md").read_text("utf-8") for name, path in projects.items()}


def test_every_entry_of_the_tables_is_of_a_command(readmes: dict[str, str]) -> None:
    found = [each.text for text in (OURS, *readmes.values()) for each in commands(text)]
    found += [changed(each, 2, smaller=False) for each in found]
    for pattern in [*NOT_RUN, *CHANGES, *SMALLER, *PRINTS, *STATUS, *ONCE.split("|")]:
        assert any(re.search(pattern, text) for text in found), pattern


def test_blocks_that_hold_no_commands_name_their_language(readmes: dict[str, str]) -> None:
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for text in (OURS, *readmes.values()):
        for command in commands(text):
            first = re.sub(r"^(\w+=\S+ )+", "", command.text).split()[0]
            if (
                "/" not in first
                and not first.endswith(".py")
                and first not in ("cd", "for", "sbatch")
            ):
                assert shutil.which(first, path=programs), command


def test_every_flag_is_known(projects: dict[str, Path], readmes: dict[str, str]) -> None:
    """In commands that no test runs, and in sentences, too."""
    everywhere: set[str] = set(OTHERS)
    for variant, project in projects.items():
        known = set(OTHERS)
        for script in SCRIPTS:
            shown = subprocess.run(
                [sys.executable, script, "--help"], cwd=project, capture_output=True, text=True
            ).stdout
            known |= set(re.findall(r"--[a-z][\w-]*", shown))
        assert flags(readmes[variant]) - known == set(), variant
        everywhere |= known
    for path in [*ROOT.glob("benchmarks/*.py"), ROOT / "tests/faults/attack.py"]:
        everywhere |= set(re.findall(r'"(--\w+)"', path.read_text(encoding="utf-8")))
    assert flags(OURS) - everywhere == set()


def test_every_extra_is_declared(projects: dict[str, Path], readmes: dict[str, str]) -> None:
    settings = {"": (ROOT, OURS)} | {name: (projects[name], readmes[name]) for name in VARIANTS}
    for folder, text in settings.values():
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        known = set(project["optional-dependencies"]) | ({"demo"} if folder == ROOT else set())
        for command in commands(text):
            for extras in re.findall(r"^pip install -e '\.\[(.+)\]'", command.text):
                assert set(extras.split(",")) <= known, command


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_project(
    projects: dict[str, Path], readmes: dict[str, str], tmp_path: Path, variant: str
) -> None:
    project, text = projects[variant], readmes[variant]
    reader = Reader(project, tmp_path, smaller=variant != VARIANTS[0])
    give_weights(tmp_path / "torch")
    is_first = variant == VARIANTS[0]
    own = commands(text)
    others = {each.text for each in own}
    of_results = [each for each in commands(README) if each.variant == variant]
    own += [each for each in of_results if IN_PROJECT.search(each.text) and each.text not in others]
    for command in own:
        if command.is_in(NOT_RUN) or (re.search(ONCE, command.text) and not is_first):
            continue
        if "tensorboard" in command.text:
            look_at_tensorboard(reader, command.text)
            continue
        output = reader.run(command)
        if reader.run_dir and not (project / "runs/first").exists():
            shutil.copytree(project / reader.run_dir, project / "runs/first")
            lay_out_inputs(project)
        if command.text.startswith("grep"):
            names = {re.sub("/.*", "/", line[2:].split(":")[0]) for line in output.splitlines()}
            model = f"{SETTINGS['_models'][variant].lower()}.py"
            assert names == {model, "train.py", "test.py", "predict.py", "tests/"}
    for name in re.findall(r"`(predictions/[^`]+)`", text):
        assert (project / name).is_file(), name
    if is_first:
        check_the_rest(reader, text)


def give_weights(home: Path) -> None:
    """Puts weights in the place of those that torchvision would download."""
    address = torchvision.models.ResNet18_Weights.DEFAULT.url
    path = home / "hub" / "checkpoints" / Path(urlsplit(address).path).name
    path.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), path)


def lay_out_inputs(project: Path) -> None:
    """Makes what the README calls `photograph.jpg`, `folder` and `other_data`."""
    images = sorted(path for path in (project / "data/test").rglob("*.png") if path.is_file())
    (project / "folder").mkdir()
    shutil.copy(images[0], project / "folder")
    with Image.open(images[0]) as image:
        image.convert("RGB").save(project / "photograph.jpg")
    (project / "other_data").symlink_to("data")


def look_at_tensorboard(reader: Reader, command: str) -> None:
    """Starts TensorBoard at a free port, asks it which runs it sees, and ends it."""
    with subprocess.Popen(
        [*command.split(), "--port", "0"],
        cwd=reader.folder,
        env=reader.environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            found = (re.search(r"http://\S+:\d+/", line) for line in process.stderr)
            address = next(each[0] for each in found if each)
            with urllib.request.urlopen(f"{address}data/runs", timeout=60) as answer:
                assert Path(reader.run_dir).name in json.load(answer)
        finally:
            process.terminate()
            process.communicate(
                timeout=60
            )  # it says a word of farewell, and hangs if none hears it


def check_the_rest(reader: Reader, text: str) -> None:
    """Runs the blocks that are no commands: the script for Slurm, the unit, and the checkpoint."""
    (script,) = blocks(text, "bash")
    reader.folder = reader.base
    assert "requeue" not in reader.shell(changed_lines(script, reader.steps))
    reader.environment["STATUS"] = "75"
    reader.environment["SLURM_JOB_ID"] = "17"
    assert reader.shell(script) == "requeue 17\n"
    (unit,) = blocks(text, "ini")
    (line,) = re.findall(r"^ExecStart=\S+/(python .+)$", unit, re.MULTILINE)
    assert line in [each.text for each in commands(text)]
    read, example = blocks(text, "python")
    assert "# guide: allow" in example  # tests/test_guide.py has such lines
    printed = reader.shell(f"python -c 'import torch\n{read}\nprint(*checkpoint)'")
    (table,) = re.findall(r"^\| key \| \|\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    cells = re.findall(r"^\|([^|]+)\|", table, re.MULTILINE)
    assert set(printed.split()) == set(re.findall(r"`(\w+)`", " ".join(cells)))


def changed_lines(script: str, steps: int) -> str:
    """Returns a script with each of its lines changed as a command would be."""
    return "\n".join(changed(line, steps, smaller=False) for line in script.splitlines())


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this repository, with this environment as its own."""
    folder = tmp_path_factory.mktemp("clone") / ROOT.name
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "demo", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, folder, ignore=ignored)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_template(clone: Path, tmp_path: Path) -> None:
    reader = Reader(clone, tmp_path)
    for command in commands(OURS):
        if command.is_in(NOT_RUN) or re.search(r"^tensorboard", command.text):
            continue
        if command.variant and IN_PROJECT.search(command.text):
            continue  # in a project of that variant, and run there
        output = reader.run(command)
        if "cookiecutter gh:" in command.text:
            check_questions(output)
        if "SVC(" in command.text:
            assert f"support-vector machine | {float(output):.4f} |" in README


def check_questions(output: str) -> None:
    """Compares the questions that were asked with those in the README."""
    (asked,) = (each for each in blocks(README, "text") if each.startswith("[1/"))
    for line in asked.splitlines():
        for part in re.split(r"(?<=\S) {3}(?=\d - )", line.strip()):
            assert part.strip() in output, part
