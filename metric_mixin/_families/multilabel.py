"""Predictions and target of 0 and 1 of several labels -> four counts a label -> states of metrics.

Sources: ``MultilabelStatScores.update`` and ``MultilabelConfusionMatrix.update`` with the functions that they call, in
``torchmetrics/functional/classification/stat_scores.py`` and ``confusion_matrix.py`` (read at 1.7.0, 1.8.0 and 1.9.0).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MultilabelConfusionMatrix, MultilabelStatScores

from metric_mixin._families.bits import cells_of, cells_unseen, is_thresholded, states
from metric_mixin._families.family import Family, claimed

_SETTINGS = ("num_labels", "threshold", "ignore_index")
_UPDATES = {cls.__dict__["update"]: _SETTINGS for cls in (MultilabelStatScores, MultilabelConfusionMatrix)}


def claim(metrics: Mapping[str, Metric]) -> list[Family]:
    """Return a family for each number of labels, threshold and ``ignore_index`` among ``metrics``."""
    several = {name: metric for name, metric in metrics.items() if is_thresholded(metric) and _has_labels(metric)}
    return [Multilabel(names, *key) for key, names in claimed(several, _UPDATES).items()]


def _has_labels(metric: Metric) -> bool:
    labels = getattr(metric, "num_labels", None)
    return type(labels) is int and labels > 1


class Multilabel(Family):
    """Metrics of one number of labels; bins are those of ``Binary``, four a label, and one for what is ignored."""

    def __init__(self, names: list[str], labels: int, threshold: float, ignored: int | None) -> None:
        super().__init__(names, bins=4 * labels + 1)
        self.labels = labels
        self.threshold = threshold
        self.ignored = ignored

    def binned(self, preds: Tensor, target: Tensor) -> Tensor | None:
        if not self._has_form(preds, target):
            return None
        found = cells_of(preds, target, self.threshold, self.ignored, filters_first=False)
        return None if found is None else self._bins(*found)

    def binned_unseen(self, preds: Tensor, target: Tensor) -> Tensor | None:
        if not self._has_form(preds, target):
            return None
        found = cells_unseen(preds, target, self.threshold, self.ignored, filters_first=False)
        if found is None:
            return None
        cells, ignored, wrong = found
        return self._bins(cells, ignored).masked_fill(wrong.reshape(-1), self.bins)

    def _has_form(self, preds: Tensor, target: Tensor) -> bool:
        if target.ndim < 2 or target.shape[1] != self.labels:
            return False
        if self.ignored is None or preds.is_floating_point():
            return True
        return preds.dtype in (torch.int64, torch.int32)  # others torchmetrics could not mark as ignored

    def _bins(self, cells: Tensor, ignored: Tensor | None) -> Tensor:
        first = torch.arange(0, 4 * self.labels, 4, device=cells.device)
        bins = cells + first.view(-1, *(1,) * (cells.ndim - 2))
        return (bins if ignored is None else bins.masked_fill(ignored, 4 * self.labels)).reshape(-1)

    def added(self, metric: Metric, counts: Tensor) -> dict[str, Tensor]:
        return states(metric, counts[: 4 * self.labels].view(self.labels, 4))
