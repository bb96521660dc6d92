"""The networks: shapes, gradients, fine-tuning."""

import pytest
import torch

from networks import SimpleNetwork, TorchvisionNetwork


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 33])
@pytest.mark.parametrize("count", [1, 3])
def test_images_become_scores(channels: int, size: int, count: int) -> None:
    network = SimpleNetwork(channels, num_classes=7, width=4).eval()
    assert network(torch.rand(count, channels, size, size + 3)).shape == (count, 7)


def test_batch_of_one_trains() -> None:
    network = SimpleNetwork(3, num_classes=2, width=4)
    network(torch.rand(1, 3, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_every_parameter_gets_a_gradient() -> None:
    network = SimpleNetwork(3, num_classes=5, width=4, stages=3, blocks=2)
    network(torch.rand(4, 3, 16, 16)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_images_of_a_batch_do_not_mix() -> None:
    network = SimpleNetwork(3, num_classes=5, width=4).eval()
    images = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_network_has_our_classes(name: str, channels: int) -> None:
    network = TorchvisionNetwork(name, num_classes=7, pretrained=False, freeze=False).eval()
    assert network(torch.rand(2, channels, 64, 64)).shape == (2, 7)


def test_frozen_network_trains_its_head_alone() -> None:
    network = TorchvisionNetwork("resnet18", num_classes=7, pretrained=False, freeze=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    network.train()
    network(torch.rand(2, 3, 64, 64)).square().sum().backward()
    optimizer.step()
    after = network.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"network.fc.weight", "network.fc.bias"}  # no running mean either


def test_unknown_network_is_an_error() -> None:
    with pytest.raises(ValueError, match="Unknown model"):
        TorchvisionNetwork("resnet19", num_classes=2, pretrained=False, freeze=False)


def test_network_without_a_linear_head_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not end in a linear layer"):
        TorchvisionNetwork("squeezenet1_1", num_classes=2, pretrained=False, freeze=False)
