"""Labels outside of the classes -> an error that names metric, value and range, before any state changes.

torchmetrics 1.9.0 looks at values only where predictions are integers: a target of 255 is a miss for
``MulticlassAccuracy(average="micro")`` and a reshape error for others. On the CPU one minimum and maximum of the labels
is all it takes, shared by all metrics with the same classes. On other devices, where reading a value would wait for the
device, the minimum and maximum of the epoch are kept there and read when it is computed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from metric_mixin._errors import LabelRangeError
from metric_mixin._layout import inner_metric

_Range = tuple[int, int | None]  # number of classes, ignore_index


class LabelRanges:
    """The classes of each metric that has labels, and the extremes that were seen where they are read later."""

    def __init__(self, metrics: Mapping[str, Metric] | None = None) -> None:
        ranges = {name: _range(metric) for name, metric in (metrics or {}).items()}
        self._ranges: dict[str, _Range] = {name: found for name, found in ranges.items() if found is not None}
        self._seen: dict[tuple[_Range, str], tuple[str, Tensor, Tensor]] = {}

    def check(self, names: Collection[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Check the labels of one batch for the metrics of ``names``.

        Raises:
            LabelRangeError: On the CPU, a label is none of the classes and not ``ignore_index``.
        """
        if not self._ranges:
            return
        first = {found: name for name in reversed(list(names)) if (found := self._ranges.get(name)) is not None}
        for position, what in enumerate(("preds", "target")):
            labels = args[position] if position < len(args) else kwargs.get(what)
            if not isinstance(labels, Tensor) or labels.is_floating_point() or not labels.numel():
                continue
            if labels.dtype == torch.bool or labels.is_complex():
                continue
            for found, name in first.items():
                self._check(labels, what, found, name)

    def raise_deferred(self) -> None:
        """Raise for the labels that were seen on another device than the CPU since the last reset."""
        for (found, what), (name, low, high) in self._seen.items():
            _raise(name, what, found, int(low), int(high))

    def reset(self) -> None:
        """Forget what was seen."""
        self._seen.clear()

    def _check(self, labels: Tensor, what: str, found: _Range, name: str) -> None:
        classes, ignored = found
        if labels.device.type != "cpu":
            kept = labels if ignored is None else torch.where(labels == ignored, 0, labels)
            low, high = kept.aminmax()
            if (found, what) in self._seen:
                _, before_low, before_high = self._seen[found, what]
                low, high = torch.minimum(low, before_low), torch.maximum(high, before_high)
            self._seen[found, what] = (name, low, high)
            return
        low, high = labels.aminmax()
        if low >= 0 and high < classes:
            return
        kept = labels if ignored is None else labels[labels != ignored]
        if kept.numel():
            low, high = kept.aminmax()
            _raise(name, what, found, int(low), int(high))


def _raise(name: str, what: str, found: _Range, low: int, high: int) -> None:
    classes, ignored = found
    if low >= 0 and high < classes:
        return
    but = "" if ignored is None else f" or ignore_index={ignored}"
    raise LabelRangeError(
        f"Metric {name!r} was given the label {low if low < 0 else high} in its {what}: expected 0 to {classes - 1}"
        f"{but}. Correct the labels or the number of classes, or let the metric leave them out by `ignore_index`."
    )


def _range(metric: Metric) -> _Range | None:
    """Classes and ``ignore_index`` of a classification metric, where its labels are the indices of classes."""
    inner = inner_metric(metric)
    if inner is not None:
        return _range(inner)
    classes = getattr(metric, "num_classes", None)
    multiclass = any(base.__module__.startswith("torchmetrics.classification") for base in type(metric).__mro__)
    if not multiclass or not isinstance(classes, int) or isinstance(classes, bool) or classes < 1:
        return None
    ignored = getattr(metric, "ignore_index", None)
    return (classes, ignored) if ignored is None or isinstance(ignored, int) else None
