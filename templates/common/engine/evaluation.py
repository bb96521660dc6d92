"""The test pass: every sample once, without gradients, in eval mode."""

import argparse
import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate
from torchmetrics import MetricCollection
from tqdm import tqdm

from engine.checkpoint import copy_to_cpu
from engine.distributed import copy_buffers_of_first, gather, hide_bars
from engine.prefetch import BackgroundBatches, to_device
from engine.stopping import StopRequest

PICTURES = 32  # samples that TensorBoard shows


@torch.no_grad()
def evaluate(
    model: Any, loader: Any, device: torch.device, options: argparse.Namespace, stop: StopRequest
) -> MetricCollection:
    """Returns the model's metrics, updated with every batch of all processes' loaders.

    A stop request ends the pass early, and takes note of it; the metrics are then worth nothing.
    """
    model.eval()
    copy_buffers_of_first(model)
    metrics: MetricCollection = model.build_metrics().to(device)
    if device.type != "mps":  # it has no such type; elsewhere, sums do not depend on their order
        metrics.set_dtype(torch.float64)
    is_cut = False
    with BackgroundBatches(loader, device, options.prefetch) as batches:
        for batch in tqdm(batches, desc="test", unit="batch", leave=False, disable=hide_bars()):
            if is_cut := stop.is_received:
                break
            model.evaluate(batch, metrics)
    stop.cut_short = any(gather(is_cut))
    if stop.cut_short:
        stop.agree(now=True)
    else:
        merge(metrics, device)
    return metrics


def merge(metrics: MetricCollection, device: torch.device) -> None:
    """Has the metrics know what all processes have measured, in the order of the samples."""
    for metric in metrics.values(copy_state=False):
        metric.distributed_available_fn = lambda: False  # it would gather, too, as it computes
        *before, last = gather(copy_to_cpu(metric.metric_state))
        if not before:
            return
        for name, value in last.items():
            setattr(metric, name, to_device(value, device))
        for state in reversed(before):  # what is merged goes in front of what is there
            metric.merge_state(to_device(state, device))


def evenly_spaced(dataset: Any, count: int = PICTURES) -> Any:
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
