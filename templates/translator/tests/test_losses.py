"""The losses: the papers' formulas, one value per sample."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from losses import (
    DiscriminatorLoss,
    FeatureMatchingLoss,
    GeneratorLoss,
    MeanSignalNoiseRatio,
    PerceptualLoss,
    PixelLoss,
    StyleLoss,
    mean_per_sample,
)

LOG_2, LOG_4_3 = math.log(2), math.log(4 / 3)

# Scores of real and of generated patches, the discriminator's loss and the generator's, by hand.
BY_HAND = [
    ("lsgan", 3.0, -1.0, 5.0, 4.0),
    ("lsgan", 1.0, 0.0, 0.0, 1.0),
    ("hinge", 0.25, -0.5, 1.25, 0.5),
    ("hinge", 2.0, -3.0, 0.0, 3.0),
    ("vanilla", 0.0, 0.0, 2 * LOG_2, LOG_2),
    ("vanilla", math.log(3), -math.log(3), 2 * LOG_4_3, math.log(4)),
]


def scores(value: float) -> list[list[Tensor]]:
    """Two scales, each with a map of features and scores of one value; three samples."""
    return [[torch.rand(3, 2, 4, 4), torch.full((3, 1, side, side), value)] for side in (4, 2)]


@pytest.mark.parametrize(("kind", "real", "fake", "discriminator", "generator"), BY_HAND)
def test_adversarial_losses_are_summed_over_scales(
    kind: str, real: float, fake: float, discriminator: float, generator: float
) -> None:
    loss = DiscriminatorLoss(kind)(scores(real), scores(fake))
    torch.testing.assert_close(loss, torch.full((3,), 2 * discriminator))
    torch.testing.assert_close(GeneratorLoss(kind)(scores(fake)), torch.full((3,), 2 * generator))


def test_patches_are_averaged_for_each_sample() -> None:
    maps = [[torch.zeros(2, 1, 1, 2), torch.tensor([[1.0, 3.0], [0.0, 0.0]])[:, None, None]]]
    torch.testing.assert_close(GeneratorLoss("lsgan")(maps), torch.tensor([2.0, 1.0]))


def test_feature_matching_is_the_papers() -> None:
    """Averaged over a map, summed over maps and scales; scores do not count."""
    real = [[torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 2, 2), torch.rand(2, 1, 2, 2)]] * 2
    fake = [
        [torch.full((2, 3, 4, 4), 0.5), torch.full((2, 5, 2, 2), -2.0), torch.rand(2, 1, 2, 2)]
    ] * 2
    torch.testing.assert_close(FeatureMatchingLoss()(real, fake), torch.full((2,), 5.0))


def test_goals_get_no_gradient() -> None:
    maps = [torch.rand(2, 3, 4, 4, requires_grad=True) for _ in range(2)]
    end = torch.rand(2, 1, 2, 2)
    FeatureMatchingLoss()([[maps[0], end]], [[maps[1], end]]).sum().backward()
    assert maps[0].grad is None
    assert maps[1].grad is not None


class Slices(nn.Module):
    """Five maps, of which the n-th is n times the image."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [number * images for number in range(1, 6)]


def test_deeper_slices_weigh_more() -> None:
    output, target = torch.zeros(2, 3, 4, 4, requires_grad=True), torch.ones(2, 3, 4, 4)
    loss = PerceptualLoss(Slices())(output, target)
    expected = 1 / 32 + 2 / 16 + 3 / 8 + 4 / 4 + 5
    torch.testing.assert_close(loss, torch.full((2,), expected))
    loss.sum().backward()
    assert output.grad is not None


def test_pixels_differ_by_their_mean_absolute_difference() -> None:
    output, target = torch.rand(3, 2, 4, 5), torch.rand(3, 2, 4, 5)
    expected = functional.l1_loss(output, target, reduction="none").mean((1, 2, 3))
    torch.testing.assert_close(PixelLoss()(output, target), expected)


def test_style_loss_is_the_divergence_from_the_normal_distribution() -> None:
    codes = torch.randn(4, 3)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(codes, 1.0), normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(StyleLoss()(codes), expected)


def test_half_precision_is_averaged_in_full() -> None:
    values = torch.full((1, 1, 300, 300), 3.0, dtype=torch.float16)
    values[..., 0] = 60000
    mean = mean_per_sample(values)
    assert mean.dtype == torch.float32
    assert mean.item() == pytest.approx((299 * 3 + 60000) / 300, rel=1e-3)
    assert mean_per_sample(values.double()).dtype == torch.float64


def test_an_image_without_errors_does_not_hide_the_others() -> None:
    metric, target = MeanSignalNoiseRatio(), torch.zeros(2, 3, 4, 4)
    output = target.clone()
    output[1] = 25.5  # a tenth of the range: 20 dB
    metric.update(output, target)
    torch.testing.assert_close(metric.compute(), torch.tensor(60.0))
    assert metric.higher_is_better
