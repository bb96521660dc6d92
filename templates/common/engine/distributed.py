"""Where the model runs: the device, several GPUs of one process, several processes."""

import argparse
import inspect
import io
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from engine.exits import UserError

_AS_EVER = nullcontext()
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Module = TypeVar("Module", bound=nn.Module)


def rank() -> int:
    """Returns the number of this process; the first, 0, is the one that writes files."""
    return distributed.get_rank() if is_joined() else 0


def world_size() -> int:
    """Returns how many processes train together."""
    return distributed.get_world_size() if is_joined() else 1


def is_joined() -> bool:
    """Says whether this process trains together with others."""
    return distributed.is_available() and distributed.is_initialized()


@contextmanager
def joined() -> Iterator[None]:
    """Joins the processes that torchrun has started; one that was started alone stays alone."""
    if "RANK" not in os.environ:
        yield
        return
    store, own_rank, size = next(rendezvous("env://"))
    store = PrefixStore(_agree_on_attempt(store, own_rank, size), store)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=own_rank, world_size=size)
    if own_rank:  # the first process speaks for all; what goes wrong, each one says on stderr
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # until the end
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _agree_on_attempt(store: Any, own_rank: int, size: int) -> str:
    """Returns a name that the processes of this start have in common, and no earlier ones had.

    torchrun keeps one store through all restarts, in which processes would find the addresses of
    the dead. It counts restarts, but on each machine by itself.
    """
    own = uuid.uuid4().hex
    if own_rank == 0:
        store.set("attempt", own)
        members = [store.get(f"{own}/{other}").decode() for other in range(1, size)]
        store.set(f"{own}/members", " ".join([own, *members]))
        return own
    while True:
        attempt = store.get("attempt").decode()
        store.set(f"{attempt}/{own_rank}", own)
        while store.get("attempt").decode() == attempt:  # else it was that of an earlier start
            known = f"{attempt}/members"
            if store.check([known]) and own in store.get(known).decode().split():
                return str(attempt)
            time.sleep(0.02)


class _Nothing:
    """Does nothing, whatever it is asked to."""

    def __enter__(self) -> "_Nothing":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **keywords: None


def on_first(
    kind: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs
) -> Result:
    """Returns `kind(...)` in the first process; in the others, what does nothing in its place."""
    return cast(Result, _Nothing()) if rank() else kind(*arguments, **keywords)


def hide_bars() -> bool | None:
    """Says whether to hide progress bars, as tqdm's `disable` takes it.

    Without a terminal there is none, for a redraw a batch fills a job's log; nor is there a second
    process's.
    """
    return True if rank() else None


def barrier() -> None:
    """Waits until all processes are here."""
    if is_joined():
        distributed.barrier()


def gather(value: Any) -> list[Any]:
    """Returns the values of all processes, in their order."""
    values: list[Any] = [value] * world_size()
    if len(values) > 1:
        distributed.all_gather_object(values, value)
    return values


def from_first(value: Result) -> Result:
    """Returns the first process's value, made of plain types and tensors."""
    if world_size() == 1:
        return value
    buffer = io.BytesIO()
    torch.save(value if rank() == 0 else None, buffer)
    contents = [buffer.getvalue()]
    distributed.broadcast_object_list(contents)
    received: Result = torch.load(io.BytesIO(contents[0]), "cpu", weights_only=True)
    return received


def mean_over_processes(values: Tensor) -> Tensor:
    """Returns the mean of the processes' values, of one shape."""
    if world_size() > 1:
        distributed.all_reduce(values)
        values /= world_size()
    return values


def copy_buffers_of_first(model: nn.Module) -> None:
    """Gives all processes the first one's buffers, such as those of a batch normalization."""
    if world_size() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def pick_device(name: str) -> torch.device:
    """Returns the named device, or for "auto" the accelerator if there is one, else the CPU.

    Of several processes on a machine, each has a GPU of its own.

    Raises:
        UserError: there is no such device here.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        name = str(accelerator or "cpu")
    if name == "cuda" and is_joined():
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name} cannot be used here: {reason}") from error
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # for what names no device, such as collectives
    return device


def amp_dtype(device: torch.device) -> torch.dtype:
    """Returns the type for mixed precision: bfloat16, which needs no loss scaling, or float16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float16
    return torch.bfloat16


