"""Steps that would lead out of the finite numbers are not applied."""

import math
import sys
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from engine.distributed import world_size
from engine.exits import DivergenceError


class StepGuard:
    """Looks at a step's losses and gradients before the optimizers see them.

    Args:
        parameters: those that each loss sends gradients to, by its name.
        buffers: what the model's forward changes, such as the running statistics of a batch
            normalization; a step that is not applied leaves them as they were, too.
        limit: bad steps in a row that end the run.
        ignore_gradients: True under a loss scaler, which looks at them by itself.

    Attributes:
        bad_steps: in a row, up to now.
    """

    bad_steps: int = 0

    def __init__(
        self,
        parameters: Mapping[str, Sequence[nn.Parameter]],
        buffers: Sequence[Tensor],
        limit: int,
        ignore_gradients: bool,
    ) -> None:
        self._limit = limit
        self._parameters = {} if ignore_gradients else parameters
        self._buffers = list(buffers)
        self._kept = [each.clone() for each in self._buffers]
        self._all = [each for some in self._parameters.values() for each in some]
        self._losses: list[tuple[str, Tensor]] = []  # since the last step
        device = next(iter(parameters.values()))[0].device
        self._one, self._found = torch.ones((), device=device), torch.zeros((), device=device)
        self._at_once = device.type in ("cpu", "cuda")
        # Gradients are those of all processes, who so agree; losses are each one's own.
        self._sees_losses = world_size() == 1

    def keep(self) -> None:
        """Takes the buffers as they are for those of the last good step."""
        _copy(self._buffers, self._kept)

    def watch(self, name: str, losses: Tensor) -> Tensor:
        """Takes one batch's losses, (N,), once they went backward, and returns them detached."""
        losses = losses.detach()
        self._losses.append((name, losses))
        return losses

    def allows(self, n_iter: int) -> bool:
        """Says whether step `n_iter` may be applied, and names on stderr one that may not.

        Raises:
            DivergenceError: it is one bad step too many.
        """
        losses = self._look()
        if not self._found.item():
            self.bad_steps = 0
            _copy(self._buffers, self._kept)
            return True
        self._found.zero_()
        _copy(self._kept, self._buffers)
        self.bad_steps += 1
        self._refuse(f"step {n_iter}: {self._find(losses)}", self.bad_steps)
        return False

    def report(self, n_iter: int) -> None:
        """Names what `allows` has not named yet; here, that is nothing."""

    def _look(self) -> list[tuple[str, Tensor]]:
        """Sets `_found` to 1 if a loss or gradient is not finite; returns the losses."""
        losses, self._losses = self._losses, []
        tensors = [gradient for each in self._all if (gradient := each.grad) is not None]
        tensors += [values for _, values in losses if self._sees_losses]
        if self._at_once:
            # How torch's GradScaler looks: one pass over all tensors, multiplied by 1 on the way.
            torch._amp_foreach_non_finite_check_and_unscale_(tensors, self._found, self._one)
        else:
            self._found += ~torch.stack([each.isfinite().all() for each in tensors]).all()
        return losses

    def _refuse(self, line: str, in_a_row: int) -> None:
        """Prints the line; raises DivergenceError with it at the limit of bad steps in a row."""
        if in_a_row >= self._limit:
            raise DivergenceError(
                f"{line}, {self._limit} bad steps in a row; the last checkpoint is untouched; "
                "try a lower --lr, or --warmup, or --clip_grad"
            )
        count = f"{in_a_row} of --max_bad_steps {self._limit}"
        tqdm.write(f"{line}: not applied ({count})", file=sys.stderr)

    def _find(self, losses: Sequence[tuple[str, Tensor]]) -> str:
        """Says in words what is not finite."""
        for name, values in losses:
            if not math.isfinite(mean := values.mean().item()):
                return f"{name} is {mean}"
        for name, parameters in self._parameters.items():
            gradients = [each.grad for each in parameters if each.grad is not None]
            if not all(torch.isfinite(each).all() for each in gradients):
                return f"the gradient of {name} is not finite"
        return "a loss is not finite"


class DeferredStepGuard(StepGuard):
    """A guard that never has the host wait for a GPU.

    The optimizers, all fused, skip a bad step by themselves, on the device. What was skipped is
    read back when `report` is called.

    Args:
        optimizers: of the parameters.
        parameters, buffers, limit, ignore_gradients: as above.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        parameters: Mapping[str, Sequence[nn.Parameter]],
        buffers: Sequence[Tensor],
        limit: int,
        ignore_gradients: bool,
    ) -> None:
        super().__init__(parameters, buffers, limit, ignore_gradients)
        # Bad steps in a row, the most of them since the last report, and all since then.
        self._counts = self._found.new_zeros(3)
        if not ignore_gradients:
            for optimizer in optimizers:  # the name by which a GradScaler tells a fused one
                optimizer.found_inf = self._found  # type: ignore[attr-defined]  # not declared

    @property
    def bad_steps(self) -> int:
        """Bad steps in a row, up to now."""
        return int(self._counts[0])

    @bad_steps.setter
    def bad_steps(self, count: int) -> None:
        self._counts[0] = count

    def allows(self, n_iter: int) -> bool:
        """Returns True: whether step `n_iter` is applied is decided on the device."""
        del n_iter
        self._found.zero_()
        self._look()
        in_a_row, most, total = self._counts
        in_a_row.add_(self._found).mul_(self._found)
        torch.maximum(most, in_a_row, out=most)
        total.add_(self._found)
        is_bad = self._found.bool()
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            torch.where(is_bad, kept, buffer, out=kept)
            buffer.copy_(kept)
        return True

    def report(self, n_iter: int) -> None:
        """Names on stderr how many steps since the last report, up to `n_iter`, were not applied.

        Raises:
            DivergenceError: they were too many in a row.
        """
        _, most, total = map(int, self._counts.tolist())
        self._counts[1:] = 0
        if total:
            line = f"up to step {n_iter}: in {total} steps, a loss or gradient is not finite"
            self._refuse(line, most)


def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    if sources:
        torch._foreach_copy_(targets, sources)
