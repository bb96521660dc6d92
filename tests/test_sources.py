"""What must hold of the sources for includes to be a safe way of rendering them."""

from __future__ import annotations

import ast
import json
import re
import statistics
import sys
from pathlib import Path

import pytest
from refresh import (
    MODELS,
    POST_GEN,
    PRE_GEN,
    RENDERED,
    ROOT,
    SETTINGS,
    TEMPLATES,
    VARIANTS,
    extra_sources,
    is_stub,
    post_gen_lists,
    pre_gen_lists,
    refreshed,
    sources,
    stubs,
)

SOURCES = [f"{folder}/{name}" for folder in MODELS for name in sources(folder)]
REMEDY = "run `python tests/refresh.py`"
MARKS = re.compile(r"\{[%#{]")


def source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SOURCES)
def test_python_holds_no_mark_that_jinja_would_act_on(name: str) -> None:
    assert MARKS.findall(source(name)) == []


def test_notebook_holds_no_output_and_no_mark() -> None:
    (path,) = (TEMPLATES / "common").glob("notebooks/*.ipynb")
    text = path.read_text(encoding="utf-8")
    assert MARKS.findall(text) == []
    cells = json.loads(text)["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert "From here to a training" in "".join(cells[-1]["source"])


def test_every_source_has_its_stub_and_every_stub_its_source() -> None:
    paths = [path for path in RENDERED.rglob("*") if is_stub(path)]
    found = {path.relative_to(RENDERED).as_posix(): path for path in paths}
    wanted = stubs()
    missing = [f"{name}: {text}" for name, text in wanted.items() if name not in found]
    assert not missing, f"add, or {REMEDY}:\n" + "".join(missing)
    assert not set(found) - set(wanted), f"these stubs have no source: {REMEDY}"
    # Each ends in `-}}` and one newline: anything else would end the rendered file in two.
    texts = {name: path.read_bytes().decode() for name, path in found.items()}
    assert texts == wanted, REMEDY


@pytest.mark.parametrize(
    ("hook", "lists"), [(PRE_GEN, pre_gen_lists()), (POST_GEN, post_gen_lists())]
)
def test_the_lists_in_the_hooks_are_what_the_sources_say(hook: Path, lists: str) -> None:
    words = set(hook.read_text(encoding="utf-8").split("</refresh>")[0].split())
    new = sorted(set(lists.split()) - words)
    assert hook.read_text(encoding="utf-8") == refreshed(hook, lists), f"{REMEDY}; new: {new}"


def test_the_folders_of_templates_are_those_of_cookiecutter_json() -> None:
    folders = {path.name for path in TEMPLATES.iterdir() if not path.name.startswith((".", "__"))}
    assert folders == {"common", "jinja", "licenses", *VARIANTS}
    assert set(MODELS) == {"common", *VARIANTS}
    licenses = {path.stem for path in (TEMPLATES / "licenses").iterdir()}
    assert licenses == set(SETTINGS["license"])


def test_every_variant_has_the_same_files() -> None:
    def files(variant: str) -> set[str]:
        below = TEMPLATES / variant
        cached = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
        names = {
            path.relative_to(below).as_posix()
            for path in below.rglob("*")
            if path.is_file() and not cached & set(path.parts)
        }
        own = {f"{MODELS[variant].lower()}.py", *extra_sources()[variant]}
        return names - own | {"the model's file"}

    first = files(VARIANTS[0])
    for variant in VARIANTS:
        assert f"{MODELS[variant].lower()}.py" in sources(variant)
        assert files(variant) == first
        assert not set(sources(variant)) & set(sources("common"))


def test_no_path_exists_on_both_sides_of_an_include() -> None:
    # Jinja looks below the rendered folder first: a stub would include itself without end.
    below = {path.relative_to(TEMPLATES).as_posix() for path in TEMPLATES.rglob("*")}
    assert not below & {path.relative_to(RENDERED).as_posix() for path in RENDERED.rglob("*")}


def test_every_include_names_its_folder() -> None:
    for path in RENDERED.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            included = re.findall(r"\{% (?:include|from) (.+?) -?%\}|python\((.+?)\) -", text)
            assert all("/" in "".join(found) for found in included), path


def test_no_file_bears_a_name_that_misleads_a_tool_or_a_reader() -> None:
    names = {path.name for path in TEMPLATES.rglob("*") if path.is_file()}
    assert not names & {"ruff.toml", ".ruff.toml", "pyproject.toml", "utils.py", "datasets.py"}


@pytest.mark.parametrize("name", SOURCES)
def test_the_model_is_named_in_whole_words(name: str) -> None:
    # The rename replaces letters wherever they stand, so they may stand nowhere else.
    model = MODELS[name.split("/")[0]]
    for word in (model, model.lower()):
        text = source(name)
        assert len(re.findall(word, text)) == len(re.findall(rf"\b{word}\b", text)), word


@pytest.mark.parametrize("name", SOURCES)
def test_the_model_file_is_imported_for_its_class_alone(name: str) -> None:
    # `import resnetclassifier` would bind a second name that the user's choice could collide with.
    model = MODELS[name.split("/")[0]]
    for node in ast.walk(ast.parse(source(name))):
        if isinstance(node, ast.Import):
            assert model.lower() not in [alias.name for alias in node.names]


def test_scripts_are_executable_because_their_stubs_are() -> None:
    executable = {path.name for path in RENDERED.rglob("*.py") if path.stat().st_mode & 0o111}
    assert executable == {"train.py", "test.py", "predict.py", "report.py"}


def text_files() -> list[Path]:
    folders = (RENDERED, TEMPLATES, ROOT / "hooks")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    skipped = ("__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache")
    return [path for path in files if not set(skipped) & set(path.parts)]


@pytest.mark.parametrize("path", text_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_end_in_one_newline_and_hold_no_carriage_return(path: Path) -> None:
    data = path.read_bytes()
    assert b"\r" not in data
    assert not data or (data.endswith(b"\n") and not data.endswith(b"\n\n"))


def test_git_keeps_the_line_endings() -> None:
    assert "eol=lf" in (ROOT / ".gitattributes").read_text(encoding="utf-8")


def test_every_question_is_asked_in_words() -> None:
    prompts = SETTINGS["__prompts__"]
    for name, value in SETTINGS.items():
        if not name.startswith("_"):
            assert name in prompts
        if isinstance(prompts.get(name), dict):
            assert set(prompts[name]) == {"__prompt__", *value}


@pytest.mark.parametrize("hook", [PRE_GEN, POST_GEN], ids=lambda hook: hook.stem)
def test_hooks_are_ascii_of_the_standard_library_and_take_answers_as_data(hook: Path) -> None:
    text = hook.read_text(encoding="ascii")
    assert len(MARKS.findall(text)) == 1
    assert "json.loads(r'''{{ cookiecutter.items() | list | tojson }}''')" in text
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names
        assert not set(names) & {"socket", "subprocess", "urllib.request", "shutil"}


PYTHON = [path for path in text_files() if path.suffix == ".py" and RENDERED not in path.parents]


def lengths(path: Path) -> dict[str, int]:
    """Measures the functions of a file, in lines."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for node in nodes
        if isinstance(node, functions) and node.end_lineno
    }


def test_functions_and_files_can_be_read_in_one_sitting() -> None:
    functions = {name: lines for path in PYTHON for name, lines in lengths(path).items()}
    assert statistics.median(functions.values()) <= 12
    assert [name for name, lines in functions.items() if lines > 60] == []
    long = [path for path in PYTHON if len(path.read_text(encoding="utf-8").splitlines()) > 300]
    assert long == []


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_to_be_done(path: Path) -> None:
    assert not re.search(r"NotImplementedError|\bTODO\b|\bFIXME\b", path.read_text("utf-8"))


def test_excerpts_in_the_readme_are_those_of_train_py() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    excerpts = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    lines = (ROOT / "templates/common/train.py").read_text(encoding="utf-8").splitlines()
    source = "\n".join(line.strip() for line in lines)
    assert len(excerpts) == 2
    for excerpt in excerpts:
        assert "\n".join(line.strip() for line in excerpt.splitlines()) in source
