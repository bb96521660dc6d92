"""The blocks: shapes, and the same numbers as torchvision's."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import Conv2dNormActivation

from layers import DoubleConv, Normalize, UpBlock, normalization


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_shapes(norm: str) -> None:
    x = torch.rand(2, 5, 8, 12)
    assert DoubleConv(5, 6, norm)(x).shape == (2, 6, 8, 12)
    assert DoubleConv(5, 6, norm, stride=2)(x).shape == (2, 6, 4, 6)
    assert DoubleConv(5, 6, norm, stride=4)(x).shape == (2, 6, 2, 3)
    assert UpBlock(5, 3, 6, norm)(x, torch.rand(2, 3, 16, 24)).shape == (2, 6, 16, 24)
    assert UpBlock(5, 3, 6, norm, factor=4)(x, torch.rand(2, 3, 32, 48)).shape == (2, 6, 32, 48)


def test_normalizations_by_name() -> None:
    assert isinstance(normalization("batch", 12), nn.BatchNorm2d)
    groups = [normalization("group", channels) for channels in (1, 6, 12, 16)]
    assert [getattr(each, "num_groups", None) for each in groups] == [1, 2, 4, 8]


def test_group_norm_keeps_images_apart() -> None:
    block, x = DoubleConv(4, 8, "group"), torch.rand(3, 4, 8, 8)
    torch.testing.assert_close(block(x)[1:2], block(x[1:2]))


@pytest.mark.parametrize("training", [True, False])
def test_double_conv_is_torchvisions_twice(training: bool) -> None:
    """Torchvision's block, given the same weights, is an independent reference."""
    ours = DoubleConv(3, 6)
    reference = nn.Sequential(Conv2dNormActivation(3, 6), Conv2dNormActivation(6, 6))
    values = ours.state_dict().values()
    reference.load_state_dict(dict(zip(reference.state_dict(), values, strict=True)))
    ours.train(training)
    reference.train(training)
    x = torch.randn(2, 3, 6, 7)
    torch.testing.assert_close(ours(x), reference(x))


def up_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each pixel becomes a square of pixels, by a matrix for each of them: written as loops."""
    count, _, height, width = x.shape
    factor = weight.shape[-1]
    out = torch.zeros(count, weight.shape[1], factor * height, factor * width)
    for row in range(factor * height):
        for column in range(factor * width):
            pixel = x[:, :, row // factor, column // factor]
            out[:, :, row, column] = pixel @ weight[:, :, row % factor, column % factor] + bias
    return out


@pytest.mark.parametrize("factor", [2, 4])
def test_up_block_is_the_papers(factor: int) -> None:
    """The up-convolution, the encoder's map beside it, two convolutions."""
    block = UpBlock(4, 3, 5, factor=factor).eval()
    assert block.up.bias is not None
    nn.init.normal_(block.up.bias)
    x, skip = torch.randn(2, 4, 3, 2), torch.randn(2, 3, 3 * factor, 2 * factor)
    enlarged = up_convolution(x, block.up.weight, block.up.bias)
    first, _, _, second, _, _ = block.convs.layers
    expected = torch.cat([skip, enlarged], dim=1)
    for conv in (first, second):  # new normalizations, in eval mode, do all but nothing
        assert isinstance(conv, nn.Conv2d)
        expected = functional.conv2d(expected, conv.weight, padding=1).relu()
    torch.testing.assert_close(block(x, skip), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalize_brings_bytes_to_floats(dtype: torch.dtype) -> None:
    images = torch.tensor([0, 255, 51], dtype=dtype).view(3, 1, 1, 1).expand(3, 2, 4, 4)
    out = Normalize([0.5, 0.0], [0.5, 1.0])(images)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out[:, 0, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))
    torch.testing.assert_close(out[:, 1, 0, 0], torch.tensor([0.0, 1.0, 0.2]))


def test_normalize_has_nothing_to_save() -> None:
    assert not Normalize([0.5], [0.5]).state_dict()
