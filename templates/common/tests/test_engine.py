"""The smaller parts: seeds and sampling, the meter, the schedules, the record, the flags."""

import argparse
import random
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Parse

from engine import exits, options, progress
from engine.progress import EfficiencyMeter
from engine.reproducibility import (
    ResumableBatchSampler,
    derive_seed,
    get_rng_state,
    seed_all,
    seed_step,
    set_rng_state,
)
from engine.schedules import build_scheduler


def test_seeds_differ_with_every_part() -> None:
    seeds = {derive_seed(a, b, c) for a in range(20) for b in range(20) for c in range(20)}
    assert len(seeds) == 8000
    assert all(0 <= seed < 2**63 for seed in seeds)
    bits = torch.tensor([[seed >> bit & 1 for bit in range(63)] for seed in seeds]).double()
    assert (bits.mean(dim=0) - 0.5).abs().max() < 0.03  # each bit is set in half of them


def draws() -> list[float]:
    return [random.random(), np.random.rand(), torch.rand(()).item()]


def test_seed_reaches_every_generator() -> None:
    seed_all(1, 2)
    first = draws()
    seed_all(1, 2)
    assert draws() == first
    seed_all(2, 1)
    assert not set(draws()) & set(first)


@pytest.mark.parametrize("batch", [0, 1023, 1024, 5000])
def test_seed_of_a_step_is_mixed_from_its_place(batch: int) -> None:
    seed_step(7, 3, 1023)  # of whatever step came before
    seed_step(7, 3, batch)
    assert torch.initial_seed() == derive_seed(7, 2, 3, batch)  # 2: of a step


def test_state_of_every_generator_is_restored() -> None:
    state = get_rng_state()
    first = draws()
    set_rng_state(state)
    assert draws() == first


def test_sampler_starts_anywhere_in_the_same_order() -> None:
    sampler = ResumableBatchSampler(size=103, batch_size=10, seed=1)
    sampler.set_position(epoch=2, start=0)
    whole = list(sampler)
    assert len(whole) == len(sampler) == 10
    assert len({index for batch in whole for _, index in batch}) == 100
    assert {epoch for batch in whole for epoch, _ in batch} == {2}
    sampler.set_position(epoch=2, start=7)
    assert list(sampler) == whole[7:]
    sampler.set_position(epoch=3, start=0)
    assert [index for _, index in next(iter(sampler))] != [index for _, index in whole[0]]


def test_sampler_gives_several_batches_at_once() -> None:
    sampler = ResumableBatchSampler(size=103, batch_size=10, seed=1)
    several = ResumableBatchSampler(size=103, batch_size=10, seed=1, at_once=4)
    for start, sizes in ((0, [40, 40, 20]), (7, [30])):
        sampler.set_position(epoch=2, start=start)
        several.set_position(epoch=2, start=start)
        assert [len(keys) for keys in several] == sizes
        assert list(chain(*several)) == list(chain(*sampler))
    assert len(several) == 10


def test_sampler_leaves_out_what_fills_no_step() -> None:
    assert len(ResumableBatchSampler(size=103, batch_size=10, seed=0, accumulate=4)) == 8


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_meter_tells_waiting_from_computing() -> None:
    clock, own = Clock(), Clock()
    meter = EfficiencyMeter(torch.device("cpu"), clock, own)

    def loader() -> Iterator[int]:
        for number in range(20):
            clock.now += 100.0 if number == 0 else 1.0  # workers start with the first batch
            own.now += 0.5  # it decodes by itself: that is no computing, either
            yield number

    for _ in meter.watch(loader()):
        clock.now += 3.0
        own.now += 2.0  # for the rest, a worker had its core
    window = meter.window(batch_size=8)
    assert window["efficiency"] == pytest.approx(0.5)
    assert window["images/s"] == pytest.approx(8 / 4)
    assert meter.window(batch_size=8) == {}


def test_meter_counts_the_wait_at_an_epochs_start() -> None:
    clock = Clock()
    meter = EfficiencyMeter(torch.device("cpu"), clock, clock)

    def loader() -> Iterator[int]:
        clock.now += 6.0  # workers begin anew
        yield from range(3)

    for _ in range(2):
        meter.window(batch_size=8)
        for _ in meter.watch(loader()):
            clock.now += 2.0
        clock.now += 100.0  # a test is no waiting
    assert meter.window(batch_size=8)["efficiency"] == pytest.approx(0.5)


