"""What only a GPU can show; the other tests that take a `device` run there, too."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Parse
from test_resume import assert_equal_runs, cut

from engine.checkpoint import read_checkpoint

from train import Trainer, main

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
CUDA = "--device=cuda"


@pytest.mark.parametrize("flags", [[], ["--amp", "--channels_last"], ["--ema=0.9"]], ids=" ".join)
def test_no_step_between_two_logs_waits_for_the_device(parse: Parse, flags: list[str]) -> None:
    trainer = Trainer(parse(CUDA, "--max_steps=8", "--log_every=8", "--picture_every=0", *flags))
    after_step = trainer.after_step

    def watched(bar: Any) -> None:
        if trainer.state.n_iter == 3:  # cuDNN has chosen its algorithms
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


@pytest.mark.slow
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
