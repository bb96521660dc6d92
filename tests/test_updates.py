"""A project takes what is new in the template, and keeps what its user did to it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Render, RunCli, contents
from cookiecutter.main import cookiecutter
from refresh import MODELS, RENDERED, ROOT, VARIANTS

Run = Callable[..., str]
Fresh = Callable[[Path], dict[str, bytes]]
Change = tuple[str, str, str]  # a file, a piece of it, and what takes its place

OPTIONS_FILE = "templates/common/engine/options.py"
NEW_VERSION: list[Change] = [
    ("templates/common/engine/__init__.py", 'TEMPLATE_VERSION = "', 'TEMPLATE_VERSION = "99.'),
    ("templates/common/train.py", 'print(f"new run in', 'print(f"a run begins in'),
    (
        OPTIONS_FILE,
        "\n\ndef _add_data_arguments",
        '    group.add_argument("--note", help="words on the run")\n\n\ndef _add_data_arguments',
    ),
]
FLAG = 'parser.add_argument("--own", type=int, default=3, help="mine")'
NETWORK = '''

class OwnNetwork(nn.Module):
    """Returns its input, (N, C, H, W)."""

    def forward(self, images: Tensor) -> Tensor:
        return images
'''


def replace(path: Path, old: str, new: str) -> None:
    """Exchanges a piece of a file."""
    text = path.read_text(encoding="utf-8")
    assert old in text, path
    path.write_text(text.replace(old, new, 1), encoding="utf-8", newline="\n")


@pytest.fixture(scope="session")
def run(config: Path) -> Run:
    """Runs a command in a folder, without the user's settings, and returns what it printed."""
    settings = config.parent / "gitconfig"
    settings.write_text(
        "[user]\nname = t\nemail = t@example.org\n[init]\ndefaultBranch = main\n"
        "[advice]\ndetachedHead = false\n",
        encoding="utf-8",
    )
    environment = os.environ | {
        "COOKIECUTTER_CONFIG": str(config),
        "GIT_CONFIG_GLOBAL": str(settings),
        "GIT_CONFIG_NOSYSTEM": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUTF8": "1",
    }

    def call(folder: Path, *command: object, status: int = 0) -> str:
        environment["PWD"] = str(folder)
        words = [str(word) for word in command]
        if words[0] not in ("git", "bash"):
            words = [sys.executable, *words]
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8"
        )
        assert done.returncode == status, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout + done.stderr

    return call


def commit(run: Run, folder: Path, message: str) -> None:
    """Commits all of a folder, which becomes a repository if it is none."""
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "--quiet", "--allow-empty", "--message", message)


