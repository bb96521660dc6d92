"""Rendered projects at work: their checks and tests pass, their commands do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Render
from refresh import ROOT, TEMPLATES, VARIANTS

pytestmark = pytest.mark.slow

# What depends on a variant's weights and data. The rest of the attacks meets the engine alone.
ATTACKS_ON_VARIANTS = ["kills", "small disk", "damage", "bad images"]

# Of the tests in files that see a variant, those of what is around any network.
AROUND = [
    "exit_status_is_right",
    "help_comes_without_torch",
    "killed_run_resumes",
    "missing_plotly",
    "run_goes_on_after_a_process_was_killed",
    "signal_saves_and_exits",
    "signal_to_one_stops_all",
    "wrong_use_is_one_line",
]

# One for all projects: most of it is of torch.
ENVIRONMENT = os.environ | {"MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / "rendered")}


@pytest.fixture(scope="module", params=VARIANTS)
def project(render: Render, request: pytest.FixtureRequest) -> Path:
    """A project of each variant, its model named by the user."""
    return render(variant=request.param, project_name="My Project", model_name="MyModel")


def python(project: Path, *arguments: object) -> str:
    """Runs Python in the project and returns what it printed; fails if it failed."""
    command = [sys.executable, *map(str, arguments)]
    process = subprocess.run(
        command, cwd=project, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout[-6000:] + process.stderr[-3000:]
    return process.stdout


@pytest.mark.parametrize("check", ["ruff check", "ruff format --check", "mypy ."])
def test_its_own_tools_find_nothing(project: Path, check: str) -> None:
    python(project, "-m", *check.split())


def names_of_engine_tests() -> list[str]:
    """Lists the tests that see nothing of a variant: they are the same text, of the same text."""
    seen = re.compile(r"\b(Parse|path_to_data|trained|PROJECT)\b|\bfrom (train|predict) import")
    tests = sorted((TEMPLATES / "common/tests").glob("test_*.py"))
    return [path.name for path in tests if not seen.search(path.read_text(encoding="utf-8"))]


def test_what_is_left_out_is_there() -> None:
    tests = (TEMPLATES / "common/tests").glob("test_*.py")
    text = "".join(path.read_text(encoding="utf-8") for path in tests)
    assert [name for name in AROUND if name not in text] == []


@pytest.mark.timeout(1500)
def test_its_own_tests_pass(project: Path, request: pytest.FixtureRequest) -> None:
    """All of them, those of the engine for one variant; none is skipped but for want of a GPU."""
    is_first = request.node.callspec.params["project"] == VARIANTS[0]
    ignored = [f"--ignore=tests/{name}" for name in names_of_engine_tests()]
    left_out = [] if is_first else [*ignored, "-k", f"not ({' or '.join(AROUND)})"]
    output = python(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", *left_out)
    assert re.search(r"^\d+ passed", output, re.MULTILINE)
    skips = [line for line in output.splitlines() if line.startswith("SKIPPED")]
    assert all("there is no CUDA device" in line for line in skips), skips


@pytest.mark.timeout(1500)
@pytest.mark.skipif(sys.platform != "linux", reason="the attacks read /proc")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_few_attacks_are_withstood(variant: str) -> None:
    """The short form of `make attack`, of all of it for one variant."""
    attack = ROOT / "tests" / "faults" / "attack.py"
    only = [] if variant == VARIANTS[0] else ["--only", *ATTACKS_ON_VARIANTS]
    process = subprocess.run(
        [sys.executable, str(attack), "--short", "--variant", variant, *only],
        capture_output=True,
        text=True,
        check=False,
        timeout=1400,
    )
    assert process.returncode == 0, process.stdout + process.stderr
