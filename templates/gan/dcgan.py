"""The finished model: networks, losses, optimizers, metrics and flags, packed into one module.

`train.py`, `test.py` and `predict.py` know no more of a model than this class shows them. To train
a model of your own, keep the names of its methods and change what they do.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.image.fid import FrechetInceptionDistance
from torchvision.utils import make_grid

from engine.exits import UserError
from engine.reproducibility import uniform
from losses import ClassCount, DiscriminatorLoss, GeneratorLoss, GradientPenalty, KernelDistance
from networks import Discriminator, FeatureNetwork, Generator, InceptionNetwork, random_features
from ops import to_bytes, to_floats

SIZES = (8, 16, 32, 64, 128, 256)
SHOWN = 64  # samples in a picture
PICTURE_SEED, TEST_SEED = 0, 1  # the same latents in every run, so that runs can be compared
CONFIDENT = 0.9  # least probability of a sample that the features' classifier takes for sure


class DCGAN(nn.Module):
    """Draws images like those of the training set, by two networks that learn from each other.

    Args:
        options: the flags; only this class reads them, the networks get keywords.
        classes: of the data; there are none.
        fetch: False where a checkpoint's weights follow: then what measures the samples is only
            read once it is needed.

    Raises:
        UserError: a flag is out of its range, or there are no --features to measure by.
    """

    best_metric = "kid"  # decides which checkpoint is best.pt

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Adds the model's own flags. It runs by itself, so that --help needs no torch."""
        parser.set_defaults(epochs=240, test_every=10, batch_size=32, lr=1e-3, ema=0.995)
        parser.add_argument(
            "--loss",
            choices=("vanilla", "lsgan", "hinge", "wgan-gp"),
            default="vanilla",
            help="what the networks minimize; see the README",
        )
        parser.add_argument("--width", type=int, default=32, help="channels of the largest maps")
        parser.add_argument("--latent_size", type=int, default=32, help="numbers in a latent")
        parser.add_argument(
            "--kinds", type=int, default=32, help="of image, which a latent names; 0: none"
        )
        parser.add_argument(
            "--noise", type=float, default=0.2, help="added to images in [-1, 1] to be judged"
        )
        parser.add_argument("--beta1", type=float, default=0.5, help="of Adam, in [0, 1)")
        parser.add_argument("--beta2", type=float, default=0.999, help="of Adam, in [0, 1)")
        parser.add_argument(
            "--lr_discriminator", type=float, help="learning rate of its own (default: --lr)"
        )
        parser.add_argument(
            "--lambda_penalty", type=float, default=10.0, help="weight of wgan-gp's penalty"
        )
        parser.add_argument(
            "--spectral_norm",
            action=argparse.BooleanOptionalAction,
            default=False,
            help="spectral normalization of the discriminator in place of batch normalization",
        )
        parser.add_argument(
            "--attention",
            action=argparse.BooleanOptionalAction,
            default=False,
            help="a self-attention block in both networks",
        )
        parser.add_argument(
            "--features",
            metavar="PATH",
            help="network that measures samples: a file that prepare_data.py wrote (default: "
            "features.pt in --path_to_data), or the words inception or random",
        )

    def __init__(
        self, options: argparse.Namespace, classes: Sequence[str], fetch: bool = True
    ) -> None:
        super().__init__()
        del classes
        _check(options)
        self.latent_size = options.latent_size
        self.penalty_weight = options.lambda_penalty if options.loss == "wgan-gp" else 0.0
        shape = {"channels": options.channels, "size": options.img_size, "width": options.width}
        self.noise = options.noise
        self.generator = Generator(
            options.latent_size, attention=options.attention, kinds=options.kinds, **shape
        )
        # A penalty on each image's own gradient, like the bound of spectral normalization, does
        # not go with statistics over the batch.
        norm = "layer" if options.loss == "wgan-gp" else "batch"
        self.discriminator = Discriminator(
            norm="none" if options.spectral_norm else norm,
            spectral=options.spectral_norm,
            attention=options.attention,
            **shape,
        )
        self.generator_loss = GeneratorLoss(options.loss)
        self.discriminator_loss = DiscriminatorLoss(options.loss)
        self.penalty = GradientPenalty()
        self.register_buffer("shown_latents", self.fixed_latents(PICTURE_SEED, np.arange(SHOWN)))
        self.features = options.features or str(Path(options.path_to_data) / "features.pt")
        # In a list it is no part of the model: it is neither trained nor saved.
        self.judge = [load_features(self.features)] if fetch else []

    shown_latents: Tensor

    def fixed_latents(self, seed: int, numbers: NDArray[np.int64]) -> Tensor:
        """Returns latents (N, latent_size) that follow from the seed and numbers (N,) alone.

        However a test set is split into batches, its n-th sample is then the same.
        """
        return 2 * torch.from_numpy(uniform(seed, 0, numbers, self.latent_size)) - 1

    def forward(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """Computes one loss per optimizer, under its name, and detached terms for the log.

        `train.py` sends each loss back into its own optimizer's parameters alone, so one pass of
        the discriminator over the generated images serves both losses: what the generator must
        not learn from the discriminator's loss never reaches it. Real and generated images pass
        one after the other, each with batch statistics of their own.

        Args:
            batch: images (N, C, H, W) in [0, 255], and their numbers in the data set.

        Returns:
            Values per sample, each (N,): the losses "generator" and "discriminator", and the
            logits "real_score" and "fake_score".
        """
        images, _ = batch
        latents = torch.rand(
            len(images), self.latent_size, dtype=self.shown_latents.dtype, device=images.device
        )
        real, fake = to_floats(images, latents.dtype), self.generator(2 * latents - 1)
        real, fake = self.add_noise(real), self.add_noise(fake)
        fake_scores, real_scores = self.discriminator(fake), self.discriminator(real)
        loss = self.discriminator_loss(real_scores, fake_scores)
        if self.penalty_weight:
            loss = loss + self.penalty_weight * self.penalty(self.discriminator, real, fake)
        return {
            "generator": self.generator_loss(fake_scores),
            "discriminator": loss,
            "real_score": real_scores.detach().float(),
            "fake_score": fake_scores.detach().float(),
        }

    def add_noise(self, images: Tensor) -> Tensor:
        """Hides from the discriminator what is finer than the noise (Arjovsky and Bottou 2017)."""
        return images + self.noise * torch.randn_like(images) if self.noise else images

    def build_optimizers(self, options: argparse.Namespace) -> dict[str, Optimizer]:
        """Returns the optimizers by the name of the loss that each one minimizes."""
        betas, fused = (options.beta1, options.beta2), options.fused
        rate = options.lr if options.lr_discriminator is None else options.lr_discriminator
        return {
            "generator": Adam(self.generator.parameters(), options.lr, betas, fused=fused),
            "discriminator": Adam(self.discriminator.parameters(), rate, betas, fused=fused),
        }

    def build_metrics(self) -> MetricCollection:
        """Returns what a test measures: how far samples are from the test set; lower is better.

        Where --features is a classifier, also "confident", the share of samples to which it gives
        a class with a probability of 0.9 or more, and "classes", how many it finds among those.
        """
        if not self.judge:
            self.judge = [load_features(self.features)]
        judge = self.judge[0]
        given = nn.Identity()
        given.num_features = torch.tensor(judge.num_features)
        metrics: dict[str, Metric | MetricCollection] = {
            "fid": FrechetInceptionDistance(given),  # given features in the place of images
            "kid": KernelDistance(),
        }
        if isinstance(judge, FeatureNetwork) and judge.head is not None:
            metrics |= {"confident": MeanMetric(), "classes": ClassCount(judge.head.out_features)}
        return MetricCollection(metrics, compute_groups=False)  # they are updated one by one

    def evaluate(self, batch: Sequence[Tensor], metrics: MetricCollection) -> None:
        """Updates the metrics with one batch, as `forward` takes it, and with as many samples."""
        images, numbers = batch
        judge = self.judge[0].to(images.device)
        samples = self.sample(self.fixed_latents(TEST_SEED, numbers.cpu().numpy()))
        scores: list[Tensor] = []
        for shown, is_real in ((images, True), (to_bytes(samples), False)):
            features, *scores = judge(shown)
            metrics["fid"].update(features, real=is_real)
            metrics["kid"].update(features, real=is_real)
        if scores:  # of the samples
            probabilities, labels = scores[0].softmax(dim=1).max(dim=1)
            is_sure = probabilities >= CONFIDENT
            metrics["confident"].update(is_sure.float())
            metrics["classes"].update(labels[is_sure])

    def sample(self, latents: Tensor) -> Tensor:
        """Maps latents (N, latent_size) in [-1, 1] to images (N, C, H, W) in (-1, 1)."""
        images: Tensor = self.generator(latents.to(self.shown_latents))
        return images

    @torch.no_grad()
    def pictures(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """Returns pictures (3, H, W) in [0, 1]: samples of the same latents every time."""
        del batch
        samples = to_bytes(self.sample(self.shown_latents)) / 255
        return {"samples": make_grid(samples, nrow=8, padding=2, pad_value=1.0)}

    def inference_module(self) -> nn.Module:
        """Returns what is exported: latents (N, latent_size) to images (N, C, H, W) in (-1, 1)."""
        return self.generator

    def example_inputs(self) -> Tensor:
        """Returns two latents in the shape and type that `inference_module` takes."""
        return self.shown_latents[:2].clone()

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> list[dict[str, Any]]:
        """Returns a picture for each row of latents, (N, K, latent_size): K images side by side."""
        count, columns = inputs.shape[:2]
        samples = to_bytes(self.sample(inputs.flatten(0, 1))) / 255
        rows = samples.unflatten(0, (count, columns))  # (N, K, C, H, W)
        return [{"image": make_grid(row, nrow=columns, padding=0)} for row in rows]


def load_features(name: str) -> Any:
    """Returns the network that measures samples, in eval mode, without gradients.

    Args:
        name: a file that prepare_data.py wrote, or "inception" or "random".

    Raises:
        UserError: the file, the package or the weights are not to be had.
    """
    network: nn.Module
    if name == "random":
        network = random_features()
    elif name == "inception":
        try:
            network = InceptionNetwork()
        except ImportError:
            raise UserError("--features inception: pip install torch-fidelity") from None
        except OSError as error:
            raise UserError(
                f"--features inception: its weights cannot be fetched ({error}); connect to the "
                "network, or name features of your own"
            ) from error
    else:
        network = _read_features(name)
    return network.eval().requires_grad_(False)


def _read_features(path: str) -> FeatureNetwork:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        network = FeatureNetwork(len(content["classes"]))
        network.load_state_dict(content["model"])
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file, by which samples are measured; run `python prepare_data.py`, "
            "with --dataset own for images of your own in class folders, or give --features random"
        ) from None
    except Exception as error:  # torch raises nearly anything on what is no checkpoint
        raise UserError(f"--features {path}: not a file of prepare_data.py") from error
    return network


def _check(options: argparse.Namespace) -> None:
    allowed = {
        "img_size": (options.img_size in SIZES, "a power of two from 8 to 256"),
        "width": (options.width >= 1, "1 or more"),
        "kinds": (options.kinds >= 0, "0 or more"),
        "noise": (options.noise >= 0, "0 or more"),
        "latent_size": (options.latent_size >= 1, "1 or more"),
        "beta1": (0 <= options.beta1 < 1, "0 or more, less than 1"),
        "beta2": (0 <= options.beta2 < 1, "0 or more, less than 1"),
        "lambda_penalty": (options.lambda_penalty >= 0, "0 or more"),
    }
    for name, (is_allowed, limits) in allowed.items():
        if not is_allowed:
            raise UserError(f"--{name} {getattr(options, name)}: give {limits}")
