"""`--debug`: short runs that answer one question each."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Parse
from torch import Tensor

from engine import debugging
from engine.checkpoint import read_checkpoint
from engine.exits import UserError

from train import Trainer, main


def test_one_batch_goes_through_everything(
    parse: Parse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(parse("--debug=one_batch", "--accumulate=2"))
    run = tmp_path / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["split"], line["n_iter"]) for line in lines] == [("train", 1), ("test", 1)]
    assert read_checkpoint(run / "checkpoints" / "last.pt")["n_iter"] == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("one_batch: ")


@pytest.mark.slow
def test_a_profile_can_be_read(
    parse: Parse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(parse("--debug=profile", "--no-compile"))
    (trace,) = (tmp_path / "run" / "profile").glob("*.pt.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    names = {event["name"] for event in events}
    assert {"aten::convolution", "ProfilerStep#4", "ProfilerStep#9"} <= names
    assert "Optimizer.step" in " ".join(names)
    assert "Self CPU" in capsys.readouterr().out


def test_overfitting_sees_one_batch_again_and_again(
    parse: Parse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []
    backward = Trainer.backward

    def note(trainer: Trainer, batch: Any) -> dict[str, Tensor]:
        seen.append(batch)
        return backward(trainer, batch)

    monkeypatch.setattr(Trainer, "backward", note)
    main(parse("--debug=overfit", "--max_steps=3"))
    assert len(seen) == 3
    assert all(batch is seen[0] for batch in seen)
    assert capsys.readouterr().out.splitlines()[-1].startswith("overfit: ")


@pytest.mark.parametrize(
    ("last", "losses", "words"),
    [
        (0.1, ["one"], "it could learn the batch by heart"),
        (0.5, ["one"], "it could not, 25% of the loss is left: try another --lr"),
        (float("nan"), ["one"], "the loss is not finite: try a lower --lr"),
        (0.1, ["one", "two"], "judge by the other terms"),
    ],
)
def test_verdict_says_whether_it_could(last: float, losses: list[str], words: str) -> None:
    first = {"one": torch.tensor([1.0, 3.0]), "two": torch.tensor([1.0])}
    line = debugging.judge(first, first | {"one": torch.tensor([last, last])}, losses)
    assert line.startswith("overfit: one from 2 to ")
    assert words in line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--debug=overfit", "--resume"], "--debug is a short run of its own: leave --resume out"),
        (["--debug=profile", "--max_steps=3"], "--debug profile takes 10 steps: raise --max_steps"),
        (["--debug=profile", "--epochs=1"], "this run has 8: raise --epochs, or lower"),
    ],
)
def test_what_cannot_be_debugged_is_refused(parse: Parse, flags: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        main(parse(*flags))


@pytest.mark.parametrize("first", [0.0, -1.0])
def test_a_loss_without_a_scale_is_not_judged(first: float) -> None:
    terms = {"one": torch.tensor([first])}
    assert "has no scale" in debugging.judge(terms, {"one": torch.tensor([-5.0])}, ["one"])
