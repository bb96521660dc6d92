"""Losses, one value per sample: whoever splits a batch over devices then gets the same mean."""

from torch import Tensor, nn


class ClassificationLoss(nn.Module):
    """Cross entropy with label smoothing (Szegedy et al. 2016, section 7).

    Args:
        label_smoothing: share of the target, in [0, 1), spread evenly over all classes.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.cross_entropy = nn.CrossEntropyLoss(reduction="none", label_smoothing=label_smoothing)

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Maps scores (N, num_classes) and labels (N,) in [0, num_classes) to losses (N,), >= 0."""
        loss: Tensor = self.cross_entropy(
            scores.float(), labels
        )  # float16 would lose the small ones
        return loss
