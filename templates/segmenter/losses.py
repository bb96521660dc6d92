"""Losses, one value per sample: whoever splits a batch over devices then gets the same mean.

Both take logarithms of probabilities, which are the costly part and are computed once. A pixel of a
mask holds the number of its class, or 255, which belongs to none: it is left out. The loss of a
sample of which no pixel is left is 0.
"""

import torch
from torch import Tensor, nn


def log_probabilities(scores: Tensor) -> Tensor:
    """Maps scores (N, K, H, W) to the logarithms of the classes' probabilities, (N, K, H * W).

    They are in single precision or better: half loses what is small.
    """
    scores = scores.flatten(2)
    return scores.to(torch.promote_types(scores.dtype, torch.float32)).log_softmax(dim=1)


def one_hot(masks: Tensor, like: Tensor) -> Tensor:
    """Maps masks (N, H, W) to 1 at each pixel's class and 0 elsewhere, (N, K, H * W).

    At an ignored pixel it is 0 for all classes.

    Args:
        masks: in [0, K) or 255.
        like: (N, K, ...); gives K and the type of the result.
    """
    classes = torch.arange(like.shape[1], device=masks.device)[:, None]
    return (masks.flatten(1)[:, None] == classes).to(like.dtype)


class PixelCrossEntropy(nn.Module):
    """Cross entropy, averaged over the pixels of a sample that count."""

    def forward(self, logs: Tensor, masks: Tensor) -> Tensor:
        """Computes the loss.

        Args:
            logs: of probabilities, (N, K, H * W).
            masks: (N, H, W), in [0, K) or 255.

        Returns:
            Losses (N,), 0 or more.
        """
        # Not torch's own: on a GPU, its sum over pixels depends on their order.
        masks = masks.flatten(1)
        counts = masks < logs.shape[1]
        of_class = logs.gather(1, (masks * counts).long()[:, None])[:, 0]  # (N, pixels)
        loss: Tensor = -(of_class * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1)
        return loss


class DiceLoss(nn.Module):
    """One minus the soft Dice coefficient, averaged over the classes that a sample's mask shows.

    The coefficient as a loss is Milletari et al.'s, 2016, section 3, who divide by sums of squares;
    by sums of the probabilities themselves, as here, Drozdzal et al. 2016. It weighs a small class
    as much as a large one, where cross entropy counts pixels. Of a class that the mask does not
    show, the coefficient is zero whatever its probability: those are left to cross entropy.
    """

    def forward(self, logs: Tensor, masks: Tensor) -> Tensor:
        """Computes the loss.

        Args:
            logs: of probabilities, (N, K, H * W).
            masks: (N, H, W), in [0, K) or 255.

        Returns:
            Losses (N,), 0 to 1; 0 where every pixel is ignored.
        """
        probabilities = logs.exp()
        is_class = one_hot(masks, probabilities)
        with torch.autocast(logs.device.type, enabled=False):  # it would round what is summed
            # In row i, column j: how much of class i is predicted where the mask shows class j.
            confusion = probabilities @ is_class.mT  # (N, K, K)
        # Its diagonal, but torch's compiler warns of `diagonal`.
        identity = torch.eye(confusion.shape[1], dtype=confusion.dtype, device=confusion.device)
        both, predicted = (confusion * identity).sum(dim=2), confusion.sum(dim=2)
        shown = is_class.sum(dim=2)  # pixels (N, K)
        dice = 2 * both / (predicted + shown.clamp(min=1))
        is_shown = (shown > 0).to(dice.dtype)
        loss: Tensor = ((1 - dice) * is_shown).sum(dim=1) / is_shown.sum(dim=1).clamp(min=1)
        return loss
