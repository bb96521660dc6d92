"""The networks: shapes, gradients, encoders of torchvision, and how far a pixel is seen."""

import pytest
import torch
from torch import nn
from torchvision import models

from networks import Encoder, TorchvisionEncoder, UNet


def build(
    channels: int = 3, width: int = 4, depth: int = 2, norm: str = "batch", stride: int = 1
) -> UNet:
    torch.manual_seed(0)
    return UNet(Encoder(channels, width, depth, norm, stride), 5, width, norm)


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("side", [1, 7, 16, 33])
@pytest.mark.parametrize(("channels", "count"), [(1, 1), (3, 2)])
def test_every_pixel_gets_a_score_for_each_class(
    norm: str, depth: int, side: int, channels: int, count: int, stride: int
) -> None:
    """Whatever the size, and of one image, too, in training."""
    network = build(channels, depth=depth, norm=norm, stride=stride)
    assert network.multiple == stride * 2**depth
    assert network(torch.rand(count, channels, side, side + 3)).shape == (count, 5, side, side + 3)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_every_parameter_gets_a_gradient(norm: str) -> None:
    network = build(depth=3, norm=norm)
    network(torch.rand(1, 3, 16, 16)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_images_of_a_batch_do_not_mix() -> None:
    network, images = build().eval(), torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]))


def test_levels_have_the_papers_maps() -> None:
    """Ronneberger et al. 2015, figure 1: half the side and twice the channels at each level."""
    network = build(width=4, depth=4)
    maps = network.encoder(torch.rand(1, 3, 32, 48))
    assert [tuple(each.shape[1:]) for each in maps] == [
        (4, 32, 48),
        (8, 16, 24),
        (16, 8, 12),
        (32, 4, 6),
        (64, 2, 3),
    ]
    given = [block.convs.layers[0].in_channels for block in network.decoder]  # type: ignore[union-attr, index]  # they are UpBlocks
    assert given == [64, 32, 16, 8]  # half of them the encoder's


def test_stride_shrinks_every_map_and_the_head_makes_up_for_it() -> None:
    network = build(width=4, depth=1, stride=2)
    images = torch.rand(1, 3, 32, 48)
    maps = network.encoder(images)
    assert [tuple(each.shape[1:]) for each in maps] == [(4, 16, 24), (8, 8, 12)]
    scores = network.eval()(images)
    # Each pixel of the largest map gets scores of its own: those of a square are not all one.
    assert scores.shape == (1, 5, 32, 48)
    assert (scores[..., ::2, ::2] - scores[..., 1::2, 1::2]).abs().max() > 1e-3


def test_skip_connections_carry_what_the_lowest_map_lacks() -> None:
    """With the way through the lowest map cut, the scores still follow the image."""
    network = build(depth=2).eval()
    with torch.no_grad():
        for block in network.decoder:
            block.up.weight.zero_()  # type: ignore[union-attr, operator]  # they are UpBlocks
    first, second = network(torch.rand(2, 3, 16, 16))
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize(("depth", "stride"), [(0, 1), (1, 1), (2, 1), (3, 1), (0, 2), (2, 2)])
def test_reach_is_as_far_as_a_pixel_is_seen(depth: int, stride: int) -> None:
    network = build(channels=1, width=8, depth=depth, stride=stride).double().eval()
    side = (2 * network.reach // network.multiple + 3) * network.multiple
    image = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    scores, middle, farthest = network(image), side // 2, 0
    for place in range(middle, middle + network.multiple):
        (gradient,) = torch.autograd.grad(
            scores[0, :, place, place].sum(), image, retain_graph=True
        )
        rows = gradient[0, 0].abs().sum(1).nonzero()[:, 0]
        farthest = max(farthest, place - int(rows.min()), int(rows.max()) - place)
    assert 0.6 * network.reach <= farthest <= network.reach


ENCODERS = {  # channels and strides of their maps, of torchvision's documentation
    "resnet18": ([3, 64, 64, 128, 256, 512], [1, 2, 4, 8, 16, 32]),
    "vgg11": ([64, 128, 256, 512, 512, 512], [1, 2, 4, 8, 16, 32]),
    "mobilenet_v3_small": ([3, 16, 16, 24, 48, 576], [1, 2, 4, 8, 16, 32]),
    "convnext_tiny": ([3, 96, 192, 384, 768], [1, 4, 8, 16, 32]),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_classifiers_are_cut_where_they_halve_the_side(name: str) -> None:
    encoder = TorchvisionEncoder(name, 3)
    assert (encoder.channels, encoder.strides) == ENCODERS[name]
    maps = encoder.eval()(torch.rand(1, 3, 64, 96))
    assert [each.shape[1] for each in maps] == encoder.channels
    assert [64 // each.shape[2] for each in maps] == encoder.strides
    assert [96 // each.shape[3] for each in maps] == encoder.strides


def test_last_map_is_what_the_classifier_itself_computes() -> None:
    """Slices leave nothing out and change no order: a head on the last map gives its scores."""
    torch.manual_seed(0)
    encoder = TorchvisionEncoder("resnet18", 3).eval()
    torch.manual_seed(0)
    reference = models.resnet18().eval()
    images = torch.rand(2, 3, 64, 64)
    features = encoder(images)[-1].mean((2, 3))
    torch.testing.assert_close(reference.fc(features), reference(images))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny"])
def test_network_on_a_borrowed_encoder(name: str, channels: int) -> None:
    network = UNet(TorchvisionEncoder(name, channels), 5, width=4, norm="batch")
    scores = network(torch.rand(1, channels, 50, 70))  # a batch of one, in training
    assert scores.shape == (1, 5, 50, 70)
    scores.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_frozen_encoder_does_not_change() -> None:
    encoder = TorchvisionEncoder("resnet18", 3, freeze=True)
    network = UNet(encoder, 5, width=4, norm="batch")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    network.train()
    network(torch.rand(2, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    changed = {n for n, value in network.state_dict().items() if not torch.equal(value, before[n])}
    assert changed  # no running mean of the encoder is among them
    assert not any(name.startswith("encoder.") for name in changed)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("resnet19", "Unknown model"), ("vit_b_16", "no chain"), ("swin_t", "no chain")],
)
def test_what_cannot_be_cut_is_an_error(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TorchvisionEncoder(name, 3)


def test_weights_of_the_encoder_are_left_as_they_are() -> None:
    torch.manual_seed(0)
    encoder = TorchvisionEncoder("resnet18", 3)
    before = [each.clone() for each in encoder.parameters()]
    UNet(encoder, 5, width=4, norm="batch")
    assert all(map(torch.equal, before, encoder.parameters()))
    assert isinstance(encoder.slices[0], nn.Sequential)
