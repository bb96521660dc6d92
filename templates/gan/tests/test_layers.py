"""The blocks: shapes, and what attention does."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from layers import DownBlock, SelfAttention, UpBlock, normalization


def test_up_doubles_and_down_halves_the_side() -> None:
    assert UpBlock(5, 3)(torch.rand(2, 5, 4, 6)).shape == (2, 3, 8, 12)
    assert UpBlock(5, 3, is_first=True)(torch.rand(2, 5, 1, 1)).shape == (2, 3, 4, 4)
    assert DownBlock(5, 3)(torch.rand(2, 5, 8, 12)).shape == (2, 3, 4, 6)


@pytest.mark.parametrize("kind", ["layer", "none"])
def test_without_batch_statistics_images_do_not_mix(kind: str) -> None:
    block = DownBlock(3, 4, kind)
    images = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(block(images)[1:2], block(images[1:2]))


def test_normalizations_by_name() -> None:
    kinds = [type(normalization(kind, 4)) for kind in ("batch", "layer", "none")]
    assert kinds == [nn.BatchNorm2d, nn.GroupNorm, nn.Identity]


def test_attention_starts_as_identity() -> None:
    x = torch.randn(2, 16, 4, 5)
    assert torch.equal(SelfAttention(16)(x), x)


def test_attention_is_torchs() -> None:
    """Torch's fused function, an independent reference, takes places as rows."""
    block = SelfAttention(16).double()
    nn.init.constant_(block.share, 0.5)
    x = torch.randn(2, 16, 4, 5, dtype=torch.float64)
    query, key, value = (
        conv(x).flatten(2).transpose(1, 2) for conv in (block.query, block.key, block.value)
    )
    seen = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
    seen = seen.transpose(1, 2).unflatten(2, (4, 5))
    torch.testing.assert_close(block(x), x + 0.5 * block.out(seen))


def test_attention_has_a_second_derivative() -> None:
    block = SelfAttention(8)
    nn.init.ones_(block.share)
    x = torch.randn(1, 8, 3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(x).square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())
