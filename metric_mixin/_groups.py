"""Metrics by name -> those that provably keep one state, by class and settings, never by values; pure.

torchmetrics merges metrics whose states happen to be equal after a first batch, and keeps them merged:
``BinaryAccuracy(0.5)`` and ``BinaryAccuracy(0.9)`` then report each other's numbers (torchmetrics#2596). Here a
metric joins another only where the very function that updates it is one that was read, and every setting which that
function reads is equal.

Sources: ``update`` and ``add_state`` of each class below, read at torchmetrics 1.9.0 and, at the lowest supported
version, 1.7.0. A sweep over settings in the tests compares with ``MetricCollection(compute_groups=False)``.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor
from torchmetrics import Metric, clustering, regression, retrieval
from torchmetrics import classification as c
from torchmetrics.retrieval.base import RetrievalMetric
from torchmetrics.wrappers import ClasswiseWrapper

_COMMON = (
    "compute_on_cpu",
    "dist_sync_on_step",
    "process_group",
    "dist_sync_fn",
    "distributed_available_fn",
    "sync_on_compute",
    "compute_with_cache",
)
"""Settings of every metric that decide when and how its state is updated or exchanged."""

_STATES: tuple[tuple[tuple[type, ...], tuple[str, ...]], ...] = (
    ((c.BinaryStatScores,), ("threshold", "multidim_average", "ignore_index")),
    (
        (c.MulticlassStatScores,),
        ("num_classes", "top_k", "micro average", "multidim_average", "ignore_index"),
    ),
    (
        (c.MultilabelStatScores,),
        ("num_labels", "threshold", "multidim_average", "ignore_index"),
    ),
    ((c.BinaryConfusionMatrix,), ("threshold", "ignore_index")),
    ((c.MulticlassConfusionMatrix,), ("num_classes", "ignore_index")),
    ((c.MultilabelConfusionMatrix,), ("num_labels", "threshold", "ignore_index")),
    ((c.BinaryPrecisionRecallCurve,), ("thresholds", "ignore_index", "normalization")),
    (
        (c.MulticlassPrecisionRecallCurve,),
        ("num_classes", "thresholds", "micro average", "ignore_index"),
    ),
    ((c.MultilabelPrecisionRecallCurve,), ("num_labels", "thresholds", "ignore_index")),
    ((regression.MeanSquaredError,), ("num_outputs",)),
    ((regression.MeanAbsoluteError,), ("num_outputs",)),
    ((regression.PearsonCorrCoef,), ("num_outputs",)),
    ((regression.R2Score,), ()),
    ((regression.ExplainedVariance,), ()),
    ((RetrievalMetric,), ("ignore_index", "allow_non_binary_target")),
    ((retrieval.RetrievalPrecisionRecallCurve,), ("ignore_index", "allow_non_binary_target")),
    (
        (
            clustering.AdjustedRandScore,
            clustering.FowlkesMallowsIndex,
            clustering.HomogeneityScore,
            clustering.CompletenessScore,
            clustering.VMeasureScore,
            clustering.MutualInfoScore,
            clustering.RandScore,
        ),
        (),
    ),
    ((clustering.CalinskiHarabaszScore, clustering.DaviesBouldinScore, clustering.DunnIndex), ()),
)
"""Classes whose ``update`` keeps one kind of state, and every setting that this ``update`` or the state depends on."""

_UPDATES: dict[Any, tuple[int, tuple[str, ...]]] = {
    cls.__dict__["update"]: (family, settings) for family, (classes, settings) in enumerate(_STATES) for cls in classes
}

_HARMLESS = frozenset(
    {"_abc_impl", "__init__", "compute", "plot", "higher_is_better", "is_differentiable", "full_state_update"}
)


def safe_groups(metrics: Mapping[str, Metric]) -> list[list[str]]:
    """Return the names of ``metrics`` in groups that may share one state and one update.

    Each name is in one group; groups stand in the order given. A ``ClasswiseWrapper`` counts as the metric it wraps.
    Unknown classes, subclasses that change how a state is kept, and settings that cannot be read stand alone. Names
    stand in the order given too, but a metric that validates its inputs comes first, so that it is the one that is
    updated: valid inputs give one state, and invalid ones are refused, as they would be if each were updated.

    Examples:
        >>> from torchmetrics.classification import BinaryAccuracy, BinaryF1Score
        >>> safe_groups({"a": BinaryAccuracy(0.5), "b": BinaryAccuracy(0.9), "f": BinaryF1Score(0.5)})
        [['a', 'f'], ['b']]
    """
    groups: dict[Hashable, list[str]] = {}
    for name, metric in metrics.items():
        groups.setdefault(_state_key(keeper(metric)) or name, []).append(name)
    return [sorted(group, key=lambda name: not _validates(metrics[name])) for group in groups.values()]


def _validates(metric: Metric) -> bool:
    return bool(getattr(keeper(metric), "validate_args", True))


def keeper(metric: Metric) -> Metric:
    """Return the metric that keeps the state: of a ``ClasswiseWrapper`` the wrapped one."""
    return keeper(metric.metric) if type(metric) is ClasswiseWrapper else metric


def known_update(metric: Metric) -> Any:
    """Return the function that keeps the state of ``metric`` where it is one that was read, otherwise ``None``."""
    update = getattr(getattr(metric.update, "__wrapped__", None), "__func__", None)
    if update not in _UPDATES or not _plain_subclass(type(metric)) or _replaced_methods(metric):
        return None
    return update


def _state_key(metric: Metric) -> Hashable | None:
    """Everything that the state of ``metric`` depends on, or ``None`` where that is not known."""
    update = known_update(metric)
    if update is None:
        return None
    family, settings = _UPDATES[update]
    try:
        values = tuple(_setting(metric, name) for name in (*settings, *_COMMON))
        states = tuple((name, _form(default)) for name, default in metric._defaults.items())
        key = (family, values, states, metric.dtype, metric.device)
        hash(key)
    except (AttributeError, TypeError, NotImplementedError):
        return None
    return key


def _setting(metric: Metric, name: str) -> Hashable:
    if name == "micro average":
        return getattr(metric, "average", None) == "micro"
    if name == "normalization":  # from torchmetrics 1.9 on
        return _readable(getattr(metric, name, None))
    return _readable(getattr(metric, name))


def _form(default: Any) -> tuple[Any, ...]:
    return (default.dtype, tuple(default.shape)) if isinstance(default, Tensor) else (type(default),)


def _readable(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), tuple(value.flatten().tolist())
    return tuple(value) if isinstance(value, list) else value


def _replaced_methods(metric: Metric) -> bool:
    """Whether a method of the class was replaced on the object, other than those that torchmetrics wraps itself."""
    return any(callable(getattr(type(metric), name, None)) for name in vars(metric).keys() - {"update", "compute"})


def _plain_subclass(cls: type) -> bool:
    """Whether every class of somebody's own on the way changes nothing but what happens after the update."""
    own = [
        base for base in cls.__mro__ if not base.__module__.startswith(("torchmetrics.", "torch.", "builtins", "abc"))
    ]
    return all(
        name in _HARMLESS or name.startswith("plot_") or (name.startswith("__") and name != "__setattr__")
        for base in own
        for name in vars(base)
    )
