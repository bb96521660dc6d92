"""The loss: the formula of the paper, one value per sample."""

import pytest
import torch

from losses import ClassificationLoss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_papers_formula(smoothing: float) -> None:
    scores, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    log_probabilities = scores - scores.exp().sum(dim=1, keepdim=True).log()
    target = torch.full((4, 3), smoothing / 3)
    target[torch.arange(4), labels] += 1 - smoothing
    expected = -(target * log_probabilities).sum(dim=1)
    loss = ClassificationLoss(smoothing)(scores, labels)
    assert loss.shape == (4,)
    torch.testing.assert_close(loss, expected)


def test_half_precision_is_computed_in_full() -> None:
    scores = torch.tensor([[8.0, 0.0]], dtype=torch.float16)
    loss = ClassificationLoss()(scores, torch.tensor([0]))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.tensor([3.3540637e-4]), rtol=1e-4, atol=0)
