"""The blocks: shapes, and what a style does."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock

from layers import (
    AdaptiveInstanceNorm,
    ConvBlock,
    ResnetBlock,
    StyledResnetBlock,
    UpBlock,
    normalization,
)


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_shapes(norm: str) -> None:
    x = torch.rand(2, 5, 8, 12)
    assert ConvBlock(5, 3, 7, norm=norm)(x).shape == (2, 3, 8, 12)
    assert ConvBlock(5, 3, stride=2, norm=norm)(x).shape == (2, 3, 4, 6)
    assert UpBlock(5, 3, norm)(x).shape == (2, 3, 16, 24)
    assert ResnetBlock(5, norm)(x).shape == x.shape
    assert StyledResnetBlock(5, 3)(x, torch.rand(2, 3)).shape == x.shape


def test_normalizations_by_name() -> None:
    kinds = [type(normalization(kind, 4)) for kind in ("instance", "batch", "none")]
    assert kinds == [nn.InstanceNorm2d, nn.BatchNorm2d, nn.Identity]


@pytest.mark.parametrize("norm", ["instance", "none"])
def test_without_batch_statistics_images_do_not_mix(norm: str) -> None:
    block, x = ResnetBlock(4, norm), torch.rand(3, 4, 8, 8)
    torch.testing.assert_close(block(x)[1:2], block(x[1:2]))


def test_residual_block_is_torchvisions() -> None:
    """But for the border and the last ReLU: where the sum is positive, inside, they agree."""
    ours, theirs = ResnetBlock(6, "batch").double(), BasicBlock(6, 6).double()
    for own, their in (
        (ours.block.conv, theirs.conv1),
        (ours.block.norm, theirs.bn1),
        (ours.conv, theirs.conv2),
        (ours.norm, theirs.bn2),
    ):
        own.load_state_dict(their.state_dict())
    x = torch.rand(2, 6, 9, 9, dtype=torch.float64)
    first, second = ours.eval()(x), theirs.eval()(x)
    torch.testing.assert_close(first.relu()[..., 2:-2, 2:-2], second[..., 2:-2, 2:-2])


def test_border_is_mirrored() -> None:
    block = ConvBlock(1, 1, norm="none")
    x = torch.rand(1, 1, 5, 5)
    padded = functional.pad(x, (1, 1, 1, 1), mode="reflect")
    torch.testing.assert_close(block(x), block.conv(padded).relu())


def test_style_decides_mean_and_deviation() -> None:
    """The definition of Huang and Belongie 2017, equation 8."""
    torch.manual_seed(0)
    norm = AdaptiveInstanceNorm(4, 3)
    style = torch.rand(2, 3)
    out = norm(5 * torch.rand(2, 4, 64, 64) + 7, style)
    scale, shift = norm.linear(style).chunk(2, dim=1)
    torch.testing.assert_close(out.mean((2, 3)), shift, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(
        out.std((2, 3), correction=0), (1 + scale).abs(), atol=1e-4, rtol=1e-3
    )


def test_no_style_is_the_plain_normalization() -> None:
    x = torch.rand(2, 4, 8, 8)
    expected = functional.instance_norm(x)
    torch.testing.assert_close(AdaptiveInstanceNorm(4, 3)(x, torch.zeros(2, 3)), expected)


def test_each_sample_has_its_own_style() -> None:
    block, x, styles = StyledResnetBlock(4, 3), torch.rand(1, 4, 8, 8), torch.randn(2, 3)
    both = block(x.expand(2, -1, -1, -1), styles)
    assert not torch.allclose(both[0], both[1])
    torch.testing.assert_close(block(x, styles[1:])[0], both[1])
