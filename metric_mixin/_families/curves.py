"""Scores and target -> how many thresholds each score reaches, by curve and truth -> states of binned curves.

A score that reaches a threshold reaches each one below it: one number a score stands for all of them.

Sources: ``update`` of ``BinaryPrecisionRecallCurve``, ``MulticlassPrecisionRecallCurve`` and
``MultilabelPrecisionRecallCurve`` with the functions that they call, in
``torchmetrics/functional/classification/precision_recall_curve.py`` (read at 1.7.0, 1.8.0 and 1.9.0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary
from torchmetrics import Metric
from torchmetrics.classification import (
    BinaryPrecisionRecallCurve,
    MulticlassPrecisionRecallCurve,
    MultilabelPrecisionRecallCurve,
)

from metric_mixin._families.bits import are_bits, are_no_bits, probabilities, probabilities_unseen
from metric_mixin._families.family import LABELS, SCORES, Family, counts, holds, plain
from metric_mixin._groups import known_update

_BINARY, _MULTICLASS, _MULTILABEL = (
    cls.__dict__["update"]
    for cls in (BinaryPrecisionRecallCurve, MulticlassPrecisionRecallCurve, MultilabelPrecisionRecallCurve)
)


def claim(metrics: Mapping[str, Metric]) -> list[Family]:
    """Return a family for each metric with thresholds: those of equal settings have one state already."""
    kinds: dict[Any, Callable[[str, Any], Family]] = {
        _BINARY: Binary,
        _MULTICLASS: Multiclass,
        _MULTILABEL: Multilabel,
    }
    return [
        kinds[update](name, metric)
        for name, metric in metrics.items()
        if (update := known_update(metric)) in kinds and _is_binned(metric)
    ]


def _is_binned(metric: Any) -> bool:
    """Whether thresholds and other settings are those that are known."""
    ignored = metric.ignore_index
    return (
        isinstance(metric.thresholds, Tensor)
        and _reached(metric.thresholds) is not None
        and (ignored is None or type(ignored) is int)
        and getattr(metric, "average", None) != "micro"  # torchmetrics 1.9 adds it to a state of another shape
        and getattr(metric, "normalization", "sigmoid") == "sigmoid"  # from torchmetrics 1.9 on
        and all(map(counts, metric._defaults.values()))
    )


_REACHED: MutableMapping[Tensor, tuple[int | None, Reached | None]] = WeakTensorKeyDictionary()
"""What was found for thresholds, and at which version of the tensor: a look at values waits for their device."""


def _reached(thresholds: Tensor) -> Reached | None:
    """Return what compares scores with ``thresholds``; ``None`` unless they rise, from 0 to 1 at most."""
    version = None if thresholds.is_inference() else thresholds._version  # such tensors have none
    known, found = _REACHED.get(thresholds, (None, None))
    if version is None or version != known:
        values = thresholds.detach().cpu().clone()  # not the key itself, which could then never be dropped
        rise = values.dtype in SCORES and len(values) > 0 and bool((values.diff() > 0).all())
        found = Reached(values) if rise and values[0] >= 0 and values[-1] <= 1 else None
        _REACHED[thresholds] = (version, found)
    return found


class Curves(Family):
    """One or several curves over the same thresholds.

    Bins of a curve are the numbers of thresholds that a score reaches, of scores whose truth is 0, and then of those
    whose truth is 1; one bin behind all is for what is ignored.
    """

    def __init__(self, name: str, metric: Any, curves: int, each: int = 1) -> None:
        reached = _reached(metric.thresholds)
        assert reached is not None
        self.reached = reached
        self.row = len(metric.thresholds) + 1
        self.curves = curves
        self.ignored: int | None = metric.ignore_index
        super().__init__([name], 2 * curves * self.row + 1, each)

    def added(self, metric: Any, counts: Tensor) -> dict[str, Tensor]:
        below = counts[:-1].view(self.curves, 2, self.row).movedim(2, 0).cumsum(0)
        matrix = torch.stack([below[:-1], below[-1] - below[:-1]], -1)
        return {"confmat": matrix.reshape(metric.confmat.shape)}

    def _of_curves(self, scores: Tensor) -> Tensor:
        """Bins of scores of shape ``(n, curves)`` if their truth is 0."""
        bins = self.reached(scores)
        if self.curves > 1:
            bins += torch.arange(0, 2 * self.curves * self.row, 2 * self.row, device=bins.device)
        return bins


class Binary(Curves):
    """One curve. What is ignored is left out before scores outside of [0, 1] tell that they are logits."""

    def __init__(self, name: str, metric: Any) -> None:
        super().__init__(name, metric, 1)

    def binned(self, preds: Tensor, target: Tensor) -> Tensor | None:
        if not _are_scores(preds, target, self.ignored):
            return None
        scores, true = preds.detach().flatten(), target.flatten()
        if self.ignored is not None:
            kept = true != self.ignored
            scores, true = scores[kept], true[kept]
        found = probabilities(scores, torch.sigmoid) if not true.numel() or are_bits(true) else None
        return None if found is None else self._of_curves(found).add_(true, alpha=self.row)

    def binned_unseen(self, preds: Tensor, target: Tensor) -> Tensor | None:
        if not _are_scores(preds, target, self.ignored):
            return None
        scores, true = preds.detach().flatten(), target.flatten()
        ignored = None if self.ignored is None else true == self.ignored
        found = probabilities_unseen(scores, torch.sigmoid, None if ignored is None else ~ignored)
        bins = self._of_curves(found).add_(true, alpha=self.row).masked_fill_(are_no_bits(true), self.bins)
        return bins if ignored is None else bins.masked_fill_(ignored, self.bins - 1)


class Multilabel(Curves):
    """A curve a label. What is ignored is looked at, too, for whether there are logits."""

    def __init__(self, name: str, metric: Any) -> None:
        super().__init__(name, metric, metric.num_labels)

    def binned(self, preds: Tensor, target: Tensor) -> Tensor | None:
        found = self._by_label(preds, target)
        if found is None:
            return None
        scores, true, ignored = found
        if ignored is not None:
            true = true.masked_fill(ignored, 0)
        of_curves = probabilities(scores, torch.sigmoid) if are_bits(true) else None
        if of_curves is None:
            return None
        bins = self._of_curves(of_curves).add_(true, alpha=self.row)
        return (bins if ignored is None else bins.masked_fill_(ignored, self.bins - 1)).reshape(-1)

    def binned_unseen(self, preds: Tensor, target: Tensor) -> Tensor | None:
        found = self._by_label(preds, target)
        if found is None:
            return None
        scores, true, ignored = found
        bins = self._of_curves(probabilities_unseen(scores, torch.sigmoid)).add_(true, alpha=self.row)
        bins.masked_fill_(are_no_bits(true), self.bins)
        return (bins if ignored is None else bins.masked_fill_(ignored, self.bins - 1)).reshape(-1)

    def _by_label(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor | None] | None:
        if not _are_scores(preds, target, self.ignored) or target.ndim < 2 or target.shape[1] != self.curves:
            return None
        if self.ignored is not None and target.dtype != torch.int64:  # others torchmetrics could not mark as ignored
            return None
        scores, true = (_of_classes(values, self.curves) for values in (preds.detach(), target))
        return scores, true, None if self.ignored is None else true == self.ignored


class Multiclass(Curves):
    """A curve a class against the others. Rows that are ignored are left out first."""

    def __init__(self, name: str, metric: Any) -> None:
        super().__init__(name, metric, metric.num_classes, each=metric.num_classes)

    def binned(self, preds: Tensor, target: Tensor) -> Tensor | None:
        if not self._has_form(preds, target):
            return None
        scores, true = _of_classes(preds.detach(), self.curves), target.flatten()
        if self.ignored is not None:
            kept = true != self.ignored
            scores, true = scores[kept], true[kept]
        if true.numel():
            low, high = true.aminmax()
            if low.item() < 0 or high.item() >= self.curves:
                return None
        found = probabilities(scores, partial(torch.softmax, dim=1))
        return None if found is None else self._against_rest(found, true).reshape(-1)

    def binned_unseen(self, preds: Tensor, target: Tensor) -> Tensor | None:
        if not self._has_form(preds, target):
            return None
        scores, true = _of_classes(preds.detach(), self.curves), target.flatten()
        ignored = None if self.ignored is None else true.eq(self.ignored).unsqueeze(1)
        found = probabilities_unseen(scores, partial(torch.softmax, dim=1), None if ignored is None else ~ignored)
        bins = self._against_rest(found, true.clamp(0, self.curves - 1))
        bins.masked_fill_(((true < 0) | (true >= self.curves)).unsqueeze(1), self.bins)
        return (bins if ignored is None else bins.masked_fill_(ignored, self.bins - 1)).reshape(-1)

    def _has_form(self, preds: Tensor, target: Tensor) -> bool:
        return (
            plain(preds, SCORES)
            and plain(target, frozenset({torch.int64}))  # others torchmetrics refuses
            and target.numel() > 0
            and target.ndim > 0
            and preds.shape == (target.shape[0], self.curves, *target.shape[1:])
        )

    def _against_rest(self, scores: Tensor, true: Tensor) -> Tensor:
        column = true.unsqueeze(1)
        return self._of_curves(scores).scatter_add_(1, column, torch.full_like(column, self.row))


class Reached:
    """How many of some thresholds each score reaches, as ``>=`` compares.

    The cell ``floor(cells * x)`` never falls as ``x`` rises, rounded as it may be. So a score reaches all thresholds of
    lower cells and none of higher ones, and is compared with the one of its own cell; ``bucketize``, which serves where
    two thresholds share a cell, takes up to ten times as long, as no branch of its search can be foreseen.
    """

    def __init__(self, thresholds: Tensor) -> None:
        self.thresholds = thresholds
        self._tables: dict[tuple[torch.dtype, torch.device], tuple[int, Tensor, Tensor]] = {}

    def __call__(self, scores: Tensor) -> Tensor:
        """Return numbers, int64, of scores in [0, 1] of any shape; NaN reaches none."""
        dtype = torch.promote_types(scores.dtype, self.thresholds.dtype)
        if (dtype, scores.device) not in self._tables:
            self._tables[dtype, scores.device] = self._made(dtype, scores.device)
        cells, below, own = self._tables[dtype, scores.device]
        flat = scores.to(dtype).reshape(-1)
        if not cells:
            reached = torch.bucketize(flat.contiguous(), own, right=True).masked_fill_(flat.isnan(), 0)
        else:
            cell = flat.mul(cells).nan_to_num_(0).clamp_(0, cells).int()
            reached = below.index_select(0, cell).add_(flat >= own.index_select(0, cell))
        return reached.view(scores.shape)

    def _made(self, dtype: torch.dtype, device: torch.device) -> tuple[int, Tensor, Tensor]:
        """Number of cells, and for each how many thresholds lie below it, and its own; 0 and the thresholds: none."""
        thresholds = self.thresholds.to(dtype)
        with torch.inference_mode(False):
            for cells in (2 * len(thresholds), 16 * len(thresholds)):
                taken = thresholds.mul(cells).int().long()
                if (taken.diff() > 0).all():
                    filled = taken.new_zeros(cells + 1).index_fill_(0, taken, 1)
                    own = thresholds.new_full((cells + 1,), torch.inf).index_copy_(0, taken, thresholds)
                    return cells, (filled.cumsum(0) - filled).to(device), own.to(device)
            return 0, thresholds.to(device), thresholds.to(device)


def _are_scores(preds: Tensor, target: Tensor, ignored: int | None) -> bool:
    return (
        plain(preds, SCORES)
        and plain(target, LABELS)
        and preds.shape == target.shape
        and target.numel() > 0
        and target.ndim > 0
        and (ignored is None or holds(target.dtype, ignored))
    )


def _of_classes(values: Tensor, classes: int) -> Tensor:
    """Values of shape ``(N, C, ...)`` as ``(n, C)``, laid out as torchmetrics does before it takes a softmax."""
    return values.transpose(0, 1).reshape(classes, -1).T
