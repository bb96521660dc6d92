"""The finished model: networks, losses, optimizers, metrics and flags, packed into one module.

`train.py`, `test.py` and `predict.py` know no more of a model than this class shows them. To train
a model of your own, keep the names of its methods and change what they do.
"""

import argparse
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torchmetrics import Metric, MetricCollection
from torchmetrics.image import StructuralSimilarityIndexMeasure
from torchvision.models import VGG19_Weights
from torchvision.utils import make_grid

from engine.exits import UserError
from losses import (
    DiscriminatorLoss,
    FeatureMatchingLoss,
    GeneratorLoss,
    MeanSignalNoiseRatio,
    PerceptualLoss,
    PixelLoss,
    StyleLoss,
)
from networks import Generator, MultiscaleDiscriminator, StyleEncoder, Vgg19
from ops import apply_in_parts, enlarge, to_bytes, to_floats

TILE = 512  # side of the parts, in pixels of the output, in which large images are made
SHOWN = 16  # pairs in a picture
WEIGHTS = ("pixel", "adversarial", "feature_matching", "perceptual", "style")
STYLES = 3  # that a prediction shows beside the mean one


class Pix2PixHD(nn.Module):
    """Makes of each image the one that belongs to it, as pairs of images have shown.

    Args:
        options: the flags; only this class reads them, the networks get keywords.
        classes: of the data; there are none.
        fetch: False where a checkpoint's weights follow, and nothing is trained: then no network is
            read that only losses need.

    Raises:
        UserError: a flag is out of its range, or --perceptual finds no weights.
    """

    best_metric = "psnr"  # decides which checkpoint is best.pt

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Adds the model's own flags. It runs by itself, so that --help needs no torch."""
        parser.set_defaults(epochs=40, batch_size=8, img_size=96, lr=5e-4)
        add, switch = parser.add_argument, argparse.BooleanOptionalAction
        add("--width", type=int, default=16, help="channels of the generator's largest maps")
        add("--downsamplings", type=int, default=2, help="how often it halves the side")
        add("--blocks", type=int, default=4, help="its residual blocks")
        add(
            "--norm",
            choices=("instance", "batch", "none"),
            default="none",
            help="its normalization; instance is the paper's, none is best where colors are kept",
        )
        add(
            "--residual",
            action=switch,
            help="it adds to the (enlarged) input, and does not make the whole image (default: on "
            "where --scale is more than 1)",
        )
        add("--style_size", type=int, default=0, help="numbers in a style code; 0: no styles")
        add("--pixel", type=float, default=100.0, help="weight of the pixels' difference")
        add("--adversarial", type=float, default=1.0, help="weight of what fools discriminators")
        add("--feature_matching", type=float, default=10.0, help="weight of their maps' difference")
        add("--perceptual", type=float, default=0.0, help="weight of VGG19's maps' difference")
        add("--style", type=float, default=0.01, help="weight that holds style codes near zero")
        add(
            "--vgg_weights",
            metavar="PATH",
            help="weights of VGG19, a state dict as torchvision's (default: torchvision's own)",
        )
        add(
            "--loss",
            choices=("lsgan", "hinge", "vanilla"),
            default="lsgan",
            help="of generator and discriminators; see the README",
        )
        add("--discriminators", type=int, default=2, help="each sees half of the side before it")
        add("--width_discriminator", type=int, default=32, help="channels of their first map")
        add("--lr_discriminator", type=float, default=2e-4, help="their learning rate")
        add("--beta1", type=float, default=0.5, help="of Adam, in [0, 1)")
        add("--beta2", type=float, default=0.999, help="of Adam, in [0, 1)")

    def __init__(
        self, options: argparse.Namespace, classes: Sequence[str], fetch: bool = True
    ) -> None:
        super().__init__()
        del classes
        _check(options)
        channels, width, styles = options.channels, options.width, options.style_size
        self.scale = scale = options.scale
        self.input_shape = channels, options.img_size // scale, options.img_size // scale
        residual = scale > 1 if options.residual is None else options.residual
        depth = options.downsamplings, options.blocks
        self.generator = Generator(channels, width, *depth, options.norm, scale, residual, styles)
        self.style_encoder = StyleEncoder(channels, width, styles) if styles else None
        self.discriminator: MultiscaleDiscriminator | None = None
        if options.adversarial or options.feature_matching:
            judges = options.width_discriminator, options.discriminators
            self.discriminator = MultiscaleDiscriminator(channels, *judges)
        self.weights = {name: getattr(options, name) for name in WEIGHTS}
        self.pixel_loss, self.style_loss = PixelLoss(), StyleLoss()
        self.generator_loss = GeneratorLoss(options.loss)
        self.discriminator_loss = DiscriminatorLoss(options.loss)
        self.matching_loss = FeatureMatchingLoss()
        self.perceptual_loss: PerceptualLoss | None = None
        if options.perceptual and fetch:
            self.perceptual_loss = PerceptualLoss(load_vgg19(options.vgg_weights))
        # What a prediction shows: the same styles in every run.
        generator = torch.Generator().manual_seed(0)
        shown_styles = torch.randn(STYLES, styles, generator=generator)
        self.register_buffer("shown_styles", shown_styles, persistent=False)

    shown_styles: Tensor

    def forward(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """Computes one loss per optimizer, under its name, and detached terms for the log.

        `train.py` sends each loss back into its own optimizer's parameters alone, so one pass of
        the discriminators over the generated images serves both losses: what the generator must
        not learn from the discriminators' loss never reaches it.

        Args:
            batch: inputs (N, C, H, W) and targets (N, C, scale * H, scale * W), in [0, 255].

        Returns:
            Values per sample, each (N,): the losses "generator" and, unless its terms weigh
            nothing, "discriminator"; and the terms of the generator's, unweighted.
        """
        inputs, target = (to_floats(images, self.shown_styles.dtype) for images in batch)
        terms: dict[str, Tensor] = {}
        style = None
        if self.style_encoder is not None:
            codes = self.style_encoder(target)
            terms["style"] = self.style_loss(codes)
            style = codes + torch.randn_like(codes)  # so that near codes mean near styles
        output = self.generator(inputs, style)
        terms["pixel"] = self.pixel_loss(output, target)
        if self.perceptual_loss is not None:
            terms["perceptual"] = self.perceptual_loss(output, target)
        losses: dict[str, Tensor] = {}
        if self.discriminator is not None:
            base = enlarge(inputs, self.scale)
            fake, real = self.discriminator(base, output), self.discriminator(base, target)
            terms["adversarial"] = self.generator_loss(fake)
            terms["feature_matching"] = self.matching_loss(real, fake)
            losses["discriminator"] = self.discriminator_loss(real, fake)
        weighted = [self.weights[name] * values for name, values in terms.items()]
        losses["generator"] = torch.stack(weighted).sum(dim=0)
        return losses | {name: values.detach() for name, values in terms.items()}

    def build_optimizers(self, options: argparse.Namespace) -> dict[str, Optimizer]:
        """Returns the optimizers by the name of the loss that each one minimizes."""
        betas, fused = (options.beta1, options.beta2), options.fused
        trained = list(self.generator.parameters())
        if self.style_encoder is not None:
            trained += self.style_encoder.parameters()
        optimizers: dict[str, Optimizer] = {}
        optimizers["generator"] = Adam(trained, options.lr, betas, fused=fused)
        if self.discriminator is not None:
            parameters = self.discriminator.parameters()
            rate = options.lr_discriminator
            optimizers["discriminator"] = Adam(parameters, rate, betas, fused=fused)
        return optimizers

    def build_metrics(self) -> MetricCollection:
        """Returns what a test measures, of the output and of the (enlarged) input, its "base"."""
        metrics: dict[str, Metric | MetricCollection] = {}
        for prefix in ("", "base_"):
            metrics[f"{prefix}psnr"] = MeanSignalNoiseRatio()
            metrics[f"{prefix}ssim"] = StructuralSimilarityIndexMeasure(data_range=255.0)
        return MetricCollection(metrics, compute_groups=False)  # they are updated one by one

    def evaluate(self, batch: Sequence[Tensor], metrics: MetricCollection) -> None:
        """Updates the metrics with one batch, as `forward` takes it.

        Outputs and enlarged inputs are rounded to the bytes that an image file would hold.
        """
        inputs, target = batch
        floats = to_floats(inputs, self.shown_styles.dtype)
        outputs = {"": self.generator(floats), "base_": enlarge(floats, self.scale)}
        for prefix, images in outputs.items():
            for name in ("psnr", "ssim"):
                metrics[prefix + name].update(to_bytes(images).float(), target.float())

    @torch.no_grad()
    def pictures(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """Returns a sheet (3, H, W) in [0, 1]: input, output and target of each pair in a row."""
        inputs, target = (images[:SHOWN] for images in batch)
        floats = to_floats(inputs, self.shown_styles.dtype)
        base, output = enlarge(floats, self.scale), self.generator(floats)
        rows = torch.stack([to_bytes(base), to_bytes(output), target], dim=1)  # (N, 3, C, H, W)
        sheet = make_grid(rows.flatten(0, 1) / 255, nrow=6, padding=2, pad_value=1.0)
        return {"input_output_target": sheet}

    def inference_module(self) -> nn.Module:
        """Returns what is exported: images (N, C, H, W) in [-1, 1] to their translations."""
        return self.generator

    def example_inputs(self) -> Tensor:
        """Returns two images in the shape and type that `inference_module` takes."""
        count = 2 * math.prod(self.input_shape)
        images = torch.linspace(-1, 1, count, dtype=self.shown_styles.dtype)
        return images.view(2, *self.input_shape)

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> list[dict[str, Any]]:
        """Returns a picture for each image, uint8 (N, C, H, W) of any size; more, if it has styles.

        Large images are made in parts that overlap.
        """
        styles: dict[str, Tensor | None] = {"image": None}
        if self.style_encoder is not None:
            styles |= {f"style_{number}": code for number, code in enumerate(self.shown_styles, 1)}
        results: list[dict[str, Any]] = []
        for image in inputs:
            floats = to_floats(image[None], self.shown_styles.dtype)
            made = {name: self._translate(floats, code) for name, code in styles.items()}
            results.append({name: to_bytes(each[0]) / 255 for name, each in made.items()})
        return results

    def _translate(self, image: Tensor, style: Tensor | None) -> Tensor:
        """Maps an image (1, C, H, W) of any size to its translation, in parts if it is large."""
        translated: Tensor = apply_in_parts(
            lambda part: self.generator(part, None if style is None else style[None]),
            image,
            self.scale,
            self.generator.multiple,
            self.generator.reach,
            TILE,
        )
        return translated


def load_vgg19(path: str | None) -> Vgg19:
    """Returns VGG19's slices, with the weights in a file, or torchvision's, fetched once.

    Raises:
        UserError: the weights are not to be had.
    """
    if path is None:
        try:
            return Vgg19(VGG19_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True))
        except (OSError, RuntimeError) as error:  # of the network, of a download cut short
            raise UserError(
                f"--perceptual: the weights of VGG19 cannot be fetched ({error}); name a file of "
                "them with --vgg_weights, or give --perceptual 0"
            ) from error
    try:
        return Vgg19(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        reason = "no such file"
    except Exception:  # torch raises nearly anything on what is no state dict
        reason = "not torchvision's weights of VGG19"
    raise UserError(f"--vgg_weights {path}: {reason}; name others, or give --perceptual 0")


def _check(options: argparse.Namespace) -> None:
    multiple = 2 ** max(0, options.downsamplings)
    allowed = {
        "downsamplings": (options.downsamplings >= 0, "0 or more"),
        "beta1": (0 <= options.beta1 < 1, "0 or more, less than 1"),
        "beta2": (0 <= options.beta2 < 1, "0 or more, less than 1"),
    }
    for name in ("img_size", "crop_size"):
        side = getattr(options, name)
        is_whole = side % multiple == 0 and side >= max(8, 2 * multiple)
        allowed[name] = is_whole, f"a multiple of {multiple}, {max(8, 2 * multiple)} or more"
    side = min(options.img_size, options.crop_size)
    most = int(math.log2(max(2, side)))  # the last discriminator must see 2 pixels to each side
    allowed["discriminators"] = 1 <= options.discriminators <= most, f"1 to {most}"
    for name in ("width", "width_discriminator"):
        allowed[name] = getattr(options, name) >= 1, "1 or more"
    for name in ("blocks", "style_size", *WEIGHTS, "lr_discriminator"):
        allowed[name] = getattr(options, name) >= 0, "0 or more"
    for name, (is_allowed, limits) in allowed.items():
        if not is_allowed:
            raise UserError(f"--{name} {getattr(options, name)}: give {limits}")
    if options.perceptual and side < 16:
        raise UserError(f"--perceptual: VGG19 sees no less than 16 pixels; --crop_size is {side}")
    if not any(getattr(options, name) for name in WEIGHTS[:-1]):
        raise UserError("--pixel 0: one of the weights of the losses must be more than 0")
