"""What a metric's class and settings say it returns: a metric in, a layout out; pure, no value is looked at.

Keys must not depend on the size that an epoch happened to give: one class seen, one row in the last epoch. So what
follows a metric's name is decided here, from the class and its settings, and ``_keys`` only carries it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection, regression, retrieval
from torchmetrics import classification as c
from torchmetrics.aggregation import BaseAggregator, CatMetric
from torchmetrics.detection.mean_ap import MeanAveragePrecision
from torchmetrics.metric import CompositionalMetric
from torchmetrics.wrappers import (
    BootStrapper,
    ClasswiseWrapper,
    MinMaxMetric,
    MultioutputWrapper,
    MultitaskWrapper,
    Running,
)
from torchmetrics.wrappers.transformations import MetricInputTransformer

_NONE = (None, "none")

_ELEMENTWISE = frozenset(
    (torch.add, torch.sub, torch.mul, torch.true_divide, torch.floor_divide, torch.fmod, torch.pow, torch.abs)
)

_ARRAYS = frozenset(
    cls.compute
    for cls in (
        CatMetric,
        *(getattr(c, f"{task}{kind}") for task in ("Binary", "Multiclass", "Multilabel") for kind in (
            "ConfusionMatrix", "StatScores", "PrecisionRecallCurve", "ROC", "PrecisionAtFixedRecall",
            "RecallAtFixedPrecision", "SensitivityAtSpecificity", "SpecificityAtSensitivity",
        )),
        retrieval.RetrievalPrecisionRecallCurve,
        retrieval.RetrievalRecallAtFixedPrecision,
    )
)  # fmt: skip
"""``compute`` of the classes that always return a matrix, a curve, a tuple or one value for each row."""

_WHOLE = frozenset(
    {
        "BERTScore",
        "BinaryGroupStatRates",
        "CLIPImageQualityAssessment",
        "DeepNoiseSuppressionMeanOpinionScore",
        "InceptionScore",
        "KernelInceptionDistance",
        "NonIntrusiveSpeechQualityAssessment",
        "PerceptualPathLength",
        "VideoMultiMethodAssessmentFusion",
    }
)
"""The same by name, of the classes that not every installation has, and of those that return a dict of arrays."""

_MORE = ("return_sentence_level_score", "return_full_image", "return_contrast_sensitivity", "return_sq_and_rq")
"""Settings that make a tuple or a row of what is otherwise one number."""


@dataclass(frozen=True)
class Scalar:
    """One number, or, where the class is unknown, what its value turns out to be."""

    known: bool = True


@dataclass(frozen=True)
class Array:
    """Anything that is no scalar and has no names: kept whole; of a dict, each entry."""


@dataclass(frozen=True)
class PerLabel:
    """One number for each class, label or output.

    Args:
        size: Number of values, or ``None`` where settings do not tell.
        of: What the values stand for.
        first: Index of the class that the first value belongs to: 1 where the background is left out.
        labels: Names that the metric itself carries, already without a background that it leaves out.
        prefix: Put before each name.
        postfix: Put behind each name.
    """

    size: int | None
    of: str = "class"
    first: int = 0
    labels: tuple[str, ...] | None = None
    prefix: str = ""
    postfix: str = ""


@dataclass(frozen=True)
class Fields:
    """A dict with known keys."""

    fields: Mapping[str, Layout]


@dataclass(frozen=True)
class PerClassSeen:
    """A dict with entries of the classes that were seen.

    Args:
        per_class: Entries that have one number for each class listed in the entry ``classes``.
        scalars: Entries that are one number.
        mark: How the key of an entry begins that is the number of one class: ``iou/cl_`` in ``iou/cl_3``.
    """

    per_class: tuple[str, ...]
    scalars: tuple[str, ...]
    mark: str = ""


@dataclass(frozen=True)
class Stems:
    """A dict of numbers in whose keys stands, behind a known stem and ``_``, what an epoch found."""

    stems: tuple[str, ...]


Layout = Scalar | Array | PerLabel | Fields | PerClassSeen | Stems


def layout_of(metric: Any) -> Layout:
    """Return what ``metric`` returns by its class and settings.

    Sources: the ``compute`` methods and ``__init__`` signatures of torchmetrics (read at 1.9.0).

    Examples:
        >>> from torchmetrics.classification import MulticlassAccuracy
        >>> layout_of(MulticlassAccuracy(3)), layout_of(MulticlassAccuracy(3, average=None)).size
        (Scalar(known=True), 3)
    """
    if isinstance(metric, MetricCollection):
        return Fields({str(name): layout_of(member) for name, member in metric.items()})
    if isinstance(metric, CompositionalMetric):
        return _composition(metric)
    if type(metric) is ClasswiseWrapper:
        return _classwise(metric)
    if isinstance(metric, MinMaxMetric):
        return Fields({key: layout_of(metric._base_metric) for key in ("raw", "max", "min")})
    if isinstance(metric, MultitaskWrapper):
        return Fields({str(task): layout_of(member) for task, member in metric.items(flatten=False)})
    if isinstance(metric, BootStrapper):
        one = layout_of(metric.metrics[0])
        wanted = {"mean": metric.mean, "std": metric.std, "quantile": metric.quantile is not None, "raw": metric.raw}
        over_all = Array() if getattr(metric.quantile, "ndim", 0) else Scalar()
        shapes: dict[str, Layout] = {"raw": Array(), "quantile": over_all}
        return Fields({key: shapes.get(key, one) for key, on in wanted.items() if on})
    if isinstance(metric, MultioutputWrapper):
        one = layout_of(metric.metrics[0])
        return PerLabel(len(metric.metrics), of="output") if isinstance(one, Scalar) else Array()
    if isinstance(metric, Running):
        return layout_of(inner_metric(metric))
    if isinstance(metric, MetricInputTransformer):
        return layout_of(metric.wrapped_metric)
    if isinstance(metric, MeanAveragePrecision):
        return _mean_average_precision(metric)
    return _plain(metric)


def inner_metric(metric: Metric) -> Metric | None:
    """Return the metric that a wrapper feeds with its own inputs, or ``None`` where it wraps none or several."""
    for name in ("metric", "_base_metric", "base_metric", "wrapped_metric"):
        inner = metric._modules.get(name)
        if isinstance(inner, Metric):
            return inner
    members: list[Any] = list(metric.metrics) if isinstance(metric, BootStrapper | MultioutputWrapper) else []
    return members[0] if members else None


def is_aggregator(metric: Metric) -> bool:
    """Whether ``metric``, or what it wraps, aggregates given values and knows no predictions."""
    inner = inner_metric(metric)
    return isinstance(metric, BaseAggregator) if inner is None else is_aggregator(inner)


def _plain(metric: Any) -> Layout:
    """The layout of a metric that wraps none."""
    owner = _owner(metric)
    if _is_array(metric, owner):
        return Array()
    if (fields := _fields(metric, owner)) is not None:
        return fields
    if (count := _per_class(metric)) is not None:
        size, first = count
        return PerLabel(size, first=first)
    outputs = getattr(metric, "num_outputs", None)
    if getattr(metric, "multioutput", None) == "raw_values":
        return PerLabel(outputs if isinstance(outputs, int) else None, of="output")
    averaged = hasattr(metric, "multioutput") or isinstance(metric, regression.RelativeSquaredError)
    if isinstance(outputs, int) and outputs > 1 and not averaged:
        return PerLabel(outputs, of="output")
    return Scalar(known=bool(owner))


def _owner(metric: Metric) -> str:
    """The name of torchmetrics' class whose ``compute`` a metric has, or an empty string where it has its own."""
    compute = type(metric).compute
    return compute.__qualname__.partition(".")[0] if compute.__module__.startswith("torchmetrics.") else ""


