"""Rules on files: what stands where, and which way imports run."""

import graphlib
import json
from collections.abc import Iterator

from .project import KNOWN, PARTS, Place, Project, Rule

SCRIPTS = ("train", "test", "predict", "report")
# Which of the project's own modules each may import.
MAY_IMPORT = {
    "ops": (),
    "layers": ("ops",),
    "networks": ("layers", "ops"),
    "losses": ("layers", "ops"),
    "engine": ("engine",),
    "data": ("engine",),
    "prepare_data": ("networks", "data", "engine"),
}
OF_MODEL = ("networks", "layers", "losses", "ops", "engine")
OF_DATA = ("torch.utils.data.", "torchvision.datasets", "torchvision.transforms")


def missing_parts(project: Project) -> Iterator[Place]:
    """F1: layers, networks, losses and ops live apart."""
    for name in PARTS:
        if name not in project.sources:
            yield f"{name}.py", 1, "there is no such file"


def missing_model(project: Project) -> Iterator[Place]:
    """F2: the finished model lives in a file of its own."""
    module, name = project.model
    if not module:
        yield "train.py", 1, "it imports no model from a file of its own"
    elif f"{module}.{name}" not in project.definitions:
        yield f"{module}.py", 1, f"it does not define {name}, which train.py imports"
    elif not project.is_module(f"{module}.{name}"):
        line = project.definitions[f"{module}.{name}"].node.lineno
        yield f"{module}.py", line, f"{name} is no nn.Module"


def parts_in_scripts(project: Project) -> Iterator[Place]:
    """F3: the scripts import the model from its file alone."""
    for importer, line, target in _imports(project):
        if importer in SCRIPTS and target.split(".")[0] in PARTS:
            yield f"{importer}.py", line, f"it imports {target}"


def wrong_imports(project: Project) -> Iterator[Place]:
    """F4: imports run one way, and lead to what is there."""
    graph: dict[str, set[str]] = {name: set() for name in project.sources}
    model = project.model[0]
    allowed = MAY_IMPORT | {model: OF_MODEL} | dict.fromkeys(SCRIPTS, (model, "data", "engine"))
    known = {*KNOWN, model}  # of what else a user adds, the guide says nothing
    for importer, line, target in _imports(project):
        path, package = project.sources[importer].path, target.split(".")[0]
        own = importer.split(".")[0]
        if own in allowed and package in known and package not in allowed[own]:
            yield path, line, f"it may not import {target}"
        module = target if target in project.sources else target.rpartition(".")[0]
        graph[importer].add(module)
        if module not in project.sources:
            yield path, line, f"there is no module {target}"
        elif target != module and target.rpartition(".")[2] not in project.sources[module].offered:
            yield path, line, f"there is no {target.rpartition('.')[2]} in {module}"
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        circle = " ".join(error.args[1])
        yield project.sources[error.args[1][0]].path, 1, f"imports run in a circle: {circle}"


def _imports(project: Project) -> Iterator[tuple[str, int, str]]:
    """Yields importer, line and dotted target of each import inside the project."""
    ours = {name.split(".")[0] for name in project.sources}
    for source in project.sources.values():
        for line, name, _ in source.imports:
            if name.split(".")[0] in ours:
                yield source.module, line, name


def data_in_training(project: Project) -> Iterator[Place]:
    """F5: data loading stands apart from the training script."""
    if "data" not in project.sources:
        yield "data.py", 1, "there is no such file"
    for train, node, name in project.names("train"):
        if name.startswith(OF_DATA):
            yield train.path, node.lineno, f"{name} in the training script"


def notebooks_without_the_project(project: Project) -> Iterator[Place]:
    """F6: a notebook explores with the project's own classes."""
    ours = {*KNOWN, project.model[0]}
    for path in sorted((project.root / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        lines = "".join("".join(cell["source"]) + "\n" for cell in cells).splitlines()
        words = [line.split()[1].split(".")[0] for line in lines if line.startswith(IMPORTS)]
        if not ours & set(words):
            name = path.relative_to(project.root).as_posix()
            yield name, 1, "it uses none of the project's own modules"


IMPORTS = ("import ", "from ")
RULES = {
    "F1": Rule(missing_parts, "layers, networks, losses and ops have a file each"),
    "F2": Rule(missing_model, "define the finished model there, and import it in train.py"),
    "F3": Rule(parts_in_scripts, "import the finished model from its own file alone"),
    "F4": Rule(wrong_imports, "imports run ops, layers, networks, model file, scripts"),
    "F5": Rule(data_in_training, "load data in data.py"),
    "F6": Rule(notebooks_without_the_project, "explore with the classes that are trained"),
}
