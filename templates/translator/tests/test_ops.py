"""Functions without parameters."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ops import apply_in_parts, enlarge, freeze, initialize_weights, to_bytes, to_floats


@pytest.mark.parametrize("layer", [nn.Conv2d(32, 64, 4), nn.ConvTranspose2d(32, 64, 4)])
def test_weights_are_drawn_as_in_the_paper(layer: nn.Module) -> None:
    torch.manual_seed(0)
    layer.apply(initialize_weights)
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    assert abs(weight.mean().item()) < 0.002
    assert abs(weight.std().item() / 0.02 - 1) < 0.05
    assert not bias.any()


def test_bytes_come_back_from_floats() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    floats = to_floats(levels)
    assert (floats.min().item(), floats.max().item()) == (-1, 1)
    assert torch.equal(to_bytes(floats), levels)
    assert to_bytes(torch.tensor([-1.5, 1.5])).tolist() == [0, 255]
    assert to_floats(levels, torch.float64).dtype == torch.float64


def keys(x: float) -> float:
    """The cubic of Keys 1981, equation 4, with -0.75 for the slope that is left open."""
    x, a = abs(x), -0.75
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


@pytest.mark.parametrize("scale", [2, 4])
def test_images_are_enlarged_by_the_papers_cubic(scale: int) -> None:
    """Line by line: each pixel is a weighted mean of four, those at the border repeated."""
    line = torch.rand(9, dtype=torch.float64)
    expected = torch.zeros(9 * scale, dtype=torch.float64)
    for place in range(9 * scale):
        center = (place + 0.5) / scale - 0.5
        for near in range(int(center // 1) - 1, int(center // 1) + 3):
            expected[place] += keys(center - near) * line[min(8, max(0, near))]
    images = line.expand(1, 2, 3, 9)
    ours = enlarge(images, scale)
    assert ours.shape == (1, 2, 3 * scale, 9 * scale)
    torch.testing.assert_close(ours, expected.expand_as(ours))


def test_scale_of_one_changes_nothing() -> None:
    images = torch.rand(1, 3, 4, 5)
    assert enlarge(images, 1) is images


def test_what_is_frozen_is_neither_trained_nor_saved_and_computes_the_same() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    x = torch.rand(2, 3, 5, 5)
    expected = network(x)
    assert torch.equal(freeze(network)(x), expected)
    assert not list(network.parameters())
    assert not network.state_dict()
    assert not any(buffer.requires_grad for buffer in network.buffers())
    assert network.double()(x.double()).dtype == torch.float64  # it moves with the module


def average(images: Tensor) -> Tensor:
    """Twice as large; each pixel is the mean of 5x5, so 2 pixels, 4 of the output, reach it."""
    assert all(side % 2 == 0 for side in images.shape[-2:])
    padded = functional.pad(images, (2, 2, 2, 2), mode="reflect")
    return functional.avg_pool2d(padded, 5, 1).repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.mark.parametrize("shape", [(1, 1), (3, 20), (16, 16), (37, 50)])
def test_parts_fit_together(shape: tuple[int, int]) -> None:
    images = torch.rand(1, 3, *shape, dtype=torch.float64)
    arguments = {"scale": 2, "multiple": 4, "reach": 4}
    whole = apply_in_parts(average, images, **arguments, side=1000)
    assert whole.shape == (1, 3, 2 * shape[0], 2 * shape[1])
    seen = []

    def watched(part: Tensor) -> Tensor:
        seen.append(part.shape[-1])
        return average(part)

    torch.testing.assert_close(apply_in_parts(watched, images, **arguments, side=16), whole)
    assert max(seen) <= 8 + 2 * 2