@pytest.fixture(scope="session")
def template(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a repository: as it is, tagged "old", and a version that follows."""
    folder = tmp_path_factory.mktemp("repository") / "template"
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache")
    for name in ("hooks", "templates", RENDERED.name):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    (folder / "tests").mkdir()
    for name in ("cookiecutter.json", "tests/refresh.py"):
        shutil.copy(ROOT / name, folder / name)
    commit(run, folder, "Old")
    run(folder, "git", "tag", "old")
    for name, old, new in NEW_VERSION:
        replace(folder / name, old, new)
    (folder / "templates/common/engine/noted.py").write_text('"""New here."""\n', encoding="utf-8")
    for variant in VARIANTS:  # in the files that the user changes, too
        for name in ("networks.py", f"{MODELS[variant].lower()}.py"):
            replace(folder / "templates" / variant / name, "\n\n\nclass ", "\n\n\n# New.\nclass ")
    run(folder, "tests/refresh.py")
    commit(run, folder, "New")
    return folder


@pytest.fixture
def fresh(template: Path, config: Path, tmp_path: Path) -> Fresh:
    """Renders the new version with the answers that a project has recorded."""

    def call(project: Path) -> dict[str, bytes]:
        record = project / ".cookiecutter.json"
        output = tmp_path / "fresh"
        rendered = cookiecutter(
            str(template), replay=str(record), output_dir=str(output), config_file=str(config)
        )
        return contents(Path(rendered))

    return call


def files_of(project: Path) -> dict[str, bytes]:
    """Reads a project's files; git's and cruft's own are none of them."""
    found = contents(project)
    return {name: data for name, data in found.items() if not re.match(r"\.git/|\.cruft", name)}


def create(run: Run, template: Path, folder: Path, *flags: str, **answers: str) -> Path:
    """Renders the old version by cruft, and commits it."""
    extra = json.dumps({"project_slug": "p", **answers})
    call = ["-m", "cruft", "create", template, "--no-input", "--checkout", "old", *flags]
    printed = run(folder, *call, "--output-dir", folder, "--extra-context", extra)
    assert "Rendered with these choices" in printed
    commit(run, folder / "p", "Render")
    return folder / "p"


def update(run: Run, project: Path) -> str:
    """Takes the new version by cruft, and returns what is printed."""
    run(project, "-m", "cruft", "check", status=1)
    printed = run(project, "-m", "cruft", "update", "--skip-apply-ask")
    run(project, "-m", "cruft", "check")
    return printed


CASES = [(variant, MODELS[variant], MODELS[variant].lower()) for variant in VARIANTS]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "model", "module"), [*CASES, (VARIANTS[0], "DigitReader", "reader")]
)
def test_an_update_keeps_what_the_user_did(
    run: Run, template: Path, fresh: Fresh, tmp_path: Path, variant: str, model: str, module: str
) -> None:
    project = create(
        run, template, tmp_path, variant=variant, model_name=model, model_module=module
    )
    with (project / "networks.py").open("a", encoding="utf-8", newline="\n") as file:
        file.write(NETWORK)
    replace(project / f"{module}.py", "        parser.set_", f"        {FLAG}\n        parser.set_")
    commit(run, project, "Add a network and a flag")

    printed = update(run, project)
    assert "Rendered with" not in printed  # cruft's own renders are no concern of the user's
    changed = run(project, "git", "status", "--porcelain").splitlines()
    assert {line[:2] for line in changed} <= {"M ", "A ", " M"}  # no conflict, nothing left over
    wanted = fresh(project)
    found = files_of(project)
    assert b"99." in found[".cookiecutter.json"]
    assert found["networks.py"] == wanted["networks.py"] + NETWORK.encode()
    own = f"        {FLAG}\n".encode()
    assert found[f"{module}.py"].replace(own, b"") == wanted[f"{module}.py"]
    for name in ("networks.py", f"{module}.py"):
        assert b"# New." in found.pop(name)
        del wanted[name]
    assert found == wanted
    assert "engine/noted.py" in found

    shown = run(project, "train.py", "--help")
    assert all(re.search(rf"^ +{flag}\b", shown, re.MULTILINE) for flag in ("--own", "--note"))
    tests = ["tests/test_networks.py", "tests/test_guide.py"]
    run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)


@pytest.mark.slow
def test_a_conflict_is_marked_and_the_rest_is_taken(
    run: Run, template: Path, fresh: Fresh, tmp_path: Path
) -> None:
    project = create(run, template, tmp_path)
    replace(project / "train.py", 'print(f"new run in', 'print(f"here we go in')
    commit(run, project, "Greet")
    update(run, project)
    changed = run(project, "git", "status", "--porcelain").splitlines()
    assert [line for line in changed if "U" in line] == ["UU train.py"]
    assert [line for line in changed if line.startswith("?")] == []
    found, wanted = files_of(project), fresh(project)
    text = found.pop("train.py").decode()
    ((ours, theirs),) = re.findall(r"<<<<<<< .*\n(.*\n)=======\n(.*\n)>>>>>>> ", text)
    assert "here we go" in ours
    assert theirs.encode() in wanted.pop("train.py")
    assert found == wanted


