"""The training script as a whole: it trains, records, learns, and refuses what it cannot do."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Parse
from torch import Tensor

from engine.checkpoint import read_checkpoint
from engine.exits import DivergenceError, UserError

from train import Trainer, main

VARIATIONS = [
    [],
    ["--amp"],
    ["--accumulate=2", "--clip_grad=1"],
    ["--ema=0.9", "--lr_schedule=linear", "--warmup=1"],
    ["--num_workers=1", "--cache=off", "--lr_schedule=constant"],
    ["--deterministic", "--cache=off", "--num_workers=1", "--prefetch=0"],
    ["--channels_last", "--fused", "--tf32"],
]


@pytest.mark.parametrize("flags", VARIATIONS, ids=lambda flags: " ".join(flags) or "plain")
def test_two_steps_leave_a_whole_run(
    parse: Parse, device: str, flags: list[str], tmp_path: Path
) -> None:
    main(parse("--max_steps=2", "--picture_every=2", f"--device={device}", *flags))
    run = tmp_path / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["split"], line["n_iter"]) for line in lines] == [("train", 2), ("test", 2)]
    assert all(isinstance(value, int | float | str) for line in lines for value in line.values())
    assert "max_steps: 2" in (run / "config.txt").read_text()
    assert len(list(run.glob("events.out.tfevents.*"))) == 1
    checkpoint = read_checkpoint(run / "checkpoints" / "last.pt")
    assert checkpoint["n_iter"] == 2
    assert not any(name.startswith(("module.", "_orig_mod.")) for name in checkpoint["model"])
    assert (run / "checkpoints" / "best.pt").exists()


# Dynamo hides this warning of its own from users, but not from a filter that raises.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_model_trains(
    parse: Parse, tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is traced, and as torch's own compiler makes programs of that."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    main(parse("--max_steps=2", "--compile"))
    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert not any("_orig_mod" in name for name in checkpoint["model"])


def test_training_learns(parse: Parse, device: str, tmp_path: Path) -> None:
    main(parse("--epochs=6", f"--device={device}"))
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [line for line in lines if line["split"] == "train"]
    terms = losses[0].keys() - {"n_iter", "epoch", "split", "lr"}
    assert any(losses[-1][term] < 0.5 * losses[0][term] for term in terms)


def test_two_equal_trainings_are_equal(parse: Parse, tmp_path: Path) -> None:
    weights = []
    for name in ("a", "b"):
        main(parse("--max_steps=3", f"--run_dir={tmp_path / name}"))
        weights.append(read_checkpoint(tmp_path / name / "checkpoints" / "last.pt")["model"])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_another_seed_is_another_training(parse: Parse, tmp_path: Path) -> None:
    weights = []
    for seed in (0, 1):
        main(parse("--max_steps=1", f"--seed={seed}", f"--run_dir={tmp_path / str(seed)}"))
        weights.append(read_checkpoint(tmp_path / str(seed) / "checkpoints/last.pt")["model"])
    assert not all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_checkpoint_starts_another_training(parse: Parse, tmp_path: Path) -> None:
    main(parse("--max_steps=1", f"--run_dir={tmp_path / 'old'}"))
    path = tmp_path / "old" / "checkpoints" / "last.pt"
    trainer = Trainer(parse(f"--path_to_checkpoint={path}", f"--run_dir={tmp_path / 'new'}"))
    old = read_checkpoint(path)["model"]
    assert all(torch.equal(value, old[key]) for key, value in trainer.model.state_dict().items())
    assert trainer.state.n_iter == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch_size=300"], "--batch_size 300 x --accumulate 1 is more than the 256 training"),
        (["--batch_size=100", "--accumulate=3"], "lower one of them"),
        (["--path_to_data=nowhere"], "nowhere.*prepare_data.py.*--path_to_data"),
        (["--device=abacus"], "--device abacus cannot be used here"),
        (["--path_to_checkpoint=gone.pt"], "--path_to_checkpoint gone.pt: No such file"),
    ],
)
def test_wrong_use_is_one_line(parse: Parse, flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        main(parse(*flags))
    assert "\n" not in str(error.value)


def test_resume_needs_the_name_of_the_run(parse: Parse) -> None:
    options = parse("--resume")
    options.run_dir = None
    with pytest.raises(UserError, match=r"--resume .* --run_dir"):
        main(options)


def test_old_run_is_not_overwritten(parse: Parse) -> None:
    main(parse("--max_steps=1"))
    with pytest.raises(UserError, match="holds a run: add --resume, or change --run_dir"):
        main(parse("--max_steps=1"))


def test_divergence_stops_and_saves_nothing(parse: Parse, tmp_path: Path) -> None:
    with pytest.raises(DivergenceError, match=r"step \d+: .*(nan|inf|not finite)"):
        main(parse("--lr=1e30", "--lr_schedule=constant", "--max_bad_steps=3"))
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_bad_step_is_not_applied(
    parse: Parse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Trainer(parse("--max_steps=4", "--ema=0.9", "--log_every=1"))
    forward, weights = trainer.model.forward, []

    def forward_once_bad(batch: Any) -> dict[str, Tensor]:
        weights.append([each.clone() for each in trainer.model.state_dict().values()])
        terms = forward(batch)
        factor = math.nan if trainer.state.n_iter == 1 else 1.0
        return {name: values * factor for name, values in terms.items()}

    monkeypatch.setattr(trainer.model, "forward", forward_once_bad)
    trainer.run()
    first, second, third, fourth = weights
    assert all(map(torch.equal, second, third))  # the second step
    assert not all(map(torch.equal, first, second))
    assert not all(map(torch.equal, third, fourth))
    assert "step 2: " in capsys.readouterr().err
    assert trainer.state.guard.bad_steps == 0


def test_run_of_bad_steps_only_ends_with_a_line(
    parse: Parse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    main(parse("--max_steps=1"))
    before = (tmp_path / "run" / "checkpoints" / "last.pt").read_bytes()
    trainer = Trainer(parse("--resume", "--max_bad_steps=3"))
    forward = trainer.model.forward
    monkeypatch.setattr(
        trainer.model, "forward", lambda batch: {k: v * math.inf for k, v in forward(batch).items()}
    )
    with pytest.raises(DivergenceError, match=r"step 4: \w+ is (nan|inf), 3 bad steps in a row"):
        trainer.run()
    assert (tmp_path / "run" / "checkpoints" / "last.pt").read_bytes() == before
