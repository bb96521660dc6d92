"""The networks: shapes, gradients, initialization, norms."""

import importlib.util

import pytest
import torch
from torch import nn

from layers import SelfAttention
from networks import (
    Discriminator,
    FeatureNetwork,
    Generator,
    InceptionNetwork,
    attention_stage,
    random_features,
    stage_widths,
)

SIZES = [8, 16, 32, 64, 128, 256]


@pytest.mark.parametrize(
    ("size", "attention"),
    [*((size, False) for size in SIZES), (8, True), (32, True), (64, True), (128, True)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_at_every_size(size: int, channels: int, attention: bool) -> None:
    generator = Generator(7, channels, size, width=2, attention=attention)
    images = generator(torch.rand(2, 7))
    assert images.shape == (2, channels, size, size)
    assert images.abs().max() < 1
    network = Discriminator(channels, size, width=2, attention=attention)
    assert network(images).shape == (2,)
    blocks = [m for m in [*generator.modules(), *network.modules()] if isinstance(m, SelfAttention)]
    assert len(blocks) == 2 * attention


def test_first_number_names_a_kind() -> None:
    torch.manual_seed(0)
    generator = Generator(3, 1, 16, 4, kinds=5).eval()
    latents = torch.rand(1, 3).expand(3, 3).clone()
    latents[:, 0] = torch.tensor([-0.15, 0.15, 0.25])  # the middle one of five, twice, and the next
    first, same, other = generator(latents)
    assert torch.equal(first, same)
    assert not torch.allclose(first, other)


def test_widths_double_up_to_a_limit() -> None:
    assert stage_widths(64, 64) == [512, 256, 128, 64]  # the paper's depth, at its code's width
    assert stage_widths(8, 64) == [64]
    assert stage_widths(256, 2) == [16, 16, 16, 8, 4, 2]
    assert [attention_stage(size) for size in SIZES] == [0, 1, 2, 3, 3, 3]


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_batch_of_one_trains(norm: str) -> None:
    generator, network = Generator(5, 3, 16, 4), Discriminator(3, 16, 4, norm)
    network(generator(torch.rand(1, 5))).sum().backward()
    for each in (generator, network):
        assert all(parameter.grad is not None for parameter in each.parameters())


@pytest.mark.parametrize("spectral", [False, True])
def test_every_parameter_gets_a_gradient(spectral: bool) -> None:
    torch.manual_seed(0)
    generator = Generator(5, 3, 16, 4, attention=True)
    network = Discriminator(3, 16, 4, spectral=spectral, attention=True)
    for module in [*generator.modules(), *network.modules()]:
        if isinstance(module, SelfAttention):
            nn.init.ones_(module.share)
    network(generator(torch.rand(4, 5))).square().sum().backward()
    for each in (generator, network):
        for name, parameter in each.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_weights_begin_around_zero() -> None:
    torch.manual_seed(0)
    for network in (Generator(100, 3, 32, 32), Discriminator(3, 32, 32)):
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                assert abs(module.weight.std().item() / 0.02 - 1) < 0.1
                assert abs(module.weight.mean().item()) < 0.003


def test_spectral_norm_bounds_every_weight() -> None:
    torch.manual_seed(0)
    network = Discriminator(3, 16, 8, norm="none", spectral=True, attention=True)
    for _ in range(30):  # each pass in training is one step of the power iteration
        network(torch.rand(2, 3, 16, 16))
    network.eval()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 7
    for module in convolutions:
        norm = torch.linalg.matrix_norm(module.weight.flatten(1), 2).item()
        assert norm == pytest.approx(1, abs=0.02)


def test_spectral_norm_allows_two_passes_before_one_step() -> None:
    network = Discriminator(1, 8, 4, norm="none", spectral=True)
    scores = network(torch.rand(2, 1, 8, 8)), network(torch.rand(2, 1, 8, 8))
    (scores[0] - scores[1]).sum().backward()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 32, 64])
def test_features_of_bytes(channels: int, size: int) -> None:
    images = torch.randint(0, 256, (3, channels, size, size), dtype=torch.uint8)
    features, scores = FeatureNetwork(5).eval()(images)
    assert (features.shape, scores.shape) == ((3, FeatureNetwork.num_features), (3, 5))
    (features,) = random_features().eval()(images)
    assert features.shape == (3, FeatureNetwork.num_features)


def test_random_features_are_the_same_and_draw_nothing() -> None:
    state = torch.get_rng_state()
    first, second = random_features(), random_features()
    assert torch.equal(state, torch.get_rng_state())
    assert all(map(torch.equal, first.parameters(), second.parameters()))


def test_inception_needs_its_package() -> None:
    if importlib.util.find_spec("torch_fidelity") is None:
        with pytest.raises(ModuleNotFoundError):
            InceptionNetwork()
