"""Rules on modules: what layers, networks and losses are made of."""

import ast
from collections.abc import Iterator

from .project import Definition, Place, Project, Rule
from .source import Source

BUILDING = ("layers", "networks", "losses")
TENSORS = (*BUILDING, "ops", "train", "test", "predict")  # and the model's file
CALLED_SO = ("Layer", "Block", "Network", "Net", "Loss")  # classes that are to be modules
# Functions of torch that are losses, though their names do not end in it.
LOSSES = ("cross_entropy", "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div")


def no_modules(project: Project) -> Iterator[Place]:
    """M1: every layer, network and loss is an nn.Module with a forward."""
    for name, each in project.definitions.items():
        if not isinstance(each.node, ast.ClassDef) or each.source.module not in BUILDING:
            continue
        place = each.source.path, each.node.lineno
        if project.is_module(name):
            if "torch.nn.Module" in project.bases(name) and not project.method(name, "forward"):
                yield *place, f"{each.name} has no forward"
        elif project.method(name, "forward") or each.name.endswith(CALLED_SO) or _holds(each):
            yield *place, f"{each.name} is no nn.Module"


def _holds(each: Definition) -> bool:
    """Says whether a class keeps modules of torch, as one that lists settings does not."""
    values = [value for _, value in _assignments(each.node) if isinstance(value, ast.Call)]
    return any(_is_of_torch(each.source.dotted(value.func)) for value in values)


def called_forward(project: Project) -> Iterator[Place]:
    """M2: a module is called, and its hooks with it."""
    for source, node in project.nodes(ast.Call):
        if isinstance(node.func, ast.Attribute):
            owner = node.func.value
            is_super = isinstance(owner, ast.Call) and source.dotted(owner.func) == "super"
            if node.func.attr == "forward" and not is_super:
                yield source.path, node.lineno, f"{ast.unparse(node.func)}(...)"


def hidden_blocks(project: Project) -> Iterator[Place]:
    """M3: a list of blocks becomes nn.Sequential(*blocks); in a plain list they are lost."""
    for source, function in project.nodes(ast.FunctionDef, *BUILDING, project.model[0]):
        lists = set()
        for target, value in _assignments(function):
            if isinstance(target, ast.Name) and isinstance(value, ast.List | ast.ListComp):
                lists.add(target.id)
            is_own = source.dotted(target, function).startswith("self.")
            if is_own and _makes_modules(project, source, value):
                what = f"{ast.unparse(target)} is a plain list of modules"
                yield source.path, target.lineno, what
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and source.dotted(node.func) == "torch.nn.Sequential":
                for given in node.args:
                    is_list = isinstance(given, ast.List | ast.ListComp)
                    if is_list or (isinstance(given, ast.Name) and given.id in lists):
                        yield source.path, node.lineno, "nn.Sequential is given a list"


