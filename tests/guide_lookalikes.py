"""What only looks as if it broke a rule of the guide, and must pass."""

from __future__ import annotations

from guide_cases import (
    BLOCK,
    FORWARD,
    MODEL,
    NUMPY,
    Change,
    added,
    appended,
    both,
    in_forward,
    notebook,
    replaced,
)

# What looks as if it broke the rule, and does not.
SOUND: dict[str, list[Change]] = {
    "F1": [appended("ops.py", "X = 1"), appended("layers.py", "# losses.py")],
    "F2": [
        appended(MODEL, "class Another:", "    pass"),
        replaced("train.py", r"^import data$", "import data\nfrom engine.exits import DONE"),
    ],
    "F3": [
        appended("train.py", "networks = 1"),
        replaced("test.py", r"^import data$", "import data\nfrom engine import weights as losses"),
    ],
    "F4": [
        appended("networks.py", "from ops import nn as other"),
        appended("losses.py", "import layers"),
        both(added("mine.py", "X = 1"), appended("networks.py", "from mine import X")),
    ],
    "F5": [
        appended("train.py", "DataLoader = None"),
        appended("data.py", "from torchvision import transforms", "transforms"),
    ],
    "F6": [notebook("import networks"), notebook("import torch", "from data import ImageFolder")],
    "M1": [
        appended(
            "layers.py",
            "from typing import NamedTuple",
            "class Pair(NamedTuple):",
            "    first: int",
        ),
        appended("networks.py", "class Chain(nn.Sequential):", "    pass"),
        appended("losses.py", "class WrongKindError(ValueError):", "    pass"),
        appended("layers.py", "class Sizes:", "    def __init__(self):", "        self.first = 1"),
    ],
    "M2": [
        in_forward("networks.py", "super().forward"),
        appended("ops.py", "def look(forward):", "    return forward(1)"),
    ],
    "M3": [
        appended(
            "networks.py",
            BLOCK.format("Sizes"),
            "    def __init__(self) -> None:",
            "        super().__init__()",
            "        self.sizes = [int(each) for each in range(3)]",
            "        self.blocks = nn.ModuleList([nn.Conv2d(1, 1, 3)])",
            FORWARD,
            "        return x",
        ),
        appended(
            "ops.py", "def stack(blocks: list[nn.Module]):", "    return nn.Sequential(*blocks)"
        ),
    ],
    "M5": [
        appended("networks.py", BLOCK.format("Two"), FORWARD, "        return [x, x]"),
        appended("networks.py", "def sizes() -> tuple[int, int]:", "    return 1, 2"),
    ],
    "M6": [
        appended("losses.py", "nn.functional.mse_loss"),
        appended(MODEL, "nn.functional.softmax", "loss = 'mse_loss'"),
    ],
    "M7": [
        appended("layers.py", NUMPY, "SIZES = np.ones(1)"),
        in_forward("networks.py", "numpy = 1; numpy"),
        appended(
            "layers.py",
            NUMPY,
            BLOCK.format("Drawn"),
            "    def __init__(self) -> None:",
            "        self.size = np.ones(1)",
            "    def forward(self, x: np.ndarray) -> np.ndarray:",
            "        return x",
        ),
    ],
    "M8": [
        appended("train.py", "import torch.utils.data", "torch.utils.data.Dataset"),
        appended("ops.py", "def read(x):", "    return x.detach(), x.dataset"),
    ],
    "M9": [
        appended("train.py", "def watch(model):", "    return model(1)"),
        replaced("engine/evaluation.py", r"torch\.no_grad", "torch.inference_mode"),
    ],
    "T1": [
        replaced("engine/reproducibility.py", r"\bnp\b", "numpy"),
        both(
            replaced("engine/reproducibility.py", r"torch\.backends\.cudnn\.b", "cudnn.b"),
            appended("engine/reproducibility.py", "from torch.backends import cudnn"),
        ),
    ],
    "T2": [
        appended("train.py", "def parse():", "    return parser.parse_args()"),
        appended("data.py", "parse_args = None"),
    ],
    "T3": [
        appended("data.py", "validation = 'val'"),
        appended("train.py", "split = 'test'"),
    ],
    "T4": [
        both(
            replaced(
                "engine/prefetch.py", r"= BackgroundGenerator\(", "= ahead.BackgroundGenerator("
            ),
            replaced(
                "engine/prefetch.py", r"^from prefetch_gen.*", "import prefetch_generator as ahead"
            ),
        ),
        both(
            replaced("train.py", r"^from tqdm import tqdm$", "import tqdm as bars"),
            replaced("train.py", r"\btqdm\(", "bars.tqdm("),
        ),
    ],
    "T5": [
        appended("engine/progress.py", "SPEED = 'speed'"),
        replaced("train.py", r"epoch \{state\.epoch \+ 1\}, step", "epoch {1 + state.epoch}, step"),
    ],
    "T6": [
        appended("ops.py", "def move(x, cuda):", "    return x.to(cuda)"),
        appended("ops.py", "def is_on_gpu(x):", "    return x.is_cuda or x.device.type == 'cuda'"),
    ],
    "T7": [
        appended(MODEL, "def rate(options):", "    return Adam([], options.lr, weight_decay=1e-4)"),
        appended("train.py", "def rate(lr=1e-3):", "    return lr"),
    ],
    "T8": [
        appended("engine/state.py", "STEP = 'step'"),
        appended("train.py", "def resume():", "    pass"),
    ],
    "T9": [
        appended("engine/distributed.py", "Parallel = nn.DataParallel"),
        appended("train.py", "alone = True"),
    ],
    "T10": [
        appended("train.py", "# torch.utils.tensorboard"),
        appended("engine/record.py", "WRITER = 'torch.utils.tensorboard'"),
    ],
    "T11": [
        appended("train.py", "def save_model(x):", "    return x"),
        appended("engine/checkpoint.py", "save = torch.save"),
    ],
    "T12": [
        appended("engine/state.py", "schedule = 'cosine'"),
        appended("train.py", "accumulated = 1"),
    ],
}
