"""A project as its files say it is: what it defines, and what uses what."""

import ast
import builtins
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from .source import Function, Node, Source, parse

Place = tuple[str, int, str]  # path, line, and what is wrong there

# The files that every project has, beside the model's.
PARTS = ("ops", "layers", "networks", "losses")
KNOWN = frozenset([*PARTS, "data", "prepare_data", "train", "test", "predict", "report", "engine"])
# What a class may be made of that makes no nn.Module of it.
PLAIN = ("abc.", "collections.", "dataclasses.", "enum.", "typing.")


class Finding(NamedTuple):
    """A place where the project departs from the guide."""

    path: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule} {self.text}"


class Rule(NamedTuple):
    """A rule of the guide: what finds the places that break it, and what to do there."""

    find: "Callable[[Project], Iterator[Place]]"
    remedy: str


class Definition(NamedTuple):
    """A function or class of the project, and the class that it is a method of, if any."""

    source: Source
    node: Function | ast.ClassDef
    owner: ast.ClassDef | None = None

    @property
    def name(self) -> str:
        """Its name in the source, with that of its class."""
        return f"{self.owner.name}.{self.node.name}" if self.owner else self.node.name

    def code(self) -> list[ast.AST]:
        """Returns the nodes of it that are run; a class's methods are definitions of their own."""
        return self.source.code(self.node)


class Project:
    """All Python files of a project but its tests.

    Args:
        root: its folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sources: dict[str, Source] = {}
        self.unreadable: list[Finding] = []
        packages = [path.parent for path in root.glob("*/__init__.py")]  # data may lie beside them
        inner = [path for folder in packages for path in folder.rglob("*.py")]
        for path in sorted([*root.glob("*.py"), *inner]):
            name = path.relative_to(root).as_posix()
            if name.split("/")[0] != "tests":
                try:
                    source = parse(name, path.read_text(encoding="utf-8"))
                except (SyntaxError, ValueError) as error:
                    self.unreadable.append(Finding(name, 1, "syntax", f"is wrong: {error}"))
                else:
                    self.sources[source.module] = source

    def nodes(self, kind: type[Node], *modules: str) -> Iterator[tuple[Source, Node]]:
        """Yields the nodes of a type in the named modules; in all, if none is named."""
        for source in self.sources.values():
            if not modules or source.module in modules:
                yield from ((source, node) for node in source.nodes(kind))

    def names(self, *modules: str) -> Iterator[tuple[Source, ast.expr, str]]:
        """Yields what modules, all or the named ones, refer to, and what that stands for."""
        kinds: tuple[type[ast.expr], ...] = ast.Name, ast.Attribute
        for kind in kinds:
            for source, node in self.nodes(kind, *modules):
                yield source, node, source.dotted(node)

    @cached_property
    def definitions(self) -> dict[str, Definition]:
        """Functions, classes and methods by their dotted names."""
        found = {}
        for source in self.sources.values():
            for node in source.tree.body:
                if isinstance(node, Function | ast.ClassDef):
                    found[f"{source.module}.{node.name}"] = Definition(source, node)
                for method in node.body if isinstance(node, ast.ClassDef) else []:
                    if isinstance(node, ast.ClassDef) and isinstance(method, Function):
                        name = f"{source.module}.{node.name}.{method.name}"
                        found[name] = Definition(source, method, node)
        return found

    @cached_property
    def model(self) -> tuple[str, str]:
        """Module and class of the finished model: what train.py imports beside the known files."""
        train = self.sources.get("train")
        for node in train.tree.body if train else []:
            if isinstance(node, ast.ImportFrom) and node.module in self.sources:
                is_known = node.module.split(".")[0] in KNOWN
                if not is_known:
                    return node.module, node.names[0].name
        return "", ""

    def bases(self, name: str) -> list[str]:
        """Returns a class of the project, its bases, and theirs; others end the search."""
        found = [name]
        for each in found:  # which grows meanwhile
            known = self.definitions.get(each)
            for base in known.node.bases if known and isinstance(known.node, ast.ClassDef) else []:
                base = base.value if isinstance(base, ast.Subscript) else base  # a generic's
                dotted = known.source.dotted(base) if known else ""
                found += [dotted] if dotted not in found else []
        return found

    def is_module(self, name: str) -> bool:
        """Says whether a class is an nn.Module, as far as one can tell without importing it."""
        others = [base for base in self.bases(name) if base not in self.definitions]
        return not all(base.startswith(PLAIN) or hasattr(builtins, base) for base in others)

    def module_classes(self) -> Iterator[tuple[str, Definition]]:
        """Yields the project's classes that are nn.Modules, by their dotted names."""
        for name, each in self.definitions.items():
            if isinstance(each.node, ast.ClassDef) and self.is_module(name):
                yield name, each

    def method(self, owner: str, name: str) -> Definition | None:
        """Returns a method of a class of the project, its own or inherited."""
        for base in self.bases(owner):
            if found := self.definitions.get(f"{base}.{name}"):
                return found
        return None

    def uses(self, each: Definition) -> Iterator[Definition]:
        """Yields what of the project a function or class refers to."""
        for node in each.code():
            name = each.source.dotted(node, each.node)
            if name.startswith("self.") and each.owner:
                owner = f"{each.source.module}.{each.owner.name}"
                found = self.method(owner, name.removeprefix("self."))
            else:
                found = self.definitions.get(name)
            if found and found.node is not each.node:
                yield found
        if isinstance(each.node, ast.ClassDef):
            prefix = f"{each.source.module}.{each.name}"
            own = (node for node in each.node.body if isinstance(node, Function))
            yield from (self.definitions[f"{prefix}.{node.name}"] for node in own)

    def reachable(self, *starts: Definition) -> list[Definition]:
        """Returns the definitions, and what of the project they use, directly or not."""
        seen: dict[ast.AST, Definition] = {}
        waiting = list(starts)
        while waiting:
            each = waiting.pop()
            if each.node not in seen:
                seen[each.node] = each
                waiting += self.uses(each)
        return list(seen.values())

    @cached_property
    def training(self) -> list[Definition]:
        """What train.py defines and uses, directly or not."""
        train = [each for each in self.definitions.values() if each.source.module == "train"]
        return self.reachable(*train)

    def allows(self, path: str, line: int, rule: str) -> bool:
        """Says whether a comment in the line allows to depart from the rule, with a reason."""
        sources = (each for each in self.sources.values() if each.path == path)
        return any(
            each.comments.get(line, ("", None))[0] == rule and each.comments[line][1]
            for each in sources
        )

    def unreasoned(self) -> Iterator[Finding]:
        """Yields comments that ask to be allowed something without a reason."""
        for source in self.sources.values():
            for line, (rule, reason) in source.comments.items():
                if not reason:
                    text = "is to be allowed without a reason: write `because ...` behind it"
                    yield Finding(source.path, line, rule, text)
