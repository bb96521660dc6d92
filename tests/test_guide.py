"""The checker of the guide's rules: each fires where it is broken, and nowhere else."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import Render, contents, run_hook
from guide_cases import BROKEN, Change, appended, both, in_forward
from guide_lookalikes import SOUND
from refresh import ROOT, TEMPLATES, VARIANTS

sys.path.insert(0, str(TEMPLATES / "common/tests"))
guide: Any = importlib.import_module("guide")

CASES = [(rule, number) for rule, changes in BROKEN.items() for number in range(len(changes))]
LOOKALIKES = [(rule, number) for rule, changes in SOUND.items() for number in range(len(changes))]


@pytest.fixture(scope="module")
def rendered(render: Render) -> dict[str, Path]:
    return {variant: render(variant=variant) for variant in VARIANTS}


@pytest.fixture(params=VARIANTS)
def project(rendered: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[Path]:
    """A rendered variant, put back after each test as it was."""
    folder = rendered[request.param]
    before = contents(folder)
    yield folder
    for name, content in contents(folder).items():
        if name not in before:
            (folder / name).unlink()
        elif before[name] != content:
            (folder / name).write_bytes(before[name])
    for name in before.keys() - contents(folder).keys():
        (folder / name).write_bytes(before[name])


def is_broken(project: Path, rule: str) -> bool:
    return any(finding.rule == rule for finding in guide.check(project, [rule]))


def test_no_variant_departs_from_the_guide(project: Path) -> None:
    assert [str(finding) for finding in guide.check(project)] == []


@pytest.mark.parametrize(("rule", "number"), CASES)
def test_broken_rule_is_found(project: Path, rule: str, number: int) -> None:
    BROKEN[rule][number](project)
    assert is_broken(project, rule)


@pytest.mark.parametrize(("rule", "number"), LOOKALIKES)
def test_what_only_looks_broken_is_not(project: Path, rule: str, number: int) -> None:
    SOUND[rule][number](project)
    assert not is_broken(project, rule)


# A file that is missing is named before any rule is looked at, and notebooks are the user's.
@pytest.mark.parametrize("rule", [rule for rule in guide.RULES if rule not in ("F1", "F6")])
def test_hook_names_the_rule_that_a_render_breaks(rendered: dict[str, Path], rule: str) -> None:
    variant = VARIANTS[list(guide.RULES).index(rule) % len(VARIANTS)]
    project = Path(shutil.copytree(rendered[variant], rendered[variant].parent / rule))
    BROKEN[rule][0](project)
    done = run_hook("post_gen_project", project, variant=variant)
    assert done.returncode == 1
    assert re.search(rf"^[\w/.]+:\d+: {rule} ", done.stderr, re.MULTILINE), done.stderr
    assert not list(project.rglob("__pycache__"))


def test_every_rule_is_broken_twice_and_spared_twice() -> None:
    for cases in (BROKEN, SOUND):
        assert list(cases) == list(guide.RULES)
        assert all(len(changes) >= 2 for changes in cases.values())


def test_four_rules_of_five_are_checked_in_the_sources() -> None:
    table = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    rules = dict(re.findall(r"^\| ([FMTP]\d+) \|.*\| (.+?) \|$", table, re.MULTILINE))
    assert len(rules) == 30
    checked = [rule for rule, by in rules.items() if by == "`tests/guide`"]
    assert checked == list(guide.RULES)
    assert len(checked) >= 0.8 * len(rules)


NUMPY = both(appended("networks.py", "import numpy as np"), in_forward("networks.py", "np.ones(1)"))


def allow(comment: str) -> Change:
    statement = f"np.ones(1)  # guide: {comment}"
    return both(appended("networks.py", "import numpy as np"), in_forward("networks.py", statement))


def test_line_with_a_reason_is_allowed(project: Path) -> None:
    allow("allow M7 because it is no tensor")(project)
    assert guide.check(project) == []


@pytest.mark.parametrize("comment", ["allow M7", "allow M7 because", "allow M6 because of speed"])
def test_line_without_a_reason_or_for_another_rule_is_not(project: Path, comment: str) -> None:
    allow(comment)(project)
    assert is_broken(project, "M7")


def test_file_that_python_cannot_read_is_named(project: Path) -> None:
    appended("ops.py", "def broken(")(project)
    assert any(str(each).startswith("ops.py:1: syntax is wrong") for each in guide.check(project))


def test_place_and_remedy_are_named(project: Path) -> None:
    NUMPY(project)
    (finding,) = guide.check(project)
    lines = (project / "networks.py").read_text(encoding="utf-8").splitlines()
    assert lines[finding.line - 1].strip() == "np.ones(1)"
    wanted = r"networks\.py:\d+: M7 numpy\.ones in \w+\.forward: use torch, .*"
    assert re.fullmatch(wanted, str(finding))


def test_pre_commit_runs_the_same_checks(project: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(project, tmp_path / "copy"))
    run = partial(subprocess.run, cwd=copy, capture_output=True, text=True)
    for command in (["init", "--quiet"], ["add", "."]):
        run(["git", *command], check=True)
    checks = [sys.executable, "-m", "pre_commit", "run", "--all-files"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = run(checks, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Passed") == 3
    BROKEN["M7"][0](copy)
    done = run(checks, env=environment)
    assert done.returncode == 1
    assert "M7 numpy.mean in" in done.stdout
