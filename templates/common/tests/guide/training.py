"""Rules on the training script, and on what of the project it uses."""

import ast
from collections.abc import Callable, Iterator
from functools import lru_cache

from .project import Place, Project, Rule
from .source import Source, code

SCRIPTS = ("train", "test", "predict", "report", "prepare_data")


class Facts:
    """What is said anywhere in what train.py uses, directly or not.

    Attributes:
        names: dotted, of what is referred to.
        attributes: the last parts of those, and of what is no name.
        texts: literal strings.
        here: attributes and names in train.py itself.
        restored: texts and attributes where a state is loaded.
        bar: keywords of tqdm in train.py, and the texts that they are given.
    """

    def __init__(self, project: Project) -> None:
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: set[str] = set()
        self.here: set[str] = set()
        self.restored: set[str] = set()
        self.bar: dict[str, str] = {}
        for each in project.training:
            for node in each.code():
                self._read(each.source, each.node, node)
                if each.node.name == "load_state_dict":
                    self.restored |= _words(node)
        if train := project.sources.get("train"):
            for node in code(train.tree):
                self._read(train, None, node)
                self.here |= _words(node)
                if isinstance(node, ast.Call) and train.dotted(node.func) == "tqdm.tqdm":
                    self.bar |= {key.arg or "**": _text(key.value) for key in node.keywords}

    def _read(self, source: Source, within: ast.AST | None, node: ast.AST) -> None:
        if isinstance(node, ast.Name | ast.Attribute):
            self.names.add(source.dotted(node, within))
            if not _sets_flag(node):
                self.attributes |= _words(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            self.texts.add(node.value)

    def says(self, text: str) -> bool:
        """Says whether a text is in any literal string."""
        return any(text in each for each in self.texts)


def _words(node: ast.AST) -> set[str]:
    """Returns the name, the attribute or the text that a node is, if it is one."""
    if isinstance(node, ast.Constant):
        return {node.value} if isinstance(node.value, str) else set()
    found = getattr(node, "attr", getattr(node, "id", None))
    return {found} if found else set()


def _sets_flag(node: ast.Name | ast.Attribute) -> bool:
    """Says whether a node is `options.flag` where it is assigned to, which does not heed it."""
    value = getattr(node, "value", None)
    return isinstance(node.ctx, ast.Store) and isinstance(value, ast.Name) and value.id == "options"


def _text(node: ast.AST) -> str:
    """Returns what is literally said in an expression."""
    parts = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
    return " ".join(map(str, parts))


@lru_cache(maxsize=1)
def facts_of(project: Project) -> Facts:
    """Returns the facts of a project, which several rules look at."""
    return Facts(project)


Need = tuple[str, Callable[[Facts], bool]]  # what lacks if it is not met


def lacks(*needs: Need) -> Callable[[Project], Iterator[Place]]:
    """Returns a finder of what the training script and all it uses do not do."""

    def find(project: Project) -> Iterator[Place]:
        facts = facts_of(project)
        for what, is_met in needs:
            if not is_met(facts):
                yield "train.py", 1, what

    return find


def parsed_at_import(project: Project) -> Iterator[Place]:
    """T2: arguments are parsed under the guard, and saved to config.txt."""
    for name in SCRIPTS:
        source = project.sources.get(name)
        for statement in source.tree.body if source else ():
            is_guarded = isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test)
            is_code = not isinstance(statement, ast.FunctionDef | ast.ClassDef)
            for node in ast.walk(statement) if is_code and not is_guarded else ():
                if isinstance(node, ast.Attribute) and node.attr == "parse_args" and source:
                    yield source.path, node.lineno, "arguments are parsed when it is imported"
    yield from lacks(("no config.txt is written", lambda facts: facts.says("config.txt")))(project)


def splits(project: Project) -> Iterator[Place]:
    """T3: always a training and a test set."""
    texts = [node.value for _, node in project.nodes(ast.Constant, "data")]
    for split in ("train", "test"):
        if split not in texts:
            yield "data.py", 1, f"it reads no {split}/"
    builds = "no data sets are built", lambda facts: "build_datasets" in facts.here
    yield from lacks(builds)(project)


def bound_to_cuda(project: Project) -> Iterator[Place]:
    """T6: model and batches move to the accelerator when there is one."""
    for source, node in project.nodes(ast.Call):
        if isinstance(node.func, ast.Attribute):
            given = [each.value for each in node.args if isinstance(each, ast.Constant)]
            if node.func.attr == "cuda" or (node.func.attr == "to" and "cuda" in given):
                yield source.path, node.lineno, ast.unparse(node)
    if not {"to", "to_device"} & facts_of(project).attributes:
        yield "train.py", 1, "nothing moves to the device"