def _is_array(metric: Any, owner: str) -> bool:
    per_row = getattr(metric, "reduction", "mean") in _NONE
    if owner == "PeakSignalNoiseRatio":  # which reduces nothing without dimensions
        per_row = per_row and metric.dim is not None
    return (
        per_row
        or getattr(metric, "multidim_average", None) == "samplewise"
        or getattr(metric, "keep_sequence_dim", None) is not None
        or any(getattr(metric, more, False) is True for more in _MORE)
        or (owner == "KendallRankCorrCoef" and metric.alternative is not None)  # with the p-value of a test
        or type(metric).compute in _ARRAYS
        or owner in _WHOLE
    )


def _fields(metric: Any, owner: str) -> Layout | None:
    """The layout of the classes that return a dict, or one number for each of their own categories."""
    if owner == "SQuAD":
        return Fields({"exact_match": Scalar(), "f1": Scalar()})
    if owner == "ROUGEScore":
        parts = ("fmeasure", "precision", "recall")
        return Fields({f"{key}_{part}": Scalar() for key in metric.rouge_keys for part in parts})
    if owner == "BinaryFairness":
        stems = {"demographic_parity": ("DP",), "equal_opportunity": ("EO",)}
        return Stems(stems.get(metric.task, ("DP", "EO")))
    if owner == "IntersectionOverUnion":
        return PerClassSeen((), (metric._iou_type,), mark=f"{metric._iou_type}/cl_")
    if owner == "PanopticQuality" and metric.return_per_class:
        labels = tuple(map(str, metric.cat_id_to_continuous_id))
        return PerLabel(len(labels), labels=labels)
    return None


