"""What the hooks refuse, what they say, and that they leave nothing behind."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Render, RunCli, contents, literal, run_hook
from refresh import MODELS, VARIANTS, reserved_classes

SLUG = "a folder that pip can name holds 1 to 100 letters"
CLASS = "a class is words run together"
MODULE = "a Python module is letters, digits and underscores"
TAKEN = "the project has or imports a module of that name"
REFUSALS = [
    ("project_name", "bell\a", "it holds a character that cannot be printed"),
    ("project_name", "carriage\rreturn", "it holds a character that cannot be printed"),
    ("description", "escape \x1b[31m", "it holds a character that cannot be printed"),
    ("author_name", "next line \x85", "it holds a character that cannot be printed"),
    ("author_name", "half a letter \ud83d", "it holds a character that cannot be printed"),
    ("project_name", "next \u2028 line", "it holds a character that cannot be printed"),
    ("description", "next \u2029 paragraph", "it holds a character that cannot be printed"),
    ("author_name", "no letter \uffff", "it holds a character that cannot be printed"),
    ("project_slug", "", SLUG),
    ("project_slug", ".", SLUG),
    ("project_slug", "..", SLUG),
    ("project_slug", "../evil", SLUG),
    ("project_slug", "a/b", SLUG),
    ("project_slug", "a\\b", SLUG),
    ("project_slug", "/tmp/evil", SLUG),
    ("project_slug", "a b", SLUG),
    ("project_slug", "a\n", SLUG),
    ("project_slug", ".hidden", SLUG),
    ("project_slug", "-dash", SLUG),
    ("project_slug", "dash-", SLUG),
    ("project_slug", "größe", SLUG),
    ("project_slug", "a" * 101, SLUG),
    ("project_slug", "torch", "the project installs a package of that name"),
    ("project_slug", "Scikit_Learn", "the project installs a package of that name"),
    ("project_slug", "nul", "Windows keeps that name for a device"),
    ("model_name", "", CLASS),
    ("model_name", "digitReader", CLASS),
    ("model_name", "Digit_Reader", CLASS),
    ("model_name", "Digit Reader", CLASS),
    ("model_name", "Digit-Reader", CLASS),
    ("model_name", "2DReader", CLASS),
    ("model_name", "X; import os", CLASS),
    ("model_name", "数字", CLASS),
    ("model_name", "None", "Python gives that word a meaning of its own"),
    ("model_name", "Exception", "Python gives that word a meaning of its own"),
    ("model_name", "I", "it is too easily read as a digit"),
    ("model_name", "Path", "the project's code uses that name for something else"),
    ("model_name", "Tensor", "the project's code uses that name for something else"),
    ("model_name", "A" * 41, "it is longer than 40 letters"),
    ("model_name", "A" + "数" * 20, "it is longer than 40 letters"),
    ("model_name", "\N{MATHEMATICAL BOLD CAPITAL A}", "Python would read it with other letters"),
    ("model_module", "", MODULE),
    ("model_module", "2d", MODULE),
    ("model_module", "my-model", MODULE),
    ("model_module", "my model", MODULE),
    ("model_module", "a.b", MODULE),
    ("model_module", "../evil", MODULE),
    ("model_module", "class", MODULE),
    ("model_module", "__init__", MODULE),
    ("model_module", "json", "Python's standard library has a module of that name"),
    ("model_module", "JSON", "Python's standard library has a module of that name"),
    ("model_module", "torch", TAKEN),
    ("model_module", "Torch", TAKEN),
    ("model_module", "pil", TAKEN),
    ("model_module", "sympy", TAKEN),
    ("model_module", "networks", TAKEN),
    ("model_module", "train", TAKEN),
    ("model_module", "data", TAKEN),
    ("model_module", "engine", TAKEN),
    ("model_module", "tests", TAKEN),
    ("model_module", "conftest", TAKEN),
    ("model_module", "test_layers", TAKEN),
    ("model_module", "setup", TAKEN),
    ("model_module", "aux", "Windows keeps that name for a device"),
    ("model_module", "\N{LATIN SMALL LIGATURE FI}lter", "Python would read it with other letters"),
    ("model_module", "a" * 41, "it is longer than 40 letters"),
]


def answers_of(line: str) -> dict[str, str]:
    """Reads the answers back from the command that a refusal prints."""
    words = shlex.split(line)
    assert words[0] == "cookiecutter"
    assert words[2] == "--no-input"
    pairs = dict(word.split("=", 1) for word in words[3:] if "=" in word)
    return {key: text.replace("{{ '{' }}", "{") for key, text in pairs.items()}


def empty(folder: Path) -> Path:
    """Makes the new folder that cookiecutter runs a hook in."""
    project = folder / "project"
    project.mkdir()
    return project


@pytest.mark.parametrize(("key", "text", "reason"), REFUSALS)
def test_a_bad_answer_is_refused_in_one_sentence_with_a_good_one(
    tmp_path: Path, key: str, text: str, reason: str
) -> None:
    done = run_hook("pre_gen_project", empty(tmp_path), **{key: text})
    assert done.returncode == 1
    sentence, _, command = done.stderr.partition("\nTo render with that:\n")
    assert sentence.startswith(f"{key} cannot be {text!r}: {reason}")
    assert "\n" not in sentence
    answers = answers_of(command)
    assert sentence.endswith(f"; try {answers[key]!r}.")
    done = run_hook("pre_gen_project", tmp_path / "project", **answers)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_name_the_sources_use_is_refused_to_the_model(tmp_path: Path, variant: str) -> None:
    used = [*reserved_classes("common"), *reserved_classes(variant)]
    assert len(used) > 5
    for number, name in enumerate(used[:: max(1, len(used) // 5)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = run_hook("pre_gen_project", empty(folder), variant=variant, model_name=name)
        assert "the project's code uses that name for something else" in done.stderr


def test_the_file_follows_the_class_it_was_named_after(tmp_path: Path) -> None:
    done = run_hook("pre_gen_project", empty(tmp_path), model_name="digit reader")
    assert done.stderr.count("cannot be") == 1
    answers = answers_of(done.stderr.partition("that:\n")[2])
    assert (answers["model_name"], answers["model_module"]) == ("DigitReader", "digitreader")


@pytest.mark.parametrize(
    "answers",
    [
        {"project_slug": "My_Project.2"},
        {"project_slug": "a"},
        {"project_slug": "a" * 100},
        {"model_name": "A", "model_module": "_a"},
        {"model_name": "Ü" * 40, "model_module": "ü" * 40},
        {"model_module": "match"},
        {"project_name": "", "description": "", "author_name": "", "project_slug": "p"},
    ],
)
def test_any_legal_name_passes(tmp_path: Path, answers: dict[str, str]) -> None:
    done = run_hook("pre_gen_project", empty(tmp_path), **answers)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "answer", ["project_slug=../evil", "project_slug=a b", "model_name=Path", "model_module=torch"]
)
def test_a_refusal_leaves_nothing(run_cli: RunCli, tmp_path: Path, answer: str) -> None:
    here = tmp_path / "here"
    here.mkdir()
    done = run_cli(here, "--no-input", answer)
    assert done.returncode == 1
    assert f"{answer.split('=')[0]} cannot be" in done.stderr
    assert [path for path in tmp_path.rglob("*") if path != here] == []


def test_the_printed_command_renders_what_was_meant(run_cli: RunCli, tmp_path: Path) -> None:
    name = 'It\'s {{ 1 + 1 }} "5" \\ \N{GRINNING FACE}\nand more'
    done = run_cli(tmp_path, "--no-input", f"project_name={literal(name)}", "model_name=my net")
    command = shlex.split(done.stderr.partition("that:\n")[2])
    done = run_cli(tmp_path, *command[2:])
    assert done.returncode == 0, done.stderr
    project = tmp_path / "it-s-1-1-5-and-more"
    assert name in (project / "README.md").read_text(encoding="utf-8")
    assert "class MyNet(" in (project / "mynet.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("answer", ["model_name=Path", "author_name=\a", "project_slug="])
def test_a_refusal_under_force_overwrites_nothing(
    render: Render, run_cli: RunCli, tmp_path: Path, answer: str
) -> None:
    project = render(tmp_path)
    (project / "train.py").write_text("# my own work\n", encoding="utf-8")
    before = contents(tmp_path)
    done = run_cli(tmp_path, "--no-input", "-f", answer)
    assert done.returncode == 1
    assert "cannot be" in done.stderr
    assert contents(tmp_path) == before


def test_rendering_over_other_work_is_refused(run_cli: RunCli, tmp_path: Path) -> None:
    thesis = tmp_path / "digit-reader" / "README.md"
    thesis.parent.mkdir()
    thesis.write_text("My thesis.\n", encoding="utf-8")
    done = run_cli(tmp_path, "--no-input", "-f")
    assert done.returncode == 1
    assert "'digit-reader' holds work of another kind" in done.stderr
    assert contents(tmp_path) == {"digit-reader/README.md": b"My thesis.\n"}


def test_rendering_again_renews_our_files_and_leaves_the_others(
    render: Render, run_cli: RunCli, tmp_path: Path
) -> None:
    project = render(tmp_path)
    before = contents(project)
    (project / "train.py").write_text("broken(\n", encoding="utf-8")
    (project / "thesis.py").write_text("mine {{ own }} (\n", encoding="utf-8")
    done = run_cli(tmp_path, "--no-input", "-f")
    assert done.returncode == 0, done.stderr
    assert "Left as they were, not of this render: thesis.py" in done.stdout
    assert contents(project) == {**before, "thesis.py": b"mine {{ own }} (\n"}


def test_an_empty_git_repository_may_be_filled(run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "digit-reader" / ".git").mkdir(parents=True)
    assert run_cli(tmp_path, "--no-input", "-f").returncode == 0


def test_the_summary_shows_every_choice_and_three_commands(run_cli: RunCli, tmp_path: Path) -> None:
    done = run_cli(tmp_path, "--no-input", "project_name=Zahlen \N{GRINNING FACE}")
    lines = done.stdout.splitlines()
    assert "  project_name    Zahlen \N{GRINNING FACE}" in lines
    assert f"  variant         {VARIANTS[0]}" in lines
    assert f"  model_name      {MODELS[VARIANTS[0]]}" in lines
    following = lines[lines.index("Next:") + 1 :]
    assert following[:2] == ["  cd zahlen", '  pip install -e ".[demo,dev]"']
    assert len(following) == 3


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    """Makes a fault: exchanges a piece of a rendered file."""

    def fault(project: Path) -> None:
        path = project / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return fault


def appended(name: str, line: str) -> Callable[[Path], None]:
    """Makes a fault: adds a line to a rendered file."""

    def fault(project: Path) -> None:
        with (project / name).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    return fault


MODEL = f"{MODELS[VARIANTS[0]].lower()}.py"
FAULTS: list[tuple[Callable[[Path], None], str]] = [
    (lambda project: (project / "layers.py").unlink(), "layers.py: it was not written"),
    (lambda project: (project / "LICENSE").unlink(), "LICENSE: it was not written"),
    (appended("engine/exits.py", "def broken("), "engine/exits.py: Python cannot read it"),
    (appended("ops.py", "return 1"), "ops.py: Python cannot read it"),
    (appended("README.md", "{{ cookiecutter.x }}"), "README.md: a mark of the template was left"),
    (appended("data.py", "# {% endif %}"), "data.py: a mark of the template was left"),
    (
        replaced(MODEL, f"class {MODELS[VARIANTS[0]]}(", "class Other("),
        f"{MODEL}: it does not define the class {MODELS[VARIANTS[0]]}",
    ),
    (appended("networks.py", "from layers import Gone"), "F4 there is no Gone in layers"),
    (appended("data.py", "import engine.gone"), "F4 there is no gone in engine"),
    (appended("layers.py", "import networks"), "F4 it may not import networks"),
    (appended("engine/exits.py", "import engine.options"), "F4 imports run in a circle: "),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_a_faulty_render_is_told_by_file(
    render: Render, fault: Callable[[Path], None], message: str
) -> None:
    project = render()
    fault(project)
    before = contents(project)
    done: subprocess.CompletedProcess[str] = run_hook("post_gen_project", project)
    assert done.returncode == 1
    assert message in done.stderr
    assert "--keep-project-on-failure" in done.stderr
    assert contents(project) == before


def test_a_sound_render_passes_again(render: Render) -> None:
    project = render()
    before = contents(project)
    done = run_hook("post_gen_project", project)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(project) == before
