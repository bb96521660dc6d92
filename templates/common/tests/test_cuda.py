"""What only a GPU can show; the other tests that take a `device` run there, too."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, Parse, run
from small import WAITS
from test_model import LOSS_FLAGS
from test_parallel import DrawnBySample, build, expected_gradients, gradients
from test_resume import assert_equal_runs, cut

from engine.checkpoint import read_checkpoint
from engine.prefetch import to_device

from train import Trainer, main

pytestmark = pytest.mark.cuda
CUDA = "--device=cuda"


@pytest.mark.parametrize("flags", LOSS_FLAGS, ids=" ".join)
def test_gradients_are_those_of_the_cpu(parse: Parse, flags: list[str]) -> None:
    trainer, batch = build(parse(*flags), training=False)
    expected = expected_gradients(trainer, batch)
    on_gpu = Trainer(parse(CUDA, *flags))
    on_gpu.model.double().eval()
    with DrawnBySample(0):
        on_gpu.backward(to_device(batch, on_gpu.device))
    found = [each.cpu() for each in gradients(on_gpu)]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)  # some is in single precision


@pytest.mark.parametrize("flags", [[], ["--amp", "--channels_last"], ["--ema=0.9"]], ids=" ".join)
def test_no_step_between_two_logs_waits_for_the_device(parse: Parse, flags: list[str]) -> None:
    if WAITS:
        pytest.skip("a loss of the model's has the host wait")
    trainer = Trainer(parse(CUDA, "--max_steps=8", "--log_every=8", "--picture_every=0", *flags))
    after_step = trainer.after_step

    def watched(bar: Any) -> None:
        if trainer.state.n_iter == 3:  # cuDNN has chosen its algorithms
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the mode is said to be a prototype
                torch.cuda.set_sync_debug_mode("error")
        elif trainer.state.n_iter == 7:
            torch.cuda.set_sync_debug_mode("default")
        after_step(bar)

    trainer.after_step = watched  # type: ignore[method-assign]  # this one alone
    try:
        trainer.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_run_on_a_gpu_goes_on_exactly(parse: Parse, tmp_path: Path) -> None:
    flags = CUDA, "--deterministic", "--max_steps=6"
    main(parse(*flags, f"--run_dir={tmp_path / 'whole'}"))
    cut(Trainer(parse(*flags, f"--run_dir={tmp_path / 'cut'}")), step=3)
    main(parse(*flags, f"--run_dir={tmp_path / 'cut'}", "--resume"))
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")


def test_images_kept_on_the_gpu_train_alike(parse: Parse, tmp_path: Path) -> None:
    for cache in ("off", "device"):
        flags = CUDA, "--deterministic", "--max_steps=12", f"--cache={cache}"
        main(parse(*flags, f"--run_dir={tmp_path / cache}"))
    assert_equal_runs(tmp_path / "off", tmp_path / "device")


@pytest.mark.parametrize("launcher", [[], ["-m", "torch.distributed.run", "--standalone"]])
def test_scripts_run_on_a_gpu(path_to_data: str, tmp_path: Path, launcher: list[str]) -> None:
    """Without a warning; torchrun, though for one process, takes all the ways of several."""
    flags = [f"--path_to_data={path_to_data}", f"--run_dir={tmp_path / 'run'}", "--max_steps=3"]
    process = run("train.py", *flags, *SMALL, CUDA, launcher=launcher)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    path = tmp_path / "run" / "checkpoints" / "best.pt"
    process = run("test.py", f"--path_to_checkpoint={path}", CUDA)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # advice of the compiler's on how to be faster
@pytest.mark.parametrize("flags", [[], ["--amp"]], ids=" ".join)
def test_compiled_model_trains_on_a_gpu(parse: Parse, flags: list[str], tmp_path: Path) -> None:
    main(parse(CUDA, "--compile", "--max_steps=3", *flags))
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["n_iter"] == 3


def test_checkpoint_of_a_gpu_is_read_on_the_cpu(parse: Parse, tmp_path: Path) -> None:
    main(parse(CUDA, "--max_steps=2"))
    main(parse("--device=cpu", "--max_steps=3", "--resume"))
    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert checkpoint["n_iter"] == 3
    assert all(weight.device.type == "cpu" for weight in checkpoint["model"].values())
