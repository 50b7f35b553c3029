"""Predictions and target of 0 and 1 -> four kinds of elements; what the families of one and of several labels share.

Scores outside of [0, 1] are logits, and one of them makes all of a batch so; the threshold applies to probabilities.
Elements whose target is ``ignore_index`` do not count.

Sources: ``normalize_logits_if_needed`` and the formats of binary and multilabel metrics in
``torchmetrics/functional/classification/stat_scores.py`` and ``confusion_matrix.py`` (read at 1.7.0, 1.8.0 and 1.9.0).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric

from metric_mixin._families.family import LABELS, SCORES, holds, plain


def is_thresholded(metric: Metric) -> bool:
    """Whether threshold, ``ignore_index`` and the sum over all of a batch are settings that families know."""
    ignored = getattr(metric, "ignore_index", None)
    return (
        type(getattr(metric, "threshold", None)) is float
        and (ignored is None or type(ignored) is int)
        and getattr(metric, "multidim_average", "global") == "global"
    )


def states(metric: Metric, counts: Tensor) -> dict[str, Tensor]:
    """What counts of shape ``(..., 4)`` add to the states of a metric."""
    if "confmat" in metric._defaults:
        return {"confmat": counts.reshape(*counts.shape[:-1], 2, 2)}
    return dict(zip(("tn", "fp", "fn", "tp"), counts.unbind(-1), strict=True))


def cells_of(
    preds: Tensor, target: Tensor, threshold: float, ignored: int | None, *, filters_first: bool
) -> tuple[Tensor, Tensor | None] | None:
    """Return twice the target plus the prediction of each element, int64, and which are ignored, if some are.

    Args:
        preds: Scores, or labels of 0 and 1.
        target: Labels of 0, 1 and ``ignored``, of the same shape.
        threshold: The probability above which a prediction is 1.
        ignored: The target of elements that do not count.
        filters_first: Whether a metric leaves out ignored elements before it looks for logits, and others do not.

    Returns:
        ``None`` where inputs are of another form, or where metrics see logits in one and probabilities in another.
    """
    if not plain(target, LABELS) or preds.shape != target.shape or not target.numel() or not target.ndim:
        return None
    mask = None
    true = target
    if not are_bits(target):
        if ignored is None or not holds(target.dtype, ignored):
            return None
        mask = target == ignored
        true = target.masked_fill(mask, 0)
        if not are_bits(true):
            return None
    elif ignored in (0, 1):
        mask = target == ignored
    if ignored is not None and target.dtype not in _SIGNED:  # which torchmetrics could not mark as ignored
        return None
    hit = _thresholded(preds, threshold, mask if filters_first else None)
    return None if hit is None else (torch.add(hit, true.long(), alpha=2), mask)


def cells_unseen(
    preds: Tensor, target: Tensor, threshold: float, ignored: int | None, *, filters_first: bool | None
) -> tuple[Tensor, Tensor | None, Tensor] | None:
    """Return what ``cells_of`` does, and which elements are of no kind, without a look at a value.

    Args:
        preds: Scores, or labels of 0 and 1.
        target: Labels of 0, 1 and ``ignored``, of the same shape.
        threshold: The probability above which a prediction is 1.
        ignored: The target of elements that do not count.
        filters_first: As in ``cells_of``; ``None`` where some metrics do and others do not.
    """
    if not plain(target, LABELS) or preds.shape != target.shape or not target.numel() or not target.ndim:
        return None
    if ignored is not None and (target.dtype not in _SIGNED or not holds(target.dtype, ignored)):
        return None
    mask = None if ignored is None else target == ignored
    wrong = are_no_bits(target)
    if plain(preds, SCORES):
        if mask is not None and filters_first is None:
            return None
        looked_at = None if mask is None or not filters_first else ~mask
        hit = probabilities_unseen(preds.detach(), torch.sigmoid, looked_at) > threshold
    elif plain(preds, LABELS):
        hit = preds.bool()
        wrong = wrong | are_no_bits(preds)
    else:
        return None
    return torch.add(hit, target.long(), alpha=2), mask, wrong if mask is None else wrong & ~mask


_SIGNED = (torch.int64, torch.int32)


def _thresholded(preds: Tensor, threshold: float, mask: Tensor | None) -> Tensor | None:
    if not plain(preds, SCORES):
        return preds if plain(preds, LABELS) and are_bits(preds) else None
    if are_probabilities(preds):
        return preds.detach() > threshold
    if not preds.is_contiguous():
        return None
    hit = preds.detach().sigmoid() > threshold
    if mask is not None and mask.any():  # others then take the sigmoid of fewer, rounded by where they stand
        kept = preds.detach()[~mask]
        if are_probabilities(kept) or not torch.equal(hit[~mask], kept.sigmoid() > threshold):
            return None
    return hit


def are_bits(labels: Tensor) -> bool:
    """Whether all labels are 0 or 1."""
    if labels.dtype == torch.bool:
        return True
    low, high = labels.aminmax()
    return low.item() >= 0 and high.item() <= 1


def are_probabilities(scores: Tensor) -> bool:
    """Whether all scores are in [0, 1]; NaN is not. So are no scores at all."""
    if not scores.numel():
        return True
    low, high = scores.detach().aminmax()
    return low.item() >= 0 and high.item() <= 1


def probabilities(scores: Tensor, normalized: Callable[[Tensor], Tensor]) -> Tensor | None:
    """Return ``scores`` where all are in [0, 1], otherwise what ``normalized`` makes of them; ``None``: with NaN."""
    if are_probabilities(scores):
        return scores
    found = normalized(scores)
    return found if are_probabilities(found) else None


def probabilities_unseen(
    scores: Tensor, normalized: Callable[[Tensor], Tensor], looked_at: Tensor | None = None
) -> Tensor:
    """Likewise without a look at a value, NaN included; ``looked_at``: the scores that tell, where not all do."""
    outside = (scores < 0) | (scores > 1)
    if looked_at is not None:
        outside = outside & looked_at
    return torch.where(outside.any(), normalized(scores), scores)


def are_no_bits(labels: Tensor) -> Tensor:
    """Which labels are neither 0 nor 1."""
    return (labels != 0) & (labels != 1)
