"""Other libraries' training loops over the same network and files: what --rivals compares with.

Each is used as the first example of its documentation has it, with bar, log and checkpoints off,
which spares it work that train.py does. `pip install -e '.[dev,rivals]'` installs them.
"""

import logging
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import accelerate
import lightning
from ignite.engine import Engine
from torch import Tensor, nn
from torch.optim import Optimizer

# Trains one epoch; returns its seconds if the clock around the call would count a set-up, too.
Epoch = Callable[[], float | None]


def run_ignite(model: nn.Module, optimizer: Optimizer, loader: Iterable[Any]) -> Epoch:
    """Returns an epoch of pytorch-ignite's engine."""

    def step(_: Engine, batch: Any) -> Tensor:
        model.train()
        optimizer.zero_grad()
        loss: Tensor = model(batch)["classifier"].mean()
        loss.backward()
        optimizer.step()
        return loss

    engine = Engine(step)

    def epoch() -> None:
        engine.run(loader, max_epochs=1)

    return epoch


def run_accelerate(model: nn.Module, optimizer: Optimizer, loader: Iterable[Any]) -> Epoch:
    """Returns an epoch of a loop by Hugging Face's accelerate."""
    accelerator = accelerate.Accelerator(cpu=True)
    prepared, stepper, batches = accelerator.prepare(model, optimizer, loader)

    def epoch() -> None:
        prepared.train()
        for batch in batches:
            stepper.zero_grad()
            accelerator.backward(prepared(batch)["classifier"].mean())
            stepper.step()

    return epoch


class _Module(lightning.LightningModule):  # type: ignore[misc,unused-ignore]  # not in dev
    """The network as Lightning wants it; it takes the time of its epochs itself."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, clock: Callable[[], float]) -> None:
        super().__init__()
        self.model = model
        self.optimizer = optimizer
        self.clock = clock
        self.seconds = 0.0

    def training_step(self, batch: Any, _: int) -> Tensor:
        loss: Tensor = self.model(batch)["classifier"].mean()
        return loss

    def configure_optimizers(self) -> Optimizer:
        return self.optimizer

    def on_train_epoch_start(self) -> None:
        self.seconds = -self.clock()

    def on_train_epoch_end(self) -> None:
        self.seconds += self.clock()


def run_lightning(
    model: nn.Module,
    optimizer: Optimizer,
    loader: Iterable[Any],
    clock: Callable[[], float],
) -> Epoch:
    """Returns an epoch of Lightning's trainer; the set-up of its `fit` is not counted."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    module = _Module(model, optimizer, clock)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

    def epoch() -> float:
        assert trainer.fit_loop.max_epochs is not None
        trainer.fit_loop.max_epochs += 1
        with warnings.catch_warnings(action="ignore"):  # on the number of workers
            trainer.fit(module, loader)
        return module.seconds

    return epoch


def rivals(clock: Callable[[], float]) -> dict[str, Callable[..., Epoch]]:
    """Returns what builds each library's epoch from model, optimizer and loader.

    Args:
        clock: returns seconds, of the time that is measured.
    """
    lightning_epoch = partial(run_lightning, clock=clock)
    return {"ignite": run_ignite, "accelerate": run_accelerate, "lightning": lightning_epoch}
