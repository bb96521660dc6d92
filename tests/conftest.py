"""Ways to render the template that no setting of this machine's user leaks into."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cookiecutter.generate import generate_context
from cookiecutter.main import cookiecutter
from cookiecutter.prompt import prompt_for_config
from cookiecutter.utils import create_env_with_context
from refresh import ROOT

Render = Callable[..., Path]
RunCli = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the flag of tests/test_pages.py."""
    words = "train for long, and write docs/pictures/report.png and tensorboard.png anew"
    parser.addoption("--pictures", action="store_true", help=words)


def literal(text: str) -> str:
    """Writes a text so that cookiecutter, which evaluates given answers, gives it back as it is."""
    return text.replace("{", "{{ '{' }}")


def fill_in(**answers: str) -> dict[str, Any]:
    """Returns the context cookiecutter would render with, every answer taken literally."""
    given = {key: literal(text) for key, text in answers.items()}
    context = generate_context(str(ROOT / "cookiecutter.json"), extra_context=given)
    context["cookiecutter"] = prompt_for_config(context, no_input=True)
    # Jinja reads a carriage return as a newline; at a prompt it is typed as it is.
    context["cookiecutter"].update(answers, _template=str(ROOT))
    return dict(context)


def run_hook(name: str, folder: Path, **answers: str) -> subprocess.CompletedProcess[str]:
    """Runs one hook in a folder, as cookiecutter does after filling it in."""
    context = fill_in(**answers)
    source = (ROOT / "hooks" / f"{name}.py").read_text(encoding="utf-8")
    script = folder.parent / f"{name}_filled_in.py"
    filled_in = create_env_with_context(context).from_string(source).render(**context)
    script.write_text(filled_in, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(script)], cwd=folder, capture_output=True, text=True, encoding="utf-8"
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Reads every file below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of its own, for ~/.cookiecutterrc changes what --no-input renders."""
    folder = tmp_path_factory.mktemp("config")
    path = folder / "config.yaml"
    folders = {"replay_dir": str(folder / "replay"), "cookiecutters_dir": str(folder / "clones")}
    path.write_text(json.dumps(folders), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def render(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Renders with the given answers, each taken literally, and returns the project's folder."""

    def call(output: Path | None = None, accept_hooks: bool = True, **answers: str) -> Path:
        project = cookiecutter(
            str(ROOT),
            no_input=True,
            extra_context={key: literal(text) for key, text in answers.items()},
            output_dir=str(output or tmp_path_factory.mktemp("render")),
            config_file=str(config),
            accept_hooks=accept_hooks,
        )
        return Path(project)

    return call


@pytest.fixture(scope="session")
def run_cli(config: Path) -> RunCli:
    """Runs the cookiecutter command in a folder."""

    def call(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cookiecutter", str(ROOT), "--config-file", str(config)]
        environment = {**os.environ, "PYTHONUTF8": "1", "PWD": str(folder), "COLUMNS": "200"}
        return subprocess.run(
            [*command, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            **options,
        )

    return call