def test_meter_knows_the_own_share_of_short_windows() -> None:
    clock, own = Clock(), Clock()
    meter = EfficiencyMeter(torch.device("cpu"), clock, own)
    shown = []
    for _ in meter.watch(range(20)):
        shown.append(meter.window(batch_size=8).get("efficiency"))
        clock.now += 4.0
        own.now += 1.0  # for the rest, a worker had its core
    # The first step does not count, and a window ends within the step that asks for it.
    assert shown == [None, None] + 18 * [0.25]


@pytest.mark.cuda
def test_meter_sees_the_devices_idle_time() -> None:
    """It does where the data is late, though the host never waits for the device."""
    matrix = torch.rand(2048, 2048, device="cuda")

    def compute() -> None:
        for _ in range(20):
            matrix @ matrix

    def seconds() -> float:
        started = time.perf_counter()
        compute()
        torch.cuda.synchronize()
        return time.perf_counter() - started

    busy = min(seconds() for _ in range(5))

    def late() -> Iterator[None]:
        for _ in range(10):
            time.sleep(5 * busy)
            yield

    def in_time() -> Iterator[None]:
        for _ in range(10):
            torch.cuda.synchronize()  # or the host would enqueue all in next to no time
            yield

    efficiency = {}
    for loader in (late, in_time):
        meter = EfficiencyMeter(torch.device("cuda"))
        for _ in range(2):
            for _ in meter.watch(loader()):
                compute()
            torch.cuda.synchronize()
            window = meter.window(batch_size=1)
        efficiency[loader] = window["efficiency"]
    assert efficiency[late] < 0.5 < 0.8 < efficiency[in_time]


@pytest.mark.parametrize(
    ("wait", "workers", "cache", "advice"),
    [
        (1.0, 0, "off", None),
        (9.0, 0, "off", "90% of the time went into data: try --cache auto (now off)"),
        (9.0, 1, "disk", "90% of the time went into data: try --num_workers 3 (now 1)"),
        (9.0, 3, None, "90% of the time went into data: store the images smaller"),
    ],
)
def test_advice_names_the_flag_once(
    monkeypatch: pytest.MonkeyPatch, wait: float, workers: int, cache: str, advice: str | None
) -> None:
    flags = argparse.Namespace(num_workers=workers, cache=cache)
    monkeypatch.setattr(progress, "default_workers", lambda: 3)
    clock, own = Clock(), Clock()
    meter = EfficiencyMeter(torch.device("cpu"), clock, own)
    assert meter.advice(flags) is None  # nothing is measured yet

    def loader() -> Iterator[int]:
        for number in range(3):
            clock.now += wait
            yield number

    for _ in meter.watch(loader()):
        clock.now += 10 - wait
        own.now += 10 - wait
    meter.window(batch_size=1)
    line = meter.advice(flags)
    assert line == advice or (line and advice and line.startswith(advice))
    assert meter.advice(flags) is None


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [1, 1, 1]), ("linear", [1, 0.5, 0]), ("cosine", [1, 0.5, 0])],
)
def test_schedule_rises_then_falls(schedule: str, expected: list[float]) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build_scheduler(optimizer, schedule, warmup=4, total_steps=24)
    rates = []
    for _ in range(25):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert [rates[4], rates[14], rates[24]] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--epochs=0", "argument --epochs: 0 is not at least 1"),
        ("--epochs=many", "argument --epochs: invalid int value: 'many'"),
        ("--ema=1.5", "argument --ema: 1.5 is not from 0 to 1"),
        ("--lr_schedule=sine", "argument --lr_schedule: invalid choice"),
        ("--epoch=3", "unrecognized arguments: --epoch=3"),
        ("--resume=yes", "argument --resume"),
    ],
)
def test_wrong_flag_is_one_line(
    parse: Parse, capsys: pytest.CaptureFixture[str], flag: str, message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(flag)
    assert stop.value.code == exits.WRONG_USE
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_flags_are_lifted_without_running_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.py").write_text(
        "import no_such_package\n"
        "class Model(no_such_package.Module):\n"
        "    @staticmethod\n"
        "    def add_arguments(parser: no_such_package.Parser) -> None:\n"
        "        parser.add_argument('--depth', type=int, default=3)\n"
    )
    monkeypatch.setattr(options, "PROJECT", tmp_path)
    parser = argparse.ArgumentParser()
    options.add_arguments_of("model.py", parser)
    assert parser.parse_args([]).depth == 3
