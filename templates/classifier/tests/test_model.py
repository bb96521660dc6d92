"""The finished model: what train.py, test.py and predict.py count on."""

import argparse
import urllib.error
from typing import Any

import pytest
import torch
from conftest import Parse
from torch import Tensor, nn

from engine.exits import UserError

from resnetclassifier import ResNetClassifier

# By this name, lines stay as long as they are, whatever the model is called.
Model = ResNetClassifier
CLASSES = ["ant", "bee", "cat"]
# Flags that make each kind of loss, of a model that is small.
LOSS_FLAGS = [["--width=4"], ["--width=4", "--label_smoothing=0"]]


@pytest.fixture
def options(parse: Parse) -> argparse.Namespace:
    return parse("--width=4")


@pytest.fixture
def model(options: argparse.Namespace) -> Model:
    return Model(options, CLASSES)


def make_batch(count: int = 4, channels: int = 3, size: int = 16) -> tuple[Tensor, Tensor]:
    images = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)
    return images, torch.arange(count) % len(CLASSES)


@pytest.mark.parametrize("count", [1, 4])
def test_losses_are_one_per_sample(model: Model, count: int) -> None:
    terms = model(make_batch(count))
    assert all(values.shape == (count,) for values in terms.values())
    assert not terms["accuracy"].requires_grad


def test_each_optimizer_has_its_loss(model: Model, options: argparse.Namespace) -> None:
    terms = model(make_batch())
    for name, optimizer in model.build_optimizers(options).items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = torch.autograd.grad(terms[name].mean(), parameters)
        assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_every_parameter_has_an_optimizer(model: Model, options: argparse.Namespace) -> None:
    optimizers = model.build_optimizers(options).values()
    owned = [p for o in optimizers for group in o.param_groups for p in group["params"]]
    assert {id(p) for p in owned} == {id(p) for p in model.parameters()}
    assert len(owned) == len({id(p) for p in owned})


def test_replicas_on_parts_of_a_batch_agree_with_the_whole(model: Model) -> None:
    """What nn.DataParallel does: each device gets a part, and the losses are gathered."""
    model.eval()
    images, labels = make_batch(6)
    whole = model((images, labels))["classifier"]
    parts = [model((images[i : i + 2], labels[i : i + 2]))["classifier"] for i in (0, 2, 4)]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_one_batch_can_be_learned(model: Model, options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    batch = make_batch(6)
    optimizer = model.build_optimizers(options)["classifier"]
    for _ in range(60):
        optimizer.zero_grad()
        terms = model(batch)
        terms["classifier"].mean().backward()
        optimizer.step()
    assert terms["accuracy"].mean() == 1


def test_metrics_count_what_is_right(model: Model) -> None:
    scores = torch.eye(3)[[0, 1, 2, 2]]  # the last is a cat taken for an ant
    model.network = _Fixed(scores)
    metrics = model.build_metrics()
    model.evaluate((make_batch(4)[0], torch.tensor([0, 1, 2, 0])), metrics)
    values = metrics.compute()
    assert values["accuracy"].item() == 0.75
    assert values["accuracy_per_class"].tolist() == [0.5, 1.0, 1.0]
    assert values["confusion"].tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]


class _Fixed(nn.Module):
    """A network that knows its answers."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, images: Tensor) -> Tensor:
        return self.scores[: len(images)]


def test_predictions_have_names_and_probabilities(model: Model) -> None:
    model.network = _Fixed(10 * torch.eye(3))
    results = model.predict(make_batch(3)[0])
    assert [result["class"] for result in results] == CLASSES
    assert all(0.99 < result["probability"] <= 1 for result in results)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_frame_right_and_wrong(parse: Parse, channels: int) -> None:
    model = Model(parse("--width=4", f"--channels={channels}"), CLASSES).eval()
    model.network = _Fixed(torch.eye(3)[[0, 0]])
    picture = model.pictures((make_batch(2, channels)[0], torch.tensor([0, 1])))["images"]
    assert picture.shape == (3, 20, 40)
    assert 0 <= picture.min() <= picture.max() <= 1
    right, wrong = picture[:, 0, 0], picture[:, 0, 20]
    assert right[1] > right[0]  # green
    assert wrong[0] > wrong[1]  # red


@pytest.mark.parametrize("flag", ["--pretrained", "--freeze"])
def test_fine_tuning_needs_a_backbone(parse: Parse, flag: str) -> None:
    with pytest.raises(UserError, match="need a --backbone, such as resnet18"):
        Model(parse(flag), CLASSES)


def test_unknown_backbone_is_one_line(parse: Parse) -> None:
    with pytest.raises(UserError, match="--backbone resnet19 cannot be used: Unknown model"):
        Model(parse("--backbone=resnet19"), CLASSES)


def test_weights_that_cannot_be_fetched_are_one_line(
    parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", fail)
    with pytest.raises(UserError, match="--pretrained: the weights of resnet18 cannot be fetched"):
        Model(parse("--backbone=resnet18", "--pretrained"), CLASSES)


def test_checkpoints_model_fetches_nothing(parse: Parse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", None)
    options = parse("--backbone=resnet18", "--pretrained")
    assert Model(options, CLASSES, fetch=False).normalize.mean.numel() == 3
