"""The networks: shapes, gradients, the paper's layers, and torchvision's classifiers cut open."""

import pytest
import torch
from torch import nn

from networks import DARKNETS, OBJECTS, Darknet, Detector, TorchvisionBackbone


def build(name: str = "tiny", classes: int = 3, width: int = 4, pairs: int = 1) -> Detector:
    torch.manual_seed(0)
    return Detector(Darknet(3, width, DARKNETS[name]), classes, width, pairs)


@pytest.mark.parametrize("name", DARKNETS)
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 64, 96), (3, 32, 32)])
def test_maps_of_the_backbone(name: str, channels: int, height: int, width: int) -> None:
    backbone = Darknet(channels, 4, DARKNETS[name])
    maps = backbone(torch.rand(2, channels, height, width))
    assert backbone.channels == [32, 64, 128]
    assert [each.shape for each in maps] == [
        (2, count, height // stride, width // stride)
        for count, stride in zip(backbone.channels, (8, 16, 32), strict=True)
    ]


def test_darknet53_has_as_many_layers_as_its_name_says() -> None:
    """Its last one is the classifier's; the size of the file that its authors give tells, too."""
    backbone = Darknet(3, 32, DARKNETS["darknet53"])
    convolutions = [each for each in backbone.modules() if isinstance(each, nn.Conv2d)]
    assert len(convolutions) + 1 == 53
    weights = sum(each.weight.numel() for each in convolutions)
    norms = sum(4 * each.out_channels for each in convolutions)  # of each channel four numbers
    assert 4 * (weights + norms) + 20 == 162_482_580  # bytes of darknet53.conv.74


@pytest.mark.parametrize("pairs", [0, 2])
@pytest.mark.parametrize("classes", [1, 7])
def test_outputs_are_a_list_of_three_scales(pairs: int, classes: int) -> None:
    outputs = build(classes=classes, pairs=pairs)(torch.rand(2, 3, 64, 64))
    assert isinstance(outputs, list)
    count = 3 * (5 + classes)
    assert [each.shape for each in outputs] == [(2, count, side, side) for side in (8, 4, 2)]


@pytest.mark.parametrize("name", DARKNETS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    network = build(name)
    outputs = network(torch.rand(2, 3, 64, 64))
    torch.stack([each.square().mean() for each in outputs]).sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


def test_small_objects_are_seen_with_what_surrounds_them() -> None:
    """The largest map hears of the smallest: a far corner of the image reaches each cell."""
    network = build().eval()
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    network(image)[0][..., 0, 0].sum().backward()
    assert image.grad is not None
    assert image.grad[..., 40:, 40:].abs().sum() > 0


def test_few_objects_are_expected_at_first() -> None:
    outputs = build(classes=2).eval()(torch.rand(2, 3, 64, 64))
    for each in outputs:
        objectness = each.view(2, 3, 7, *each.shape[2:])[:, :, 4].sigmoid()
        assert OBJECTS / 5 < objectness.mean() < OBJECTS * 5


@pytest.mark.parametrize(
    ("name", "channels"),
    [("resnet18", (128, 256, 512)), ("mobilenet_v3_small", (96, 288, 576))],
)
def test_classifier_of_torchvision_is_cut_open(name: str, channels: tuple[int, ...]) -> None:
    backbone = TorchvisionBackbone(name, pretrained=False)
    assert tuple(backbone.channels) == channels
    maps = backbone.train()(torch.rand(2, 1, 64, 96))
    sides = [(8, 12), (4, 6), (2, 3)]
    assert [tuple(each.shape[1:]) for each in maps] == [
        (count, *side) for count, side in zip(backbone.channels, sides, strict=True)
    ]
    network = Detector(backbone, 2, 4, 0)
    torch.stack([each.mean() for each in network(torch.rand(2, 3, 64, 64))]).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_network_without_maps_is_refused() -> None:
    with pytest.raises(ValueError, match="it has no map with an 8th of the side"):
        TorchvisionBackbone("squeezenet1_1", pretrained=False)
    with pytest.raises(ValueError, match=r"no images of any size .*Wrong image height"):
        TorchvisionBackbone("vit_b_16", pretrained=False)
    with pytest.raises(ValueError, match="Unknown model"):
        TorchvisionBackbone("nothing", pretrained=False)
