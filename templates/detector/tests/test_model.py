"""The finished model: what train.py, test.py and predict.py count on."""

import argparse
import urllib.error
from typing import Any

import pytest
import torch
from conftest import Parse
from torch import Tensor, nn

import data
from engine.exits import UserError
from engine.weights import load_model, restore_model
from ops import flatten

from yolov3 import YOLOv3

# By this name, lines stay as long as they are, whatever the model is called.
Model = YOLOv3
CLASSES = ["cross", "disc", "frame"]
NOTHING = torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long)
TERMS = {"box", "objectness", "classification"}
# Flags that make each kind of loss and of network, of a model that is small.
LOSS_FLAGS = [
    [],
    ["--no-neighbors", "--match_iou=1", "--box=5"],
    ["--backbone=darknet53"],
]


@pytest.fixture
def options(parse: Parse) -> argparse.Namespace:
    return parse()


@pytest.fixture
def model(options: argparse.Namespace) -> Model:
    torch.manual_seed(0)
    return Model(options, CLASSES)


def make_batch(count: int = 4, channels: int = 3, side: int = 32) -> list[Tensor]:
    """Returns images, of which the last one has no objects."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8)
    corners = torch.rand(count, 3, 2) * side / 2
    boxes = torch.cat([corners, corners + 3 + torch.rand(count, 3, 2) * side / 3], dim=-1)
    labels = torch.randint(0, len(CLASSES), (count, 3))
    labels[0, 1:], labels[-1] = -1, -1
    return [images, boxes * (labels >= 0)[..., None], labels]


@pytest.mark.parametrize("flags", LOSS_FLAGS, ids=" ".join)
@pytest.mark.parametrize("count", [2, 4])
def test_losses_are_one_per_sample(parse: Parse, flags: list[str], count: int) -> None:
    terms = Model(parse(*flags), CLASSES)(make_batch(count))
    assert terms.keys() == {"detector", *TERMS}
    assert all(values.shape == (count,) for values in terms.values())
    assert all(values.isfinite().all() for values in terms.values())
    assert [name for name, values in terms.items() if values.requires_grad] == ["detector"]


def test_batch_of_one(parse: Parse) -> None:
    model = Model(parse("--img_size=64"), CLASSES)
    for batch in (make_batch(1, side=64), [part[:1] for part in make_batch(2, side=64)]):
        model(batch)["detector"].mean().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())  # type: ignore[union-attr]  # as said above


def test_terms_are_weighted_in_one_place(parse: Parse) -> None:
    flags = "--box=3", "--objectness=0.5", "--classification=2"
    terms = Model(parse(*flags), CLASSES)(make_batch())
    weights = {"box": 3, "objectness": 0.5, "classification": 2}
    expected = sum(weight * terms[name] for name, weight in weights.items())
    torch.testing.assert_close(terms["detector"].detach(), expected)


@pytest.mark.parametrize("flags", LOSS_FLAGS, ids=" ".join)
def test_every_parameter_is_trained(parse: Parse, flags: list[str]) -> None:
    options = parse(*flags)
    model = Model(options, CLASSES)
    (optimizer,) = model.build_optimizers(options).values()
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert owned == {id(parameter) for parameter in model.parameters()}
    model(make_batch(8))["detector"].mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_nothing_annotated_in_a_whole_batch(model: Model) -> None:
    images, boxes, labels = make_batch()
    terms = model((images, torch.zeros_like(boxes), torch.full_like(labels, -1)))
    assert not terms["box"].any()
    assert not terms["classification"].any()
    terms["detector"].mean().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_replicas_on_parts_of_a_batch_agree_with_the_whole(model: Model) -> None:
    """What nn.DataParallel does: each device gets a part, and the losses are gathered."""
    model.double().eval()
    batch = make_batch(6)
    whole = model(batch)
    parts = [model(part) for part in zip(*(each.split(4) for each in batch), strict=True)]
    for name in whole:
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole[name])


def test_replicas_have_no_parameters(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a replica, parameters() is empty: nothing in forward may ask for them."""
    monkeypatch.setattr(nn.Module, "parameters", lambda *_: iter(()))
    assert model(make_batch())["detector"].shape == (4,)