def _assignments(function: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            yield from ((target, node.value) for target in node.targets)
        elif isinstance(node, ast.AnnAssign) and node.value:
            yield node.target, node.value


def _makes_modules(project: Project, source: Source, value: ast.expr) -> bool:
    """Says whether an expression is a list of calls of modules' classes."""
    if isinstance(value, ast.ListComp):
        items = [value.elt]
    elif isinstance(value, ast.List | ast.Tuple):
        items = value.elts
    else:
        return False
    names = [source.dotted(item.func) for item in items if isinstance(item, ast.Call)]
    return any(
        project.is_module(name) if name in project.definitions else _is_of_torch(name)
        for name in names
    )


def _is_of_torch(name: str) -> bool:
    """Says whether a dotted name is that of a class of torch.nn."""
    is_class = name.rpartition(".")[2][:1].isupper()
    return name.startswith("torch.nn.") and is_class and name != "torch.nn.Parameter"


def several_outputs(project: Project) -> Iterator[Place]:
    """M5: a network with several outputs returns them as a list."""
    for name, owner in project.module_classes():
        forward = project.definitions.get(f"{name}.forward")
        if owner.source.module == "networks" and forward:
            for node in ast.walk(forward.node):
                if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                    yield owner.source.path, node.lineno, f"{owner.name} returns a tuple"


def losses_elsewhere(project: Project) -> Iterator[Place]:
    """M6: losses are nn.Modules in losses.py."""
    others = {*TENSORS, project.model[0]} - {"losses"}
    for source, defined in project.nodes(ast.ClassDef, *others):
        if defined.name.endswith("Loss"):
            yield source.path, defined.lineno, f"{defined.name} is defined here"
    for source, node, name in project.names(*others):
        if name.startswith(("torch.nn.", "torchvision.ops.")) and _is_loss(name):
            yield source.path, node.lineno, f"{name} is used here"


def _is_loss(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last.endswith(("Loss", "_loss")) or last in LOSSES


def numpy_in_forward(project: Project) -> Iterator[Place]:
    """M7: no NumPy inside forward, nor in what it calls inside the project."""
    for name, owner in project.module_classes():
        forward = project.definitions.get(f"{name}.forward")
        for each in project.reachable(forward) if forward else ():
            for node in each.code():
                if found := _numpy(each, node):
                    through = "" if each == forward else f", which {owner.name}.forward uses"
                    line = getattr(node, "lineno", each.node.lineno)
                    yield each.source.path, line, f"{found} in {each.name}{through}"


def _numpy(each: Definition, node: ast.AST) -> str:
    """Returns the name of what NumPy does at a node of a function, if it does anything."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return "numpy()" if node.func.attr == "numpy" and not node.args else ""
    is_name = isinstance(node, ast.Attribute | ast.Name)
    name = each.source.dotted(node, each.node) if is_name else ""
    return name if name.startswith("numpy.") else ""


def data_of_tensors(project: Project) -> Iterator[Place]:
    """M8: .detach(), never .data."""
    for source, node in project.nodes(ast.Attribute, *TENSORS, project.model[0]):
        if node.attr == "data" and not source.dotted(node).startswith("torch.utils"):
            yield source.path, node.lineno, ast.unparse(node)


def evaluation_modes(project: Project) -> Iterator[Place]:
    """M9: evaluation in eval() mode without gradients; each epoch starts with train()."""
    passes = [each for each in project.training if _is_test_pass(each)]
    if not passes:
        yield "train.py", 1, "no function evaluates the model"
    for each in passes:
        place = each.source.path, each.node.lineno
        names = {node.attr for node in each.code() if isinstance(node, ast.Attribute)}
        if "eval" not in names:
            yield *place, f"{each.name} does not call eval()"
        if not names & {"no_grad", "inference_mode"}:
            yield *place, f"{each.name} is not without gradients"
    if not any(node.attr == "train" for _, node in project.nodes(ast.Attribute, "train")):
        yield "train.py", 1, "no epoch calls train()"


def _is_test_pass(each: Definition) -> bool:
    """Says whether it is a function that runs a model over a test set, by its name and its loop."""
    is_called_so = each.owner is None and each.node.name.startswith(
        ("evaluate", "validate", "test")
    )
    return is_called_so and any(isinstance(node, ast.For) for node in ast.walk(each.node))


RULES = {
    "M1": Rule(no_modules, "make it an nn.Module with a forward"),
    "M2": Rule(called_forward, "call the module itself, or its hooks are left out"),
    "M3": Rule(hidden_blocks, "put them in nn.Sequential(*blocks), which knows their parameters"),
    "M5": Rule(several_outputs, "return a list"),
    "M6": Rule(losses_elsewhere, "wrap it as an nn.Module in losses.py"),
    "M7": Rule(numpy_in_forward, "use torch, which tracks gradients and runs on any device"),
    "M8": Rule(data_of_tensors, "use .detach(), whose changes autograd sees"),
    "M9": Rule(evaluation_modes, "test under eval() and torch.no_grad(), train under train()"),
}
