"""A file as its syntax tree says it is: what it imports, and what each name stands for."""

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, TypeVar

Node = TypeVar("Node", bound=ast.AST)
Function = ast.FunctionDef | ast.AsyncFunctionDef
COMMENT = re.compile(r"#\s*guide:\s*allow\s+(\w+)(?:\s+because\s+(\S.*))?")


class Source:
    """One file of the project.

    Args:
        path: relative to the project.
        text: of the file.
    """

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.tree = ast.parse(text)
        self.module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self._kinds: dict[type, list[Any]] = defaultdict(list)
        for node in ast.walk(self.tree):
            self._kinds[type(node)].append(node)
        self.names = dict(_bindings(self))
        self.comments = dict(_comments(text)) if "guide:" in text else {}
        self._locals: dict[ast.AST, set[str]] = {}
        self._code: dict[ast.AST, list[ast.AST]] = {}

    def nodes(self, kind: type[Node]) -> list[Node]:
        """Returns the nodes of exactly this type, in no order to rely on."""
        return self._kinds[kind]

    @cached_property
    def imports(self) -> list[tuple[int, str, str]]:
        """Line, dotted name and name in this file of each import, in the text's order.

        `import a.b` gives none of its own: that name is empty.
        """
        found = []
        for node in self.nodes(ast.Import):
            found += [(node.lineno, alias.name, alias.asname or "") for alias in node.names]
        for each in self.nodes(ast.ImportFrom):
            package = f"{self.module.split('.')[0]}." if each.level else ""
            origin = f"{package}{each.module or ''}".strip(".")
            for alias in each.names:
                found.append((each.lineno, f"{origin}.{alias.name}", alias.asname or alias.name))
        return sorted(found, key=lambda place: place[0])

    @cached_property
    def offered(self) -> set[str]:
        """The names that other files may import from it."""
        plain = (each for each in self.tree.body if not isinstance(each, Function | ast.ClassDef))
        nodes = chain.from_iterable(ast.walk(each) for each in plain)
        return {*self.names, *(node.id for node in nodes if isinstance(node, ast.Name)), "*"}

    def dotted(self, node: ast.AST, within: ast.AST | None = None) -> str:
        """Returns what a name stands for: numpy.mean for np.mean; nothing if it is no name.

        Args:
            node: an expression.
            within: the function it stands in, whose own variables stand for nothing known.
        """
        if isinstance(node, ast.Attribute):
            base = self.dotted(node.value, within)
            return base and f"{base}.{node.attr}"
        if not isinstance(node, ast.Name):
            return ""
        if within is not None and node.id in self.locals(within):
            return node.id if node.id == "self" else f"<local>.{node.id}"
        return self.names.get(node.id, node.id)

    def code(self, node: Function | ast.ClassDef) -> list[ast.AST]:
        """Returns the nodes of a definition that are run; see `Definition.code`."""
        if node not in self._code:
            is_class = isinstance(node, ast.ClassDef)
            parts = [each for each in node.body if not (is_class and isinstance(each, Function))]
            found = (code(part) for part in [*node.decorator_list, *parts])
            self._code[node] = list(chain.from_iterable(found))
        return self._code[node]

    def locals(self, function: ast.AST) -> set[str]:
        """Returns the arguments and variables of a function."""
        if function not in self._locals:
            nodes = list(ast.walk(function))
            found = {node.arg for node in nodes if isinstance(node, ast.arg)}
            stored = [n for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
            self._locals[function] = found | {node.id for node in stored}
        return self._locals[function]


@lru_cache(maxsize=1000)
def parse(path: str, text: str) -> Source:
    """Returns a source; whoever checks a project again finds most of its files unchanged."""
    return Source(path, text)


def _bindings(source: Source) -> Iterator[tuple[str, str]]:
    """Yields each name that a file imports or defines, and what it stands for."""
    for node in source.tree.body:
        if isinstance(node, Function | ast.ClassDef):
            yield node.name, f"{source.module}.{node.name}"
    for _, target, name in source.imports:
        package = target.split(".")[0]  # what a plain `import a.b` binds
        yield (name, target) if name else (package, package)


def _comments(text: str) -> Iterator[tuple[int, tuple[str, str | None]]]:
    """Yields the lines that ask to be allowed something: the rule, and the reason, if any."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and (match := COMMENT.search(token.string)):
            yield token.start[0], (match[1], match[2])


def code(node: ast.AST) -> Iterator[ast.AST]:
    """Walks over what is run, in the order of the text: annotations and docstrings are not."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    yield node
    for name, field in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in field if isinstance(field, list) else [field]:
            if isinstance(child, ast.AST):
                yield from code(child)
