"""The finished model: what train.py, test.py and predict.py count on."""

import argparse
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Parse
from torch import Tensor, nn
from torch.nn import functional

from engine.exits import UserError
from engine.state import TrainingState
from networks import Vgg19
from ops import enlarge, to_bytes, to_floats

from pix2pixhd import Pix2PixHD

# By this name, lines stay as long as they are, whatever the model is called.
Model = Pix2PixHD
PIXELS_ALONE = ("--adversarial=0", "--feature_matching=0")
NETWORKS = ("generator", "discriminator")
# Flags that make each kind of loss, of a model that is small.
LOSS_FLAGS = [[f"--loss={loss}"] for loss in ("lsgan", "hinge", "vanilla")]
# 16, since torch draws normal numbers by sixteens: fewer would depend on how many there are.
LOSS_FLAGS += [[*PIXELS_ALONE], ["--norm=batch", "--style_size=16"]]


@pytest.fixture
def options(parse: Parse) -> argparse.Namespace:
    return parse()


@pytest.fixture
def model(options: argparse.Namespace) -> Model:
    torch.manual_seed(0)
    return Model(options, [])


def make_batch(count: int = 4, channels: int = 3, side: int = 16, scale: int = 4) -> list[Tensor]:
    sides = side // scale, side
    shapes = [(count, channels, each, each) for each in sides]
    return [torch.randint(0, 256, shape, dtype=torch.uint8) for shape in shapes]


@pytest.mark.parametrize("flags", [[], ["--style_size=3"], ["--norm=batch"], ["--loss=hinge"]])
@pytest.mark.parametrize("count", [1, 4])
def test_losses_are_one_per_sample(parse: Parse, flags: list[str], count: int) -> None:
    model = Model(parse(*flags), [])
    terms = model(make_batch(count))
    logged = {"pixel", "adversarial", "feature_matching"}
    logged |= {"style"} if flags == ["--style_size=3"] else set()
    assert terms.keys() == {*NETWORKS, *logged}
    assert all(values.shape == (count,) for values in terms.values())
    assert [name for name, values in terms.items() if values.requires_grad] == [*reversed(NETWORKS)]


def test_terms_are_weighted_in_one_place(parse: Parse) -> None:
    flags = "--pixel=3", "--adversarial=0.5", "--feature_matching=2", "--style=7", "--style_size=2"
    terms = Model(parse(*flags), [])(make_batch())
    weights = {"pixel": 3, "adversarial": 0.5, "feature_matching": 2, "style": 7}
    expected = sum(weight * terms[name] for name, weight in weights.items())
    torch.testing.assert_close(terms["generator"].detach(), expected)


@pytest.mark.parametrize("flags", [[], ["--style_size=3"], ["--loss=vanilla"]])
def test_each_loss_trains_its_own_network(parse: Parse, flags: list[str]) -> None:
    """As train.py does: backward into the optimizer's parameters, and no others."""
    options = parse(*flags)
    model = Model(options, [])
    terms = model(make_batch())
    for name, optimizer in model.build_optimizers(options).items():
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        parameters = [p for p in model.parameters() if id(p) in own]
        terms[name].mean().backward(inputs=parameters, retain_graph=True)
        for parameter in model.parameters():
            assert (parameter.grad is not None) == (id(parameter) in own)
        model.zero_grad()


def test_one_pass_gives_the_gradients_of_the_textbooks_two(model: Model) -> None:
    """The discriminators' loss on a detached image, the generator's on the same one."""
    batch = make_batch()
    terms = model(batch)
    inputs, target = map(to_floats, batch)
    base, output = enlarge(inputs, 4), model.generator(inputs)
    judge = model.discriminator
    assert judge is not None
    real, fake, detached = (judge(base, each) for each in (target, output, output.detach()))
    expected = {
        "generator": 100 * functional.l1_loss(output, target)
        + sum((maps[-1] - 1).square().mean() for maps in fake)
        + 10
        * sum(
            functional.l1_loss(own, other.detach())
            for maps, goals in zip(fake, real, strict=True)
            for own, other in zip(maps[:-1], goals[:-1], strict=True)
        ),
        "discriminator": sum(
            (maps[-1] - 1).square().mean() + others[-1].square().mean()
            for maps, others in zip(real, detached, strict=True)
        ),
    }
    for name in NETWORKS:
        parameters = list(getattr(model, name).parameters())
        gradients, wanted = (
            torch.autograd.grad(each.mean(), parameters, retain_graph=True)
            for each in (terms[name], expected[name])
        )
        for gradient, reference in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-5)


