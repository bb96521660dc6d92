"""The test pass: every sample once, without gradients, in eval mode."""

import argparse
import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate
from torchmetrics import MetricCollection
from tqdm import tqdm

from engine.prefetch import BackgroundBatches
from engine.stopping import StopRequest


@torch.no_grad()
def evaluate(
    model: Any, loader: Any, device: torch.device, options: argparse.Namespace, stop: StopRequest
) -> MetricCollection:
    """Returns the model's metrics, updated with every batch of the loader.

    A stop request ends the pass early, and takes note of it; the metrics are then worth nothing.
    """
    model.eval()
    metrics: MetricCollection = model.build_metrics().to(device)
    with BackgroundBatches(loader, device, options.prefetch) as batches:
        for batch in tqdm(batches, desc="test", unit="batch", leave=False, disable=None):
            if stop:
                stop.cut_short = True
                break
            model.evaluate(batch, metrics)
    return metrics


def evenly_spaced(dataset: Any, count: int) -> Any:
    """Returns a batch of at most `count` samples, taken evenly from the whole of the set."""
    size = len(dataset)
    chosen = torch.linspace(0, size - 1, min(size, count)).long().tolist()
    return default_collate([dataset[index] for index in chosen])


def numbers(metrics: MetricCollection) -> dict[str, float]:
    """Returns the metrics that are a single number each."""
    values: dict[str, Tensor] = metrics.compute()
    return {name: value.item() for name, value in values.items() if value.ndim == 0}


def improves(metric: Any, value: float, best: float | None) -> bool:
    """Says whether the value beats the best, in the metric's own sense; NaN beats nothing."""
    if best is None or math.isnan(value):
        return not math.isnan(value)
    return value > best if metric.higher_is_better else value < best
