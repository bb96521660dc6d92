"""Losses, one value per sample, and a measure of a test that torchmetrics has not.

Whoever splits a batch over devices gets the same mean loss. Scores are logits, one for each patch
of an image, and a map of them for each scale.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.functional.image import peak_signal_noise_ratio

Maps = Sequence[Sequence[Tensor]]  # of each scale, the maps of a discriminator, scores last


def mean_per_sample(values: Tensor) -> Tensor:
    """Averages (N, ...) over all axes but the first, never in half precision: (N,)."""
    precise = values.to(torch.promote_types(values.dtype, torch.float32))
    return precise.flatten(1).mean(dim=1)


class PixelLoss(nn.Module):
    """The mean absolute difference, which blurs less than the squared one (Isola et al. 2017)."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Maps images, each (N, C, H, W), to losses (N,)."""
        return mean_per_sample((output - target).abs())


class GeneratorLoss(nn.Module):
    """What the generator minimizes: low where its patches are taken for real ones, at each scale.

    Args:
        kind: "lsgan", least squares (Mao et al. 2017; the paper's), "hinge" (Lim and Ye 2017) or
            "vanilla", -log D(G(x)) (Goodfellow et al. 2014).
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, fake: Maps) -> Tensor:
        """Maps the discriminators' maps of generated images to losses (N,), summed over scales."""
        return torch.stack([mean_per_sample(self._of(maps[-1])) for maps in fake]).sum(dim=0)

    def _of(self, scores: Tensor) -> Tensor:
        if self.kind == "vanilla":
            return functional.softplus(-scores)
        return (scores - 1).square() if self.kind == "lsgan" else -scores


class DiscriminatorLoss(nn.Module):
    """What the discriminators minimize: low where they tell real patches from generated ones.

    Args:
        kind: as of the generator's loss.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, real: Maps, fake: Maps) -> Tensor:
        """Maps the maps of real and of generated images to losses (N,), summed over scales."""
        losses = [
            mean_per_sample(self._of(maps[-1])) + mean_per_sample(self._of_fake(others[-1]))
            for maps, others in zip(real, fake, strict=True)
        ]
        return torch.stack(losses).sum(dim=0)

    def _of(self, scores: Tensor) -> Tensor:
        if self.kind == "vanilla":
            return functional.softplus(-scores)
        return (scores - 1).square() if self.kind == "lsgan" else functional.relu(1 - scores)

    def _of_fake(self, scores: Tensor) -> Tensor:
        if self.kind == "vanilla":
            return functional.softplus(scores)
        return scores.square() if self.kind == "lsgan" else functional.relu(1 + scores)


class FeatureMatchingLoss(nn.Module):
    """How far the discriminators' maps of a generated image are from those of the real one.

    After Wang et al. 2018, equation 4: the absolute difference, averaged over each map, summed over
    the maps and the scales. The scores are left out.
    """

    def forward(self, real: Maps, fake: Maps) -> Tensor:
        """Maps the maps of real and of generated images to losses (N,).

        The discriminators' maps of the real image are a goal: no gradient goes through them.
        """
        losses = [
            mean_per_sample((theirs - ours.detach()).abs())
            for maps, others in zip(real, fake, strict=True)
            for ours, theirs in zip(maps[:-1], others[:-1], strict=True)
        ]
        return torch.stack(losses).sum(dim=0)


class PerceptualLoss(nn.Module):
    """How far two images are for a network that has learned to see (Johnson et al. 2016).

    After Wang et al. 2018, section 3.5: the absolute difference of the maps behind each slice,
    which weigh more the deeper they lie.

    Args:
        network: a frozen network that returns a list of five maps.
    """

    weights = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Maps images in [-1, 1], each (N, C, H, W), to losses (N,)."""
        with torch.no_grad():
            goals = self.network(target)
        losses = [
            weight * mean_per_sample((map_ - goal).abs())
            for weight, map_, goal in zip(self.weights, self.network(output), goals, strict=True)
        ]
        return torch.stack(losses).sum(dim=0)


class StyleLoss(nn.Module):
    """Holds style codes near zero, so that codes drawn from a normal distribution mean something.

    It is the divergence of a normal distribution around the code, with variance 1, from one around
    zero (Kingma and Welling 2014, appendix B).
    """

    def forward(self, styles: Tensor) -> Tensor:
        """Maps codes (N, style_size) to losses (N,)."""
        return 0.5 * styles.square().sum(dim=1)


class MeanSignalNoiseRatio(Metric):
    """PSNR, in decibels, averaged over images, as papers on super-resolution do.

    torchmetrics' own would be infinite once a single image has no error at all.
    """

    higher_is_better, is_differentiable, full_state_update = True, False, False
    most = 100.0  # decibels that an image without errors counts for
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Takes images with values from 0 to 255, each (N, C, H, W)."""
        ratios = peak_signal_noise_ratio(
            output, target, data_range=255.0, dim=(1, 2, 3), reduction="none"
        )
        self.total += ratios.clamp(max=self.most).sum()
        self.count += len(output)

    def compute(self) -> Tensor:
        """Returns the mean, ()."""
        return (self.total / self.count).float()
