"""The loss of an epoch: batch losses and their weights in, the exact weighted mean out."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class EpochLoss(Metric):
    """Weighted mean of batch losses, ``sum(weight * loss) / sum(weight)``, in double precision where there is any.

    A batch of weight 0 does not count, whatever its loss is (a mean over no pixels is NaN).

    Examples:
        >>> loss = EpochLoss()
        >>> loss.update(torch.tensor(1.0), 4); loss.update(torch.tensor(10.0), 1)
        >>> loss.compute()
        tensor(2.8000, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    weighted_sum: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for state in ("weighted_sum", "weight"):
            self.add_state(state, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, loss: Tensor, weight: float | Tensor) -> None:
        """Add one batch: its mean loss, 0-d, and its weight, e.g. its number of rows."""
        loss = loss.detach().to(self.weighted_sum)
        weight = torch.as_tensor(weight, device=loss.device, dtype=loss.dtype)
        self.weighted_sum = self.weighted_sum + torch.where(weight > 0, loss * weight, 0.0)
        self.weight = self.weight + weight

    def add(self, loss: Tensor, weight: float | Tensor) -> None:
        """``update``, without what torchmetrics and ``nn.Module`` put around it, where the weight is a number.

        Private names set, as torchmetrics does around each update (1.7.0 and 1.9.0): ``_update_count``, ``_computed``.
        """
        if isinstance(weight, Tensor):
            self.update(loss, weight)
            return
        kept = self.__dict__
        total = kept["weighted_sum"]
        if weight > 0:
            kept["weighted_sum"] = total + loss.detach().to(total) * weight
        kept["weight"] = kept["weight"] + weight
        kept["_update_count"] += 1
        kept["_computed"] = None

    def compute(self) -> Tensor:
        """Return the weighted mean, 0-d; NaN where all weights were 0."""
        return self.weighted_sum / self.weight
