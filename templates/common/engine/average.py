"""The moving average of a model's weights, for --ema."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage(AveragedModel):
    """torch's AveragedModel, without its wait for a GPU at each update.

    That one copies the number of updates to the GPU, for averages that depend on it. This one's
    does not.

    Args:
        model: whose weights and buffers are averaged.
        decay: share of the average that an update keeps, in [0, 1].
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._update = get_ema_multi_avg_fn(decay)  # a name that, unlike torch's, is never None
        super().__init__(model, multi_avg_fn=self._update, use_buffers=True)

    def update_parameters(self, model: nn.Module) -> None:
        """Takes the model's weights into the average; the first ones as they are."""
        if not self.n_averaged:
            super().update_parameters(model)
            return
        pairs = [*zip(_tensors(self.module), _tensors(model), strict=True)]
        for is_float in (True, False):  # whole numbers are averaged in another way
            some = [pair for pair in pairs if pair[0].is_floating_point() == is_float]
            if some:
                self._update(*zip(*some, strict=True), self.n_averaged)
        self.n_averaged += 1


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    for tensor in (*model.parameters(), *model.buffers()):
        yield tensor.detach()
