"""Functions without parameters."""

import pytest
import torch
from torch import nn

from ops import initialize_weights, one_of, resize, to_bytes, to_floats


@pytest.mark.parametrize(
    ("layer", "mean"),
    [
        (nn.Conv2d(32, 64, 4), 0.0),
        (nn.ConvTranspose2d(32, 64, 4), 0.0),
        (nn.BatchNorm2d(4000), 1.0),
        (nn.GroupNorm(1, 4000), 1.0),
    ],
)
def test_weights_are_drawn_as_in_the_paper(layer: nn.Module, mean: float) -> None:
    torch.manual_seed(0)
    layer.apply(initialize_weights)
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, torch.Tensor)
    assert isinstance(bias, torch.Tensor)
    assert abs(weight.mean().item() - mean) < 0.002
    assert abs(weight.std().item() / 0.02 - 1) < 0.05
    assert not bias.any()


def test_bytes_come_back_from_floats() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    floats = to_floats(levels)
    assert (floats.min().item(), floats.max().item()) == (-1, 1)
    assert torch.equal(to_bytes(floats), levels)
    assert to_bytes(torch.tensor([-1.5, 1.5])).tolist() == [0, 255]
    assert to_floats(levels, torch.float64).dtype == torch.float64


def test_numbers_name_equal_parts() -> None:
    numbers = torch.tensor([-1.0, -0.51, -0.49, 0.0, 0.49, 0.51, 1.0])[:, None]
    marked = one_of(4, numbers)
    assert marked.sum(dim=1).eq(1).all()
    assert marked.argmax(dim=1).tolist() == [0, 0, 1, 2, 2, 3, 3]


def test_images_are_resized() -> None:
    images = torch.full((2, 3, 8, 8), 0.25)
    assert resize(images, 8) is images
    assert torch.allclose(resize(images, 32), torch.full((2, 3, 32, 32), 0.25))
    assert resize(images, 4).shape == (2, 3, 4, 4)