def share_of_batch(options: argparse.Namespace) -> int:
    """Returns how many samples of each batch this process takes.

    Raises:
        UserError: the batch cannot be split evenly.
    """
    size, count = options.batch_size, world_size()
    if size % count:
        lower = size // count * count
        choices = f"{lower} or {lower + count}" if lower else str(count)
        raise UserError(
            f"--batch_size {size} cannot be split evenly over {count} processes: give {choices}"
        )
    return int(size // count)


def place(model: Module, device: torch.device, options: argparse.Namespace) -> Module:
    """Returns the model on the device, in the form that the flags ask for.

    Raises:
        UserError: --sync_batch_norm, but there are no several processes on GPUs.
    """
    if options.sync_batch_norm:
        if not is_joined() or device.type != "cuda":
            raise UserError("--sync_batch_norm needs several processes on GPUs, see torchrun")
        model = cast(Module, nn.SyncBatchNorm.convert_sync_batchnorm(model))
    if options.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model.to(device)


def parallelize(model: nn.Module, device: torch.device, options: argparse.Namespace) -> nn.Module:
    """Returns the model, or wraps it so that each batch is split over processes or GPUs.

    These are the guide's two patterns: each network is split by itself, and the losses are
    computed on the first GPU; or networks and losses, packed in one module, are split as a whole,
    so that the losses, one per sample, are computed on every GPU.

    Raises:
        UserError: the batch has fewer samples than there are GPUs.
    """
    if is_joined():
        ids = [device] if device.type == "cuda" else None
        # Buffers are each process's own in training; a test, and what is saved, has the first's.
        names = inspect.signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
        flags: Any = {name: False}  # torch 2.14 has renamed it
        return DistributedDataParallel(model, ids, **flags)
    count = torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1
    if options.parallel == "none" or count == 1:
        return model
    if options.batch_size < count:
        raise UserError(
            f"--batch_size {options.batch_size} is less than the number of GPUs, {count}"
        )
    print(
        f"nn.DataParallel splits each batch over {count} GPUs; --parallel none uses one, and "
        f"torchrun --standalone --nproc-per-node {count} train.py ... is faster"
    )
    return nn.DataParallel(model) if options.parallel == "super" else split_networks(model)


class SplitNetwork(nn.DataParallel[nn.Module]):
    """A network in nn.DataParallel, whose weights are called as they are without it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        # torch leaves both without annotations.
        self.register_state_dict_post_hook(_drop_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_add_prefix)  # type: ignore[no-untyped-call]


def split_networks(model: nn.Module) -> nn.Module:
    """Puts each network of the model, a child that has parameters, in nn.DataParallel."""
    for name, child in model.named_children():
        if any(True for _ in child.parameters()):
            setattr(model, name, SplitNetwork(child))
    return model


def _drop_prefix(
    network: nn.Module, weights: dict[str, Tensor], prefix: str, metadata: object
) -> None:
    del network, metadata
    for name in [name for name in weights if name.startswith(f"{prefix}module.")]:
        weights[prefix + name.removeprefix(f"{prefix}module.")] = weights.pop(name)


def _add_prefix(network: nn.Module, weights: dict[str, Tensor], prefix: str, *rest: object) -> None:
    del network, rest
    for name in [name for name in weights if name.startswith(prefix)]:
        weights[f"{prefix}module.{name.removeprefix(prefix)}"] = weights.pop(name)


def exchange(model: nn.Module, now: bool) -> AbstractContextManager[None]:
    """Context of a batch after which processes exchange gradients, or only add them up as yet."""
    return model.no_sync() if not now and isinstance(model, DistributedDataParallel) else _AS_EVER