def test_every_parameter_has_an_optimizer(parse: Parse) -> None:
    options = parse("--style_size=3")
    model = Model(options, [])
    optimizers = model.build_optimizers(options)
    owned = [p for o in optimizers.values() for group in o.param_groups for p in group["params"]]
    assert {id(p) for p in owned} == {id(p) for p in model.parameters()}
    assert len(owned) == len({id(p) for p in owned})


def test_pixels_alone_need_no_discriminator(parse: Parse) -> None:
    options = parse(*PIXELS_ALONE, "--pixel=1")
    model = Model(options, [])
    assert model.discriminator is None
    assert model.build_optimizers(options).keys() == {"generator"}
    terms = model(make_batch())
    assert terms.keys() == {"generator", "pixel"}
    assert torch.equal(terms["generator"], terms["pixel"])


def test_replicas_on_parts_of_a_batch_agree_with_the_whole(model: Model) -> None:
    """What nn.DataParallel does: each device gets a part, and the losses are gathered."""
    model.double()
    batch = make_batch(6)
    whole = model(batch)
    parts = [model(part) for part in zip(*(images.split(2) for images in batch), strict=True)]
    for name in whole:
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole[name])


@pytest.mark.parametrize("flags", [["--style_size=3"], ["--perceptual=1"]])
def test_replicas_have_no_parameters(
    parse: Parse, flags: list[str], vgg_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a replica, parameters() is empty: nothing in forward may ask for them."""
    model = Model(parse(*flags, f"--vgg_weights={vgg_weights}"), [])
    monkeypatch.setattr(nn.Module, "parameters", lambda *_: iter(()))
    assert model(make_batch())["generator"].shape == (4,)


@pytest.fixture(scope="session")
def vgg_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights as torchvision's, but drawn."""
    weights, given, number = {}, 3, 0
    for width in Vgg19.widths:
        if width:
            weights[f"features.{number}.weight"] = 0.02 * torch.randn(width, given, 3, 3)
            weights[f"features.{number}.bias"] = torch.zeros(width)
            given = width
        number += 2 if width else 1
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pt"
    torch.save(weights, path)
    return path


def test_perceptual_loss_is_no_part_of_a_checkpoint(parse: Parse, vgg_weights: Path) -> None:
    options = parse(*PIXELS_ALONE, "--perceptual=2", f"--vgg_weights={vgg_weights}")
    model = Model(options, [])
    terms = model(make_batch())
    torch.testing.assert_close(
        terms["generator"].detach(), 100 * terms["pixel"] + 2 * terms["perceptual"]
    )
    terms["generator"].mean().backward()
    assert all(parameter.grad is not None for parameter in model.generator.parameters())
    state = TrainingState(model, model.build_optimizers(options), 10, options, [])  # type: ignore[arg-type]  # an empty set
    assert all(name.startswith("generator.") for name in state.tested_model.state_dict())
    restored = Model(options, [], fetch=False)  # and a checkpoint is read without VGG19
    restored.load_state_dict(model.state_dict())
    assert restored.perceptual_loss is None


def test_vgg19_without_its_weights_is_one_line(
    parse: Parse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    line = r"--perceptual: .*cannot be fetched .*no route.*--vgg_weights, or give --perceptual 0$"
    with pytest.raises(UserError, match=line):
        Model(parse("--perceptual=1"), [])
    path = tmp_path / "weights.pt"
    for reason in ("no such file", "not torchvision's weights of VGG19"):
        with pytest.raises(UserError, match=f"{reason}; name others, or give --perceptual 0$"):
            Model(parse("--perceptual=1", f"--vgg_weights={path}"), [])
        torch.save({"other": torch.ones(1)}, path)


@pytest.mark.parametrize("loss", ["lsgan", "hinge", "vanilla"])
def test_generator_learns(parse: Parse, loss: str) -> None:
    torch.manual_seed(0)
    options = parse(f"--loss={loss}", "--lr=0.01")
    model = Model(options, [])
    optimizer, batch, means = model.build_optimizers(options)["generator"], make_batch(8), []
    for _ in range(15):
        optimizer.zero_grad()
        mean = model(batch)["generator"].mean()
        mean.backward(inputs=list(model.generator.parameters()))
        optimizer.step()
        means.append(mean.item())
    assert means[-1] < means[0]


def test_metrics_are_those_of_rounded_bytes_however_the_set_is_split(model: Model) -> None:
    batch = make_batch(24)
    model.eval()
    results = []
    for size in (24, 7):
        metrics = model.build_metrics()
        with torch.no_grad():
            for part in zip(*(images.split(size) for images in batch), strict=True):
                model.evaluate(part, metrics)
        results.append(metrics.compute())
    assert results[0].keys() == {"psnr", "ssim", "base_psnr", "base_ssim"}
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name])
        assert metrics[name].higher_is_better
    target = batch[1].double()
    for name, images in (("psnr", model.generator(to_floats(batch[0]))), ("base_psnr", None)):
        made = to_bytes(enlarge(to_floats(batch[0]), 4) if images is None else images)
        errors = (made.double() - target).square().mean((1, 2, 3))
        expected = (10 * (255**2 / errors).log10()).mean().item()
        assert results[0][name].item() == pytest.approx(expected, rel=1e-5)


