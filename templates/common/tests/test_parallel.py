"""Gradients on parts of a batch: on replicas, as nn.DataParallel has them, and in two processes."""

import argparse
import copy
import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Parse
from test_model import LOSS_FLAGS
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from engine import distributed as engine_distributed
from engine.distributed import SplitNetwork, parallelize, split_networks
from engine.evaluation import evenly_spaced
from engine.exits import UserError
from engine.weights import restore_model

from train import Trainer

PARTS, SIZE = 2, 3  # devices or processes, and each one's share of the batch
WRAPPERS = ("none", "DataParallel", "networks in DataParallel", "DDP", "compiled", "EMA")
MODES = (False, True)  # in training, batch normalization sees each part by itself

# By its name alone one would get the function of the same name.
replicate_module = importlib.import_module("torch.nn.parallel.replicate")
NOT_LIKE: dict[Any, Any] = {torch.rand_like: torch.rand, torch.randn_like: torch.randn}

Gradients = list[Tensor]
needs_gloo = pytest.mark.skipif(
    not distributed.is_available() or not distributed.is_gloo_available(),
    reason="torch was built without gloo",
)


class DrawnBySample(TorchFunctionMode):
    """Gives each sample the same noise, whichever part of the batch it comes in.

    Args:
        first: number of the part's first sample in the whole batch.
    """

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first, self.calls = first, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Draws for all samples up to the part's last, and leaves out those before its first."""
        kwargs = kwargs or {}
        if func in (torch.rand_like, torch.randn_like):
            kwargs = {"dtype": args[0].dtype, "device": args[0].device} | kwargs
            func, args = NOT_LIKE[func], tuple(args[0].shape)
        elif func not in (torch.rand, torch.randn):
            return func(*args, **kwargs)
        self.calls += 1
        generator = torch.Generator().manual_seed(self.calls)
        shape = self.first + args[0], *args[1:]
        on_cpu = func(*shape, generator=generator, **kwargs | {"device": "cpu"})
        return on_cpu[self.first :].to(kwargs.get("device"))


class Replicas(nn.DataParallel[nn.Module]):
    """nn.DataParallel on the CPU: its own replicas; what else it does needs GPUs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.device_ids, self.output_device = list(range(PARTS)), 0
        self.src_device_obj = torch.device("cpu")

    def scatter(self, inputs: Any, kwargs: Any, device_ids: Any) -> Any:
        parts = [take(inputs, number) for number in range(PARTS)]
        return parts, [kwargs] * len(device_ids)

    def parallel_apply(self, replicas: Any, inputs: Any, kwargs: Any) -> list[Any]:
        outputs = []
        for number, replica in enumerate(replicas):
            assert not list(replica.parameters())  # but copies, through which autograd goes back
            with DrawnBySample(number * SIZE):
                outputs.append(replica(*inputs[number], **kwargs[number]))
        return outputs

    def gather(self, outputs: Any, output_device: Any) -> Any:
        return tree_map(lambda *parts: torch.cat(parts), *outputs)


class ReplicatedNetwork(Replicas, SplitNetwork):
    """Likewise, of a single network; what its model draws, it draws for the whole batch."""

    def parallel_apply(self, replicas: Any, inputs: Any, kwargs: Any) -> list[Any]:
        return [net(*own) for net, own in zip(replicas, inputs, strict=True)]


def copy_to_replicas(
    tensors: Sequence[Tensor], devices: Sequence[Any], detach: bool = False
) -> list[list[Tensor]]:
    """In place of the broadcast to GPUs: the gradients of all copies add up in the original."""
    if detach:  # buffers: the first replica has the original's own, as on its GPU
        return [[each.clone() if number else each for each in tensors] for number in devices]
    return [[each.clone() for each in tensors] for _ in devices]


def take(batch: Any, number: int) -> Any:
    """Returns a part of a batch; what is no tensor is no batch."""
    rows = slice(number * SIZE, (number + 1) * SIZE)
    return tree_map(lambda each: each[rows] if isinstance(each, Tensor) else each, batch)


def build(options: argparse.Namespace, training: bool) -> tuple[Trainer, Any]:
    """Returns a trainer in double precision, and a batch."""
    trainer = Trainer(options)
    trainer.model.double().train(training)
    return trainer, evenly_spaced(trainer.test_set, PARTS * SIZE)


def gradients(trainer: Trainer) -> Gradients:
    """Returns what is in the parameters, each optimizer's in turn."""
    found = [each.grad for own in trainer.state.parameters.values() for each in own]
    return [each for each in found if each is not None]


