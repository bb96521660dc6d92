"""Write what follows from the sources: the stubs, and the lists that stand in the hooks.

Run `python tests/refresh.py` after a source file was added, renamed or taken away. The tests call
the same functions and fail when something is missing, extra or stale.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import jinja2

ROOT = Path(__file__).parent.parent
TEMPLATES = ROOT / "templates"
RENDERED = ROOT / "{{cookiecutter.project_slug}}"
PRE_GEN = ROOT / "hooks" / "pre_gen_project.py"
POST_GEN = ROOT / "hooks" / "post_gen_project.py"

SETTINGS = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
VARIANTS: list[str] = SETTINGS["variant"]
MODELS: dict[str, str] = SETTINGS["_models"]  # by folder, the class its sources are written against

STUB = '{{% from "jinja/macros.jinja" import python with context -%}}{{{{ python({path}) -}}}}\n'
SUFFIXES = (".py", ".ipynb")  # of the files that have a source in templates/
MODEL_STUB = "{{cookiecutter.model_module}}.py"


def sources(folder: str) -> list[str]:
    """Lists the Python files of a folder of templates/, relative to it."""
    below = TEMPLATES / folder
    return sorted(path.relative_to(below).as_posix() for path in below.rglob("*.py"))


def texts(folder: str) -> list[str]:
    """Lists all files of a folder that become one of a project under the same name."""
    below = TEMPLATES / folder
    notebooks = sorted(path.relative_to(below).as_posix() for path in below.rglob("*.ipynb"))
    return sources(folder) + [name for name in notebooks if "checkpoints" not in name]


def tree(folder: str, name: str) -> ast.Module:
    """Parses one source."""
    return ast.parse((TEMPLATES / folder / name).read_text(encoding="utf-8"))


def shared_sources() -> set[str]:
    """Lists the files that every variant has, beside its model's."""
    return set.intersection(*(set(sources(variant)) for variant in VARIANTS))


def extra_sources() -> dict[str, list[str]]:
    """Lists the files that only some variants have, by variant."""
    shared = shared_sources()
    models = {f"{model.lower()}.py" for model in MODELS.values()}
    return {each: sorted(set(sources(each)) - shared - models) for each in VARIANTS}


def stubs() -> dict[str, str]:
    """Maps each Python stub to the text it must have.

    A file that only some variants have lies under a name that is empty for the others, which
    cookiecutter passes over.
    """
    wanted = {name: STUB.format(path=f'"common/{name}"') for name in texts("common")}
    for name in shared_sources():
        wanted[name] = STUB.format(path=f'cookiecutter.variant ~ "/{name}"')
    model = 'cookiecutter._models[cookiecutter.variant] | lower ~ ".py"'
    wanted[MODEL_STUB] = STUB.format(path=f'cookiecutter.variant ~ "/" ~ {model}')
    for variant, names in extra_sources().items():
        for name in names:
            folder, _, file = f"/{name}".rpartition("/")
            condition = f"{{% if cookiecutter.variant == '{variant}' %}}{file}{{% endif %}}"
            wanted[f"{folder}/{condition}".lstrip("/")] = STUB.format(path=f'"{variant}/{name}"')
    return wanted


def rendered_name(stub: str, variant: str, module: str) -> str | None:
    """Returns what a stub is called in a project; None if the variant has no such file."""
    answers = {"variant": variant, "model_module": module}
    name = jinja2.Template(stub).render(cookiecutter=answers)
    return None if name.endswith("/") or not name else name


def is_stub(path: Path) -> bool:
    """Says whether a file of the rendered folder has its source in templates/."""
    return any(f"{suffix}" in path.name for suffix in SUFFIXES)


def rendered_files() -> list[str]:
    """Lists what a project of any variant holds beside the model file."""
    others = {
        path.relative_to(RENDERED).as_posix()
        for path in RENDERED.rglob("*")
        if path.is_file() and not is_stub(path)
    }
    return sorted(others | shared_sources() | set(texts("common")))


def words(node: ast.AST) -> Iterator[str]:
    """Yields the names that a piece of Python binds or reads at this node."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.alias):
        yield node.asname or node.name
    elif isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        yield node.name


def reserved_classes(folder: str) -> list[str]:
    """Lists the CapWords a model may not be called, because a source gives them a meaning.

    Every class counts, and every name in a file where the model's name stands.
    """
    found: set[str] = set()
    for name in sources(folder):
        nodes = list(ast.walk(tree(folder, name)))
        here = {word for node in nodes for word in words(node)}
        if MODELS[folder] not in here:
            here = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
        found |= here
    found -= {MODELS[folder], *dir(builtins)}
    return sorted(name for name in found if name[0].isupper() and "_" not in name)


def imported_modules() -> list[str]:
    """Lists what a project has or imports under one name, the standard library left out."""
    found = {"conftest", "tests"}
    for folder in MODELS:
        for name in sources(folder):
            parts = name.removesuffix(".py").split("/")
            found |= set(parts[: 1 + (parts[0] == "tests")])  # pytest puts tests/ on Python's path
            for node in ast.walk(tree(folder, name)):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.split(".")[0])
    return sorted(found - {name.lower() for name in MODELS.values()} - sys.stdlib_module_names)


def packages() -> list[str]:
    """Lists the packages a project may install, as PyPI writes their names."""
    texts = [RENDERED / "pyproject.toml", *TEMPLATES.glob("*/dependencies.toml")]
    names = re.findall(r'"([\w.-]+)>=', "".join(path.read_text(encoding="utf-8") for path in texts))
    return sorted({re.sub(r"[-_.]+", "-", name).lower() for name in names})


def block(name: str, found: list[str]) -> str:
    """Writes a list as Python, many words to a line."""
    lines = textwrap.fill(" ".join(found), 99, break_long_words=False, break_on_hyphens=False)
    return f'{name} """\n{lines}\n""".split()'


def pre_gen_lists() -> str:
    """Writes the lists of hooks/pre_gen_project.py."""
    classes = [block(f'    "{folder}":', reserved_classes(folder)) + "," for folder in MODELS]
    lists = [block("PACKAGES =", packages()), block("MODULES =", imported_modules())]
    return "\n".join([*lists, "CLASSES = {", *classes, "}"])


def post_gen_lists() -> str:
    """Writes the lists of hooks/post_gen_project.py."""
    extra = {variant: names for variant, names in extra_sources().items() if names}
    lists = [block(f'    "{variant}":', names) + "," for variant, names in extra.items()]
    return "\n".join([block("FILES =", rendered_files()), "EXTRA_FILES = {", *lists, "}"])


def refreshed(hook: Path, lists: str) -> str:
    """Returns a hook's text with the lists between its two marks written anew."""
    head, rest = hook.read_text(encoding="utf-8").split("# <refresh>\n")
    return f"{head}# <refresh>\n{lists}\n# </refresh>{rest.split('# </refresh>')[1]}"


def main() -> None:
    """Brings stubs and hooks up to date, and says what changed."""
    files = {RENDERED / name: text for name, text in stubs().items()}
    for path in {each for each in RENDERED.rglob("*") if is_stub(each)} - set(files):
        print(f"removed {path.relative_to(ROOT)}")
        path.unlink()
    files[PRE_GEN] = refreshed(PRE_GEN, pre_gen_lists())
    files[POST_GEN] = refreshed(POST_GEN, post_gen_lists())
    for path, text in files.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"wrote {path.relative_to(ROOT)}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
    for name in ("train.py", "test.py", "predict.py", "report.py"):
        if (RENDERED / name).exists():
            (RENDERED / name).chmod(0o755)


if __name__ == "__main__":
    main()
