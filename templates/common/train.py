#!/usr/bin/env python3
"""Trains ResNetClassifier: read this file first, from top to bottom.

The order is the guide's: flags and seeds, data, model, optimizers, resume, record, and the loop.
The script never asks which model it trains. A model computes one loss per optimizer, under that
optimizer's name; each loss goes backward into its own optimizer's parameters, then all step.
"""

import sys
from argparse import Namespace
from contextlib import closing
from pathlib import Path
from typing import Any

from engine.options import add_arguments_of, add_training_arguments, settle
from engine.parser import Parser

if __name__ == "__main__":  # flags before torch, whose import takes seconds: --help answers at once
    parser = Parser(description="Trains ResNetClassifier.")
    add_training_arguments(parser)
    add_arguments_of("data.py", parser)
    add_arguments_of("resnetclassifier.py", parser)
    OPTIONS = parser.parse_args()

from torch import Tensor, nn
from tqdm import tqdm

import data
from engine import debugging, distributed, exits, loading, progress, reproducibility, speed
from engine.checkpoint import Checkpoints
from engine.evaluation import evaluate, evenly_spaced, improves, numbers
from engine.lock import RunLock
from engine.prefetch import BackgroundBatches, to_device
from engine.record import LossWindow, Record
from engine.state import TrainingState
from engine.stopping import StopRequest
from engine.weights import fine_tune

from resnetclassifier import ResNetClassifier


