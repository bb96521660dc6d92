"""What mkdocs builds the site from: texts and trees that stand elsewhere, read at each build.

A page of docs/ takes a section from another file by a line of its own:

    --8<-- "README.md#Two commands"           the section under this heading, down to the next
    --8<-- "README.md#Two commands" lead      its own text, without headings
    --8<-- "classifier/README.md#Training"    of a project as it is rendered

Each variant's page is put together from its row and its section in README.md, the README of its
project, and the files of the latter. mkdocs calls the functions whose names begin with `on_`.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cookiecutter.main import cookiecutter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
VARIANTS: list[str] = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))["variant"]

# Texts that have a page of their own; links to all other files lead to the repository.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    **{f"{variant}/README.md": f"gallery/{variant}_readme.md" for variant in VARIANTS},
}
CARDS = "<!-- cards -->"  # where a page shows a card of each variant
INCLUDE = re.compile(r'^--8<-- "(.+?)(?:#(.+))?"( lead)?$', re.MULTILINE)
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:|#)([^)#]+)(#[^)]*)?\)")
PICTURE = re.compile(r"!\[(.+?)\]\((.+?)\)")

_FOLDER = tempfile.TemporaryDirectory()
RENDERED = Path(_FOLDER.name)  # a project of each variant, called as the variant


def render(output: Path) -> None:
    """Renders a project of each variant, without what this machine's user has set."""
    own = output / "config.json"
    own.write_text(json.dumps({"replay_dir": str(output / "replay")}), encoding="utf-8")
    for variant in VARIANTS:
        cookiecutter(
            str(ROOT),
            no_input=True,
            extra_context={"variant": variant, "project_slug": variant},
            output_dir=str(output),
            config_file=str(own),
            accept_hooks=False,
            overwrite_if_exists=True,  # `mkdocs serve` builds again and again
        )


def headings(text: str) -> list[tuple[int, int, str]]:
    """Lists position, level and title of a text's headings; code holds none."""
    blank = FENCED.sub(lambda match: " " * len(match[0]), text)
    return [(each.start(), len(each[1]), each[2]) for each in HEADING.finditer(blank)]


def section(text: str, title: str) -> str:
    """Returns the section under a heading, with what is below it, as one of the second level."""
    found = headings(text)
    for number, (start, own, name) in enumerate(found):
        if name == title:
            ends = (place for place, other, _ in found[number + 1 :] if other <= own)
            part = text[start : next(ends, len(text))]
            for place, deeper, _ in reversed(headings(part)):
                part = f"{part[:place]}{'#' * (deeper - own + 2)}{part[place + deeper :]}"
            return part.rstrip() + "\n"
    raise PluginError(f"no text has the heading {title!r} any more")


def first_part(text: str) -> str:
    """Returns a section without its own heading and without those below it."""
    starts = [start for start, _, _ in headings(text)]
    return text[text.index("\n") : starts[1] if len(starts) > 1 else None].strip() + "\n"


