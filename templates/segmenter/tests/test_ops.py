"""Functions without parameters."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ops import apply_in_tiles, initialize_weights, overlay, pad_to_multiple


@pytest.mark.parametrize("layer", [nn.Conv2d(16, 64, 3), nn.ConvTranspose2d(128, 64, 2)])
def test_weights_keep_the_scale(layer: nn.Module) -> None:
    torch.manual_seed(0)
    layer.apply(initialize_weights)
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    fan_in = weight[0].numel()
    assert abs(weight.std().item() * (fan_in / 2) ** 0.5 - 1) < 0.05
    assert not bias.any()


@pytest.mark.parametrize(
    ("shape", "multiple", "expected"),
    [
        ((16, 24), 8, (16, 24)),
        ((17, 23), 8, (24, 24)),
        ((1, 1), 4, (8, 8)),  # twice the multiple, at least
        ((5, 2), 1, (5, 2)),
    ],
)
def test_sides_become_multiples(
    shape: tuple[int, int], multiple: int, expected: tuple[int, int]
) -> None:
    images = torch.rand(2, 3, *shape)
    padded = pad_to_multiple(images, multiple)
    assert padded.shape[2:] == expected
    height, width = shape
    assert torch.equal(padded[..., :height, :width], images)
    assert (padded[..., height:, :width] == images[..., -1:, :]).all()
    assert (padded[..., width:] == padded[..., width - 1 : width]).all()


def test_only_objects_are_tinted() -> None:
    images = torch.rand(2, 3, 4, 5)
    masks = torch.zeros(2, 4, 5, dtype=torch.uint8)
    masks[1, 2, 3], masks[1, 0, 0] = 1, 255
    colors = torch.rand(256, 3)
    tinted = overlay(images, masks, colors)
    is_tinted = (tinted != images).any(dim=1)
    assert torch.equal(is_tinted, masks > 0)
    for number, row, column in ((1, 2, 3), (255, 0, 0)):
        expected = images[1, :, row, column] / 3 + colors[number] * 2 / 3
        torch.testing.assert_close(tinted[1, :, row, column], expected)
    assert 0 <= tinted.min() <= tinted.max() <= 1


def average(reach: int) -> Callable[[Tensor], Tensor]:
    """Returns what makes of each pixel the mean of those around it, and its square root."""

    def network(images: Tensor) -> Tensor:
        padded = functional.pad(images, [reach] * 4)
        means = functional.avg_pool2d(padded, 2 * reach + 1, 1).mean(1, keepdim=True)
        return torch.cat([means, means.sqrt()], dim=1)

    return network


@pytest.mark.parametrize("shape", [(1, 1), (20, 3), (32, 32), (33, 70), (64, 20), (101, 57)])
@pytest.mark.parametrize(("margin", "ramp"), [(3, 1), (4, 8), (8, 4)])
def test_tiles_fit_together(shape: tuple[int, int], margin: int, ramp: int) -> None:
    """Where nothing beyond the margin decides a pixel, tiles give what the whole image gives."""
    images = torch.rand(2, 3, *shape, dtype=torch.float64)
    whole, seen = average(3)(images), []

    def watched(tile: Tensor) -> Tensor:
        seen.append(tuple(tile.shape[2:]))
        return average(3)(tile)

    tiled = apply_in_tiles(watched, images, side=32, margin=margin, ramp=ramp)
    torch.testing.assert_close(tiled, whole)
    assert max(map(max, seen)) <= 32
    assert (len(seen) == 1) == (max(shape) <= 32)


def test_seams_are_blended() -> None:
    """Of two tiles that disagree, each gives way to the other pixel by pixel."""
    values = iter([0.0, 1.0])
    tiled = apply_in_tiles(
        lambda tile: torch.full_like(tile, next(values)), torch.zeros(1, 1, 1, 18), 12, 1, 4
    )
    expected = [0.0] * 7 + [0.125, 0.375, 0.625, 0.875] + [1.0] * 7
    assert tiled.flatten().tolist() == pytest.approx(expected)


def test_what_a_margin_too_small_leaves_out_is_seen() -> None:
    """The check above can fail: a network that sees farther gives other numbers at the seams."""
    images = torch.rand(1, 3, 64, 64)
    tiled = apply_in_tiles(average(6), images, side=32, margin=2, ramp=4)
    assert (tiled - average(6)(images)).abs().max() > 1e-3
