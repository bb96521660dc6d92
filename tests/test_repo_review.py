"""What Scientific Python asks of a repository holds, or stands here with a reason not to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import Render
from refresh import ROOT

EVERYWHERE = {
    "PY007": "the README's commands, here also the Makefile, are short enough without a runner",
    "PP006": "the extra `dev` does it, and any pip can install it beside the other extras",
    "MY105": "torch declares torch.device.index an int, and so calls a test for None redundant",
}
TEMPLATE = EVERYWHERE | {
    "PY006": "`make lint` runs the checks, each variant's mypy among them",
    "GH100": "continuous integration is .ci/run, wherever it runs",
    "RF101": "bugbear is on, in templates/common/lint.toml, which the review does not open",
}
OWN_TOOLS = "pre-commit runs the tools of the extra `dev`, in the versions that the tests had"
NO_SERVICE = "the project is not tied to pre-commit.ci"
PROJECT = EVERYWHERE | {
    "PY004": "the README documents a project of this size as a whole",
    "PC100": OWN_TOOLS,
    "PC110": OWN_TOOLS,
    "PC140": "mypy reads torch, which takes too long before each commit: it runs on GitHub",
    "PC160": "words of a user's own field would stop commits",
    "PC170": "there is no reStructuredText",
    "PC180": "the README belongs to the user",
    "PC190": OWN_TOOLS,
    "PC901": NO_SERVICE,
    "PC902": NO_SERVICE,
    "PC903": NO_SERVICE,
    "SEC001": "zizmor finds nothing in the one workflow; the template's tests run it",
}


def failing(folder: Path) -> set[str]:
    """Returns the checks that a repository fails."""
    command = [sys.executable, "-m", "repo_review", "--format", "json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    checks = json.loads(done.stdout)["checks"]
    assert checks["PY001"]["result"], done.stdout  # it saw the repository
    return {name for name, check in checks.items() if check["result"] is False}


def test_a_project_fails_no_check_without_a_reason(render: Render) -> None:
    assert failing(render()) - set(PROJECT) == set()


def test_the_template_fails_no_check_without_a_reason() -> None:
    assert failing(ROOT) - set(TEMPLATE) == set()
