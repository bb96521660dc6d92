"""What breaks each rule of the guide in a rendered project, and what only looks as if it did."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path

from refresh import MODELS

Change = Callable[[Path], object]
MODEL = "the model's file"


def find(project: Path, name: str) -> Path:
    """Returns a file of the project; the model's is called otherwise in each variant."""
    if name == MODEL:
        files = {f"{model.lower()}.py" for model in MODELS.values()}
        (name,) = [path.name for path in project.glob("*.py") if path.name in files]
    return project / name


def edit(project: Path, name: str, change: Callable[[str], str]) -> None:
    path = find(project, name)
    before = path.read_text(encoding="utf-8")
    after = change(before)
    assert before != after, f"nothing to break in {name}"
    path.write_text(after, encoding="utf-8")


def replaced(name: str, pattern: str, new: str, count: int = 0) -> Change:
    """Exchanges what a pattern finds in a file."""
    return lambda project: edit(
        project, name, lambda text: re.sub(pattern, new, text, count=count, flags=re.MULTILINE)
    )


def appended(name: str, *lines: str) -> Change:
    """Adds lines to a file."""
    return lambda project: edit(project, name, lambda text: "\n".join([text, *lines, ""]))


def in_forward(name: str, statement: str) -> Change:
    """Adds a statement to the first forward of a file, behind its docstring."""

    def change(text: str) -> str:
        forward = next(
            node
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef) and node.name == "forward" and node.body[1:]
        )
        lines = text.splitlines(keepends=True)
        lines.insert(forward.body[1].lineno - 1, f"        {statement}\n")
        return "".join(lines)

    return lambda project: edit(project, name, change)


def added(name: str, *lines: str) -> Change:
    """Adds a file of the user's own."""
    return lambda project: (project / name).write_text("\n".join([*lines, ""]), encoding="utf-8")


def removed(name: str) -> Change:
    return lambda project: find(project, name).unlink()


def both(first: Change, second: Change) -> Change:
    def change(project: Path) -> None:
        first(project)
        second(project)

    return change


def notebook(*lines: str) -> Change:
    def change(project: Path) -> None:
        (project / "notebooks").mkdir(exist_ok=True)
        cells = [{"cell_type": "code", "source": [f"{line}\n" for line in lines]}]
        path = project / "notebooks/other.ipynb"
        path.write_text(json.dumps({"cells": cells}), encoding="utf-8")

    return change


NUMPY = "import numpy as np"
BLOCK = "class {}(nn.Module):"
FORWARD = "    def forward(self, x: Tensor) -> Tensor:"

