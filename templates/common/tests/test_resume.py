"""A run that was cut and resumed ends, bit for bit, as one that was not."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Parse, remove

from engine.checkpoint import read_checkpoint, write_checkpoint
from engine.exits import PreemptedError, UserError

from train import Trainer, main

STEPS_AN_EPOCH = 8  # 256 samples in batches of 32


def cut(trainer: Trainer, step: int) -> None:
    """Trains up to a step, at which a signal arrives."""
    after_step = trainer.after_step

    def after_step_and_signal(bar: Any) -> None:
        after_step(bar)
        if trainer.state.n_iter == step:
            signal.raise_signal(signal.SIGTERM)

    trainer.after_step = after_step_and_signal  # type: ignore[method-assign]  # this one alone
    with pytest.raises(PreemptedError, match=r"SIGTERM: saved; continue with --resume --run_dir"):
        trainer.run()


def equal(first: Any, second: Any) -> bool:
    """Compares nested plain types and tensors, bit for bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


def assert_equal_runs(first: Path, second: Path) -> None:
    checkpoints = [read_checkpoint(run / "checkpoints" / "last.pt") for run in (first, second)]
    for name in ("model", "ema", "optimizers", "schedulers", "epoch", "batch", "n_iter", "best"):
        assert equal(checkpoints[0][name], checkpoints[1][name]), name
    assert (first / "metrics.jsonl").read_bytes() == (second / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("step", "flags"),
    [
        (1, []),
        (3, ["--ema=0.9", "--warmup=4"]),
        (STEPS_AN_EPOCH, []),
        (STEPS_AN_EPOCH + 5, ["--amp"]),
        (3, ["--batch_size=16", "--accumulate=2"]),
    ],
)
def test_cut_and_resumed_equals_unbroken(
    parse: Parse, tmp_path: Path, step: int, flags: list[str]
) -> None:
    main(parse(f"--run_dir={tmp_path / 'unbroken'}", *flags))
    cut(Trainer(parse(*flags)), step)
    main(parse("--resume", *flags))
    assert_equal_runs(tmp_path / "unbroken", tmp_path / "run")


def test_number_of_workers_changes_nothing(parse: Parse, tmp_path: Path) -> None:
    runs = [tmp_path / str(workers) for workers in range(3)]
    for workers, run in enumerate(runs):
        main(parse(f"--run_dir={run}", f"--num_workers={workers}", "--cache=off"))
    assert_equal_runs(runs[0], runs[1])
    assert_equal_runs(runs[0], runs[2])


def test_workers_and_cache_may_change_at_a_resume(parse: Parse, tmp_path: Path) -> None:
    main(parse(f"--run_dir={tmp_path / 'unbroken'}"))
    cut(Trainer(parse("--num_workers=2", "--cache=off")), 3)
    cut(Trainer(parse("--resume", "--cache=ram", "--num_workers=1")), 5)
    main(parse("--resume", "--cache=device", "--num_workers=1"))
    assert_equal_runs(tmp_path / "unbroken", tmp_path / "run")


