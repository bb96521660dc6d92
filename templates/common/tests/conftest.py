"""What the tests share: small data made on the spot, and options as train.py parses them."""

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from small import SMALL_NETWORK

import prepare_data
from engine.options import add_arguments_of, add_training_arguments
from engine.parser import PROJECT, Parser
from engine.stopping import SIGNALS

Parse = Callable[..., argparse.Namespace]

SIZE = 8  # side of the test images, in pixels
SMALL = ["--device=cpu", "--img_size=32", "--batch_size=32", "--log_every=1", *SMALL_NETWORK]


def grey(level: int) -> Image.Image:
    return Image.new("L", (SIZE, SIZE), level)


def save(image: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def remove(paths: Iterable[Path]) -> None:
    """Removes images, and what tells of them: entries of the annotations beside their folder."""
    for path in paths:
        path.unlink()
        file = path.parent.parent / "annotations.json"
        if file.exists():
            content = json.loads(file.read_text(encoding="utf-8"))
            numbers = [each["id"] for each in content["images"] if each["file_name"] == path.name]
            for kind, key in (("images", "id"), ("annotations", "image_id")):
                content[kind] = [each for each in content[kind] if each[key] not in numbers]
            file.write_text(json.dumps(content), encoding="utf-8")


def command(script: str, *flags: object, launcher: Sequence[str] = ()) -> list[str]:
    """Returns the words that start a script of the project, or have a launcher start it."""
    return [sys.executable, *launcher, str(PROJECT / script), *map(str, flags)]


def run(
    script: str, *flags: object, launcher: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Runs a script of the project to its end."""
    words = command(script, *flags, launcher=launcher)
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what is marked `cuda` where it cannot run."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")


@pytest.fixture(scope="session")
def path_to_data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The made-up data set of prepare_data.py."""
    path = tmp_path_factory.mktemp("fake") / "data"
    prepare_data.main(argparse.Namespace(dataset="fake", path_to_data=str(path)))
    return str(path)


@pytest.fixture(scope="session")
def trained(path_to_data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a short training, done by the script itself, without a warning."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    flags = [f"--path_to_data={path_to_data}", f"--run_dir={folder}", "--epochs=2"]
    python = [sys.executable, "-W", "error", str(PROJECT / "train.py")]
    process = subprocess.run(
        [*python, *flags, *SMALL], capture_output=True, text=True, check=False, timeout=120
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert "epoch 1, step 1:" in process.stdout  # a plain line, where no terminal is
    return folder / "checkpoints" / "best.pt"


@pytest.fixture
def parse(path_to_data: str, tmp_path: Path) -> Parse:
    """Parses flags as train.py does, with a run that is small unless they say otherwise."""

    def parse_flags(*flags: str) -> argparse.Namespace:
        parser = Parser("test")
        add_training_arguments(parser)
        add_arguments_of("data.py", parser)
        add_arguments_of("resnetclassifier.py", parser)
        parser.set_defaults(
            path_to_data=path_to_data,
            run_dir=str(tmp_path / "run"),
            device="cpu",
            img_size=32,
            batch_size=32,
            num_workers=0,
            epochs=2,
            log_every=2,
        )
        return parser.parse_args([*SMALL_NETWORK, *map(str, flags)])

    return parse_flags


@pytest.fixture(autouse=True)
def unchanged_process() -> Iterator[None]:
    """Puts back what a training sets for its whole process."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    """Each device by name; a test that asks for it runs on all there are."""
    return str(request.param)
