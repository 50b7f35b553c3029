"""Labels outside of the classes -> an error that names metric, value and range, before any state changes.

torchmetrics 1.9.0 looks at values only where predictions are integers: a target of 255 is a miss for
``MulticlassAccuracy(average="micro")`` and a reshape error for others. On the CPU one minimum and maximum of the labels
is all it takes, shared by all metrics with the same classes. On other devices, where reading a value would wait for the
device, the minimum and maximum of the epoch are kept there and read when it is computed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.metric import CompositionalMetric
from torchmetrics.wrappers import MultitaskWrapper
from torchmetrics.wrappers.transformations import MetricInputTransformer

from metric_mixin._errors import LabelRangeError
from metric_mixin._layout import inner_metric

_Range = tuple[int, int | None]  # number of classes, ignore_index
_Key = tuple[str | None, _Range]  # task of a MultitaskWrapper, and the range


class LabelRanges:
    """The classes of each metric that has labels, and the extremes that were seen where they are read later."""

    def __init__(self, metrics: Mapping[str, Metric] | None = None, before: LabelRanges | None = None) -> None:
        self._ranges = {name: found for name, metric in (metrics or {}).items() if (found := list(_ranges(metric)))}
        self._seen: dict[tuple[_Key, str], tuple[str, Tensor, Tensor]] = {} if before is None else before._seen

    def check(self, names: Collection[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Check the labels of one batch for the metrics of ``names``.

        Raises:
            LabelRangeError: On the CPU, a label is none of the classes and not ``ignore_index``.
        """
        if not self._ranges:
            return
        first = {key: name for name in reversed(list(names)) for key in self._ranges.get(name, ())}
        preds, target = (_argument(args, kwargs, i, what) for i, what in enumerate(("preds", "target")))
        for (task, found), name in first.items():
            task_preds, task_target = _of_task(preds, task), _of_task(target, task)
            if _are_labels(task_target):
                self._check(task_target, task_target, "target", (task, found), name)
            if _are_labels(task_preds) and isinstance(task_target, Tensor) and task_preds.shape == task_target.shape:
                self._check(task_preds, task_target, "preds", (task, found), name)

    def raise_deferred(self) -> None:
        """Raise for the labels that were seen on another device than the CPU since the last reset."""
        for ((_, found), what), (name, low, high) in self._seen.items():
            _raise(name, what, found, int(low), int(high))

    def reset(self) -> None:
        """Forget what was seen."""
        self._seen.clear()

    def _check(self, labels: Tensor, target: Tensor, what: str, key: _Key, name: str) -> None:
        """Check labels where the target counts: elsewhere a prediction may be anything."""
        classes, ignored = found = key[1]
        if labels.dtype in _WIDENED:
            labels = labels.long()
        if labels.device.type != "cpu":
            kept = labels if ignored is None else torch.where(target == ignored, 0, labels)
            low, high = kept.aminmax()
            if (key, what) in self._seen:
                _, before_low, before_high = self._seen[key, what]
                low, high = torch.minimum(low, before_low), torch.maximum(high, before_high)
            self._seen[key, what] = (name, low, high)
            return
        low, high = labels.aminmax()
        if low >= 0 and high < classes:
            return
        kept = labels if ignored is None else labels[target != ignored]
        if kept.numel():
            low, high = kept.aminmax()
            _raise(name, what, found, int(low), int(high))


_WIDENED = (torch.uint16, torch.uint32, torch.uint64)
"""Labels of which torch finds no extremes; an ``ignore_index`` is looked for in the target as it is."""


def _argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], position: int, name: str) -> Any:
    return args[position] if position < len(args) else kwargs.get(name, kwargs.get(f"task_{name}"))


def _of_task(value: Any, task: str | None) -> Any:
    if task is None:
        return value
    return value.get(task) if isinstance(value, Mapping) else None


def _are_labels(value: Any) -> bool:
    if not isinstance(value, Tensor) or value.is_floating_point() or value.is_complex():
        return False
    return value.dtype != torch.bool and value.layout is torch.strided and not value.is_nested and value.numel() > 0


def _raise(name: str, what: str, found: _Range, low: int, high: int) -> None:
    classes, ignored = found
    if low >= 0 and high < classes:
        return
    but = "" if ignored is None else f" or ignore_index={ignored}"
    raise LabelRangeError(
        f"Metric {name!r} was given the label {low if low < 0 else high} in its {what}: expected 0 to {classes - 1}"
        f"{but}. Correct the labels or the number of classes, or let the metric leave them out by `ignore_index`."
    )


def _ranges(metric: Any, task: str | None = None) -> Iterator[_Key]:
    """Task, classes and ``ignore_index`` of each classification metric whose labels are the indices of classes."""
    if isinstance(metric, MultitaskWrapper) and task is None:
        for name, member in metric.task_metrics.items():
            yield from _ranges(member, name)
    elif isinstance(metric, MetricCollection):
        for member in metric.values(copy_state=False):
            yield from _ranges(member, task)
    elif isinstance(metric, CompositionalMetric):
        yield from _ranges(metric.metric_a, task)
        yield from _ranges(metric.metric_b, task)
    elif isinstance(metric, MetricInputTransformer):
        return  # which may change labels before its metric sees them
    elif isinstance(metric, Metric) and (inner := inner_metric(metric)) is not None:
        yield from _ranges(inner, task)
    elif isinstance(metric, Metric) and (found := _range(metric)) is not None:
        yield task, found


def _range(metric: Metric) -> _Range | None:
    classes = getattr(metric, "num_classes", None)
    update = getattr(getattr(metric.update, "__wrapped__", None), "__func__", None)
    theirs = getattr(update, "__module__", "").startswith("torchmetrics.classification")
    if not theirs or not isinstance(classes, int) or isinstance(classes, bool) or classes < 1:
        return None
    ignored = getattr(metric, "ignore_index", None)
    return (classes, ignored) if ignored is None or isinstance(ignored, int) else None
