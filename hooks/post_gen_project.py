"""Check what was rendered, change nothing, and say what to do next.

cookiecutter fills in this script and runs it inside the project. Should a check fail, the
template is at fault: names were all checked before the first file was written.
"""

# ruff: noqa: SIM905 (rows of words read better than a column of quoted ones)

from __future__ import annotations

import ast
import graphlib
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

# The list between the two marks is written by `python tests/refresh.py`.
# <refresh>
FILES = """
.gitignore LICENSE README.md data.py engine/__init__.py engine/annotations.py engine/augment.py
engine/cache.py engine/checkpoint.py engine/distributed.py engine/divergence.py
engine/drawn_data.py engine/evaluation.py engine/exits.py engine/export.py engine/files.py
engine/images.py engine/known_data.py engine/loading.py engine/lock.py engine/memory.py
engine/options.py engine/prefetch.py engine/progress.py engine/record.py engine/reproducibility.py
engine/resume.py engine/schedules.py engine/state.py engine/stopping.py engine/store.py
engine/weights.py layers.py losses.py networks.py ops.py predict.py prepare_data.py pyproject.toml
ruff.toml scripts/slurm.sbatch scripts/torchrun.sh test.py tests/conftest.py
tests/test_annotations.py tests/test_augment.py tests/test_cache.py tests/test_checkpoint.py
tests/test_data.py tests/test_distributed.py tests/test_divergence.py tests/test_engine.py
tests/test_exits.py tests/test_files.py tests/test_images.py tests/test_known_data.py
tests/test_layers.py tests/test_loading.py tests/test_losses.py tests/test_memory.py
tests/test_model.py tests/test_networks.py tests/test_ops.py tests/test_parallel.py
tests/test_predict.py tests/test_prefetch.py tests/test_prepare_data.py tests/test_record.py
tests/test_resume.py tests/test_scripts.py tests/test_train.py train.py
""".split()
# </refresh>
EXPECTED = [f"{MODEL}.py", *FILES]

# Which of the project's own modules each may import; the tests may import them all.
MAY_IMPORT = {
    "ops": "",
    "layers": "ops",
    "networks": "layers ops",
    "losses": "layers ops",
    MODEL: "networks layers losses ops engine",
    "engine": "engine",
    "data": "engine",
    "prepare_data": "networks data engine",
    "train": f"{MODEL} data engine",
    "test": f"{MODEL} data engine",
    "predict": f"{MODEL} data engine",
}

Trees = dict[str, ast.Module]


def missing_files() -> Iterator[str]:
    """Yields what was not written; a user's own files may stand beside ours."""
    for name in EXPECTED:
        if not Path(name).is_file():
            yield f"{name}: it was not written"


def parse(trees: Trees) -> Iterator[str]:
    """Compiles every Python file, fills in its tree, and yields what Python says against it."""
    for name in EXPECTED:
        if name.endswith(".py") and Path(name).is_file():
            try:
                trees[name] = ast.parse(Path(name).read_text(encoding="utf-8"))
                compile(trees[name], name, "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                yield f"{name}: Python cannot read it: {error}"


def template_marks() -> Iterator[str]:
    """Yields files where Jinja left a mark that no answer of the user's explains."""
    answers = [text for text in ANSWERS.values() if isinstance(text, str) and text]
    quoted = [json.dumps(text.replace("\n", " "), ensure_ascii=False)[1:-1] for text in answers]
    for name in EXPECTED:
        if Path(name).is_file():
            text = Path(name).read_text(encoding="utf-8")
            for answer in sorted(answers + quoted, key=len, reverse=True):
                text = text.replace(answer, "?")
            if re.search(r"\{[%#{]", text):
                yield f"{name}: a mark of the template was left in it"


def missing_model(trees: Trees) -> Iterator[str]:
    """Yields the model file if it does not define the class that bears the model's name."""
    tree = trees.get(f"{MODEL}.py", ast.Module([], []))
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    if ANSWERS["model_name"] not in classes:
        yield f"{MODEL}.py: it does not define the class {ANSWERS['model_name']}"


def module_name(path: str) -> str:
    """Names the module a file is imported as: engine/checkpoint.py is engine.checkpoint."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yields each module that is imported and each name wanted from it, '' for the whole."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # The one package a relative import can stand in is the engine.
            module = f"engine.{node.module or ''}".rstrip(".") if node.level else node.module or ""
            yield from ((module, alias.name) for alias in node.names)


def defined(tree: ast.Module) -> set[str]:
    """Collects the names a module offers to others."""
    names = set()
    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(statement.name)
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                names.add(node.id)
            elif isinstance(node, ast.alias):
                names.add(node.asname or node.name.split(".")[0])
    return names


def wrong_imports(trees: Trees) -> Iterator[str]:
    """Yields imports inside the project that lead nowhere, against the order, or in a circle."""
    modules = {module_name(path): defined(tree) for path, tree in trees.items()}
    ours = {module.split(".")[0] for module in modules}
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for path, tree in trees.items():
        importer = module_name(path)
        for module, name in imports(tree):
            package = module.split(".")[0]
            if package not in ours:
                continue
            target = f"{module}.{name}" if f"{module}.{name}" in modules else module
            graph[importer].add(target)
            if module not in modules:
                yield f"{path}: there is no module {module}"
            elif target == module and name not in {"", *modules[module]}:
                yield f"{path}: there is no {name} in {module}"
            allowed = MAY_IMPORT.get(importer.split(".")[0], " ".join(ours)).split()
            if package not in allowed:
                yield f"{path}: it may not import {module}"
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        yield f"{module_name(error.args[1][0])}: imports run in a circle: {' '.join(error.args[1])}"


def problems() -> list[str]:
    """Runs every check and lists what is wrong, each line beginning with a file."""
    trees: Trees = {}
    found = [*missing_files(), *parse(trees), *template_marks(), *missing_model(trees)]
    return found or list(wrong_imports(trees))


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


def main() -> int:
    """Checks the project and returns the exit status."""
    found = problems()
    if found:
        advice = "The template is at fault; --keep-project-on-failure keeps the files to look at."
        print(*found, advice, sep="\n", file=sys.stderr)
        return 1
    # Not every terminal can show every script's letters.
    encoding = sys.stdout.encoding
    print("\n".join(summary()).encode(encoding, "backslashreplace").decode(encoding))
    return 0


if __name__ == "__main__":
    sys.exit(main())
