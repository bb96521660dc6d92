"""The losses: the papers' formulas, one value per sample; and the measures of a test."""

import math

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.kid import KernelInceptionDistance

from losses import ClassCount, DiscriminatorLoss, GeneratorLoss, GradientPenalty, KernelDistance

KINDS = ("vanilla", "lsgan", "hinge", "wgan-gp")
LOG_2, LOG_3, LOG_4 = (math.log(number) for number in (2, 3, 4))

# Scores of a real image, of a generated one, the discriminator's loss and the generator's, by hand.
BY_HAND = [
    ("vanilla", 0.0, 0.0, 2 * LOG_2, LOG_2),
    ("vanilla", LOG_3, -LOG_3, 2 * (LOG_4 - LOG_3), LOG_4),  # D(x) = 3/4, D(G(z)) = 1/4
    ("lsgan", 3.0, -1.0, 2.5, 2.0),
    ("hinge", 0.25, -0.5, 1.25, 0.5),
    ("hinge", 2.0, -3.0, 0.0, 3.0),
    ("wgan-gp", 2.0, -3.0, -5.0, 3.0),
]


@pytest.mark.parametrize(("kind", "real", "fake", "discriminator", "generator"), BY_HAND)
def test_losses_are_the_papers(
    kind: str, real: float, fake: float, discriminator: float, generator: float
) -> None:
    scores = torch.full((3,), real), torch.full((3,), fake)
    loss = DiscriminatorLoss(kind)(*scores)
    torch.testing.assert_close(loss, torch.full((3,), discriminator))
    torch.testing.assert_close(GeneratorLoss(kind)(scores[1]), torch.full((3,), generator))


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_computed_in_full(kind: str) -> None:
    scores = torch.tensor([12.0], dtype=torch.float16)
    assert GeneratorLoss(kind)(scores).dtype == torch.float32
    assert DiscriminatorLoss(kind)(scores, scores).dtype == torch.float32
    vanilla = GeneratorLoss("vanilla")(scores).item()
    assert vanilla == pytest.approx(math.log1p(math.exp(-12)), rel=1e-4)


class Linear(nn.Module):
    """A critic with the same gradient everywhere."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight


def test_penalty_of_a_linear_critic_is_known() -> None:
    critic = Linear(torch.tensor([3.0, 0.0, 0.0, 4.0]))  # of length 5
    penalty = GradientPenalty()(critic, torch.rand(3, 1, 2, 2), torch.rand(3, 1, 2, 2))
    torch.testing.assert_close(penalty, torch.full((3,), 16.0))
    penalty.mean().backward()  # 2 (|w| - 1) w / |w|
    torch.testing.assert_close(critic.weight.grad, torch.tensor([4.8, 0.0, 0.0, 6.4]))


def test_penalty_has_exact_second_order_gradients() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(12, 1))
    critic.double().append(nn.Flatten(0))
    real, fake = torch.randn(2, 4, 2, 4, 4, dtype=torch.float64)
    weight = critic[0].weight
    assert isinstance(weight, nn.Parameter)

    def mean_penalty() -> Tensor:
        torch.manual_seed(1)  # the same shares of real and generated
        penalty: Tensor = GradientPenalty()(critic, real, fake).mean()
        return penalty

    (gradient,) = torch.autograd.grad(mean_penalty(), weight)
    for place in ((0, 0, 0, 0), (2, 1, 1, 2)):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[place] += step
            values.append(mean_penalty().item())
            with torch.no_grad():
                weight[place] -= step
        assert gradient[place].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)


def test_penalty_reaches_no_generator_and_knows_no_half_precision() -> None:
    critic, fake = Linear(torch.full((4,), 300.0)), torch.rand(2, 1, 2, 2, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        penalty = GradientPenalty()(critic, torch.rand(2, 1, 2, 2), fake)
    assert penalty.dtype == torch.float32
    torch.testing.assert_close(penalty, torch.full((2,), 599.0**2))
    penalty.sum().backward()
    assert fake.grad is None


def test_kernel_distance_is_torchmetrics_own_on_a_whole_set() -> None:
    given = nn.Identity()
    with pytest.warns(UserWarning, match="will save all extracted features"):
        reference = KernelInceptionDistance(given, subsets=1, subset_size=40)
    ours = KernelDistance()
    generator = torch.Generator().manual_seed(0)
    for start in (0, 15):
        for real in (True, False):
            features = torch.randn(15 + start // 15 * 10, 6, generator=generator) + 0.3 * real
            ours.update(features, real)
            reference.update(features, real)
    torch.testing.assert_close(ours.compute(), reference.compute()[0], rtol=1e-4, atol=1e-5)
    state = torch.get_rng_state()
    assert torch.equal(ours.compute(), ours.compute())
    assert torch.equal(state, torch.get_rng_state())


def test_classes_are_counted_once() -> None:
    count = ClassCount(10)
    for labels in ([3, 3, 7], [7, 0], []):
        count.update(torch.tensor(labels, dtype=torch.long))
    assert count.compute().item() == 3
