"""Functions without parameters."""

import torch
from torch import nn

from ops import frame, initialize_weights


def test_weights_are_drawn_by_he() -> None:
    layer = nn.Conv2d(8, 64, 3)
    layer.apply(initialize_weights)
    expected = (2 / (64 * 3 * 3)) ** 0.5
    assert abs(layer.weight.std().item() / expected - 1) < 0.05
    assert layer.bias is not None
    assert not layer.bias.any()


def test_frame_surrounds_each_image_with_its_color() -> None:
    images = torch.rand(2, 3, 4, 5)
    colors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    framed = frame(images, colors, width=2)
    assert framed.shape == (2, 3, 8, 9)
    assert torch.equal(framed[:, :, 2:6, 2:7], images)
    framed[:, :, 2:6, 2:7] = colors[:, :, None, None]
    assert torch.equal(framed, colors[:, :, None, None].expand_as(framed))