def test_signal_during_the_test_pass(
    parse: Parse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(parse(f"--run_dir={tmp_path / 'unbroken'}"))
    trainer = Trainer(parse())
    tested = trainer.state.tested_model
    evaluate = tested.evaluate

    def evaluate_and_signal(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        evaluate(*arguments)

    monkeypatch.setattr(tested, "evaluate", evaluate_and_signal)
    with pytest.raises(PreemptedError, match="SIGINT"):
        trainer.run()
    main(parse("--resume"))
    assert_equal_runs(tmp_path / "unbroken", tmp_path / "run")


def test_resume_without_a_run_starts_it(parse: Parse, capsys: pytest.CaptureFixture[str]) -> None:
    main(parse("--resume", "--max_steps=1"))
    assert "new run in" in capsys.readouterr().out


def test_resume_of_a_finished_run_does_nothing(parse: Parse, tmp_path: Path) -> None:
    main(parse())
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    main(parse("--resume"))
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_torn_checkpoint_is_passed_over(
    parse: Parse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(parse(f"--run_dir={tmp_path / 'unbroken'}"))
    cut(Trainer(parse("--save_every=2")), 5)
    newest = max((tmp_path / "run" / "checkpoints").glob("step_*.pt"))
    newest.write_bytes(newest.read_bytes()[:1000])
    main(parse("--resume"))
    assert f"{newest} is torn, or no checkpoint of this project: passed over" in (
        capsys.readouterr().err
    )
    assert_equal_runs(tmp_path / "unbroken", tmp_path / "run")


def test_changed_flag_is_named(parse: Parse, capsys: pytest.CaptureFixture[str]) -> None:
    main(parse("--max_steps=1"))
    main(parse("--max_steps=2", "--resume"))
    lines = capsys.readouterr().out.splitlines()
    assert "--max_steps is 2; the checkpoint was saved with 1" in lines
    assert not any("--seed" in line or "--resume" in line for line in lines)


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("--seed=1", "--seed is 1; the checkpoint was saved with 0: give that, or --allow_changes"),
        ("--batch_size=16", "--batch_size is 16; the checkpoint was saved with 32"),
        ("--accumulate=2", "--accumulate is 2; the checkpoint was saved with 1"),
    ],
)
def test_change_that_breaks_exactness_needs_a_flag(
    parse: Parse, tmp_path: Path, flag: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(parse("--max_steps=1"))
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=line):
        main(parse("--max_steps=2", "--resume", flag))
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    main(parse("--max_steps=2", "--resume", flag, "--allow_changes"))
    assert line.split(":")[0] in capsys.readouterr().out


def test_another_size_of_images_is_refused(parse: Parse) -> None:
    """Whether --allow_changes then helps, the model says: it may have weights for one size."""
    main(parse("--max_steps=1"))
    with pytest.raises(UserError, match="--img_size is 64; the checkpoint was saved with 32: give"):
        main(parse("--max_steps=2", "--resume", "--img_size=64"))


def test_another_training_set_needs_a_flag(
    parse: Parse, tmp_path: Path, path_to_data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(parse("--max_steps=1"))
    copy = shutil.copytree(path_to_data, tmp_path / "moved")
    main(parse("--max_steps=2", "--resume", f"--path_to_data={copy}"))  # the same set, elsewhere
    first = min((copy / "train").rglob("*.png"))
    remove((copy / "train").rglob(first.name))  # and what else belongs to the sample
    flags = ["--max_steps=3", "--resume", f"--path_to_data={copy}"]
    with pytest.raises(UserError, match=r"--path_to_data .*moved: the training set is not the run"):
        main(parse(*flags))
    main(parse(*flags, "--allow_changes"))
    assert "the training set is not the run's" in capsys.readouterr().out


def test_changed_learning_rate_takes_effect(
    parse: Parse, capsys: pytest.CaptureFixture[str]
) -> None:
    main(parse("--max_steps=1", "--lr=0.25", "--lr_schedule=constant"))
    flags = ["--max_steps=2", "--lr=0.5", "--lr_schedule=constant", "--resume"]
    (optimizer,) = list(Trainer(parse(*flags)).state.optimizers.values())[:1]
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert "--lr is 0.5; the checkpoint was saved with 0.25" in capsys.readouterr().out


def test_new_batch_size_goes_on_at_the_same_samples(parse: Parse) -> None:
    cut(Trainer(parse()), 3)  # 96 samples of 256
    trainer = Trainer(parse("--resume", "--allow_changes", "--batch_size=8", "--accumulate=5"))
    assert trainer.state.batch == 10  # whole steps of 40 samples
    trainer.run()


def test_smaller_training_set_goes_on_with_the_next_epoch(
    parse: Parse, tmp_path: Path, path_to_data: str
) -> None:
    cut(Trainer(parse()), 6)
    copy = shutil.copytree(path_to_data, tmp_path / "smaller")
    remove(sorted((copy / "train").rglob("*.png"))[::2])  # four batches are left, six are done
    main(parse("--resume", "--allow_changes", f"--path_to_data={copy}"))
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["n_iter"] == 8


def test_signal_after_the_test_is_not_before_it(
    parse: Parse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(parse(f"--run_dir={tmp_path / 'unbroken'}"))
    trainer = Trainer(parse())
    scalars = trainer.record.scalars

    def scalars_and_signal(split: str, *others: Any) -> None:
        scalars(split, *others)
        if split == "test":
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(trainer.record, "scalars", scalars_and_signal)
    with pytest.raises(PreemptedError):
        trainer.run()
    main(parse("--resume"))
    assert_equal_runs(tmp_path / "unbroken", tmp_path / "run")


def test_other_classes_are_refused(parse: Parse, tmp_path: Path) -> None:
    main(parse("--max_steps=1"))
    path = tmp_path / "run" / "checkpoints" / "step_00000001.pt"
    checkpoint = read_checkpoint(path)
    checkpoint["classes"] = [*checkpoint["classes"], "another"]
    write_checkpoint(checkpoint, path)
    with pytest.raises(UserError, match=r"has the classes .*; the run began with .*another"):
        main(parse("--max_steps=2", "--resume"))