def moved_links(text: str, source: str, page: str, repository: str) -> str:
    """Has the links and pictures of a text from elsewhere lead, from a page, to where they did."""

    def moved(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if path not in PAGES and not path.startswith("docs/"):
            return f"]({repository}/tree/main/{path})"
        target = PAGES.get(path) or path.removeprefix("docs/")
        return f"]({posixpath.relpath(target, posixpath.dirname(page))}{match[2] or ''})"

    parts = FENCED.split(text)
    parts[::2] = [LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts)


def source_text(name: str) -> str:
    """Reads a text of the repository or, below a variant's name, of its project."""
    folder = RENDERED if name.split("/")[0] in VARIANTS else ROOT
    return (folder / name).read_text(encoding="utf-8")


def included(name: str, title: str | None, lead: str | None) -> str:
    """Returns what a line that begins with `--8<--` stands for."""
    text = source_text(name)
    part = section(text, title) if title else text
    return first_part(part) if lead else part


def row(variant: str) -> list[str]:
    """Returns what the table of variants in the README says of one: task, model, data."""
    for line in section(source_text("README.md"), "Variants").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == f"`{variant}`":
            return cells[1:]
    raise PluginError(f"README.md has no row for the variant {variant}")


def results(variant: str) -> str:
    """Returns the heading of the section of the README that says what a variant reaches."""
    text = source_text("README.md")
    mark = text.find(f"<!-- variant: {variant} -->")
    above = [title for start, _, title in headings(text) if start < mark]
    if not above:
        raise PluginError(f"README.md has no section marked by <!-- variant: {variant} -->")
    return above[-1]


def purpose(path: Path) -> str:
    """Returns the first line of a Python file's docstring."""
    if path.suffix != ".py":
        return ""
    words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return words.split("\n")[0].rstrip(".")


def tree(folder: Path, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yields each file and folder of a project, indented, with what it is for."""
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        name = "  " * depth + path.name
        if path.is_dir():
            yield f"{name}/", ""
            yield from tree(path, depth + 1)
        else:
            yield name, purpose(path)


def drawn_tree(folder: Path) -> str:
    """Writes the tree of a project in two columns."""
    lines = [(f"{folder.name}/", ""), *((f"  {name}", text) for name, text in tree(folder))]
    width = max(len(name) for name, _ in lines) + 2
    drawn = "\n".join(f"{name:<{width}}{text}".rstrip() for name, text in lines)
    return f"```text\n{drawn}\n```\n"


def variant_page(variant: str) -> str:
    """Puts together the page of a variant."""
    task, model, data = row(variant)
    return f"""# {variant}

Learns to {task}.

| | |
| --- | --- |
| model | {model} |
| data out of the box | {data} |

```
cookiecutter . --no-input variant={variant}
```

--8<-- "README.md#{results(variant)}"

## The model

--8<-- "{variant}/README.md#The model" lead

[The project's README]({variant}_readme.md) goes on from here, with your own data and every flag.

## The files

As rendered, with the first line of each Python file:

{drawn_tree(RENDERED / variant)}"""


def cards() -> str:
    """Writes a card for each variant: what it learns, and its first picture, as in the README."""
    readme = source_text("README.md")
    found = []
    for variant in VARIANTS:
        task, *_ = row(variant)
        picture = PICTURE.search(section(readme, results(variant)))
        found.append(f"-   [**{variant}**](docs/gallery/{variant}.md): {task}")
        found.append("    " + (picture[0] if picture else ""))
    return "\n\n".join(['<div class="grid cards" markdown>', *found, "</div>"])


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Renders the projects, and gives each variant its place below the gallery."""
    render(RENDERED)
    for entry in config.nav or []:
        if "Gallery" in entry:
            entry["Gallery"] += [f"gallery/{variant}.md" for variant in VARIANTS]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds each variant's page, and the README of its project, which only that page leads to."""
    for variant in VARIANTS:
        texts = {f"gallery/{variant}.md": variant_page(variant)}
        texts[f"gallery/{variant}_readme.md"] = (
            f'---\ntitle: README of the {variant}\n---\n--8<-- "{variant}/README.md"\n'
        )
        for path, text in texts.items():
            level = InclusionLevel.NOT_IN_NAV if path in PAGES.values() else InclusionLevel.INCLUDED
            files.append(File.generated(config, path, content=text, inclusion=level))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fills in what a page takes from elsewhere."""
    path = page.file.src_uri

    def moved(text: str, source: str) -> str:
        return moved_links(text, source, path, config.extra["repository"])

    parts = FENCED.split(moved(markdown, f"docs/{path}"))
    parts[::2] = [
        INCLUDE.sub(lambda m: moved(included(*m.groups()), m[1]), part) for part in parts[::2]
    ]
    return "".join(parts).replace(CARDS, moved(cards(), "README.md"))


def on_post_build(config: MkDocsConfig) -> None:
    """Writes the search's index as a script, too: a page opened from a folder can read no other."""
    index = Path(config.site_dir) / "search" / "search_index.json"
    text = f"var __index = {index.read_text(encoding='utf-8')}"
    index.with_suffix(".js").write_text(text, encoding="utf-8")
