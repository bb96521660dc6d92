"""Steps that would lead out of the finite numbers are not applied."""

import math
import sys
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
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

    def __init__(
        self,
        parameters: Mapping[str, Sequence[nn.Parameter]],
        buffers: Sequence[Tensor],
        limit: int,
        ignore_gradients: bool,
    ) -> None:
        self.bad_steps = 0
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
        losses, self._losses = self._losses, []
        tensors = [gradient for each in self._all if (gradient := each.grad) is not None]
        tensors += [values for _, values in losses if self._sees_losses]
        if self._at_once:
            # How torch's GradScaler looks: one pass over all tensors, multiplied by 1 on the way.
            torch._amp_foreach_non_finite_check_and_unscale_(tensors, self._found, self._one)
        else:
            self._found += ~torch.stack([each.isfinite().all() for each in tensors]).all()
        if not self._found.item():
            self.bad_steps = 0
            _copy(self._buffers, self._kept)
            return True
        self._found.zero_()
        _copy(self._kept, self._buffers)
        self.bad_steps += 1
        line = f"step {n_iter}: {self._find(losses)}"
        if self.bad_steps >= self._limit:
            raise DivergenceError(
                f"{line}, {self._limit} bad steps in a row; the last checkpoint is untouched; "
                "try a lower --lr, or --warmup, or --clip_grad"
            )
        count = f"{self.bad_steps} of --max_bad_steps {self._limit}"
        tqdm.write(f"{line}: not applied ({count})", file=sys.stderr)
        return False

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


def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    if sources:
        torch._foreach_copy_(targets, sources)
