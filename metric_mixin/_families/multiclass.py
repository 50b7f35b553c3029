"""Predictions and target of classes -> one confusion matrix, or true, predicted and hit classes -> states of metrics.

A metric of counts alone needs three numbers a class, one of a matrix all of them. Elements whose target is
``ignore_index`` do not count.

Sources: ``MulticlassStatScores.update`` and ``MulticlassConfusionMatrix.update`` with the functions that they call, in
``torchmetrics/functional/classification/stat_scores.py`` and ``confusion_matrix.py`` (read at 1.7.0, 1.8.0 and 1.9.0).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassStatScores

from metric_mixin._families.family import LABELS, SCORES, Family, claimed, holds, host_sees, plain

_COUNTS, _MATRIX = MulticlassStatScores.__dict__["update"], MulticlassConfusionMatrix.__dict__["update"]
_SETTINGS = ("num_classes", "ignore_index")


def claim(metrics: Mapping[str, Metric]) -> list[Family]:
    """Return a family for each number of classes and ``ignore_index`` among ``metrics``."""
    countable = {name: metric for name, metric in metrics.items() if _is_countable(metric)}
    return [
        Multiclass(names, *key, matrix=any("confmat" in metrics[name]._defaults for name in names))
        for key, names in claimed(countable, {_COUNTS: _SETTINGS, _MATRIX: _SETTINGS}).items()
    ]


def _is_countable(metric: Metric) -> bool:
    classes, ignored = getattr(metric, "num_classes", None), getattr(metric, "ignore_index", None)
    return (
        type(classes) is int
        and classes > 1
        and (ignored is None or type(ignored) is int)
        and getattr(metric, "top_k", 1) == 1
        and getattr(metric, "multidim_average", "global") == "global"
    )


class Multiclass(Family):
    """Metrics of one number of classes.

    Bins of a matrix are target times classes plus prediction, and one behind them for what is ignored. Without one,
    they are three rows of targets of misses, targets of hits, and predictions, each with a bin for what is ignored.
    """

    def __init__(self, names: list[str], classes: int, ignored: int | None, *, matrix: bool) -> None:
        super().__init__(names, classes * classes + 1 if matrix else 3 * (classes + 1), each=1 if matrix else 2)
        self.classes = classes
        self.ignored = ignored
        self.ignores_a_class = ignored is not None and 0 <= ignored < classes
        self.matrix = matrix

    def binned(self, preds: Tensor, target: Tensor) -> Tensor | None:
        predicted = self._predicted(preds, target)
        if predicted is None or not (preds.is_floating_point() or self._are_classes(predicted)):
            return None
        true = target.reshape(-1).long()
        ignored = None
        if not self._are_classes(true):
            if self.ignored is None or self.ignores_a_class:
                return None
            ignored = true.eq(self.ignored)
            true = true.masked_fill(ignored, 0)
            if not self._are_classes(true):
                return None
        elif self.ignored is not None and self.ignores_a_class:
            ignored = true.eq(self.ignored)
        return self._bins(true, predicted, ignored)

    def binned_unseen(self, preds: Tensor, target: Tensor) -> Tensor | None:
        predicted = self._predicted(preds, target)
        if predicted is None:
            return None
        true = target.reshape(-1).long()
        ignored = None if self.ignored is None else true.eq(self.ignored)
        wrong = self._are_no_classes(true)
        if not preds.is_floating_point():
            wrong = wrong | self._are_no_classes(predicted)
        if ignored is not None:
            wrong = wrong & ~ignored
        bins = self._bins(true, predicted, ignored)
        return bins.masked_fill(wrong.repeat(self.each), self.bins)

    def _predicted(self, preds: Tensor, target: Tensor) -> Tensor | None:
        """Predicted labels, int64, flat; ``None`` where the form of a batch is none that is counted."""
        if not plain(target, LABELS) or not target.numel() or not target.ndim:
            return None
        if self.ignored is not None and not holds(target.dtype, self.ignored):
            return None
        if preds.ndim == target.ndim:
            return preds.reshape(-1).long() if preds.shape == target.shape and plain(preds, LABELS) else None
        rows, *others = target.shape
        if not plain(preds, SCORES) or preds.shape != (rows, self.classes, *others):
            return None
        return top_class(preds).reshape(-1)

    def _bins(self, true: Tensor, predicted: Tensor, ignored: Tensor | None) -> Tensor:
        if self.matrix:
            bins = torch.add(predicted, true, alpha=self.classes)
            return bins if ignored is None else bins.masked_fill(ignored, self.classes * self.classes)
        row = self.classes + 1
        bins, predicted = torch.add(true, predicted == true, alpha=row), predicted + 2 * row
        if ignored is not None:
            bins, predicted = bins.masked_fill(ignored, self.classes), predicted.masked_fill(ignored, 3 * row - 1)
        return torch.cat([bins, predicted])

    def _are_classes(self, labels: Tensor) -> bool:
        low, high = labels.aminmax()
        return low.item() >= 0 and high.item() < self.classes

    def _are_no_classes(self, labels: Tensor) -> Tensor:
        return (labels < 0) | (labels >= self.classes)

    def added(self, metric: Metric, counts: Tensor) -> dict[str, Tensor]:
        if self.matrix:
            matrix = counts[:-1].view(self.classes, self.classes)
            if "confmat" in metric._defaults:
                return {"confmat": matrix}
            hits, true, predicted = matrix.diag(), matrix.sum(1), matrix.sum(0)
        else:
            misses, hits, predicted = counts.view(3, -1)[:, : self.classes]
            true = misses + hits
        elements = true.sum()
        if metric.average == "micro":
            hits, true, predicted = hits.sum(), elements, elements
            return _states(hits, true - hits, predicted - hits, self.classes * elements)
        return _states(hits, true - hits, predicted - hits, elements)


def _states(hits: Tensor, missed: Tensor, wrong: Tensor, of: Tensor) -> dict[str, Tensor]:
    return {"tp": hits, "fp": wrong, "tn": of - (wrong + missed + hits), "fn": missed}


_BLOCK = 32768


def top_class(scores: Tensor) -> Tensor:
    """``scores.argmax(1)`` of float scores of shape ``(N, C, ...)`` on the CPU: the first of the highest, or of NaNs.

    torch 2.13 takes an eighth of the speed of memory for it; numpy does not where classes lie side by side. Where they
    lie apart, one comparison with the highest score finds each class, block by block of what fits into the cache.
    """
    if not host_sees(scores):
        return scores.detach().argmax(1)
    if scores.ndim == 2:
        return torch.from_numpy(scores.numpy(force=True).argmax(1))
    rows, classes, *others = scores.shape
    if classes > 255 or not scores.is_contiguous() or scores[0, 0].numel() < 512:
        return scores.detach().argmax(1)
    flat = scores.detach().reshape(rows, classes, -1)
    before_end = np.zeros((rows, flat.shape[2]), dtype=np.uint8)  # how far the top class stands from the end
    for row in range(rows):
        for start in range(0, flat.shape[2], _BLOCK):
            block = flat[row, :, start : start + _BLOCK]
            highest, every = block.amax(0).numpy(force=True), block.numpy(force=True)
            found = before_end[row, start : start + _BLOCK]
            is_highest = np.empty(len(highest), dtype=bool)
            distance = is_highest.view(np.uint8)
            for k in range(classes):
                np.equal(every[k], highest, out=is_highest)
                np.multiply(distance, np.uint8(classes - k), out=distance)
                np.maximum(found, distance, out=found)
            if not found.all():  # NaN is not equal to itself
                return scores.detach().argmax(1)
    return torch.from_numpy(classes - before_end.astype(np.int64)).reshape(rows, *others)
