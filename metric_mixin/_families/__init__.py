"""Metrics by name -> families, each of which counts a batch once for all of its metrics.

Every family is a file of its own with a function ``claim``, listed here; without one its metrics are updated the plain
way. What was read at some versions of torchmetrics is used with these only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torchmetrics
from torchmetrics import Metric

from metric_mixin._families import binary, curves, multiclass, multilabel
from metric_mixin._families.family import Family, host_sees

__all__ = ["Family", "families_of", "host_sees"]

CLAIMS: list[Callable[[Mapping[str, Metric]], list[Family]]] = [
    multiclass.claim,
    binary.claim,
    multilabel.claim,
    curves.claim,
]

READ = ("1.7.", "1.8.", "1.9.")
"""Versions of torchmetrics whose updates were read; a test compares them with those that are installed."""


def families_of(metrics: Mapping[str, Metric]) -> list[Family]:
    """Return the families of ``metrics``, each of which keeps a state, by name; most metrics have none."""
    if not torchmetrics.__version__.startswith(READ):
        return []
    return [family for claim in CLAIMS for family in claim(metrics)]
