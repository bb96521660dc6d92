"""Whatever is answered, there is a sound project that says just that, or one sentence and nothing.

The answers are drawn. cookiecutter renders them and runs both hooks, in this process; the second
compiles every file and runs the guide's checks.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import importlib
import io
import json
import keyword
import os
import re
import runpy
import shutil
import string
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import fill_in
from cookiecutter import generate, hooks
from cookiecutter.exceptions import FailedHookException
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket
from refresh import MODELS, ROOT, TEMPLATES, VARIANTS, imported_modules, reserved_classes, sources
from test_hooks import answers_of
from test_renders import check_python

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Answers = dict[str, str]

# 500 draws that are the same each time, or as many others as this asks for.
OTHER_DRAWS = int(os.environ.get("OTHER_DRAWS", "0"))

# What something on the way to a file might take for its own.
MARKS = [
    "'", '"', "'''", '"""', "\\", "\\n", "\\u0041", "`x`", "$(touch x)", "%s", "{0}", "${{", "<b>",
    "{{", "}}", "{%", "%}", "{#", "#}", "{", "%", "#", "&amp;", "&#99999999999;", "../", "/", ".",
    "---", "- ", ": ", "[x]", "!!python/none", "*a", "=", "@", "nul", "null", "yes", "import os",
    "ResNetClassifier", "resnetclassifier",
]  # fmt: skip
LETTERS = ["\n", "\t", " ", "\N{GRINNING FACE}", "\N{OLD ITALIC LETTER A}", "数", "ß", "é", "रे"]
ODD = ["\ufeff", "\u202e", "\u2028", "\u2029", "\u200b", "\xa0", "\ufffd", "\ufffe", "\U0010ffff"]
UNPRINTABLE = ["\r", "\0", "\a", "\x1b[31m", "\x85", "\x0c", "\ud83d"]
SANE = st.sampled_from(["Digit Reader", "Ada Lovelace", "O'Neil & Söhne", "A" * 5000, ""])


def joined(*pieces: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Draws a text of some pieces."""
    return st.lists(st.one_of(*pieces), max_size=8).map("".join)


SHOWN = [
    st.sampled_from(MARKS),
    st.sampled_from(LETTERS),
    st.text(string.ascii_letters, max_size=4),
]
TEXTS = st.one_of(
    SANE,
    joined(*SHOWN),
    joined(*SHOWN, st.sampled_from(ODD)),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=30),
    joined(*SHOWN, st.sampled_from(UNPRINTABLE)) | st.text(max_size=10),
)
WORDS = st.text(st.characters(categories=["L", "Nd", "Mn", "Nl"]), min_size=1, max_size=20)
CLASSES = st.one_of(
    st.from_regex(r"[A-Z][A-Za-z0-9]{0,39}", fullmatch=True),
    WORDS.map(lambda word: word[0].upper() + word[1:]),
    st.from_regex(r"[A-Z][a-z]{36,42}", fullmatch=True),
    st.sampled_from(sorted({*MODELS.values(), *keyword.kwlist, *dir(builtins)})),
    st.sampled_from(sorted({name for folder in MODELS for name in reserved_classes(folder)})),
    TEXTS,
)
OURS = {Path(name).stem for folder in MODELS for name in sources(folder)} | {*imported_modules()}
MODULES = st.one_of(
    st.from_regex(r"[a-z_][a-z0-9_]{0,39}", fullmatch=True),
    WORDS,
    st.sampled_from([*keyword.kwlist, *keyword.softkwlist, *sorted(sys.stdlib_module_names)]),
    st.sampled_from(sorted(OURS)),
    TEXTS,
)
ANSWERS = st.fixed_dictionaries(
    {"project_name": TEXTS, "variant": st.sampled_from(VARIANTS)},
    optional={
        "author_name": TEXTS,
        "description": TEXTS,
        "model_name": CLASSES,
        "model_module": MODULES,
    },
)


class Bytecodes(BytecodeCache):
    """Jinja's compiled templates, which are the same for each render."""

    def __init__(self) -> None:
        self.codes: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if code := self.codes.get(bucket.key):
            bucket.bytecode_from_string(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self.codes[bucket.key] = bucket.bytecode_to_string()


def run_script(script_path: str, cwd: str | Path = ".") -> None:
    """Runs a hook in a folder as cookiecutter does, but in this process."""
    before, path, output = Path.cwd(), list(sys.path), io.TextIOWrapper(io.BytesIO(), "utf-8")
    errors = io.StringIO()
    os.chdir(cwd)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            runpy.run_path(script_path, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise FailedHookException(errors.getvalue()) from end
    finally:
        os.chdir(before)
        sys.path[:] = path
        gc.enable()
        Path(script_path).unlink()


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder; hooks run in this process, and templates are compiled once."""
    bytecodes, make = Bytecodes(), generate.create_env_with_context

    def make_environment(context: dict[str, Any]) -> Any:
        environment = make(context)
        environment.bytecode_cache = bytecodes
        return environment

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "create_env_with_context", make_environment)
        patch.setattr(hooks, "run_script", run_script)
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("scripts")))
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.syspath_prepend(TEMPLATES / "common/tests")
        importlib.import_module("guide")  # of which each project has a copy
        yield tmp_path_factory.mktemp("output")


def check_project(project: Path, answers: Answers) -> None:
    """Reads every answer back from the files that tell it."""
    check_python(project, answers["variant"], answers["model_name"], answers["model_module"])
    recorded = json.loads((project / ".cookiecutter.json").read_text(encoding="utf-8"))
    assert recorded["cookiecutter"] == answers
    # Metadata is made of lines, so there a newline is a space.
    name, description, author = (
        answers[key].replace("\n", " ") for key in ("project_name", "description", "author_name")
    )
    settings = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (settings["name"], settings["description"]) == (answers["project_slug"], description)
    assert settings.get("authors", []) == ([{"name": author}] if author.strip() else [])
    citation = yaml.safe_load((project / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["title"] == name
    assert citation["authors"] == [{"name": author if author.strip() else name}]


def check_refusal(text: str, folder: Path) -> None:
    """Sees that each bad answer has its sentence, and that what is proposed is not refused."""
    sentences, _, command = text.partition("\nTo render with that:\n")
    for sentence in sentences.splitlines():
        assert re.fullmatch(r"[a-z_]+ cannot be .+: .+; try .+\.", sentence), text
    context = fill_in(**answers_of(command))
    hooks.run_hook_from_repo_dir(str(ROOT), "pre_gen_project", str(folder), context, False)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@settings(
    max_examples=OTHER_DRAWS or 500,
    derandomize=not OTHER_DRAWS,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # to shrink an example takes minutes
)
@given(given_answers=ANSWERS)
def test_any_answers_give_a_sound_project_or_a_sentence(
    output: Path, given_answers: Answers
) -> None:
    context = fill_in(**given_answers)
    answers = {k: v for k, v in context["cookiecutter"].items() if not k.startswith("_")}
    try:
        project = generate.generate_files(str(ROOT), context, str(output))
    except FailedHookException as refusal:
        assert list(output.iterdir()) == []
        check_refusal(str(refusal), output)
    else:
        check_project(Path(project), answers)
    finally:
        shutil.rmtree(output)
        output.mkdir()
