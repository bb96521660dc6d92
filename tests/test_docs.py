"""The site: it builds without a warning, shows what the files say, and needs no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import Render
from refresh import ROOT, VARIANTS

LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Links(HTMLParser):
    """What a page loads, what it leads to, and the places in it that can be led to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.leads_to: list[str] = []
        self.places: set[str] = {""}
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if identifier := found.get("id"):
            self.places.add(identifier)
        navigates = found.get("rel") in ("next", "prev", "canonical")
        if (address := found.get(LOADED.get(tag, ""))) and not navigates:
            self.loaded.append(address)
        if tag == "a" and (address := found.get("href")):
            self.leads_to.append(address)


def build(site: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Builds the site; a warning is an error."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site), *more]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    # No link to the page of what was not found is relative, since it is shown anywhere.
    return {path: Links(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_nothing_comes_from_elsewhere(site: Path, pages: dict[Path, Links]) -> None:
    for page in pages.values():
        assert [each for each in page.loaded if urlsplit(each).netloc] == []
    for path in site.rglob("*.css"):
        assert not re.search(r"@import|url\([\"']?(https?:)?//", path.read_text(encoding="utf-8"))


def test_every_picture_and_every_inner_link_is_there(pages: dict[Path, Links]) -> None:
    for path, page in pages.items():
        for address in [*page.loaded, *page.leads_to]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.name}: {address}"
            if target in pages:
                assert unquote(parts.fragment) in pages[target].places, f"{path.name}: {address}"


def shown_text(page: Path) -> str:
    """Returns the words of a page."""
    text = re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_has_a_page_with_its_files_figures_and_picture(
    site: Path, pages: dict[Path, Links], render: Render, variant: str
) -> None:
    page = site / "gallery" / f"{variant}.html"
    text = shown_text(page)
    project = render(variant=variant)
    names = {path.name for path in project.rglob("*")}
    assert [name for name in names if name not in text] == []
    assert re.search(r"(?<!\d)0?\.\d{3}|\d\.\d{2}", text), "no figure"
    pictures = [each for each in pages[page].loaded if "pictures/" in each]
    assert pictures, "no picture"
    for other in ("index.html", "gallery/index.html"):
        shown = {Path(each).name for each in pages[site / other].loaded}
        assert Path(pictures[0]).name in shown
        assert any(each.endswith(page.name) for each in pages[site / other].leads_to)


def test_every_section_of_the_readme_is_shown_somewhere(site: Path) -> None:
    text = " ".join(shown_text(path) for path in site.rglob("*.html"))
    readme = re.sub(r"^```.*?^```", "", (ROOT / "README.md").read_text("utf-8"), flags=re.M | re.S)
    otherwise = {"Contributing", "What is measured"}  # a page of its own; in parts, on several
    for title in set(re.findall(r"^##+ (.+)$", readme, re.M)) - otherwise:
        assert title in text, f"docs/ takes the section {title!r} of README.md nowhere"


def test_a_section_that_is_not_there_any_more_stops_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text('--8<-- "README.md#No such heading"\n', encoding="utf-8")
    settings = f"site_name: x\nhooks: ['{ROOT}/docs/hook.py']\nextra: {{repository: x}}\n"
    (tmp_path / "mkdocs.yml").write_text(settings, encoding="utf-8")
    done = build(tmp_path / "site", "--config-file", str(tmp_path / "mkdocs.yml"))
    assert done.returncode != 0
    assert "no text has the heading 'No such heading'" in done.stdout + done.stderr


def test_the_tree_in_the_readme_is_that_of_a_project(render: Render) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"^digit-reader/\n(.*?)^```", readme, re.M | re.S)
    project = render()
    found = {f"{path.name}/" if path.is_dir() else path.name for path in project.iterdir()}
    assert found - set(tree.split()) == set()
    assert set(re.findall(r"^  (\S+)", tree, re.M)) - found == set()
    engine = {path.name for path in (project / "engine").iterdir()} - {"__init__.py"}
    assert re.findall(r"^    (\S+)", tree, re.M) == sorted(engine)