def expected_gradients(trainer: Trainer, batch: Any) -> Gradients:
    """Returns the mean of the parts' gradients: of each loss, by its own optimizer's parameters."""
    total: Gradients = []
    for number in range(PARTS):
        model = copy.deepcopy(trainer.model)  # what a pass changes in it does not reach the next
        with DrawnBySample(number * SIZE):
            terms = model(take(batch, number))
        found: Gradients = []
        for name, optimizer in model.build_optimizers(trainer.options).items():
            own = [each for group in optimizer.param_groups for each in group["params"]]
            found += torch.autograd.grad(terms[name].mean(), own, retain_graph=True)
        total = [a + b for a, b in zip(total, found, strict=True)] if total else found
    return [each / PARTS for each in total]


def assert_equal(found: Gradients, expected: Gradients) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    assert any(each.abs().max() > 1e-4 for each in expected)  # or equal would say nothing


@pytest.mark.parametrize("flags", LOSS_FLAGS, ids=" ".join)
def test_one_device(parse: Parse, flags: list[str]) -> None:
    trainer, batch = build(parse(*flags), training=False)
    expected = expected_gradients(trainer, batch)
    with DrawnBySample(0):
        trainer.backward(batch)
    assert_equal(gradients(trainer), expected)


@pytest.mark.parametrize("flags", LOSS_FLAGS, ids=" ".join)
def test_virtual_batch(parse: Parse, flags: list[str]) -> None:
    """Its parts come one after the other."""
    trainer, batch = build(parse(f"--accumulate={PARTS}", *flags), training=False)
    expected = expected_gradients(trainer, batch)
    for number in range(PARTS):
        with DrawnBySample(number * SIZE):
            trainer.backward(take(batch, number))
    assert_equal(gradients(trainer), expected)


@pytest.mark.parametrize("training", MODES)
@pytest.mark.parametrize("flags", LOSS_FLAGS, ids=" ".join)
def test_replicas(
    parse: Parse, monkeypatch: pytest.MonkeyPatch, flags: list[str], training: bool
) -> None:
    monkeypatch.setattr(replicate_module, "_broadcast_coalesced_reshape", copy_to_replicas)
    trainer, batch = build(parse(*flags), training)
    expected = expected_gradients(trainer, batch)
    trainer.parallel_model = Replicas(trainer.model)
    trainer.backward(batch)
    assert_equal(gradients(trainer), expected)


@pytest.mark.parametrize("training", MODES)
@pytest.mark.parametrize("flags", LOSS_FLAGS, ids=" ".join)
def test_networks_in_replicas(
    parse: Parse, monkeypatch: pytest.MonkeyPatch, flags: list[str], training: bool
) -> None:
    """The guide's other pattern: the losses see the whole batch, each network its parts."""
    monkeypatch.setattr(replicate_module, "_broadcast_coalesced_reshape", copy_to_replicas)
    monkeypatch.setattr(engine_distributed, "SplitNetwork", ReplicatedNetwork)
    trainer, batch = build(parse(*flags), training)
    expected = expected_gradients(trainer, batch)
    names = list(trainer.model.state_dict())
    split_networks(trainer.model)
    assert any(isinstance(each, ReplicatedNetwork) for each in trainer.model.children())
    assert list(trainer.model.state_dict()) == names
    with DrawnBySample(0):
        trainer.backward(batch)
    assert_equal(gradients(trainer), expected)


