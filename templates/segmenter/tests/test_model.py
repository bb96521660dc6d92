"""The finished model: what train.py, test.py and predict.py count on."""

import argparse
import urllib.error
from typing import Any

import pytest
import torch
from conftest import Parse
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MetricCollection

from engine.exits import UserError

from unetsegmenter import UNetSegmenter

# By this name, lines stay as long as they are, whatever the model is called.
Model = UNetSegmenter
CLASSES = ["sky", "sea", "land"]
# Flags that make each kind of loss, of a model that is small.
LOSS_FLAGS = [
    [],
    ["--norm=group", "--cross_entropy=0"],
    ["--dice=0", "--weight_decay=0"],
    ["--width=4", "--backbone=resnet18"],
]


@pytest.fixture
def options(parse: Parse) -> argparse.Namespace:
    return parse()


@pytest.fixture
def model(options: argparse.Namespace) -> Model:
    torch.manual_seed(0)
    return Model(options, CLASSES)


def make_batch(count: int = 4, channels: int = 3, side: int = 16) -> tuple[Tensor, Tensor]:
    """Noise with bright squares of class 1 and dark ones of class 2, and a line that is ignored."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(80, 176, (count, channels, side, side), generator=generator)
    masks = torch.zeros(count, side, side, dtype=torch.uint8)
    for number in range(count):
        place, half = number % (side // 2), side // 2
        masks[number, place : place + 5, :6] = 1
        masks[number, place : place + 5, half : half + 6] = 2
    images = images + 79 * (masks == 1)[:, None] - 79 * (masks == 2)[:, None]
    masks[:, -1] = 255
    return images.byte(), masks


@pytest.mark.parametrize("flags", LOSS_FLAGS, ids=" ".join)
@pytest.mark.parametrize("count", [1, 4])
def test_losses_are_one_per_sample(parse: Parse, flags: list[str], count: int) -> None:
    terms = Model(parse(*flags), CLASSES)(make_batch(count))
    assert terms.keys() == {"segmenter", "cross_entropy", "dice_loss"}
    assert all(values.shape == (count,) for values in terms.values())
    assert [name for name, values in terms.items() if values.requires_grad] == ["segmenter"]


def test_terms_are_weighted_in_one_place(parse: Parse) -> None:
    terms = Model(parse("--cross_entropy=3", "--dice=0.5"), CLASSES)(make_batch())
    expected = 3 * terms["cross_entropy"] + 0.5 * terms["dice_loss"]
    torch.testing.assert_close(terms["segmenter"].detach(), expected)


@pytest.mark.parametrize("label", [0, 2, 255])
def test_masks_of_one_class_and_of_none_have_losses_too(model: Model, label: int) -> None:
    """An image without objects; one that is an object all over; one of which nothing counts."""
    images, masks = make_batch()
    masks[1] = label
    terms = model((images, masks))
    terms["segmenter"].mean().backward()
    assert all(torch.isfinite(values).all() for values in terms.values())
    assert (terms["segmenter"][1] == 0) == (label == 255)
    assert all(
        torch.isfinite(each.grad).all() for each in model.parameters() if each.grad is not None
    )


@pytest.mark.parametrize("flags", LOSS_FLAGS, ids=" ".join)
def test_each_parameter_has_an_optimizer_and_gets_a_gradient(
    parse: Parse, flags: list[str]
) -> None:
    options = parse(*flags)
    model = Model(options, CLASSES)
    optimizers = model.build_optimizers(options)
    owned = [p for o in optimizers.values() for group in o.param_groups for p in group["params"]]
    assert {id(p) for p in owned} == {id(p) for p in model.parameters()}
    assert len(owned) == len({id(p) for p in owned})
    gradients = torch.autograd.grad(model(make_batch())["segmenter"].mean(), owned)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_frozen_backbone_has_no_optimizer(parse: Parse) -> None:
    options = parse("--width=4", "--backbone=resnet18", "--freeze")
    model = Model(options, CLASSES)
    (optimizer,) = model.build_optimizers(options).values()
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in owned}
    assert names
    assert not any(name.startswith("network.encoder.") for name in names)


def test_replicas_on_parts_of_a_batch_agree_with_the_whole(model: Model) -> None:
    """What nn.DataParallel does: each device gets a part, and the losses are gathered."""
    model.eval()
    batch = make_batch(6)
    whole = model(batch)
    parts = [model(part) for part in zip(*(each.split(2) for each in batch), strict=True)]
    for name in whole:
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole[name])


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_one_batch_can_be_learned(parse: Parse, norm: str) -> None:
    torch.manual_seed(0)
    options = parse("--width=8", "--depth=2", f"--norm={norm}", "--lr=0.01")
    model = Model(options, CLASSES)
    batch, optimizer = make_batch(6), model.build_optimizers(options)["segmenter"]
    for _ in range(60):
        optimizer.zero_grad()
        model(batch)["segmenter"].mean().backward()
        optimizer.step()
    metrics = model.build_metrics()
    with torch.no_grad():
        model.evaluate(batch, metrics)
    assert metrics.compute()["miou"] > 0.97


class _Fixed(nn.Module):
    """A network that knows its answers."""

    def __init__(self, masks: Tensor) -> None:
        super().__init__()
        self.answers = 100.0 * functional.one_hot(masks.long(), len(CLASSES)).permute(0, 3, 1, 2)
        self.multiple, self.reach = 1, 0

    def forward(self, images: Tensor) -> Tensor:
        return self.answers[: len(images)]


def measure(model: Model, masks: Tensor, size: int) -> dict[str, Tensor]:
    metrics: MetricCollection = model.build_metrics()
    images = torch.zeros(len(masks), 3, *masks.shape[1:], dtype=torch.uint8)
    for batch in zip(images.split(size), masks.split(size), strict=True):
        model.evaluate(batch, metrics)
    values: dict[str, Tensor] = metrics.compute()
    return values


def test_metrics_count_pixels(model: Model) -> None:
    """One row: classes 0 0 1 1 1, of which one pixel of 1 is taken for 0; another is ignored."""
    model.network = _Fixed(torch.tensor([[[0, 0, 1, 1, 0, 2]]]))  # type: ignore[assignment]  # the same call
    values = measure(model, torch.tensor([[[0, 0, 1, 1, 1, 255]]], dtype=torch.uint8), 1)
    assert values["confusion"].tolist() == [[2, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert values["iou_per_class"].tolist() == pytest.approx([2 / 3, 2 / 3, 0])
    assert values["dice_per_class"].tolist() == pytest.approx([4 / 5, 4 / 5, 0])
    assert values["miou"].item() == pytest.approx(
        2 / 3
    )  # the third class is neither here nor there
    assert values["dice"].item() == pytest.approx(4 / 5)
    assert values["accuracy"].item() == pytest.approx(4 / 5)


@pytest.mark.parametrize("deterministic", [False, True])
def test_metrics_do_not_depend_on_how_the_set_is_split(model: Model, deterministic: bool) -> None:
    """Sums over the whole set, not means over batches, in which a class may be rare."""
    torch.use_deterministic_algorithms(deterministic)
    images, masks = make_batch(7)
    masks[0], masks[1] = 0, 255
    model.eval()
    results = []
    for size in (7, 3, 1):
        metrics = model.build_metrics()
        with torch.no_grad():
            for part in zip(images.split(size), masks.split(size), strict=True):
                model.evaluate(part, metrics)
        results.append(metrics.compute())
    for name, value in results[0].items():
        for other in results[1:]:
            torch.testing.assert_close(other[name], value)
        assert name == "loss" or metrics[name].higher_is_better is not False
    predicted = model.network(model.normalize(images)).argmax(1)
    known = masks != 255
    for label, found in enumerate(results[0]["iou_per_class"].tolist()):
        is_own, is_taken = known & (masks == label), known & (predicted == label)
        union = int((is_own | is_taken).sum())
        assert found == pytest.approx(int((is_own & is_taken).sum()) / max(1, union))


def test_best_checkpoint_is_that_of_the_highest_miou(model: Model) -> None:
    metrics = model.build_metrics()
    assert metrics[model.best_metric].higher_is_better


def test_what_is_exported_gives_probabilities(model: Model) -> None:
    module, images = model.eval().inference_module(), model.example_inputs()
    assert images.shape == (2, 3, 32, 32)
    probabilities = module(images)
    assert probabilities.shape == (2, 3, 32, 32)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2, 32, 32))


@pytest.mark.parametrize(
    "flag", ["--width=0", "--depth=-1", "--depth=9", "--cross_entropy=-1", "--dice=-1"]
)
def test_flag_out_of_range_is_one_line(parse: Parse, flag: str) -> None:
    with pytest.raises(UserError, match=f"{flag.replace('=', ' ')}.*: give "):
        Model(parse(flag), CLASSES)


def test_something_must_be_learned(parse: Parse) -> None:
    with pytest.raises(UserError, match="--cross_entropy 0: one of the weights"):
        Model(parse("--cross_entropy=0", "--dice=0"), CLASSES)


@pytest.mark.parametrize("flag", ["--pretrained", "--freeze"])
def test_fine_tuning_needs_a_backbone(parse: Parse, flag: str) -> None:
    with pytest.raises(UserError, match="need a --backbone, such as resnet18"):
        Model(parse(flag), CLASSES)


@pytest.mark.parametrize(
    ("name", "reason"), [("resnet19", "Unknown model"), ("vit_b_16", "it is no chain of layers")]
)
def test_backbone_that_cannot_be_used_is_one_line(parse: Parse, name: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"--backbone {name} cannot be used: {reason}"):
        Model(parse(f"--backbone={name}"), CLASSES)


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
