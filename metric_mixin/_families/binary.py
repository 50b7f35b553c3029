"""Predictions and target of 0 and 1 -> four counts -> states of metrics.

Sources: ``BinaryStatScores.update`` and ``BinaryConfusionMatrix.update`` with the functions that they call, in
``torchmetrics/functional/classification/stat_scores.py`` and ``confusion_matrix.py`` (read at 1.7.0, 1.8.0 and 1.9.0).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryConfusionMatrix, BinaryStatScores

from metric_mixin._families.bits import cells_of, cells_unseen, is_thresholded, states
from metric_mixin._families.family import Family, claimed

_SETTINGS = ("threshold", "ignore_index")
_UPDATES = {cls.__dict__["update"]: _SETTINGS for cls in (BinaryStatScores, BinaryConfusionMatrix)}


def claim(metrics: Mapping[str, Metric]) -> list[Family]:
    """Return a family for each threshold and ``ignore_index`` among ``metrics``."""
    found = claimed({name: metric for name, metric in metrics.items() if is_thresholded(metric)}, _UPDATES)
    return [
        Binary(names, *key, matrices={"confmat" in metrics[name]._defaults for name in names})
        for key, names in found.items()
    ]


class Binary(Family):
    """Metrics of one threshold; bins are twice the target plus the prediction, and 4 for what is ignored."""

    def __init__(self, names: list[str], threshold: float, ignored: int | None, *, matrices: set[bool]) -> None:
        super().__init__(names, bins=5)
        self.threshold = threshold
        self.ignored = ignored
        self.matrices = matrices  # whether metrics keep a matrix: those leave out first what is ignored

    def binned(self, preds: Tensor, target: Tensor) -> Tensor | None:
        found = cells_of(preds, target, self.threshold, self.ignored, filters_first=True in self.matrices)
        if found is None:
            return None
        cells, ignored = found
        return (cells if ignored is None else cells.masked_fill(ignored, 4)).reshape(-1)

    def binned_unseen(self, preds: Tensor, target: Tensor) -> Tensor | None:
        (first,) = self.matrices if len(self.matrices) == 1 else (None,)
        found = cells_unseen(preds, target, self.threshold, self.ignored, filters_first=first)
        if found is None:
            return None
        cells, ignored, wrong = found
        cells = cells if ignored is None else cells.masked_fill(ignored, 4)
        return cells.masked_fill(wrong, self.bins).reshape(-1)

    def added(self, metric: Metric, counts: Tensor) -> dict[str, Tensor]:
        return states(metric, counts[:4])
