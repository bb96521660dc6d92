"""Every signal, at every moment, to the process and to its whole group."""

import functools
import importlib
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from runs import AttackError, Range, expect, expect_equal

FLAGS = ("--epochs=3", "--save_every=3", "--picture_every=0", "--num_workers=2", "--cache=off")
NAMES = ("SIGTERM", "SIGINT", "SIGUSR1")


def before(module: str, path: str, action: Callable[..., None]) -> None:
    """Has an action called before each call of a function of the project."""
    holder: Any = importlib.import_module(module)
    *owners, name = path.split(".")
    for owner in owners:
        holder = getattr(holder, owner)
    function = getattr(holder, name)

    @functools.wraps(function)
    def both(*arguments: Any, **more: Any) -> Any:
        action(*arguments)
        return function(*arguments, **more)

    setattr(holder, name, both)


class Sender:
    """Sends a signal once, to the victim it lives in or to its whole group."""

    def __init__(self, number: int, group: bool, call: int) -> None:
        self.number = number
        self.group = group
        self.left = call  # it is sent at this call
        self.main = os.getpid()

    def __call__(self, *arguments: Any) -> None:
        """Counts a call."""
        del arguments
        self.left -= 1
        if self.left == 0:
            (os.killpg if self.group else os.kill)(self.main, self.number)


def send_in_step(sender: Sender) -> None:
    """The moment: between a backward pass and its step."""
    before("engine.divergence", "StepGuard._look", sender)


def send_in_test(sender: Sender) -> None:
    """The moment: within a test pass."""
    module: Any = importlib.import_module("engine.evaluation")
    evaluate = module.evaluate

    def signalled(model: Any, *others: Any) -> Any:
        inner = model.evaluate

        def send_first(*arguments: Any) -> None:
            sender()
            inner(*arguments)

        object.__setattr__(model, "evaluate", send_first)
        try:
            return evaluate(model, *others)
        finally:
            object.__delattr__(model, "evaluate")

    module.evaluate = signalled


def send_in_save(sender: Sender) -> None:
    """The moment: while a checkpoint is being written."""
    before("engine.checkpoint", "_digest", sender)


def send_in_wait(sender: Sender) -> None:
    """The moment: the loop waits for data, which is late."""

    def late(dataset: Any, keys: list[tuple[int, int]]) -> None:
        del dataset
        if (1, 7) in keys:
            sender.left = 1
            sender()
            time.sleep(0.5)

    before("engine.reproducibility", "SeededDataset.__getitems__", late)


MOMENTS = {
    "step": (send_in_step, 4),
    "test": (send_in_test, 1),
    "save": (send_in_save, 2),
    "wait": (send_in_wait, 0),
}


def all_signals(place: Range, draw: random.Random, count: int) -> Iterator[str]:
    """Sends each signal at each moment to each target, then lets the run go on to its end."""
    whole = place.unbroken(*FLAGS)
    cases = list(itertools.product(NAMES, MOMENTS, (False, True)))
    cases *= -(-count // len(cases))
    for name, moment, group in cases if count >= len(cases) else draw.sample(cases, count):
        install, call = MOMENTS[moment]
        run = place.new("signalled")
        number = signal.Signals[name]

        def fault(
            install: Callable[[Sender], None] = install,
            number: int = number,
            group: bool = group,
            call: int = call,
        ) -> None:
            install(Sender(number, group, call))

        victim = place.start(run, *FLAGS, fault=fault)
        expect(victim, victim.end(), 75, f"{name}: saved; continue with --resume --run_dir {run}")
        if left := victim.orphans():
            raise AttackError(f"{name} at {moment}: {left} live on")
        place.finish(run, *FLAGS)
        expect_equal(whole, run)
        yield f"{name} at {moment} to {'group' if group else 'process'}"


def second_signal(place: Range, draw: random.Random, count: int) -> Iterator[str]:
    """Sends a second signal while the first one is waiting for a step that never ends."""
    del draw
    for _ in range(count):

        def fault() -> None:
            before("engine.divergence", "StepGuard._look", stuck)

        def stuck(*arguments: Any) -> None:
            del arguments
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

        victim = place.start(place.new("twice"), *FLAGS, fault=fault)
        status = victim.wait(30)
        if status != -signal.SIGTERM:
            raise AttackError(f"the second signal ended it with {status}")
        if left := victim.orphans():
            raise AttackError(f"{left} live on")
        yield "a second signal ends the run at once"
