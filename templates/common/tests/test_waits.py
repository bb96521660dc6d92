"""Between two logs, the host never waits for a GPU: what can be seen of that without one."""

from contextlib import nullcontext

import pytest
import torch
from conftest import Parse
from small import WAITS
from test_model import LOSS_FLAGS
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from engine.average import MovingAverage
from engine.evaluation import evenly_spaced
from engine.prefetch import map_tensors

from train import Trainer


@pytest.mark.parametrize("flags", LOSS_FLAGS, ids=" ".join)
def test_losses_ask_for_no_value(
    parse: Parse, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    """They are computed on tensors that have shapes but no values: who asks for one fails."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # needs a true device
    trainer = Trainer(parse(*flags))
    batch = map_tensors(lambda each: each.to("meta"), evenly_spaced(trainer.test_set, 4))
    model = trainer.model.to("meta")
    with pytest.raises(RuntimeError, match="meta") if WAITS else nullcontext():
        terms = model(batch)
        for name in trainer.state.parameters:
            terms[name].mean().backward(retain_graph=True)


def test_average_is_that_of_torch() -> None:
    """Bit for bit, buffers and whole numbers too."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    average = get_ema_multi_avg_fn(0.7)
    ours = MovingAverage(model, 0.7)
    expected = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    for _ in range(4):
        model(torch.randn(8, 3))
        for parameter in model.parameters():
            nn.init.normal_(parameter.data)
        for each in (ours, expected):
            each.update_parameters(model)
    found = ours.module.state_dict()
    assert found.keys() == expected.module.state_dict().keys()
    assert all(
        torch.equal(found[key], value) for key, value in expected.module.state_dict().items()
    )
    assert ours.n_averaged == expected.n_averaged == 4
