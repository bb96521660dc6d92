"""Losses and gradients that are not finite: named, not applied, not averaged."""

import math
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam

from engine.divergence import DeferredStepGuard, StepGuard
from engine.exits import DivergenceError
from engine.record import LossWindow


def test_window_averages_what_was_read_before_a_cut() -> None:
    window = LossWindow({"loss": [1.0, 2.0]})
    window.append({"loss": torch.tensor([5.0, 7.0])})
    assert window.read() == {"loss": [1.0, 2.0, 6.0]}
    assert window.means() == {"loss": 3.0}
    assert window.read() == {}


def test_window_keeps_terms_and_batches_apart() -> None:
    window = LossWindow({})
    right = torch.zeros(4, dtype=torch.bfloat16), torch.ones(4, dtype=torch.bfloat16)
    window.append({"loss": torch.tensor([1.0, 3.0]), "right": right[0]})
    window.append({"loss": torch.tensor([4.0, 6.0]), "right": right[1]})
    assert window.read() == {"loss": [2.0, 5.0], "right": [0.0, 1.0]}


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


def deferred_guard(limit: int = 3) -> tuple[DeferredStepGuard, nn.BatchNorm1d, Adam]:
    """Returns a guard on the CPU, whose fused optimizers skip a step as those on a GPU do."""
    layer = nn.BatchNorm1d(2)
    optimizer = Adam(layer.parameters(), 0.1, fused=True)
    parameters = {"loss": list(layer.parameters())}
    return (
        DeferredStepGuard([optimizer], parameters, list(layer.buffers()), limit, False),
        layer,
        optimizer,
    )


def train(guard: StepGuard, layer: nn.Module, optimizer: Adam, *inputs: float) -> list[Tensor]:
    """Takes a step on each of the inputs; returns weights and buffers after each."""
    states = []
    for number, value in enumerate(inputs):
        optimizer.zero_grad()
        losses = layer(torch.tensor([[1.0, 2.0], [value, 3.0]])).square().mean(1)
        losses.mean().backward()
        guard.watch("loss", losses)
        assert guard.allows(number)
        optimizer.step()
        states.append(torch.cat([each.flatten() for each in layer.state_dict().values()]))
    return states


def test_deferred_guard_has_the_optimizer_skip_a_bad_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    guard, layer, optimizer = deferred_guard()
    first, bad, after = train(guard, layer, optimizer, 5.0, math.inf, 6.0)
    assert torch.equal(bad, first)
    assert not torch.equal(after, first)
    assert bool(after.isfinite().all())
    expected, other, another = deferred_guard()
    assert torch.equal(train(expected, other, another, 5.0, 6.0)[-1], after)
    assert capsys.readouterr().err == ""  # nobody has waited for it
    guard.report(3)
    line = "up to step 3: in 1 steps, a loss or gradient is not finite: not applied (1 of"
    assert line in capsys.readouterr().err
    guard.report(4)
    assert capsys.readouterr().err == ""


def test_deferred_guard_ends_the_run_only_after_bad_steps_in_a_row() -> None:
    guard, layer, optimizer = deferred_guard()
    train(guard, layer, optimizer, *[math.nan] * 2, 5.0, *[math.nan] * 2)
    assert guard.bad_steps == 2
    guard.report(5)
    train(guard, layer, optimizer, math.nan)
    assert guard.bad_steps == 3  # of which two are of before the report
    with pytest.raises(DivergenceError, match=r"up to step 6: .*, 3 bad steps in a row"):
        guard.report(6)


def test_deferred_guard_goes_on_counting_after_a_resume() -> None:
    guard, layer, optimizer = deferred_guard()
    guard.bad_steps = 2
    train(guard, layer, optimizer, math.nan)
    with pytest.raises(DivergenceError, match="3 bad steps in a row"):
        guard.report(1)
