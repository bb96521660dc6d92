"""Several processes: what each one takes of the data, how they find one another, and whole runs."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, Parse
from torch import distributed
from torch.multiprocessing.spawn import spawn

from engine import distributed as engine_distributed
from engine import loading, reproducibility
from engine.distributed import from_first, gather, share_of_batch
from engine.evaluation import evaluate
from engine.exits import UserError
from engine.reproducibility import ResumableBatchSampler

from train import Trainer

needs_gloo = pytest.mark.skipif(
    not distributed.is_available() or not distributed.is_gloo_available(),
    reason="torch was built without gloo",
)
PIPES: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
PATIENCE = 280  # seconds; each process imports torch anew, on what may be one busy core
AsIf = Callable[[int, int], None]


@pytest.fixture
def as_if(monkeypatch: pytest.MonkeyPatch) -> AsIf:
    """Has the code believe that it runs as one of several processes."""

    def pretend(rank: int, size: int) -> None:
        for module in list(sys.modules.values()):
            if getattr(module, "__name__", "").startswith("engine."):
                for name, value in (("rank", rank), ("world_size", size)):
                    if hasattr(module, name):
                        monkeypatch.setattr(module, name, lambda value=value: value)
        reproducibility._seeds_of_block.cache_clear()

    return pretend


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_each_batch(as_if: AsIf, count: int, at_once: int) -> None:
    """Whatever their number: the batches are those of one process, from any place on."""
    alone = ResumableBatchSampler(100, 12, seed=0)
    alone.set_position(1, 3)
    expected = list(alone)
    parts = []
    for rank in range(count):
        as_if(rank, count)
        sampler = ResumableBatchSampler(100, 12, seed=0, at_once=at_once)
        sampler.set_position(1, 3)
        chunks = [key for chunk in sampler for key in chunk]
        share = 12 // count
        parts.append([chunks[start : start + share] for start in range(0, len(chunks), share)])
    assert [[*chain(*each)] for each in zip(*parts, strict=True)] == expected


def test_a_batch_that_cannot_be_shared_is_refused(as_if: AsIf) -> None:
    as_if(0, 3)
    with pytest.raises(UserError, match=r"--batch_size 64 .* over 3 processes: give 63 or 66"):
        share_of_batch(argparse.Namespace(batch_size=64))
    with pytest.raises(UserError, match=r"--batch_size 2 .*: give 3$"):
        share_of_batch(argparse.Namespace(batch_size=2))


@pytest.mark.parametrize("count", [2, 3, 20])
def test_each_sample_is_tested_once(parse: Parse, as_if: AsIf, count: int) -> None:
    """Also where there are fewer batches than processes; the last batch is smaller."""
    options = parse("--batch_size=12")
    dataset = torch.utils.data.TensorDataset(torch.arange(100))
    found = []
    for rank in range(count):
        as_if(rank, count)
        found += [batch[0].tolist() for batch in loading.test_loader(dataset, options)]
    assert found == [list(range(start, min(start + 12, 100))) for start in range(0, 100, 12)]


def test_no_process_draws_what_another_draws(as_if: AsIf) -> None:
    drawn = []
    for rank in range(3):
        as_if(rank, 3)
        for batch in range(3):
            reproducibility.seed_step(0, 0, batch)
            drawn.append(torch.rand(()).item())
    assert len(set(drawn)) == 9
    as_if(0, 1)
    reproducibility.seed_step(0, 0, 0)
    assert torch.rand(()).item() == drawn[0]  # the first draws what one alone does


def test_processes_share_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert loading.default_workers() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert loading.default_workers() == 0


def test_a_start_is_told_from_those_before_it() -> None:
    """All restarts of torchrun share one store; a start may also have died halfway."""
    store = distributed.HashStore()  # type: ignore[attr-defined]  # it is documented
    names = []
    for _ in range(3):
        found: dict[int, str] = {}

        def agree(rank: int, found: dict[int, str] = found) -> None:
            found[rank] = engine_distributed._agree_on_attempt(store, rank, 3)

        threads = [threading.Thread(target=agree, args=[rank]) for rank in (2, 1, 0)]
        for thread in threads:
            thread.start()
            time.sleep(0.05)  # so that the others see what the start before has left
        for thread in threads:
            thread.join(20)
        assert len(set(found.values())) == 1
        assert len(found) == 3
        names.append(found[0])
        store.set("attempt", "died")  # before the others answered
    assert len(set(names)) == 3


@needs_gloo
@pytest.mark.slow
@pytest.mark.timeout(3 * PATIENCE)
def test_metrics_do_not_depend_on_the_number_of_processes(parse: Parse, tmp_path: Path) -> None:
    """To the last bit, with a test set that does not divide."""
    options = parse("--batch_size=6", "--max_steps=2")
    expected = measure(options)
    for count in (2, 3):
        spawn(join_and_measure, (count, options, tmp_path), nprocs=count)
        for rank in range(count):
            found = torch.load(tmp_path / f"{count}-{rank}.pt")
            assert found == expected


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Returns every number that a test of the untrained model gives."""
    torch.set_num_threads(1)
    trainer = Trainer(options)
    metrics = evaluate(
        trainer.model, trainer.test_loader, trainer.device, options, trainer.stop
    ).compute()
    return {name: value.tolist() for name, value in metrics.items()}