def _per_class(metric: Metric) -> tuple[int | None, int] | None:
    """Number of per-class values (``None``: not told) and the first one's class, where settings ask for them."""
    missing = object()
    classes: Any = getattr(metric, "num_classes", missing)
    if classes is missing:
        classes = getattr(metric, "num_labels", missing)
    if classes is missing:
        return None
    average = getattr(metric, "average2", getattr(metric, "average", missing))  # LogAUC hides its own behind a base's
    wanted = (
        average in _NONE
        or getattr(metric, "per_class", False) is True
        or getattr(metric, "multiclass_mode", None) == "one-vs-all"
        or isinstance(metric, c.MultilabelEER)
    )
    if not wanted:
        return None
    first = 0 if getattr(metric, "include_background", True) else 1
    return (int(classes) - first if isinstance(classes, int) and classes > 0 else None), first


def _composition(metric: CompositionalMetric) -> Layout:
    """Of numbers a number; of one value for each class, with numbers or its like, the same; else an array."""
    if metric.op not in _ELEMENTWISE and getattr(metric.op, "__name__", "") != "_neg":
        return Scalar(known=False)
    operands: list[Any] = [one for one in (metric.metric_a, metric.metric_b) if one is not None]
    if any(isinstance(one, Tensor) and one.numel() != 1 for one in operands):
        return Scalar(known=False)
    layouts = [layout_of(one) for one in operands if isinstance(one, Metric)]
    numbers = [layout for layout in layouts if isinstance(layout, Scalar)]
    others = [layout for layout in layouts if not isinstance(layout, Scalar)]
    if not others:
        return Scalar(known=all(layout.known for layout in numbers))
    return others[0] if all(isinstance(one, PerLabel) and one == others[0] for one in others) else Array()


def _classwise(metric: ClasswiseWrapper) -> Layout:
    inner = layout_of(metric.metric)
    size, first, of = (inner.size, inner.first, inner.of) if isinstance(inner, PerLabel) else (None, 0, "class")
    labels = None if metric.labels is None else tuple(metric.labels)
    if labels is not None and size is not None and len(labels) == size + first:
        labels = labels[first:]
    return PerLabel(size, of, first, labels, prefix=metric._prefix or "", postfix=metric._postfix or "")


def _mean_average_precision(metric: MeanAveragePrecision) -> Layout:
    prefixes = [""] if len(metric.iou_type) == 1 else [f"{iou}_" for iou in metric.iou_type]
    limits = metric.max_detection_thresholds
    sizes = ("small", "medium", "large")
    names = ["map", "map_50", "map_75", *(f"map_{s}" for s in sizes), *(f"mar_{n}" for n in limits)]
    names += [f"mar_{s}" for s in sizes]
    per_class = ["map_per_class", f"mar_{limits[-1]}_per_class"]
    if not metric.class_metrics:
        names, per_class = names + per_class, []
    return PerClassSeen(
        per_class=tuple(p + n for p in prefixes for n in per_class),
        scalars=tuple(p + n for p in prefixes for n in names),
    )
