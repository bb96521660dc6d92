"""The blocks: shapes, and the same numbers as torchvision's."""

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from layers import ConvBlock, Normalize, ResnetBlock


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("block", [ConvBlock, ResnetBlock])
def test_stride_divides_height_and_width(block: type[nn.Module], stride: int) -> None:
    out = block(3, 5, stride)(torch.rand(2, 3, 8, 12))
    assert out.shape == (2, 5, 8 // stride, 12 // stride)


@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (8, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_resnet_block_is_torchvisions(channels: int, stride: int, training: bool) -> None:
    """Torchvision's block, given the same weights, is an independent reference."""
    ours = ResnetBlock(4, channels, stride)
    downsample = ours.shortcut if channels != 4 else None
    reference = BasicBlock(4, channels, stride, downsample)
    reference.conv1, reference.bn1 = ours.first.conv, ours.first.norm
    reference.conv2, reference.bn2 = ours.conv, ours.norm
    ours.train(training)
    reference.train(training)
    images = torch.randn(3, 4, 6, 6)
    torch.testing.assert_close(ours(images.clone()), reference(images.clone()))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalize_brings_bytes_to_floats(dtype: torch.dtype) -> None:
    images = torch.tensor([0, 255, 51], dtype=dtype).view(3, 1, 1, 1).expand(3, 2, 4, 4)
    out = Normalize([0.5, 0.0], [0.5, 1.0])(images)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out[:, 0, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))
    torch.testing.assert_close(out[:, 1, 0, 0], torch.tensor([0.0, 1.0, 0.2]))


def test_normalize_has_nothing_to_save() -> None:
    assert not Normalize([0.5], [0.5]).state_dict()