def render_old(run: Run, template: Path, config: Path, folder: Path) -> Path:
    """Renders the old version by cookiecutter, with answers of some kinds, and commits it."""
    run(folder, "git", "clone", "--quiet", "--branch", "old", template, folder / "old")
    answers = {"project_name": "O'Neil \"\\ & Söhne", "model_name": "DigitReader", "license": "MIT"}
    project = cookiecutter(
        str(folder / "old"),
        no_input=True,
        extra_context=answers,
        output_dir=str(folder),
        config_file=str(config),
    )
    commit(run, Path(project), "Render")
    return Path(project)


def commands(project: Path, first: str, **words: object) -> str:
    """Returns the commands of the README's block that begins so, with values for its capitals."""
    text = (project / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"```\n((?:pip install cruft\n)?{first}.*?)```", text, re.DOTALL)
    block = block.replace("pip install cruft\n", "")
    return re.sub(r"\b(TEMPLATE|COMMIT|FIRST)\b", lambda match: str(words[match[1]]), block)


@pytest.mark.slow
def test_a_project_of_cookiecutter_is_linked_as_the_readme_says(
    run: Run, template: Path, fresh: Fresh, config: Path, tmp_path: Path
) -> None:
    project = render_old(run, template, config, tmp_path)
    replace(project / "networks.py", "import", "import math\nimport")
    run(project, "bash", "-ec", commands(project, "cruft link", TEMPLATE=template, COMMIT="old"))
    commit(run, project, "Link")
    update(run, project)
    found, wanted = files_of(project), fresh(project)
    assert b"import math\n" in found.pop("networks.py")
    del wanted["networks.py"]
    assert found == wanted


@pytest.mark.slow
def test_a_new_version_is_merged_by_git_as_the_readme_says(
    run: Run, template: Path, fresh: Fresh, config: Path, tmp_path: Path
) -> None:
    project = render_old(run, template, config, tmp_path)
    replace(project / "networks.py", "import", "import math\nimport")
    commit(run, project, "Use math")
    wanted = fresh(project)
    block = commands(project, "git switch --create", TEMPLATE=template, FIRST="HEAD~1")
    run(project, "bash", "-ec", block)
    found = files_of(project)
    assert run(project, "git", "status", "--porcelain") == ""
    assert b"import math\n" in found.pop("networks.py")
    del wanted["networks.py"]
    assert found == wanted


def test_cruft_renders_as_cookiecutter_does_and_its_hooks_run_twice(
    run: Run, template: Path, render: Render, tmp_path: Path
) -> None:
    for flags in ([], ["--overwrite-if-exists"]):
        create(run, template, tmp_path, *flags, model_name="DigitReader")
    assert files_of(tmp_path / "p") == contents(render(project_slug="p", model_name="DigitReader"))


@pytest.mark.parametrize(
    "text", ["", "O'Neil \"\\ & <b> {{ x }} {% raw %} # \n\tSöhne \N{GRINNING FACE}"]
)
def test_the_record_renders_the_same_project_from_anywhere(
    render: Render, run_cli: RunCli, tmp_path: Path, text: str
) -> None:
    answers = {"description": text, "author_name": text, "variant": VARIANTS[-1], "license": "MIT"}
    project = render(tmp_path / "first", model_name="DigitReader", project_slug="p", **answers)
    before = contents(project)
    record = json.loads(before[".cookiecutter.json"])
    assert answers.items() <= record["cookiecutter"].items()
    assert [name for name in record["cookiecutter"] if name.startswith("_")] == []
    assert record["template_version"] in (project / "engine/__init__.py").read_text("utf-8")
    # No file tells where it was made.
    assert [
        n for n, data in before.items() if re.search(rf"{tmp_path}|{ROOT}".encode(), data)
    ] == []
    (project / "train.py").write_text("broken", encoding="utf-8")
    flags = ["--replay-file", ".cookiecutter.json", "--overwrite-if-exists", "--output-dir", ".."]
    done = run_cli(project, *flags)
    assert done.returncode == 0, done.stderr
    assert contents(project) == before