def test_a_generator_that_gives_back_its_base_is_as_good_as_it(model: Model) -> None:
    model.generator = nn.Upsample(scale_factor=4)  # type: ignore[assignment]  # the same call
    metrics = model.build_metrics()
    images = torch.full((2, 3, 4, 4), 7, dtype=torch.uint8)
    model.evaluate((images, torch.full((2, 3, 16, 16), 9, dtype=torch.uint8)), metrics)
    values = metrics.compute()
    assert values["psnr"] == values["base_psnr"]
    assert values["ssim"] == values["base_ssim"]


@pytest.mark.parametrize(
    ("flags", "residual"), [(["--scale=1"], False), (["--scale=2"], True), ([], True)]
)
def test_residual_is_on_where_images_grow(parse: Parse, flags: list[str], residual: bool) -> None:
    assert Model(parse(*flags), []).generator.residual is residual
    assert not Model(parse(*flags, "--no-residual"), []).generator.residual


def test_what_is_exported_translates(model: Model) -> None:
    module, images = model.eval().inference_module(), model.example_inputs()
    assert images.shape == (2, 3, 8, 8)
    assert module(images).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    "flag",
    [
        "--img_size=18",
        "--crop_size=6",
        "--width=0",
        "--blocks=-1",
        "--downsamplings=-1",
        "--pixel=-1",
        "--beta1=1",
        "--discriminators=0",
        "--discriminators=6",
    ],
)
def test_flag_out_of_range_is_one_line(parse: Parse, flag: str) -> None:
    with pytest.raises(UserError, match=f"{flag.replace('=', ' ')}.*: give "):
        Model(parse(flag), [])


def test_vgg19_sees_no_small_crops(parse: Parse) -> None:
    with pytest.raises(UserError, match="--perceptual: VGG19 sees no less than 16 pixels"):
        Model(parse("--perceptual=1", "--crop_size=8"), [])


def test_something_must_be_learned(parse: Parse) -> None:
    with pytest.raises(UserError, match="--pixel 0: one of the weights"):
        Model(parse(*PIXELS_ALONE, "--pixel=0"), [])
