"""The networks: shapes, gradients, styles, VGG19's slices, and how far a pixel is seen."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from networks import Generator, MultiscaleDiscriminator, PatchDiscriminator, StyleEncoder, Vgg19


@pytest.fixture(scope="session")
def reference() -> nn.Sequential:
    """Torchvision's own layers of VGG19, up to relu5_1, as they are drawn."""
    torch.manual_seed(0)
    layers: nn.Sequential = make_layers(cfgs["E"], batch_norm=False)
    return layers[:30]


@pytest.fixture(scope="session")
def vgg19(reference: nn.Sequential) -> Vgg19:
    return Vgg19({f"features.{name}": value for name, value in reference.state_dict().items()})


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize(("channels", "scale", "downsamplings"), [(1, 1, 2), (3, 4, 2), (3, 2, 0)])
@pytest.mark.parametrize("residual", [False, True])
def test_shapes_of_the_generator(
    norm: str, channels: int, scale: int, downsamplings: int, residual: bool
) -> None:
    network = Generator(channels, 2, downsamplings, 1, norm, scale, residual)
    images = torch.rand(2, channels, 8, 12)
    output = network(images)
    assert output.shape == (2, channels, 8 * scale, 12 * scale)
    assert residual or output.abs().max() < 1


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("style_size", [0, 3])
def test_every_parameter_gets_a_gradient(norm: str, style_size: int) -> None:
    torch.manual_seed(0)
    network = Generator(3, 4, 2, 2, norm, scale=2, residual=True, style_size=style_size)
    encoder = StyleEncoder(3, 4, style_size) if style_size else None
    style = encoder(torch.rand(1, 3, 16, 16)) if encoder else None
    network(torch.rand(1, 3, 8, 8), style).square().sum().backward()  # a batch of one
    for name, parameter in [
        *network.named_parameters(),
        *(encoder or nn.Module()).named_parameters(),
    ]:
        assert parameter.grad is not None, name
        is_undone = name.endswith("conv.bias") and norm != "none"
        assert is_undone or parameter.grad.abs().sum() > 0, name


def test_residual_begins_near_the_enlarged_input() -> None:
    torch.manual_seed(0)
    network = Generator(3, 16, 2, 4, "none", scale=4, residual=True)
    images = 2 * torch.rand(2, 3, 16, 16) - 1
    plain = nn.functional.interpolate(images, scale_factor=4, mode="bicubic")
    change = network(images) - plain
    assert 0 < change.std() < 0.5 * plain.std()


def test_style_changes_the_image_and_zeros_stand_for_none() -> None:
    network = Generator(3, 4, 1, 2, style_size=3)
    images, styles = torch.rand(1, 3, 8, 8), torch.randn(2, 3)
    first, second = (network(images, style[None]) for style in styles)
    assert not torch.allclose(first, second)
    assert torch.equal(network(images), network(images, torch.zeros(1, 3)))


@pytest.mark.parametrize(("downsamplings", "blocks", "scale"), [(0, 1, 1), (1, 2, 4), (2, 3, 2)])
def test_reach_is_as_far_as_a_pixel_is_seen(downsamplings: int, blocks: int, scale: int) -> None:
    network = Generator(1, 2, downsamplings, blocks, "none", scale, residual=True).double()
    side = 2 * network.reach // scale // network.multiple * network.multiple + 3 * network.multiple
    image = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    middle = side * scale // 2
    for place in range(middle, middle + network.multiple):
        (gradient,) = torch.autograd.grad(network(image)[0, 0, place, place], image)
        rows = gradient[0, 0].abs().sum(1).nonzero()[:, 0] * scale
        assert place - rows.min() <= network.reach + scale
        assert rows.max() - place <= network.reach


@pytest.mark.parametrize("side", [8, 9, 64, 65])
def test_discriminator_returns_a_list_for_each_scale(side: int) -> None:
    network = MultiscaleDiscriminator(3, 4, scales=3)
    outputs = network(torch.rand(2, 3, side, side), torch.rand(2, 3, side, side))
    assert len(outputs) == 3
    for maps in outputs:
        assert [map_.shape[1] for map_ in maps] == [4, 8, 16, 32, 1]
        assert all(len(map_) == 2 for map_ in maps)
    if side == 64:
        assert outputs[0][-1].shape == (2, 1, 11, 11)
        assert outputs[1][0].shape[-1] == 17  # of an image of half the side


def test_patch_sees_seventy_pixels() -> None:
    """Isola et al. 2017, section 6.1.2: the receptive field of the patch discriminator."""
    network = PatchDiscriminator(1, 2)
    for block in network.blocks:  # normalization sees the whole image
        if isinstance(block, nn.Sequential):
            block[1] = nn.Identity()
    image = torch.rand(1, 1, 160, 160, requires_grad=True)
    scores = network(image)[-1]
    (gradient,) = torch.autograd.grad(scores[0, 0, 11, 11], image)
    rows = gradient[0, 0].abs().sum(1).nonzero()[:, 0]
    assert rows.max() - rows.min() + 1 == 70


def test_discriminator_judges_pairs_and_each_parameter_learns() -> None:
    torch.manual_seed(0)
    network = MultiscaleDiscriminator(3, 4, scales=2)
    inputs, images = torch.rand(2, 1, 3, 32, 32)
    outputs = network(inputs, images)
    others = network(images, images)
    assert not torch.allclose(outputs[0][-1], others[0][-1])
    sum(maps[-1].square().sum() for maps in outputs).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_slices_are_torchvisions(vgg19: Vgg19, reference: nn.Sequential) -> None:
    images = 2 * torch.rand(2, 3, 32, 48) - 1
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, None, :, None, None]
    x = ((images + 1) / 2 - mean) / std  # as ImageNet's images are normalized
    expected = []
    for number, layer in enumerate(reference):
        x = layer(x)
        if number in (1, 6, 11, 20, 29):  # relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
            expected.append(x)
    outputs = vgg19(images)
    assert [each.shape[1] for each in outputs] == [64, 128, 256, 512, 512]
    for output, wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, wanted)


def test_slices_are_frozen_and_not_saved(vgg19: Vgg19) -> None:
    assert not list(vgg19.parameters())
    assert not vgg19.state_dict()
    image = torch.rand(1, 1, 16, 16, requires_grad=True)  # grey, and as small as may be
    vgg19(image)[-1].sum().backward()
    assert image.grad is not None
    assert not any(buffer.requires_grad for buffer in vgg19.buffers())


def test_weights_that_lack_or_differ_are_refused(reference: nn.Sequential) -> None:
    weights: dict[str, Tensor] = {f"features.{k}": v for k, v in reference.state_dict().items()}
    with pytest.raises(KeyError):
        Vgg19({name: value for name, value in weights.items() if "28" not in name})
    with pytest.raises(RuntimeError, match="size mismatch"):
        Vgg19(weights | {"features.0.weight": torch.rand(64, 1, 3, 3)})
