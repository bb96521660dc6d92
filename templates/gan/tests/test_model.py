"""The finished model: what train.py, test.py and predict.py count on."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Parse
from torch import Tensor

from engine.exits import UserError
from engine.state import TrainingState
from networks import FeatureNetwork
from ops import to_floats

from dcgan import DCGAN

# By this name, lines stay as long as they are, whatever the model is called.
Model = DCGAN
LOSSES = ("vanilla", "lsgan", "hinge", "wgan-gp")
NETWORKS = ("generator", "discriminator")
# Flags that make each kind of loss, of a model that is small.
LOSS_FLAGS = [["--width=4", f"--loss={loss}"] for loss in LOSSES]
LOSS_FLAGS += [["--width=8", "--loss=hinge", "--spectral_norm", "--attention"]]


@pytest.fixture
def options(parse: Parse) -> argparse.Namespace:
    return parse("--width=4", "--latent_size=6")


@pytest.fixture
def model(options: argparse.Namespace) -> Model:
    torch.manual_seed(0)
    return Model(options, [])


def make_batch(count: int = 4, channels: int = 3, size: int = 32) -> tuple[Tensor, Tensor]:
    images = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)
    return images, torch.arange(count)


@pytest.mark.parametrize("flags", [[], ["--spectral_norm"], ["--attention"]])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("count", [1, 4])
def test_losses_are_one_per_sample(parse: Parse, loss: str, flags: list[str], count: int) -> None:
    model = Model(parse("--width=8", f"--loss={loss}", *flags), [])
    terms = model(make_batch(count))
    assert terms.keys() == {"generator", "discriminator", "real_score", "fake_score"}
    assert all(values.shape == (count,) for values in terms.values())
    assert not terms["real_score"].requires_grad
    assert not terms["fake_score"].requires_grad


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_trains_its_own_network(parse: Parse, loss: str) -> None:
    """As train.py does: backward into the optimizer's parameters, and no others."""
    options = parse("--width=4", f"--loss={loss}")
    model = Model(options, [])
    terms = model(make_batch())
    for name, optimizer in model.build_optimizers(options).items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        terms[name].mean().backward(inputs=parameters, retain_graph=True)
        for other in NETWORKS:
            gradients = [p.grad for p in getattr(model, other).parameters()]
            assert all((grad is not None) == (other == name) for grad in gradients)
        model.zero_grad()


def test_one_pass_gives_the_gradients_of_the_textbooks_two(parse: Parse) -> None:
    """The discriminator's loss on detached images, the generator's on the same ones."""
    model, batch = Model(parse("--width=4", "--latent_size=6", "--noise=0"), []), make_batch()
    torch.manual_seed(1)
    terms = model(batch)
    torch.manual_seed(1)
    fake = model.generator(2 * torch.rand(4, 6) - 1)
    real = model.discriminator(to_floats(batch[0]))
    expected = {
        "generator": -model.discriminator(fake).sigmoid().log(),
        "discriminator": -real.sigmoid().log()
        - (1 - model.discriminator(fake.detach()).sigmoid()).log(),
    }
    for name in NETWORKS:
        parameters = list(getattr(model, name).parameters())
        gradients, wanted = (
            torch.autograd.grad(each[name].mean(), parameters, retain_graph=True)
            for each in (terms, expected)
        )
        for gradient, reference in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-5)


def test_every_parameter_has_an_optimizer(parse: Parse) -> None:
    options = parse("--width=8", "--attention", "--spectral_norm", "--lr_discriminator=4e-4")
    model = Model(options, [])
    optimizers = model.build_optimizers(options)
    owned = [p for o in optimizers.values() for group in o.param_groups for p in group["params"]]
    assert {id(p) for p in owned} == {id(p) for p in model.parameters()}
    assert len(owned) == len({id(p) for p in owned})
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers.values()]
    assert rates == [1e-3, 4e-4]
    assert optimizers["generator"].param_groups[0]["betas"] == (0.5, 0.999)


@pytest.mark.parametrize("loss", LOSSES)
def test_generator_learns_to_please(parse: Parse, loss: str) -> None:
    """Against a discriminator that stands still, its loss falls."""
    torch.manual_seed(0)
    options = parse("--width=4", f"--loss={loss}", "--lr=0.01")
    model = Model(options, [])
    optimizer, batch, means = model.build_optimizers(options)["generator"], make_batch(8), []
    for _ in range(15):
        optimizer.zero_grad()
        mean = model(batch)["generator"].mean()
        mean.backward(inputs=list(model.generator.parameters()))
        optimizer.step()
        means.append(mean.item())
    assert means[-1] < means[0] - 0.01


