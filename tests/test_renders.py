"""What a render writes: the same files and bytes as the sources, whatever the user answers."""

from __future__ import annotations

import filecmp
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import Render, RunCli, contents
from refresh import MODELS, RENDERED, SETTINGS, TEMPLATES, VARIANTS, rendered_name, stubs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Class and file: short, long, early and late in the alphabet, holding the old names, not ASCII.
NAMES = [
    ("A", "a"),
    ("Z", "z"),
    ("A" * 40, "a" * 40),
    ("Z" * 40, "z" * 40),
    ("XResNetClassifier", "resnetclassifier2"),
    ("Xresnetclassifier", "ResNetClassifiers"),
    ("DigitReader", "DigitReader"),
    ("Größenleser", "größenleser"),
]
HOSTILE = [
    "O'Neil & \"Söhne\" <b>",
    "back\\slash \\n \\u0041 \\",
    "two\nlines\n\nand\ttabs",
    "{{ cookiecutter.variant }} {% raw %} {# note #} }} %} ${{ x }}",
    "\"\"\" ''' ` $(touch x) %s %(a)s {0}",
    "数字 рисунок रेखा \N{GRINNING FACE} \N{OLD ITALIC LETTER A} \N{SNOWMAN}",
    "'", '"', "\\", "{", "{{", "#", "", "= [tool.x]",
]  # fmt: skip


def sources_of(variant: str, module: str) -> Iterator[tuple[str, Path]]:
    """Yields the name of each rendered file that has a source, and the source."""
    for stub in stubs():
        name = rendered_name(stub, variant, module)
        written = rendered_name(stub, variant, MODELS[variant].lower())
        if name and written:
            shared = TEMPLATES / "common" / written
            yield name, shared if shared.exists() else TEMPLATES / variant / written


def renamed(text: str, written: str, model: str, module: str) -> str:
    """Renames the model in a source word by word, each word once."""
    new = {written: model, written.lower(): module}
    return re.sub(rf"\b({'|'.join(new)})\b", lambda match: new[match[1]], text)


def check_python(project: Path, variant: str, model: str, module: str) -> None:
    """Compares every Python file of a project with its source."""
    for name, source in sources_of(variant, module):
        written = MODELS[source.relative_to(TEMPLATES).parts[0]]
        wanted = renamed(source.read_bytes().decode(), written, model, module)
        assert (project / name).read_bytes().decode() == wanted, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_render_holds_these_files_and_no_other(render: Render, variant: str) -> None:
    project = render(variant=variant)
    stubbed = [path.relative_to(RENDERED).as_posix() for path in RENDERED.rglob("*")]
    names = (rendered_name(name, variant, MODELS[variant].lower()) for name in stubbed)
    wanted = {name for name in names if name}
    found = {path.relative_to(project).as_posix() for path in project.rglob("*")}
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_default_render_is_its_sources_byte_for_byte(render: Render, variant: str) -> None:
    project = render(variant=variant)
    # Where the default name is the reference one there is nothing to rename at all.
    for name, source in sources_of(variant, MODELS[variant].lower()):
        if MODELS[source.relative_to(TEMPLATES).parts[0]] == MODELS[variant]:
            assert filecmp.cmp(project / name, source, shallow=False), name
    check_python(project, variant, MODELS[variant], MODELS[variant].lower())
    assert filecmp.cmp(project / "ruff.toml", TEMPLATES / "common/lint.toml", shallow=False)
    for name in ("train.py", "test.py", "predict.py", "report.py"):
        assert (project / name).stat().st_mode & 0o111 == 0o111


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_of_any_name_leaves_the_code_clean(
    render: Render, variant: str, tmp_path: Path
) -> None:
    for number, (model, module) in enumerate(NAMES):
        project = render(
            tmp_path,
            variant=variant,
            project_slug=f"p{number}",
            model_name=model,
            model_module=module,
            python_version=("3.10", "3.13")[number % 2],  # what ruff is told to write for
        )
        check_python(project, variant, model, module)
    # Away from this repository, whose configuration would excuse things.
    found = ""
    for command in (["check", "--output-format=concise"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--quiet", "."]
        done = subprocess.run(ruff, cwd=tmp_path, capture_output=True, text=True)
        found += done.stdout + done.stderr
    assert found == ""


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_is_shown_as_it_is(render: Render, text: str) -> None:
    # The hooks run too: they must neither trip over the text nor take it for a mark of theirs.
    project = render(project_slug="p", project_name=text, description=text, author_name=text)
    assert text in (project / "README.md").read_text(encoding="utf-8")
    assert f"(c) {text}\n" in (project / "LICENSE").read_text(encoding="utf-8")
    settings = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # Metadata is made of lines, so there a newline is a space; the README has the exact text.
    line = text.replace("\n", " ")
    assert settings["description"] == line
    assert settings.get("authors", []) == ([{"name": line}] if line.strip() else [])
    citation = yaml.safe_load((project / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["title"], citation["authors"]) == (line, [{"name": line}])
    recorded = json.loads((project / ".cookiecutter.json").read_text(encoding="utf-8"))
    for name in ("project_name", "description", "author_name"):
        assert recorded["cookiecutter"][name] == text
    check_python(project, VARIANTS[0], MODELS[VARIANTS[0]], MODELS[VARIANTS[0]].lower())


@pytest.mark.parametrize("name", [text for text in HOSTILE if text])
def test_any_project_name_gives_a_folder_of_its_own(render: Render, name: str) -> None:
    project = render(project_name=name)
    assert re.fullmatch("[a-z0-9]([a-z0-9-]*[a-z0-9])?", project.name)


def test_pip_installs_a_project_with_hostile_texts(render: Render, tmp_path: Path) -> None:
    text = " ".join(HOSTILE)
    project = render(project_slug="Digit_Reader.2", description=text, author_name=text)
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), "-e", "."], cwd=project, check=True)
    look = (
        "import importlib.metadata, importlib.util, site\n"
        f"site.addsitedir({str(target)!r})\n"
        "metadata = importlib.metadata.metadata('Digit_Reader.2')\n"
        "print(ascii([metadata['Summary'], metadata['Author'], metadata['License-Expression'],\n"
        "    importlib.util.find_spec('networks'), importlib.util.find_spec('engine')]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", look], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    line = text.replace("\n", " ")
    # Nothing is importable from elsewhere: the scripts run from their folder.
    assert done.stdout.strip() == ascii([line, line, "MIT", None, None])