# What breaks each rule, in any variant.
BROKEN: dict[str, list[Change]] = {
    "F1": [removed("losses.py"), removed("ops.py")],
    "F2": [
        replaced(MODEL, r"^class (\w+)\(nn.Module\)", r"class \1"),
        replaced(MODEL, r"^class (\w+)\(nn.Module\)", r"class Another\1(nn.Module)"),
    ],
    "F3": [
        replaced("train.py", r"^import data$", "import data\nfrom networks import nn as other"),
        replaced("test.py", r"^import data$", "import data\nimport losses"),
    ],
    "F4": [
        appended("ops.py", "from layers import nn as other"),
        appended("layers.py", "    # here, too", "if True:", "    import networks"),
        appended("data.py", "import losses"),
        appended("networks.py", "from layers import NoSuchBlock"),
    ],
    "F5": [
        appended("train.py", "from torch.utils.data import DataLoader as Loader", "Loader"),
        appended("train.py", "import torchvision", "torchvision.transforms.v2.Compose"),
    ],
    "F6": [notebook("import torch", "x = 1"), notebook("print('from networks')")],
    "M1": [
        appended("layers.py", "class Loose:", "    def forward(self) -> None: ..."),
        appended("networks.py", BLOCK.format("Idle"), "    pass"),
        appended("losses.py", "class Base:", "    pass", "class HeirLoss(Base):", "    pass"),
        appended(
            "networks.py", "class Held:", "    def __init__(self):", "        self.n = nn.ReLU()"
        ),
    ],
    "M2": [
        in_forward("networks.py", "self.features.forward(images)"),
        appended("test.py", "def twice(model, batch):", "    return model.forward(batch)"),
    ],
    "M3": [
        replaced("networks.py", r"(nn\.Sequential\([^*\n]*)\*(\w+)", r"\1[*\2]"),
        appended(
            "networks.py",
            BLOCK.format("Lost"),
            "    def __init__(self) -> None:",
            "        super().__init__()",
            "        self.blocks = [nn.Conv2d(1, 1, 3) for _ in range(3)]",
            FORWARD,
            "        return x",
        ),
        appended(
            "networks.py",
            "class Mine(nn.Module):",
            FORWARD,
            "        return x",
            "class Lost(Mine):",
            "    def __init__(self) -> None:",
            "        super().__init__()",
            "        self.blocks: list[nn.Module] = [Mine(), Mine()]",
        ),
    ],
    "M5": [
        in_forward("networks.py", "if self.training: return self, self"),
        appended("networks.py", BLOCK.format("Two"), FORWARD, "        return x, x"),
    ],
    "M6": [
        in_forward(MODEL, "nn.functional.mse_loss(batch, batch)"),
        appended("networks.py", "criterion = nn.CrossEntropyLoss()"),
        appended("layers.py", BLOCK.format("SharpLoss"), FORWARD, "        return x"),
        appended("train.py", "from torch.nn.functional import cross_entropy as ce", "ce"),
    ],
    "M7": [
        both(appended("networks.py", NUMPY), in_forward("networks.py", "np.mean(0)")),
        both(appended("losses.py", "from numpy import mean"), in_forward("losses.py", "mean(0)")),
        both(  # the later of two imports counts
            appended("losses.py", "from torch import mean as mean_of", "import numpy as mean_of"),
            in_forward("losses.py", "mean_of.mean(0)"),
        ),
        in_forward("networks.py", "torch.zeros(1).cpu().numpy()"),
        both(
            appended("ops.py", "import numpy", "def helper():", "    return numpy.ones(1)"),
            both(
                appended("networks.py", "from ops import helper"),
                in_forward("networks.py", "helper()"),
            ),
        ),
        appended(
            "layers.py",
            NUMPY,
            BLOCK.format("Parent"),
            "    def help(self):",
            "        return np.ones(1)",
            "class Child(Parent):",
            FORWARD,
            "        return self.help()",
        ),
    ],
    "M8": [
        in_forward("networks.py", "self.weight.data.zero_()"),
        appended("train.py", "def halve(p):", "    p.data = p.data / 2"),
    ],
    "M9": [
        replaced("engine/evaluation.py", r"^@torch\.no_grad\(\)\n", ""),
        both(
            replaced("engine/evaluation.py", r"^    model\.eval\(\)\n", ""),
            both(
                replaced("train.py", r"\.eval\(\)", ""),
                replaced("engine/weights.py", r"\.eval\(\)", ""),
            ),
        ),
    ],
    "T1": [
        replaced("engine/reproducibility.py", r"^    np\.random\.seed.*\n", ""),
        replaced("engine/reproducibility.py", r"^    torch\.backends\.cudnn\.bench.*\n", ""),
        replaced("train.py", r"^ *reproducibility\.(seed_all|set_deterministic).*\n", ""),
    ],
    "T2": [
        replaced("train.py", r'^if __name__ == "__main__":  # flags', "if True:  # flags"),
        replaced("engine/record.py", r"config\.txt", "flags.txt"),
    ],
    "T3": [
        replaced("data.py", '"test"', '"check"'),
        replaced("train.py", r"data\.build_datasets", "data.build_all"),
    ],
    "T4": [
        replaced("engine/prefetch.py", r"^from prefetch_generator import .*\n", ""),
        replaced("train.py", r"^ *total=.*\n", ""),
    ],
    "T5": [
        replaced("engine/progress.py", '"efficiency"', '"busy"'),
        replaced("train.py", r"epoch \{", "pass {"),
    ],
    "T6": [
        replaced("engine/distributed.py", r"model\.to\(device\)", "model.cuda()"),
        in_forward(MODEL, 'batch.to("cuda")'),
    ],
    "T7": [
        replaced(MODEL, r"options\.lr\b", "1e-3"),
        replaced("train.py", r"^.*distributed\.place\(.*\n", "        self.model = model\n"),
    ],
    "T8": [
        replaced("engine/state.py", '"n_iter"', '"step"'),
        replaced("engine/state.py", '"epoch"', '"round"'),
    ],
    "T9": [
        replaced("engine/distributed.py", r"nn\.DataParallel\b", "nn.Sequential"),
        replaced("train.py", r"distributed\.parallelize\(.*\)", "self.model"),
    ],
    "T10": [
        replaced("engine/record.py", "tensorboardX", "torch.utils.tensorboard"),
        appended("engine/record.py", "from torch.utils import tensorboard"),
        replaced("train.py", r"log_every", "show_every"),
    ],
    "T11": [
        replaced("train.py", "test_every", "look_every"),
        replaced("train.py", r"\bsave\(", "store("),
    ],
    "T12": [
        replaced("train.py", r"self\.accumulate|options\.accumulate", "1"),
        replaced("engine/state.py", r"options\.lr_schedule", '"cosine"'),
    ],
}
