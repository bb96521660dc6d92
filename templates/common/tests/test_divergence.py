"""Losses and gradients that are not finite: named, not applied, not averaged."""

import math
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from engine.divergence import StepGuard
from engine.exits import DivergenceError
from engine.record import LossWindow


def test_window_averages_what_was_read_before_a_cut() -> None:
    window = LossWindow({"loss": [1.0, 2.0]})
    window.append({"loss": torch.tensor([5.0, 7.0])})
    assert window.read() == {"loss": [1.0, 2.0, 6.0]}
    assert window.means() == {"loss": 3.0}
    assert window.read() == {}


def test_window_leaves_out_what_was_not_applied() -> None:
    window = LossWindow({})
    for value in (1.0, math.nan, 3.0):
        window.append(
            {"loss": torch.tensor([value, value]), "nothing": torch.tensor([math.inf, 0.0])}
        )
    assert window.means() == {"loss": 2.0}


def guard_of(*gradients: list[float]) -> tuple[StepGuard, list[nn.Parameter]]:
    parameters = [nn.Parameter(torch.zeros(len(each))) for each in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return StepGuard({"first": parameters[:1], "second": parameters[1:]}, [], 3, False), parameters


@pytest.mark.parametrize(
    ("gradient", "loss", "line"),
    [
        ([1.0, math.nan], 1.0, "step 7: the gradient of second is not finite: not applied"),
        ([1.0, -math.inf], 1.0, "step 7: the gradient of second is not finite: not applied"),
        ([1.0, 2.0], math.nan, "step 7: second is nan: not applied (1 of --max_bad_steps 3)"),
        ([1.0, 2.0], math.inf, "step 7: second is inf: not applied (1 of --max_bad_steps 3)"),
    ],
)
def test_step_that_is_not_finite_is_named(
    gradient: list[float], loss: float, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    guard, _ = guard_of([3.0], gradient)
    guard.watch("first", torch.tensor(1.0))
    guard.watch("second", torch.tensor(loss))
    guard.watch("second", torch.tensor(1.0))  # of the next batch, which cannot hide the first
    assert not guard.allows(7)
    assert line in capsys.readouterr().err


def test_finite_step_is_allowed_and_its_gradient_unchanged() -> None:
    guard, parameters = guard_of([3.0], [1e38, 1e-45])
    guard.watch("first", torch.tensor(1.0))
    assert guard.allows(1)
    assert torch.equal(cast(Tensor, parameters[1].grad), torch.tensor([1e38, 1e-45]))


def test_bad_steps_end_the_run_only_in_a_row() -> None:
    guard, parameters = guard_of([math.nan], [1.0])
    assert not guard.allows(1)
    assert not guard.allows(2)
    parameters[0].grad = torch.ones(1)
    assert guard.allows(3)
    parameters[0].grad = torch.full((1,), math.nan)
    assert not guard.allows(4)
    assert not guard.allows(5)
    with pytest.raises(DivergenceError, match=r"step 6: the gradient of first .*, 3 bad"):
        guard.allows(6)


def test_buffers_are_those_of_the_last_good_step() -> None:
    parameter, layer = nn.Parameter(torch.zeros(1)), nn.BatchNorm1d(2)
    guard = StepGuard({"loss": [parameter]}, list(layer.buffers()), 3, False)
    layer(torch.rand(4, 2))
    assert guard.allows(1)
    good = [each.clone() for each in layer.buffers()]
    layer(torch.tensor([[1.0, 2.0], [math.inf, 3.0]]))
    guard.watch("loss", torch.tensor(math.nan))
    assert not guard.allows(2)
    assert all(map(torch.equal, layer.buffers(), good))