@pytest.mark.parametrize("license_name", SETTINGS["license"])
def test_each_license(render: Render, license_name: str) -> None:
    project = render(license=license_name, author_name="Ada")
    text = (project / "LICENSE").read_text(encoding="utf-8")
    titles = {
        "MIT": "MIT License",
        "BSD-3-Clause": "BSD 3-Clause License",
        "Apache-2.0": "Apache License",
        "Proprietary": "All rights reserved",
    }
    assert titles[license_name] in text
    assert license_name == "Apache-2.0" or "Copyright (c) Ada" in text
    # A year would make the render depend on its date.
    assert license_name == "Apache-2.0" or not re.search(r"\b20\d\d\b", text)
    settings = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    proprietary = "LicenseRef-Proprietary"
    assert settings["license"] == {"Proprietary": proprietary}.get(license_name, license_name)


@pytest.mark.parametrize("python", SETTINGS["python_version"])
def test_each_python_version(render: Render, python: str) -> None:
    project = render(python_version=python)
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["project"]["requires-python"] == f">={python}"
    workflow = yaml.safe_load((project / ".github/workflows/tests.yml").read_text("utf-8"))
    versions = SETTINGS["python_version"]
    tested = workflow["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert tested == versions[versions.index(python) :]


def test_settings_of_other_tools_are_sound(render: Render) -> None:
    project = render()
    tools = Path(sys.executable).parent
    for tool in (["validate-pyproject", "pyproject.toml"], ["zizmor", "--offline", "."]):
        done = subprocess.run(
            [tools / tool[0], *tool[1:]], cwd=project, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    for path in (project / ".vscode").iterdir():
        settings = json.loads(path.read_text(encoding="utf-8"))
        for launch in settings.get("configurations", []):
            script = launch["program"].removeprefix("${workspaceFolder}/")
            assert (project / script).exists()
            flags = [word for word in launch.get("args", []) if word.startswith("--")]
            done = subprocess.run(
                [sys.executable, script, "--help"], cwd=project, capture_output=True, text=True
            )
            assert all(re.search(rf"{flag}\b", done.stdout) for flag in flags)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_asks_for_its_own_packages_alone(render: Render, variant: str) -> None:
    settings = tomllib.loads((render(variant=variant) / "pyproject.toml").read_text("utf-8"))
    own = (TEMPLATES / variant / "dependencies.toml").read_text(encoding="utf-8")
    assert settings["project"]["dependencies"] == tomllib.loads(own)["dependencies"]
    assert all(">=" in each and "," not in each for each in settings["project"]["dependencies"])


def test_declining_the_hooks_changes_nothing(render: Render) -> None:
    answers = {"project_name": HOSTILE[0], "model_name": "DigitReader"}
    assert contents(render(**answers)) == contents(render(accept_hooks=False, **answers))


def test_a_replay_gives_the_same_project(run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    done = run_cli(tmp_path, "--no-input", "project_name=Replayed", "model_name=Second")
    again = run_cli(tmp_path / "again", "--replay")
    assert (done.returncode, again.returncode) == (0, 0)
    assert contents(tmp_path / "replayed") == contents(tmp_path / "again" / "replayed")


def test_answering_each_question_by_return_gives_the_default(
    render: Render, run_cli: RunCli, tmp_path: Path
) -> None:
    questions = [name for name in SETTINGS if not name.startswith("_")]
    done = run_cli(tmp_path, input="\n" * len(questions))
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(tmp_path / "digit-reader") == contents(render())
    for name in questions:
        prompt = SETTINGS["__prompts__"][name]
        shown = [prompt] if isinstance(prompt, str) else prompt.values()
        assert all(text in done.stdout for text in shown)
