"""Losses, one value per sample, and what a test measures that torchmetrics has not.

Whoever splits a batch over devices gets the same mean loss. Scores are logits: a discriminator
ends without a sigmoid, which would saturate.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.image.kid import poly_mmd
from torchmetrics.utilities import dim_zero_cat

BLOCK = 1000  # samples of which a distance is taken at once


class GeneratorLoss(nn.Module):
    """What the generator minimizes: it is low where its images are taken for real ones.

    Args:
        kind: "vanilla": -log D(G(z)), which does not saturate (Goodfellow et al. 2014, section 3);
            "lsgan": (Mao et al. 2017, equation 9); "hinge": (Lim and Ye 2017, section 2);
            "wgan-gp": (Gulrajani et al. 2017, section 4).
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, fake_scores: Tensor) -> Tensor:
        """Maps the discriminator's scores of generated images, (N,), to losses (N,)."""
        scores = fake_scores.float()  # float16 would lose the small ones
        if self.kind == "vanilla":
            return functional.softplus(-scores)
        if self.kind == "lsgan":
            return 0.5 * (scores - 1).square()
        return -scores


class DiscriminatorLoss(nn.Module):
    """What the discriminator minimizes: it is low where it tells real from generated images.

    Args:
        kind: as of the generator's loss. The penalty of "wgan-gp" is a module of its own.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, real_scores: Tensor, fake_scores: Tensor) -> Tensor:
        """Maps the scores of real and of generated images, each (N,), to losses (N,)."""
        real, fake = real_scores.float(), fake_scores.float()
        if self.kind == "vanilla":  # -log D(x) - log(1 - D(G(z)))
            return functional.softplus(-real) + functional.softplus(fake)
        if self.kind == "lsgan":
            return 0.5 * ((real - 1).square() + fake.square())
        if self.kind == "hinge":
            return functional.relu(1 - real) + functional.relu(1 + fake)
        return fake - real


class GradientPenalty(nn.Module):
    """Keeps the gradient of a critic near length 1 (Gulrajani et al. 2017, equation 3)."""

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # compiled, no second derivative
    def forward(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Returns the squared distance of each gradient's length from 1, (N,).

        Args:
            discriminator: maps images to scores (N,), each image by itself.
            real: images, (N, C, H, W).
            fake: images, likewise; each is mixed with a real one by a share of its own.
        """
        share = torch.rand(len(real), 1, 1, 1, dtype=real.dtype, device=real.device)
        mixed = torch.lerp(fake.detach().to(real.dtype), real, share).requires_grad_()
        with torch.autocast(real.device.type, enabled=False):  # squares overflow in float16
            scores = discriminator(mixed)
            # Images do not see each other, so the gradient of the sum holds each one's own.
            (gradients,) = torch.autograd.grad(scores.sum(), mixed, create_graph=True)
        penalty: Tensor = (gradients.flatten(1).norm(dim=1) - 1).square()
        return penalty


class KernelDistance(Metric):
    """KID of two sets of features (Binkowski et al. 2018): the mean over blocks of both, in order.

    torchmetrics' own draws its blocks at random, and refuses sets that are smaller than one.
    """

    higher_is_better, is_differentiable, full_state_update = False, False, False
    real: list[Tensor]
    fake: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("real", [], dist_reduce_fx="cat")
        self.add_state("fake", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, real: bool) -> None:
        """Takes features, (N, F), of real or of generated images."""
        (self.real if real else self.fake).append(features)

    def compute(self) -> Tensor:
        """Returns the distance, (); for equal distributions it is around 0, and may be less."""
        blocks = [dim_zero_cat(each).split(BLOCK) for each in (self.real, self.fake)]
        pairs = zip(*blocks, strict=True)
        return torch.stack([poly_mmd(*pair) for pair in pairs if len(pair[0]) > 1]).mean()


class ClassCount(Metric):
    """How many classes were met."""

    higher_is_better, is_differentiable, full_state_update = True, False, False
    met: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.add_state("met", torch.zeros(num_classes), dist_reduce_fx="sum")

    def update(self, labels: Tensor) -> None:
        """Takes labels, (N,)."""
        self.met += labels.bincount(minlength=len(self.met))

    def compute(self) -> Tensor:
        """Returns the number of classes, ()."""
        return (self.met > 0).sum().float()