@pytest.mark.parametrize("parallel", ["super", "networks"])
def test_several_gpus_of_one_process(
    parse: Parse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], parallel: str
) -> None:
    options = parse(f"--parallel={parallel}", "--batch_size=4")
    trainer = Trainer(options)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    wrapped = parallelize(trainer.model, torch.device("cuda"), options)
    assert isinstance(wrapped, nn.DataParallel) == (parallel == "super")
    networks = [isinstance(each, SplitNetwork) for each in trainer.model.children()]
    assert any(networks) == (parallel == "networks")
    assert "torchrun --standalone --nproc-per-node 4" in capsys.readouterr().out
    options.batch_size = 3
    with pytest.raises(UserError, match="--batch_size 3 is less than the number of GPUs, 4"):
        parallelize(trainer.model, torch.device("cuda"), options)
    options.parallel = "none"
    assert parallelize(trainer.model, torch.device("cuda"), options) is trainer.model


def test_statistics_of_all_processes_need_processes_on_gpus(parse: Parse) -> None:
    with pytest.raises(UserError, match="--sync_batch_norm needs several processes on GPUs"):
        Trainer(parse("--sync_batch_norm"))


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", f"file://{tmp_path / 'one'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@needs_gloo
@pytest.mark.usefixtures("group_of_one")
def test_what_any_wrapper_saves_any_other_loads(parse: Parse, tmp_path: Path) -> None:
    wrapped = {name: wrap(name, parse, tmp_path / name) for name in WRAPPERS}
    names = set(wrapped["none"].model.state_dict())
    for saved in wrapped.values():
        for parameter in saved.model.parameters():
            nn.init.uniform_(parameter.data)
        state = saved.state.state_dict(saved.options, saved.classes)
        assert set(state["model"]) == names
        for loaded in wrapped.values():
            options = argparse.Namespace(**vars(loaded.options) | {"allow_changes": True})
            loaded.state.load_state_dict(copy.deepcopy(state), options, loaded.classes)
            for name, tensor in state["model"].items():
                assert torch.equal(loaded.model.state_dict()[name], tensor)
        assert set(restore_model(type(saved.model), state).state_dict()) == names


def wrap(name: str, parse: Parse, folder: Path) -> Trainer:
    """Returns a trainer with its model wrapped, or with an average of its weights."""
    flags = {"compiled": ["--compile"], "EMA": ["--ema=0.9"]}
    trainer = Trainer(parse(f"--run_dir={folder}", *flags.get(name, [])))
    assert isinstance(trainer.parallel_model, DistributedDataParallel)  # as in any group
    if name == "DataParallel":
        trainer.parallel_model = Replicas(trainer.model)
    elif name == "networks in DataParallel":
        trainer.parallel_model = split_networks(trainer.model)
    elif name != "DDP":
        trainer.parallel_model = trainer.model
    return trainer


@needs_gloo
@pytest.mark.slow
def test_two_processes(parse: Parse, tmp_path: Path) -> None:
    runs = [parse(*flags) for flags in LOSS_FLAGS]
    spawn(work, (runs, tmp_path), nprocs=PARTS)
    for number, options in enumerate(runs):
        for training in MODES:
            expected = expected_gradients(*build(options, training))
            for rank in range(PARTS):
                found = torch.load(tmp_path / f"{number}-{training}-{rank}.pt")
                assert_equal(found, expected)


def work(rank: int, runs: list[argparse.Namespace], folder: Path) -> None:
    """Writes the gradients of each run, by DistributedDataParallel, to a file."""
    torch.set_num_threads(1)
    place = f"file://{folder / 'rendezvous'}"
    distributed.init_process_group("gloo", place, rank=rank, world_size=PARTS)
    for number, options in enumerate(runs):
        for training in MODES:
            options.run_dir = str(folder / f"run-{rank}")
            trainer, batch = build(options, training)
            trainer.parallel_model = DistributedDataParallel(trainer.model)
            with DrawnBySample(rank * SIZE):
                trainer.backward(take(batch, rank))
            torch.save(gradients(trainer), folder / f"{number}-{training}-{rank}.pt")
    distributed.destroy_process_group()