def join_and_measure(rank: int, count: int, options: argparse.Namespace, folder: Path) -> None:
    place = f"file://{folder / str(count)}"
    distributed.init_process_group("gloo", place, rank=rank, world_size=count)
    options.run_dir = str(folder / f"run-{count}")
    assert from_first(rank) == 0
    assert gather(rank) == list(range(count))
    torch.save(measure(options), folder / f"{count}-{rank}.pt")
    distributed.destroy_process_group()


def torchrun(run: Path, path_to_data: str, *flags: str, restarts: int = 0) -> list[str]:
    """Returns the words that start a training in two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher += ["--nproc-per-node=2", f"--max-restarts={restarts}", "train.py"]
    place = [f"--path_to_data={path_to_data}", f"--run_dir={run}", "--resume"]
    return [*launcher, *place, *SMALL, "--num_workers=0", "--epochs=8", "--save_every=2", *flags]


def processes_of(agent: int) -> list[int]:
    """Returns the processes that a launcher has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (path / "stat").read_text().rsplit(")", 1)[1].split()[1]
            if int(parent) == agent and b"train.py" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


def wait_for(condition: Callable[[], bool], agent: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert agent.poll() is None, agent.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)


@needs_gloo
@pytest.mark.slow
@pytest.mark.timeout(3 * PATIENCE)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
def test_a_run_goes_on_after_a_process_was_killed(path_to_data: str, tmp_path: Path) -> None:
    """By itself, and to the same bits; what it saved, one process alone can go on from."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = subprocess.run(
        torchrun(whole, path_to_data), check=False, timeout=PATIENCE, **PIPES
    )
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert undisturbed.stdout.count("new run in") == 1  # one process speaks for both
    assert len(list(whole.glob("events.*"))) == 1

    with subprocess.Popen(torchrun(killed, path_to_data, restarts=1), **PIPES) as agent:
        wait_for((killed / "checkpoints" / "step_00000002.pt").exists, agent)
        os.kill(processes_of(agent.pid)[-1], signal.SIGKILL)
        output, errors = agent.communicate(timeout=PATIENCE)
    assert agent.returncode == 0, errors
    assert f"resumed {killed} at step" in output
    states = [torch.load(run / "checkpoints" / "last.pt") for run in (whole, killed)]
    first, second = (state["model"] for state in states)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (whole / "metrics.jsonl").read_text() == (killed / "metrics.jsonl").read_text()

    flags = [f"--path_to_data={path_to_data}", f"--run_dir={whole}", "--resume", "--epochs=9"]
    alone = [sys.executable, "train.py", *flags, *SMALL, "--num_workers=0"]
    process = subprocess.run(alone, check=False, timeout=PATIENCE, **PIPES)
    assert process.returncode == 0, process.stderr
    assert "resumed by 1 processes, saved by 2: the batches are the same" in process.stdout


@needs_gloo
@pytest.mark.slow
@pytest.mark.timeout(3 * PATIENCE)
def test_a_signal_to_one_stops_all(path_to_data: str, tmp_path: Path) -> None:
    """At the same step, and once all is saved: the launcher ends what outlives another."""
    run = tmp_path / "run"
    command = torchrun(run, path_to_data, "--epochs=200")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as agent:
        wait_for((run / "checkpoints" / "step_00000002.pt").exists, agent)
        os.kill(processes_of(agent.pid)[-1], signal.SIGTERM)
        output, errors = agent.communicate(timeout=PATIENCE)
    assert errors.count(f"SIGTERM: saved; continue with --resume --run_dir {run}") == 1, errors
    state = torch.load(run / "checkpoints" / "last.pt")
    assert f"step {state['n_iter']}:" in output
    assert f"step {state['n_iter'] + 1}:" not in output
