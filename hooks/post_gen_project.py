"""Check what was rendered, change nothing, and say what to do next.

cookiecutter fills in this script and runs it inside the project. Should a check fail, the
template is at fault: names were all checked before the first file was written.
"""

# ruff: noqa: SIM905 (rows of words read better than a column of quoted ones)

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Answers are data, never code: `tojson` writes each quote of theirs as an escape.
PAIRS = json.loads(r'''{{ cookiecutter.items() | list | tojson }}''')  # fmt: skip
ANSWERS: dict[str, Any] = dict(PAIRS)
MODEL: str = ANSWERS["model_module"]

# The lists between the two marks are written by `python tests/refresh.py`.
# <refresh>
FILES = """
.cookiecutter.json .github/dependabot.yml .github/workflows/tests.yml .gitignore
.pre-commit-config.yaml .vscode/extensions.json .vscode/launch.json .vscode/settings.json AGENTS.md
CITATION.cff LICENSE README.md data.py engine/__init__.py engine/augment.py engine/average.py
engine/cache.py engine/checking.py engine/checkpoint.py engine/debugging.py engine/distributed.py
engine/divergence.py engine/drawn_data.py engine/environment.py engine/evaluation.py
engine/exits.py engine/export.py engine/files.py engine/history.py engine/images.py
engine/known_data.py engine/loading.py engine/lock.py engine/memory.py engine/options.py
engine/parser.py engine/prefetch.py engine/progress.py engine/record.py engine/report_page.py
engine/report_plots.py engine/report_style.py engine/reproducibility.py engine/resume.py
engine/schedules.py engine/speed.py engine/state.py engine/stopping.py engine/store.py
engine/weights.py layers.py losses.py networks.py notebooks/explore.ipynb ops.py predict.py
prepare_data.py pyproject.toml report.py ruff.toml scripts/slurm.sbatch scripts/torchrun.sh test.py
tests/conftest.py tests/guide/__init__.py tests/guide/__main__.py tests/guide/files.py
tests/guide/modules.py tests/guide/project.py tests/guide/source.py tests/guide/training.py
tests/small.py tests/test_augment.py tests/test_cache.py tests/test_checkpoint.py
tests/test_cuda.py tests/test_data.py tests/test_debugging.py tests/test_distributed.py
tests/test_divergence.py tests/test_engine.py tests/test_environment.py tests/test_exits.py
tests/test_files.py tests/test_guide.py tests/test_images.py tests/test_known_data.py
tests/test_layers.py tests/test_loading.py tests/test_losses.py tests/test_memory.py
tests/test_model.py tests/test_networks.py tests/test_notebook.py tests/test_ops.py
tests/test_parallel.py tests/test_predict.py tests/test_prefetch.py tests/test_prepare_data.py
tests/test_record.py tests/test_report.py tests/test_resume.py tests/test_scripts.py
tests/test_speed.py tests/test_train.py tests/test_waits.py train.py
""".split()
EXTRA_FILES = {
    "detector": """
annotations.py tests/test_annotations.py
""".split(),
    "segmenter": """
tests/test_augmentation.py
""".split(),
}
# </refresh>
EXPECTED = [f"{MODEL}.py", *FILES, *EXTRA_FILES.get(ANSWERS["variant"], [])]


def missing_files() -> Iterator[str]:
    """Yields what was not written; a user's own files may stand beside ours."""
    for name in EXPECTED:
        if not Path(name).is_file():
            yield f"{name}: it was not written"


def unreadable() -> Iterator[str]:
    """Compiles every Python file, and yields what Python says against it."""
    for name in EXPECTED:
        if name.endswith(".py") and Path(name).is_file():
            try:
                compile(Path(name).read_text(encoding="utf-8"), name, "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                yield f"{name}: Python cannot read it: {error}"


def template_marks() -> Iterator[str]:
    """Yields files where Jinja left a mark that no answer of the user's explains."""
    answers = [text for text in ANSWERS.values() if isinstance(text, str) and text]
    lines = [json.dumps(text.replace("\n", " "), ensure_ascii=False)[1:-1] for text in answers]
    shown = {*answers, *lines, *(json.dumps(text)[1:-1] for text in answers)}
    for name in EXPECTED:
        text = Path(name).read_text(encoding="utf-8") if Path(name).is_file() else ""
        marks = re.finditer(r"(?<!\$)\{[%#{]", text)  # GitHub has marks behind a $
        if not all(any(covers(each, text, mark.start()) for each in shown) for mark in marks):
            yield f"{name}: a mark of the template was left in it"


def covers(answer: str, text: str, place: int) -> bool:
    """Says whether an answer is shown where it has a letter of the two at a place, or both."""
    return answer in text[max(0, place + 1 - len(answer)) : place + 1 + len(answer)]


def missing_model() -> Iterator[str]:
    """Yields the model file if it does not define the class that bears the model's name."""
    path = Path(f"{MODEL}.py")
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not re.search(rf"^class {ANSWERS['model_name']}\b", text, re.MULTILINE):
        yield f"{path}: it does not define the class {ANSWERS['model_name']}"


def departures() -> Iterator[str]:
    """Yields where the files depart from the guide, as the project's own checker sees it."""
    sys.dont_write_bytecode = True  # or Python would leave a folder behind
    sys.path.insert(0, "tests")
    guide = importlib.import_module("guide")  # it reads the files, and runs none of them
    yield from (str(each) for each in guide.check(Path()) if each.path in EXPECTED)


def problems() -> list[str]:
    """Runs every check and lists what is wrong, each line beginning with a file."""
    found = [*missing_files(), *unreadable(), *template_marks(), *missing_model()]
    return found or list(departures())


def summary() -> Iterator[str]:
    """Yields the choices made, so that a mistyped one is seen, and the next three commands."""
    yield "Rendered with these choices:"
    for key, text in ANSWERS.items():
        if not key.startswith("_"):
            yield f"  {key:<16}" + text.replace("\n", "\n" + " " * 18)
    ours = (Path(), Path("engine"), Path("tests"))
    others = {path.as_posix() for folder in ours for path in folder.glob("*.py")}
    if others - set(EXPECTED):
        yield f"Left as they were, not of this render: {', '.join(sorted(others - set(EXPECTED)))}"
    here = Path.cwd()
    beside = str(here.parent) == os.environ.get("PWD")
    yield "Next:"
    yield f"  cd {shlex.quote(here.name if beside else str(here))}"
    yield '  pip install -e ".[demo,dev]"'
    yield "  python prepare_data.py && python train.py"


def is_for_comparison() -> bool:
    """Says whether `cruft update` renders, in a temporary folder, where nobody is to go on."""
    return "_commit" in ANSWERS and bool(re.fullmatch(r"tmp\w{8}", Path.cwd().parent.name))


def main() -> int:
    """Checks the project and returns the exit status."""
    gc.disable()  # in syntax trees is no garbage, but to look for it takes as long as the rest
    found = problems()
    if found:
        advice = "The template is at fault; --keep-project-on-failure keeps the files to look at."
        print(*found, advice, sep="\n", file=sys.stderr)
        return 1
    if is_for_comparison():
        return 0
    # Not every terminal can show every script's letters.
    encoding = sys.stdout.encoding
    print("\n".join(summary()).encode(encoding, "backslashreplace").decode(encoding))
    return 0


if __name__ == "__main__":
    sys.exit(main())
