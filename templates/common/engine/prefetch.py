"""`BackgroundGenerator`, made safe: batches are prepared ahead while the model computes."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import methodcaller
from types import TracebackType
from typing import Any

import torch
from prefetch_generator import BackgroundGenerator
from torch import Tensor

from engine.stopping import hold_signals


class BackgroundBatches:
    """Batches on the device, kept ready by a background thread; leave it and the thread is gone.

    `with BackgroundBatches(loader, device, 2) as batches:` and iterate. A bare
    `BackgroundGenerator` has no length, swallows interrupts in its source, and when a loop ends
    early it leaves a thread inside torch, which can abort the interpreter at exit.

    On CUDA the thread also pins each batch and copies it on a stream of its own, so that the copy
    overlaps the computation.

    Args:
        loader: sized iterable of batches (tensors in tuples, lists and dicts). If its batches come
            several at once, by `chunks()`, they go through the thread as one, and only here does
            `split` part them: to hand over is dear beside a short step.
        device: where the batches go.
        ahead: batches, or chunks of them, to keep ready. The thread is left out if this is 0, and
            for a loader without workers, whose samples the thread would draw, racing the model for
            random numbers.
    """

    def __init__(self, loader: Any, device: torch.device, ahead: int) -> None:
        self.loader = loader
        self.device = device
        self.ahead = ahead
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._background: BackgroundGenerator | None = None
        self._leaving = False
        self._batches: Iterator[Any]

    def __enter__(self) -> "BackgroundBatches":
        chunks = getattr(self.loader, "chunks", None)
        # The workers start here, in the main thread, where torch can watch over them.
        with hold_signals(), garbage_left_alone():
            self._iterator = chunks() if chunks else iter(self.loader)
        batches = self._on_device(self._iterator)
        self._batches = self.loader.split(batches) if chunks else batches
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leaving = True
        while self._background is not None and self._background.is_alive():
            while not self._background.queue.empty():  # the thread may wait for room in the queue
                self._background.queue.get_nowait()
            self._background.join(timeout=0.01)
        if not getattr(self.loader, "persistent_workers", False):
            end_workers(self._iterator)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return self._batches

    def _on_device(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Returns the iterator that moves what another one gives, ahead of time if it may."""
        in_background = self.ahead and getattr(self.loader, "num_workers", 0)
        if self.device.type == "cpu" and not in_background:
            return batches  # nothing to move, and nothing to hide
        batches = self._moved(batches)
        if in_background:
            batches = self._background = BackgroundGenerator(batches, max_prefetch=self.ahead)
        return batches if self._stream is None else self._received(batches)

    def _moved(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yields each batch on the device; on CUDA, with the event that says its copy is done."""
        try:
            while not self._leaving:
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                yield self._move(batch)
        except (KeyboardInterrupt, SystemExit) as error:
            # BackgroundGenerator would take these for the end of the epoch.
            raise RuntimeError(f"the loader was ended by {error!r}") from error

    def _move(self, batch: Any) -> Any:
        if self._stream is None:
            return to_device(batch, self.device)
        with torch.cuda.stream(self._stream):
            batch = map_tensors(self._upload, batch)
            return batch, self._stream.record_event()

    def _upload(self, tensor: Tensor) -> Tensor:
        pinned = tensor if tensor.is_cuda else tensor.pin_memory()
        return pinned.to(self.device, non_blocking=True)

    def _received(self, pairs: Iterator[tuple[Any, torch.cuda.Event]]) -> Iterator[Any]:
        """Has the computing stream wait for each copy, and the allocator know who uses it."""
        for batch, copied in pairs:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_event(copied)
            map_tensors(methodcaller("record_stream", computing), batch)
            yield batch


@contextmanager
def garbage_left_alone() -> Iterator[None]:
    """Has the processes that are forked in the block never collect the garbage of this one.

    A tensor on a GPU may be among it, held by a reference cycle; to free that ends a worker, which
    has no GPU.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def end_workers(iterator: Any) -> None:
    """Ends the workers behind a loader's iterator, if it has any left.

    Left to the garbage collector, they may meet the interpreter's exit first, which waits for them.
    """
    end = getattr(iterator, "_shutdown_workers", None)  # torch has no public name for it
    if end is not None:
        end()


def to_device(batch: Any, device: torch.device) -> Any:
    """Returns the batch with every tensor on the device."""
    if device.type == "cpu":
        return batch
    return map_tensors(lambda tensor: tensor.to(device), batch)


def map_tensors(function: Callable[[Tensor], Any], batch: Any) -> Any:
    """Returns the batch with `function` applied to each tensor in its tuples, lists and dicts."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, dict):
        return {key: map_tensors(function, value) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        values = [map_tensors(function, value) for value in batch]
        return values if isinstance(batch, list) else tuple(values)
    return batch