def test_one_batch_can_be_learned_by_heart(parse: Parse) -> None:
    options = parse("--width=8", "--lr=0.003")
    training_set, _ = data.build_datasets(options)
    torch.manual_seed(0)  # of what is done to the samples, too
    batch = [torch.stack(parts) for parts in zip(*(training_set[n] for n in range(8)), strict=True)]
    model = Model(options, training_set.classes)
    (optimizer,) = model.build_optimizers(options).values()
    for _ in range(250):
        optimizer.zero_grad()
        model(batch)["detector"].mean().backward()
        optimizer.step()
    metrics = model.eval().build_metrics()
    with torch.no_grad():
        model.evaluate(batch, metrics)
    assert metrics.compute()["map"] > 0.8


def test_metrics_do_not_depend_on_the_batches(model: Model) -> None:
    batch = make_batch(7)
    model.eval()
    results = []
    for size in (7, 3):  # the last batch is smaller
        metrics = model.build_metrics()
        with torch.no_grad():
            for part in zip(*(each.split(size) for each in batch), strict=True):
                model.evaluate(part, metrics)
        results.append(metrics.compute())
    names = {"loss", "map", "map_50", "map_75", "map_per_class", "precision_recall"}
    assert results[0].keys() == names
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], equal_nan=True)
    assert results[0]["map_per_class"].shape == (3,)
    assert results[0]["precision_recall"].shape == (3, 101)
    assert metrics["map"].higher_is_better
    expected = model(batch)["detector"].mean()
    torch.testing.assert_close(results[0]["loss"].float(), expected.detach())


