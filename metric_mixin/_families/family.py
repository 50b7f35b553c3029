"""What every family is: a batch in, numbers of bins out; counts of bins kept, what they add to a state out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from metric_mixin._groups import known_update

LABELS = frozenset({torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool})
SCORES = frozenset({torch.float32, torch.float64})


class Family(ABC):
    """Metrics whose states derive from how often each of some bins was met, and those counts.

    Nothing of a metric is read or changed here: whoever holds it adds what ``added`` returns to its states.

    Attributes:
        names: Names of the metrics.
        bins: Number of bins.
        each: Into how many of them an element of a batch falls.
        batches: Batches counted since ``clear``.
    """

    def __init__(self, names: list[str], bins: int, each: int = 1) -> None:
        self.names = names
        self.bins = bins
        self.each = each
        self.batches = 0
        self._counts: Tensor | None = None

    @abstractmethod
    def binned(self, preds: Tensor, target: Tensor) -> Tensor | None:
        """Return the bins of one batch, int64 of shape ``(n,)``, each in ``range(bins)``; nothing is counted yet.

        ``None`` where the batch is not of a form that this family counts as torchmetrics does, valid or not: the
        plain way then takes or refuses it. Nothing is raised.
        """

    def binned_unseen(self, preds: Tensor, target: Tensor) -> Tensor | None:
        """Return the bins of a batch whose values the host must not wait for, as on a GPU.

        ``None`` where its form alone tells that this family does not count it. What its values would tell falls into
        one more bin, ``bins``, and is an error when the counts are read.
        """
        return None

    @abstractmethod
    def added(self, metric: Metric, counts: Tensor) -> dict[str, Tensor]:
        """Return what ``counts`` of the bins add to each state of ``metric``."""

    def count(self, binned: Tensor) -> None:
        """Count what ``binned`` or ``binned_unseen`` returned, a batch."""
        self.batches += 1
        counts = self._counts
        if counts is None or counts.device != binned.device:  # moved between two batches
            with torch.inference_mode(False):  # what is made inside of it could not be changed outside
                new = torch.zeros(self.bins + 1, dtype=torch.int64, device=binned.device)
                self._counts = counts = new if counts is None else counts.to(binned.device)
        few = self.bins > 4096 and binned.numel() < self.bins  # few of many bins: do not touch them all
        if few or not host_sees(binned):  # where `bincount` waits for the largest bin
            counts.scatter_add_(0, binned, torch.ones_like(binned))
        else:
            counts += torch.bincount(binned, minlength=self.bins + 1)

    def refused(self) -> int:
        """Return how many elements were none that this family counts, since ``clear``; it waits for the device."""
        return 0 if self._counts is None else int(self._counts[self.bins]) // self.each

    def additions(self, metrics: Mapping[str, Metric]) -> dict[str, dict[str, Tensor]]:
        """Return what was counted since ``clear``, as what it adds to each state of each of ``metrics``, by name."""
        assert self._counts is not None
        return {name: self.added(metric, self._counts[: self.bins]) for name, metric in metrics.items()}

    def clear(self) -> None:
        """Forget what was counted."""
        self.batches = 0
        self._counts = None


def claimed(metrics: Mapping[str, Metric], settings: Mapping[Any, tuple[str, ...]]) -> dict[tuple[Any, ...], list[str]]:
    """Return names of ``metrics`` by the values of some settings.

    Args:
        metrics: Metrics that keep a state, by name.
        settings: The ``update`` functions of a family, each with the settings that it must have in common.
    """
    found: dict[tuple[Any, ...], list[str]] = {}
    for name, metric in metrics.items():
        names = settings.get(known_update(metric))
        if names is not None and all(map(counts, metric._defaults.values())):
            found.setdefault(tuple(getattr(metric, setting) for setting in names), []).append(name)
    return found


def counts(default: Any) -> bool:
    """Whether the default of a state is a tensor of integers."""
    return isinstance(default, Tensor) and default.dtype == torch.int64


def host_sees(tensor: Tensor) -> bool:
    """Whether values of a tensor can be looked at without waiting for its device."""
    return tensor.is_cpu


def plain(tensor: Tensor, dtypes: frozenset[torch.dtype]) -> bool:
    """Whether a tensor is an ordinary one of one of ``dtypes``, of which torch.func, say, keeps no other view."""
    usual = type(tensor) is Tensor and tensor.dtype in dtypes and tensor.layout is torch.strided
    return usual and not tensor.is_nested and not _is_transformed(tensor)


_is_transformed: Callable[[Tensor], bool] = getattr(
    getattr(torch._C, "_functorch", None), "is_functorch_wrapped_tensor", lambda _: False
)
"""Whether a function of ``torch.func`` wraps a tensor, whose memory cannot be read then (private; torch 2.6, 2.13)."""


def holds(dtype: torch.dtype, label: int) -> bool:
    """Whether ``label`` is a value of integers of ``dtype``: torch compares it modulo their range otherwise."""
    if dtype == torch.bool:
        return label in (0, 1)
    info = torch.iinfo(dtype)
    return info.min <= label <= info.max
