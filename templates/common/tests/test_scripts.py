"""The scripts as a person starts them: their help, their exit statuses, their output."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import SMALL, command, run
from PIL import Image

from engine.checkpoint import read_checkpoint
from engine.images import read_labels
from engine.parser import PROJECT

from predict import describe
from test import print_per_class

SCRIPTS = ["train.py", "test.py", "predict.py", "report.py", "prepare_data.py"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_comes_without_torch(script: str) -> None:
    program = (
        "import runpy, sys\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'numpy', 'torchvision'} & sys.modules.keys()\n"
    )
    start = f"import sys; sys.argv = [{script!r}, '--help']\n"
    process = subprocess.run(
        [sys.executable, "-c", start + program],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "usage:" in process.stdout


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("train.py", ["--epochs=none"], "train.py: argument --epochs: invalid int value: 'none'"),
        ("train.py", ["--path_to_data=nowhere"], "nowhere/train: no such folder"),
        ("test.py", [], "test.py: the following arguments are required: --path_to_checkpoint"),
        ("predict.py", ["--path_to_checkpoint=gone.pt", "--export=x.pt2"], "gone.pt: No such file"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    script: str, flags: list[str], message: str, tmp_path: Path
) -> None:
    process = subprocess.run(
        command(script, *flags), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert message in process.stderr
    assert process.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_results_that_no_words_can_say_are_files(tmp_path: Path) -> None:
    mask = torch.tensor([[0, 1], [2, 255]], dtype=torch.uint8)
    found = [{"class": "dög", "box": [1.5, 2.0]}]
    result = {"mask": mask, "view": torch.ones(3, 2, 2), "objects": found, "share": 0.25, "n": 7}
    words = describe(result, Path("some where/a.b.jpg"), tmp_path / "out")
    names = ("mask.png", "view.png", "objects.json")
    files = [tmp_path / "out" / f"a.b_{name}" for name in names]
    assert words == ", ".join([*map(str, files), "share 0.2500", "n 7"])
    assert read_labels(files[0]).tolist() == mask.tolist()
    assert Image.open(files[1]).getextrema() == ((255, 255),) * 3
    assert json.loads(files[2].read_text(encoding="utf-8")) == found


@pytest.mark.parametrize(
    ("values", "line"),
    [([[3, 0], [12, 1280]], "b      12  1280"), ([[1, 0], [0.25, 0.75]], "b    0.25  0.75")],
)
def test_columns_of_a_matrix_stand_apart(
    capsys: pytest.CaptureFixture[str], values: list[list[float]], line: str
) -> None:
    print_per_class({"confusion": torch.tensor(values, dtype=torch.float64)}, ["a", "b"])
    assert capsys.readouterr().out.splitlines()[-1] == line


def wait_for_step(process: "subprocess.Popen[str]", step: int) -> None:
    """Waits until the training has logged a step, without a guess at how long that takes."""
    assert process.stdout is not None
    for line in process.stdout:
        if f"step {step}:" in line:
            return
    raise AssertionError(f"it ended with status {process.wait()} before step {step}")


def children(process: int) -> list[int]:
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("group", "SIGTERM"),
        ("process", "SIGINT"),
        pytest.param("process", "SIGTERM", marks=pytest.mark.slow),
        pytest.param("group", "SIGINT", marks=pytest.mark.slow),
        pytest.param("process", "SIGUSR1", marks=pytest.mark.slow),
        pytest.param("group", "SIGUSR1", marks=pytest.mark.slow),
    ],
)
def test_signal_saves_and_exits_with_75(
    path_to_data: str, tmp_path: Path, target: str, name: str
) -> None:
    number = signal.Signals[name]
    flags = [f"--path_to_data={path_to_data}", f"--run_dir={tmp_path / 'run'}", "--epochs=1000"]
    process = subprocess.Popen(
        command("train.py", *flags, *SMALL, "--num_workers=2", "--cache=off"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_step(process, 2)
    workers = children(process.pid)
    (os.killpg if target == "group" else os.kill)(process.pid, number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 75
    assert error == f"{name}: saved; continue with --resume --run_dir {tmp_path / 'run'}\n"
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["n_iter"] >= 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_killed_run_resumes_to_the_same_end(path_to_data: str, tmp_path: Path) -> None:
    flags = [f"--path_to_data={path_to_data}", "--epochs=3", "--save_every=1"]
    flags += ["--num_workers=1", "--cache=off"]
    whole = run("train.py", *flags, *SMALL, f"--run_dir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    killed = [*flags, *SMALL, f"--run_dir={tmp_path / 'killed'}", "--resume"]
    for step in (3, 9, 15):
        process = subprocess.Popen(command("train.py", *killed), stdout=subprocess.PIPE, text=True)
        wait_for_step(process, step)
        time.sleep(0.05)  # into the save, or the step after it
        process.kill()
        process.communicate()
    resumed = run("train.py", *killed)
    assert resumed.returncode == 0, resumed.stderr
    ends = [
        read_checkpoint(tmp_path / name / "checkpoints/last.pt") for name in ("whole", "killed")
    ]
    assert all((ends[0]["model"][key] == value).all() for key, value in ends[1]["model"].items())
    lines = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "killed")]
    assert lines[0] == lines[1]


def test_test_prints_metrics_and_writes_pictures(trained: Path) -> None:
    process = run("test.py", f"--path_to_checkpoint={trained}", "--device=cpu")
    assert process.returncode == 0, process.stderr
    best = read_checkpoint(trained)["best"]
    assert f"{best:.4f}" in process.stdout  # the same test as during the training
    assert any((trained.parent.parent / "test").glob("*.png"))


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_export_is_checked_against_the_model(trained: Path, tmp_path: Path, ending: str) -> None:
    if ending == "onnx":
        pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
    path = tmp_path / f"model.{ending}"
    process = run("predict.py", f"--path_to_checkpoint={trained}", f"--export={path}")
    assert process.returncode == 0, process.stderr
    assert f"{path} written; its output is within" in process.stdout
    assert path.stat().st_size > 1000


def test_export_refuses_another_ending(trained: Path, tmp_path: Path) -> None:
    process = run("predict.py", f"--path_to_checkpoint={trained}", f"--export={tmp_path}/a.h5")
    assert process.returncode == 2
    assert "name a file that ends in .pt2 or .onnx" in process.stderr


SPAWN = """
import multiprocessing, runpy, sys
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_workers_may_be_spawned(path_to_data: str, tmp_path: Path) -> None:
    """As on Windows and macOS: everything a worker needs can be pickled."""
    program = tmp_path / "spawn.py"
    program.write_text(SPAWN)
    flags = [f"--path_to_data={path_to_data}", f"--run_dir={tmp_path / 'run'}", "--max_steps=1"]
    process = subprocess.run(
        [
            sys.executable,
            str(program),
            str(PROJECT / "train.py"),
            *flags,
            *SMALL,
            "--num_workers=1",
            "--cache=off",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )
    assert process.returncode == 0, process.stderr