def optimizers(project: Project) -> Iterator[Place]:
    """T7: optimizers are created after the model has moved; the learning rate is a flag."""
    for source, node in project.nodes(ast.Call, "train", project.model[0]):
        if source.dotted(node.func).startswith("torch.optim."):
            rates = node.args[1:2] + [key.value for key in node.keywords if key.arg == "lr"]
            if any(isinstance(rate, ast.Constant) for rate in rates):
                yield source.path, node.lineno, "a learning rate that is no flag"
    for train, function in project.nodes(ast.FunctionDef, "train"):
        yield from _built_before_moving(train, function)


def _built_before_moving(train: Source, function: ast.FunctionDef) -> Iterator[Place]:
    lines: dict[str, list[int]] = {"move": [], "build": []}
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = train.dotted(node.func)
            if node.func.attr in ("to", "place"):
                lines["move"].append(node.lineno)
            elif node.func.attr == "build_optimizers" or name.startswith("torch.optim."):
                lines["build"].append(node.lineno)
    if lines["build"] and not any(line < min(lines["build"]) for line in lines["move"]):
        yield train.path, min(lines["build"]), "optimizers before the model has moved"


def other_record(project: Project) -> Iterator[Place]:
    """T10: tensorboardX keeps the record."""
    for source in project.sources.values():
        for line, name, _ in source.imports:
            if name.startswith("torch.utils.tensorboard"):
                yield source.path, line, "torch.utils.tensorboard"
    yield from lacks(
        ("no tensorboardX", lambda f: any(name.startswith("tensorboardX") for name in f.names)),
        ("no interval between scalars", lambda f: "log_every" in f.attributes),
        ("no interval between pictures", lambda f: "picture_every" in f.attributes),
    )(project)


SEEDED: tuple[Need, ...] = (
    ("torch is not seeded", lambda f: "manual_seed" in f.attributes),
    ("NumPy is not seeded", lambda f: "numpy.random.seed" in f.names),
    ("cuDNN is not told to benchmark", lambda f: "benchmark" in f.attributes),
)
FED: tuple[Need, ...] = (
    ("no BackgroundGenerator", lambda f: "prefetch_generator.BackgroundGenerator" in f.names),
    ("no tqdm with a total", lambda f: "total" in f.bar),
)
SHOWN: tuple[Need, ...] = (
    ("no compute efficiency is shown", lambda f: "efficiency" in f.texts),
    ("no epoch is shown", lambda f: "epoch" in f.bar.get("desc", "")),
)
RESTORED: tuple[Need, ...] = (
    ("no network is restored", lambda f: "model" in f.restored),
    ("no optimizer is restored", lambda f: "optimizers" in f.restored),
    ("no epoch is restored", lambda f: "epoch" in f.restored),
    ("no iteration is restored", lambda f: "n_iter" in f.restored),
    ("no --resume", lambda f: "resume" in f.attributes),
)
TESTED: tuple[Need, ...] = (
    ("no test every x epochs", lambda f: "test_every" in f.here),
    ("no checkpoint", lambda f: "save" in f.here),
)
FLAGS: tuple[Need, ...] = (
    ("no virtual batches", lambda f: "accumulate" in f.here),
    ("no schedule", lambda f: "lr_schedule" in f.attributes),
)
SPLIT: Need = ("no nn.DataParallel", lambda f: "torch.nn.DataParallel" in f.names)

RULES = {
    "T1": Rule(lacks(*SEEDED), "set seeds and cuDNN's benchmark before anything is drawn"),
    "T2": Rule(parsed_at_import, "parse under `if __name__ ==`, and save the options"),
    "T3": Rule(splits, "have build_datasets return both"),
    "T4": Rule(lacks(*FED), "take batches through BackgroundGenerator, under tqdm(..., total=...)"),
    "T5": Rule(lacks(*SHOWN), "show both on the bar"),
    "T6": Rule(bound_to_cuda, "move to the device that --device says"),
    "T7": Rule(optimizers, "move the model, then build optimizers with the flags' rates"),
    "T8": Rule(lacks(*RESTORED), "restore networks, optimizers, epoch and iteration"),
    "T9": Rule(lacks(SPLIT), "split batches over the GPUs of a process"),
    "T10": Rule(other_record, "record scalars every n-th step, pictures rarer, by tensorboardX"),
    "T11": Rule(lacks(*TESTED), "test every x epochs, then save a checkpoint"),
    "T12": Rule(lacks(*FLAGS), "make each of them a flag"),
}