def test_metrics_are_the_same_however_the_set_is_split(model: Model) -> None:
    batch = make_batch(24)
    model.eval()
    state = torch.get_rng_state()
    results = []
    for size in (24, 7, 7):
        metrics = model.build_metrics()
        with torch.no_grad():
            for part in zip(*(each.split(size) for each in batch), strict=True):
                model.evaluate(part, metrics)
        results.append(metrics.compute())
    assert torch.equal(state, torch.get_rng_state())  # a test changes nothing of the training
    assert results[0].keys() == {"fid", "kid", "confident", "classes"}
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-3, atol=1e-3)
        assert torch.equal(results[1][name], results[2][name])
    assert 0 <= results[0]["confident"] <= 1
    assert 0 <= results[0]["classes"] <= 4


def test_real_images_are_nearer_than_noise(model: Model, path_to_data: str) -> None:
    """Where the generator gives back the test set, its distance from it is next to nothing."""
    noise, numbers = make_batch(32)
    distances = []
    for samples in (noise, make_batch(32)[0] // 2):
        model.generator = _Fixed(to_floats(samples))  # type: ignore[assignment]  # likewise
        metrics = model.build_metrics()
        model.evaluate((noise, numbers), metrics)
        distances.append(metrics.compute())
    assert distances[0]["fid"].item() == pytest.approx(0, abs=0.05)
    for name in ("fid", "kid"):
        assert distances[0][name] < distances[1][name]
        assert metrics[name].higher_is_better is False


class _Fixed(torch.nn.Module):
    """A generator that knows its images."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images

    def forward(self, latents: Tensor) -> Tensor:
        return self.images[: len(latents)]


def test_features_are_no_part_of_the_model(model: Model, options: argparse.Namespace) -> None:
    assert isinstance(model.judge[0], FeatureNetwork)
    assert not any("judge" in name for name in model.state_dict())
    assert not any(p.requires_grad for p in model.judge[0].parameters())
    state = TrainingState(model, model.build_optimizers(options), 10, options, [])  # type: ignore[arg-type]  # an empty set
    assert not any("judge" in name for name in state.tested_model.state_dict())


def test_missing_features_are_one_line(
    parse: Parse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # in the project there may be some
    with pytest.raises(UserError, match=r"data/features\.pt: no such file.*prepare_data\.py"):
        Model(parse("--path_to_data=data"), [])
    Model(parse("--path_to_data=data"), [], fetch=False)  # a checkpoint draws without them
    path = tmp_path / "features.pt"
    path.write_text("no checkpoint")
    with pytest.raises(UserError, match=r"--features .*features\.pt: not a file of prepare_data"):
        Model(parse(f"--features={path}"), [])


def test_inception_without_its_package_or_network_is_one_line(
    parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, line in (
        (ModuleNotFoundError("torch_fidelity"), "--features inception: pip install torch-fidelity"),
        (OSError("no route"), r"its weights cannot be fetched \(no route\); connect"),
    ):

        def fail(*_: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("torchmetrics.image.fid.NoTrainInceptionV3", fail)
        with pytest.raises(UserError, match=line):
            Model(parse("--features=inception"), [])


def test_features_that_are_no_classifier_count_no_classes(parse: Parse) -> None:
    model = Model(parse("--width=4", "--features=random"), []).eval()
    metrics = model.build_metrics()
    with torch.no_grad():
        model.evaluate(make_batch(8), metrics)
    assert metrics.compute().keys() == {"fid", "kid"}


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_of_the_same_latents(parse: Parse, channels: int) -> None:
    options = parse("--width=4", f"--channels={channels}")
    torch.manual_seed(0)
    first, second = Model(options, []).eval(), Model(options, []).eval()
    second.load_state_dict(first.state_dict())  # the latents are in it
    picture = first.pictures(make_batch(2, channels))["samples"]
    assert picture.shape == (3, 8 * 34 + 2, 8 * 34 + 2)
    assert 0 <= picture.min() < picture.max() <= 1
    assert torch.equal(picture, second.pictures(make_batch(5, channels))["samples"])


def test_predictions_are_rows_of_images(model: Model) -> None:
    model.eval()
    latents = 2 * torch.rand(3, 5, 6) - 1
    results = model.predict(latents)
    assert [result["image"].shape for result in results] == [(3, 32, 5 * 32)] * 3
    alone = model.predict(latents[1:2, 2:3])[0]["image"]
    torch.testing.assert_close(results[1]["image"][:, :, 64:96], alone, atol=1 / 255, rtol=0)


def test_what_is_exported_draws(model: Model) -> None:
    module, latents = model.eval().inference_module(), model.example_inputs()
    assert latents.shape == (2, 6)
    assert module(latents).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    "flag",
    ["--img_size=20", "--width=0", "--latent_size=0", "--beta1=1", "--lambda_penalty=-1"],
)
def test_flag_out_of_range_is_one_line(parse: Parse, flag: str) -> None:
    with pytest.raises(UserError, match=f"{flag.replace('=', ' ')}.*: give "):
        Model(parse(flag), [])
