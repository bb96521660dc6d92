"""The blocks: shapes, and what they compute."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.transforms.v2 import functional as transforms

from layers import ConvBlock, ConvSet, Decode, Normalize, ResidualBlock


@pytest.mark.parametrize(("kernel_size", "stride", "side"), [(1, 1, 8), (3, 1, 8), (3, 2, 4)])
def test_shape_of_a_block(kernel_size: int, stride: int, side: int) -> None:
    assert ConvBlock(5, 6, kernel_size, stride)(torch.rand(2, 5, 8, 8)).shape == (2, 6, side, side)


@pytest.mark.parametrize("pairs", [0, 2])
def test_a_set_begins_and_ends_with_1x1(pairs: int) -> None:
    block = ConvSet(5, 6, pairs)
    kernels = [each.conv.kernel_size[0] for each in block.blocks if isinstance(each, ConvBlock)]
    assert kernels == [1, *[3, 1] * pairs]
    assert block(torch.rand(2, 5, 4, 4)).shape == (2, 6, 4, 4)


def test_residual_block_is_the_papers() -> None:
    """Against the functions of torch: half the channels, all of them again, and the sum."""
    torch.manual_seed(0)
    block = ResidualBlock(8).double().eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for each in (module.running_mean, module.running_var, module.weight):
                assert each is not None
                nn.init.uniform_(each, 0.5, 2)
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    state, expected = block.state_dict(), x
    for name, padding in (("reduce", 0), ("expand", 1)):
        expected = functional.conv2d(expected, state[f"{name}.conv.weight"], padding=padding)
        mean, variance, weight, bias = (
            state[f"{name}.norm.{key}"][:, None, None]
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        expected = (expected - mean) / (variance + 1e-5).sqrt() * weight + bias
        expected = torch.where(expected > 0, expected, 0.1 * expected)
    assert state["reduce.conv.weight"].shape == (4, 8, 1, 1)
    torch.testing.assert_close(block(x), x + expected)


def test_normalization_is_torchvisions() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    pixels = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    expected = transforms.normalize(pixels / 255, list(mean), list(std))
    torch.testing.assert_close(Normalize(mean, std)(pixels), expected)


def test_decoded_are_shares_of_the_side_and_probabilities() -> None:
    anchors = torch.tensor([[8.0, 16], [16, 8], [32, 32]]).repeat(3, 1, 1)
    maps = [torch.zeros(2, 3 * 7, side, side) for side in (8, 4, 2)]
    maps[2][:, 7 + 4] = 3.0  # the second prior's objectness
    out = Decode(anchors, 64)(maps)
    assert out.shape == (2, 3 * (64 + 16 + 4), 7)
    first = torch.tensor([0, -4, 8, 12, 32, 32, 32]) / 64  # 8 x 16 about (4, 4); logits of 0
    torch.testing.assert_close(out[0, 0], first)
    assert out[1, -8, 4].item() == pytest.approx(torch.tensor(3.0).sigmoid().item())