def perfect(boxes: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Returns the truth, as if it had been found."""
    return [
        (own[names >= 0], torch.ones(int((names >= 0).sum())), names[names >= 0])
        for own, names in zip(boxes, labels, strict=True)
    ]


def test_whoever_finds_everything_has_a_precision_of_one(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, boxes, labels = make_batch(9)
    monkeypatch.setattr(model, "_detect", lambda *_: perfect(boxes, labels))
    metrics = model.eval().build_metrics()
    model.evaluate((images, boxes, labels), metrics)
    values = metrics.compute()
    assert [values[name].item() for name in ("map", "map_50", "map_75")] == [1, 1, 1]
    assert values["map_per_class"].tolist() == [1, 1, 1]


def test_boxes_in_an_image_without_objects_count(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, boxes, labels = make_batch(9)
    invented = perfect(boxes, labels)
    invented[-1] = boxes[0, :1], torch.tensor([2.0]), labels[0, :1]  # the last one has none
    monkeypatch.setattr(model, "_detect", lambda *_: invented)
    metrics = model.eval().build_metrics()
    model.evaluate((images, boxes, labels), metrics)
    per_class = metrics.compute()["map_per_class"]
    assert per_class[labels[0, 0]] < 1
    assert (per_class == 1).sum() == 2


def test_curves_are_drawn_for_each_class(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    images, boxes, labels = make_batch(9)
    monkeypatch.setattr(model, "_detect", lambda *_: perfect(boxes, labels)[:-2] + 2 * [NOTHING])
    metrics = model.eval().build_metrics()
    model.evaluate((images, boxes, labels), metrics)
    curves = metrics.compute()["precision_recall"]
    assert set(curves.unique().tolist()) == {0, 1}  # what was found is right, and not all was found
    figure, axes = metrics["precision_recall"].plot(labels=CLASSES)
    assert [line.get_label() for line in axes.lines] == CLASSES
    for line, curve in zip(axes.lines, curves.tolist(), strict=True):
        assert list(line.get_ydata()) == curve
    figure.clear()


def test_anchors_follow_from_the_flags_the_data_or_the_paper(parse: Parse) -> None:
    options = parse()
    papers = Model(options, CLASSES).anchors * 416 / 32
    assert papers.shape == (3, 3, 2)
    torch.testing.assert_close(papers[0, 0], torch.tensor([10.0, 13]))
    torch.testing.assert_close(papers[2, 2], torch.tensor([373.0, 326]))
    data.build_datasets(options)
    fitted = Model(options, CLASSES).anchors
    assert fitted.flatten().tolist() == pytest.approx(options.anchors)
    sizes = [str(size) for number in range(9, 0, -1) for size in (2 * number, 3)]
    given = Model(parse("--anchors", *sizes), CLASSES).anchors
    assert given[0, 0].tolist() == [2, 3]  # small ones first
    assert given[2, 2].tolist() == [18, 3]


def test_anchors_are_kept_with_the_weights(parse: Parse) -> None:
    """Also where the data, or a flag, would now say others."""
    options = parse()
    data.build_datasets(options)
    model = Model(options, CLASSES)
    checkpoint = {"options": vars(options), "classes": CLASSES, "model": model.state_dict()}
    restored = restore_model(Model, checkpoint | {"ema": None})
    assert torch.equal(restored.anchors, model.anchors)
    other = Model(parse(), CLASSES)
    assert not torch.equal(other.anchors, model.anchors)
    load_model(other, model.state_dict())
    assert torch.equal(other.anchors, model.anchors)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_exported_says_what_predictions_say(parse: Parse, channels: int) -> None:
    model = Model(parse(f"--channels={channels}"), CLASSES).eval()
    module, images = model.inference_module(), model.example_inputs()
    assert images.shape == (2, channels, 32, 32)
    with torch.no_grad():
        out = module(images)
        assert out.shape == (2, 3 * (16 + 4 + 1), 5 + 3)
        scores = out[..., 4:5] * out[..., 5:]
        found = model._detect(flatten(model.network(model.normalize(images))), 0.0)
    torch.testing.assert_close(found[0][1][0], scores[0].max())
    box = out[0, scores[0].amax(1).argmax(), :4] * 32
    torch.testing.assert_close(found[0][0][0], box.clamp(0, 32))


@pytest.mark.parametrize(
    "flag",
    [
        "--img_size=40",
        "--width=0",
        "--width=3",
        "--box=-1",
        "--match_iou=0",
        "--ignore_iou=1.5",
        "--nms_iou=0",
        "--score=1",
        "--weight_decay=-1",
        "--anchors=3",
    ],
)
def test_flag_out_of_range_is_one_line(parse: Parse, flag: str) -> None:
    with pytest.raises(UserError, match=f"{flag.partition('=')[0]} .*: give "):
        Model(parse(flag), CLASSES)


def test_single_pixels_cannot_be_normalized(parse: Parse) -> None:
    with pytest.raises(UserError, match="--batch_size 1 with --img_size 32: a single pixel"):
        Model(parse("--batch_size=1"), CLASSES)


def test_backbone_of_torchvision(parse: Parse) -> None:
    model = Model(parse("--backbone=resnet18", "--width=4"), CLASSES)
    model(make_batch())["detector"].mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(UserError, match="--backbone nothing cannot be used: Unknown model"):
        Model(parse("--backbone=nothing"), CLASSES)
    with pytest.raises(UserError, match="--pretrained needs a --backbone of torchvision"):
        Model(parse("--pretrained"), CLASSES)


def test_pretrained_weights_without_a_network_are_one_line(
    parse: Parse, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    options = parse("--backbone=resnet18", "--pretrained", "--width=4")
    with pytest.raises(UserError, match=r"--pretrained: the weights of resnet18 .*no route"):
        Model(options, CLASSES)
    Model(options, CLASSES, fetch=False)  # a checkpoint's follow
