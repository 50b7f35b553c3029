"""What one process has in, what all processes of a group have out; the only user of torch.distributed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from metric_mixin._errors import SyncError
from metric_mixin._inputs import mapped
from metric_mixin._packing import packed, unpacked


def several_ranks(group: Any = None) -> bool:
    """Whether this is one of several processes in a group of torch.distributed, that of all where ``None``."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1


def this_rank() -> int:
    """The number of this process among all."""
    return dist.get_rank()


def gathered(value: Any, about: Mapping[str, str], group: Any = None) -> dict[int, Any]:
    """Return ``value`` of each rank by its number, on every rank, with tensors of their own on the CPU.

    It may be of containers, tensors and whatever can be pickled.
    """
    ranks = Ranks(about, group)
    mine = packed(value, ranks.device)
    sizes = ranks.gather(torch.tensor([mine.numel()])).flatten().tolist()
    values = [mapped(lambda tensor: tensor.cpu().clone(), one) for one in ranks.gather_packed(mine, sizes)]
    return dict(zip(ranks.numbers, values, strict=True))


class Ranks:
    """The group, and its collectives; ``about`` is what messages say of the exchange."""

    def __init__(self, about: Mapping[str, str], group: Any = None) -> None:
        self.about = about
        self.group = group
        self.numbers = dist.get_process_group_ranks(dist.group.WORLD if group is None else group)
        self.device = _device_of(group)

    def gather(self, mine: Tensor) -> Tensor:
        """Return the tensors of all ranks, which have one shape, stacked."""
        mine = mine.to(self.device)
        everyone = mine.new_empty((len(self.numbers), *mine.shape))
        self._meet(lambda: dist.all_gather(list(everyone.unbind()), mine, group=self.group))
        return everyone

    def gather_packed(self, mine: Tensor, sizes: Sequence[int]) -> list[Any]:
        """Return what every rank packed, to ``sizes`` bytes."""
        padded = mine.new_zeros(max(sizes))
        padded[: mine.numel()] = mine
        return [unpacked(row[:size]) for row, size in zip(self.gather(padded), sizes, strict=True)]

    def sum(self, shares: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """Return the sum over the ranks of each tensor, by one collective."""
        return self._reduced(shares, dtype, dist.ReduceOp.SUM)

    def largest(self, shares: Sequence[Tensor]) -> list[Tensor]:
        """Return the largest values of each tensor, NaN where a rank has it, by one collective."""
        nans = [share.isnan() for share in shares]  # back ends differ in what they do with one
        numbers = [share.masked_fill(nan, -torch.inf) for share, nan in zip(shares, nans, strict=True)]
        reduced = self._reduced([*numbers, *nans], torch.float64, dist.ReduceOp.MAX)
        values, nans = reduced[: len(shares)], reduced[len(shares) :]
        return [value.masked_fill(nan > 0, torch.nan) for value, nan in zip(values, nans, strict=True)]

    def _reduced(self, shares: Sequence[Tensor], dtype: torch.dtype, operation: Any) -> list[Tensor]:
        if not shares:
            return []
        flat = torch.cat([share.reshape(-1).to(self.device, dtype) for share in shares])
        self._meet(lambda: dist.all_reduce(flat, operation, group=self.group))
        parts = torch.split(flat, [share.numel() for share in shares])
        return [part.reshape(share.shape) for part, share in zip(parts, shares, strict=True)]

    def _meet(self, collective: Callable[[], Any]) -> None:
        try:
            collective()
        except RuntimeError as error:
            what = "".join(f" of {name} {self.about[name]}" for name in ("stage", "epoch") if name in self.about)
            raise SyncError(
                f"Rank {this_rank()} could not exchange metrics{what} with the other ranks: one of them failed, "
                "hangs, or does something else. Every rank must end each epoch, and call `log_metrics` and "
                f"`StageMetrics.compute` when the others do. torch.distributed says: {error}"
            ) from error


def _device_of(group: Any) -> torch.device:
    """The device on which a group exchanges: the accelerator's, where its back end there is one of its own."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    back_ends = dict(part.split(":") for part in dist.get_backend_config(group).split(","))
    if accelerator is None or back_ends.get(accelerator.type) in (None, "gloo", "mpi"):
        return torch.device("cpu")
    return torch.device(accelerator.type)