class Trainer:
    """One run: what it needs, built in the guide's order, and the loop over it."""

    def __init__(self, options: Namespace) -> None:
        self.options = options
        self.stop = StopRequest()

        # 1. Seeds first: the initial weights are drawn under them.
        reproducibility.set_deterministic(options.deterministic)
        reproducibility.seed_all(options.seed)
        self.device = distributed.pick_device(options.device)
        speed.tune(options, self.device)

        # 2. Data: a training and a test set, both with the training set's classes.
        training_set, self.test_set = data.build_datasets(options)
        self.classes = training_set.classes
        self.training_loader = loading.TrainingLoader(training_set, options)
        self.test_loader = loading.test_loader(self.test_set, options)

        # 3. The model moves to its device; only then come the optimizers of its parameters.
        model = ResNetClassifier(options, self.classes)
        self.model = distributed.place(model, self.device, options)
        optimizers = self.model.build_optimizers(options)
        steps = options.epochs * len(self.training_loader) // options.accumulate
        self.total_steps = min(steps, options.max_steps or steps)
        self.state = TrainingState(self.model, optimizers, self.total_steps, options, training_set)
        if options.compile:
            self.model.compile()  # in place, so the keys of its weights stay the same
        self.parallel_model = distributed.parallelize(self.model, self.device, options)

        # 4. Resume: the newest good checkpoint holds every number that decides the next step.
        self.run_dir = Path(distributed.from_first(options.run_dir))
        first = distributed.on_first  # of several processes, one alone writes files
        self.lock = first(RunLock, self.run_dir)  # of two runs in one folder, the last would win
        self.checkpoints = first(Checkpoints, self.run_dir / "checkpoints", options.keep)
        self.begin()

        # 5. The record comes last, since its curves go on from the step of the checkpoint.
        self.record = first(Record, self.run_dir, options, self.state.n_iter, self.state.position)
        self.window = LossWindow(self.state.window)
        self.meter = progress.EfficiencyMeter(self.device)

    def begin(self) -> None:
        """Continues the run in the folder, or begins at given weights, or from nothing."""
        checkpoint = distributed.from_first(self.checkpoints.newest())
        if checkpoint and not self.options.resume:
            raise exits.UserError(f"{self.run_dir} holds a run: add --resume, or change --run_dir")
        if checkpoint:
            self.state.load_state_dict(checkpoint, self.options, self.classes)
            print(f"resumed {self.run_dir} at step {self.state.n_iter}")
        elif self.options.path_to_checkpoint:
            fine_tune(self.model, self.options.path_to_checkpoint)
        else:
            print(f"new run in {self.run_dir}")

    def run(self) -> None:
        """Trains to the last epoch or step; each epoch ends with a test and a checkpoint."""
        options, state = self.options, self.state
        self.stop.listen()
        with self.lock, self.record, self.checkpoints, closing(self.training_loader):
            while state.epoch < options.epochs and state.ended < self.total_steps and not self.stop:
                if state.n_iter < self.total_steps:
                    self.train_epoch()
                stopped = bool(self.stop)  # in mid-epoch, or before the test
                is_best = not stopped and self.test_is_due() and self.test()
                if not (stopped or self.stop.cut_short):
                    state.end_epoch(len(self.training_loader))
                self.save(is_best)
            self.checkpoints.wait()
            distributed.barrier()  # torchrun ends all processes as soon as one ends otherwise
        if self.stop:
            raise self.stop.error(self.run_dir)
        print(f"done; look at it with: tensorboard --logdir {self.run_dir.parent}")

    def train_epoch(self) -> None:
        """Trains from the current batch to the end of the epoch, a limit or a signal."""
        options, state = self.options, self.state
        self.training_loader.set_position(state.epoch, state.batch)
        state.train()
        with BackgroundBatches(self.training_loader, self.device, options.prefetch) as batches:
            bar = tqdm(
                self.meter.watch(batches),
                desc=f"epoch {state.epoch + 1}/{options.epochs}",
                total=len(batches),
                **progress.bar_style(state.batch),
            )
            for batch in bar:
                # What dropout and noise draw follows from the place in the run, not from the past.
                reproducibility.seed_step(options.seed, state.epoch, state.batch)
                state.batch += 1
                is_whole = state.batch % options.accumulate == 0
                with distributed.exchange(self.parallel_model, is_whole):
                    self.window.append(self.backward(batch))
                if not is_whole:
                    continue  # the gradients of several batches make one step
                self.step()
                self.stop.agree()
                self.after_step(bar)
                if (self.stop or state.n_iter == self.total_steps) and state.batch < len(batches):
                    break

    def epoch_ends(self) -> bool:
        """Says whether a test and a checkpoint follow: at an epoch's end, a limit or a signal."""
        state, batches = self.state, len(self.training_loader)
        return state.batch == batches or state.n_iter == self.total_steps or bool(self.stop)

    def backward(self, batch: Any) -> dict[str, Tensor]:
        """Adds the batch's gradients, and returns each term's values, (N,), on the device."""
        with self.state.autocast:
            terms: dict[str, Tensor] = self.parallel_model(batch)
        losses = list(self.state.parameters)
        for name in losses:
            # Of several losses, each goes back to its own optimizer's parameters alone.
            inputs = self.state.parameters[name] if len(losses) > 1 else None
            loss = self.state.scaler.scale(terms[name].mean())
            loss.backward(self.state.share, inputs=inputs, retain_graph=name != losses[-1])
            terms[name] = self.state.guard.watch(name, terms[name])
        return terms

    def step(self) -> None:
        """Steps all optimizers at once: no loss is computed on another's new weights."""
        state, clip_grad = self.state, self.options.clip_grad
        state.n_iter += 1
        if state.guard.allows(state.n_iter):
            for name, optimizer in state.optimizers.items():
                if clip_grad:
                    state.scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(state.parameters[name], clip_grad)
                state.scaler.step(optimizer)
            state.scaler.update()
        for scheduler in state.schedulers.values():
            scheduler.step()
        if state.ema:
            state.ema.update_parameters(self.model)
        for parameter in state.stepped:
            parameter.grad = None  # as zero_grad does, whose record for the profiler costs more

    def after_step(self, bar: "tqdm[Any]") -> None:
        """Logs, shows and saves where the step's number says so."""
        options, n_iter = self.options, self.state.n_iter
        if n_iter % options.log_every == 0:
            self.log(bar)
        if options.picture_every and n_iter % options.picture_every == 0:
            self.show_pictures()
        if options.save_every and n_iter % options.save_every == 0 and not self.epoch_ends():
            self.save()

    def log(self, bar: "tqdm[Any]") -> None:
        """Reads the window's terms back from the device, once, and records them."""
        state = self.state
        state.guard.report(state.n_iter)
        numbers = self.window.means()
        numbers["lr"] = next(iter(state.optimizers.values())).param_groups[0]["lr"]
        rates = self.meter.window(self.options.batch_size)
        self.record.scalars("train", state.n_iter, state.epoch, numbers, rates)
        progress.show(bar, f"epoch {state.epoch + 1}, step {state.n_iter}", rates | numbers)
        if line := self.meter.advice(self.options):
            bar.write(line)

    def show_pictures(self) -> None:
        """Records the pictures of one fixed batch, taken evenly from the test set."""
        batch = to_device(evenly_spaced(self.test_set), self.device)
        pictures = self.state.tested_model.eval().pictures(batch)
        self.record.pictures("test", self.state.n_iter, pictures)
        self.model.train()

    def test_is_due(self) -> bool:
        """Says whether the epoch, or the run, ends here with a test."""
        state, options = self.state, self.options
        last = state.epoch + 1 == options.epochs or state.n_iter == self.total_steps
        return last or (state.epoch + 1) % int(options.test_every) == 0

    def test(self) -> bool:
        """Tests the model, and says whether it is the best so far."""
        state, model = self.state, self.state.tested_model
        state.check()
        metrics = evaluate(model, self.test_loader, self.device, self.options, self.stop)
        if self.stop.cut_short:  # it will be done anew
            return False
        results = numbers(metrics)
        self.record.scalars("test", state.n_iter, state.epoch, results)
        texts = [f"{name} {value:.4f}" for name, value in results.items()]
        tqdm.write(f"test after epoch {state.epoch + 1}: " + ", ".join(texts))
        if is_best := improves(metrics[model.best_metric], results[model.best_metric], state.best):
            state.best = results[model.best_metric]
        return is_best

    def save(self, is_best: bool = False) -> None:
        """Saves a checkpoint in the background, once all in it is seen to be finite."""
        state = self.state
        state.window = self.window.read()
        state.check()
        state.position = self.record.position
        checkpoint = state.state_dict(self.options, self.classes) | {"is_best": is_best}
        self.checkpoints.save(checkpoint, self.record.sync)


def main(options: Namespace) -> None:
    """Settles what the flags leave open, then trains."""
    settle(options, ResNetClassifier.__name__, loading.default_workers())
    with distributed.joined():
        if options.check_data:
            data.check_data(options)
        with debugging.mode(Trainer(options)) as trainer:
            trainer.run()


if __name__ == "__main__":
    sys.exit(exits.run(main, OPTIONS))
