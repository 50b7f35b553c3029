"""What the metric factory returned -> metrics by name; every check of a declaration. Pure: nothing given is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.wrappers import MetricTracker

from metric_mixin._errors import DeclarationError, DeclarationTypeError, KeyCollisionError
from metric_mixin._names import RESERVED, name_fault

_EXPECTED = "a Metric, a sequence of them, a mapping from name to Metric or MetricCollection, or a MetricCollection"


def declare(declared: Any, *more: Any, owner: str = "the declaration") -> dict[str, Metric]:
    """Flatten a declaration to one metric a name, in the order in which it was written.

    Args:
        declared: A ``Metric``, a sequence of metrics (named by their class), a mapping from name to metric or to a
            further mapping, sequence or ``MetricCollection``, a ``MetricCollection``, or ``None`` for no metrics.
        more: Further metrics after a first one, as ``MetricCollection`` takes them.
        owner: What returned ``declared``, for messages.

    Returns:
        Name to metric. A name is the path in the declaration joined by ``/``. The objects are the given ones.

    Raises:
        DeclarationTypeError: Something in it is no metric.
        DeclarationError: A name is not legal, or is the reserved ``loss``.
        KeyCollisionError: Two metrics have one name.

    Examples:
        >>> from torchmetrics.classification import BinaryAccuracy, BinaryF1Score
        >>> list(declare({"all": {"acc": BinaryAccuracy()}, "f1": BinaryF1Score()}))
        ['all/acc', 'f1']
    """
    if more:
        declared = [*(declared if isinstance(declared, list | tuple) else [declared]), *more]
    metrics: dict[str, Metric] = {}
    origins: dict[str, str] = {}
    for name, origin, metric in _walk(declared, "", "", owner):
        if name in metrics:
            raise KeyCollisionError(
                f"{owner} declares two metrics under the name {name!r}: {origins[name]} ({_kind(metrics[name])}) and "
                f"{origin} ({_kind(metric)}). Give one of them another name."
            )
        if name.split("/")[0] == RESERVED:
            raise DeclarationError(
                f"{owner} declares a metric under the name {name!r} ({_kind(metric)}): {RESERVED!r} is reserved for "
                "the loss of the epoch. Give the metric another name."
            )
        metrics[name] = metric
        origins[name] = origin
    return metrics


def _walk(declared: Any, path: str, origin: str, owner: str) -> Iterator[tuple[str, str, Metric]]:
    """Yield name, place in the declaration, and metric, depth first."""
    for name, place, value in _members(declared, path, origin, owner):
        if isinstance(value, Metric):
            if fault := name_fault(name):
                raise DeclarationError(f"{owner} declares a metric under the name {name!r}, which {fault}.")
            yield name, place, value
        else:
            yield from _walk(value, name, place, owner)


def _members(declared: Any, path: str, origin: str, owner: str) -> Iterator[tuple[str, str, Any]]:
    """Yield name, place and value of each direct member of one level."""
    if isinstance(declared, MetricTracker):
        raise DeclarationTypeError(
            f"{owner} declares a MetricTracker{f' under the name {path!r}' if path else ''}: expected the "
            "metric itself. Its best value over epochs is logged by `MetricLogging(track_best={KEY: 'auto'})`."
        )
    if declared is None:
        if path:
            raise DeclarationTypeError(f"{owner} declares None under the name {path!r}: expected {_EXPECTED}.")
        return
    if isinstance(declared, Metric):
        yield _join(path, type(declared).__name__), origin or type(declared).__name__, declared
    elif isinstance(declared, MetricCollection):
        for name, metric in declared.items(keep_base=False, copy_state=True):
            yield _join(path, name), f"{origin}[{name!r}]", metric
    elif isinstance(declared, Mapping | nn.ModuleDict):
        for name, value in declared.items():
            if not isinstance(name, str) or (fault := name_fault(name)):
                fault = name_fault(name)
                raise DeclarationError(f"{owner} declares a metric under the name {name!r}, which {fault}.")
            yield _join(path, name), f"{origin}[{name!r}]", value
    elif isinstance(declared, Sequence | nn.ModuleList) and not isinstance(declared, str | bytes):
        for i, value in enumerate(declared):
            if not isinstance(value, Metric | MetricCollection | MetricTracker):
                raise DeclarationTypeError(
                    f"{owner} returned a sequence whose item {i} is {_kind(value)} {value!r}: expected a Metric or a "
                    "MetricCollection. Metrics with names go into a mapping."
                )
            name = _join(path, type(value).__name__) if isinstance(value, Metric) else path
            yield name, f"{origin}[{i}]", value
    else:
        where = f"declares {_kind(declared)} {declared!r} under the name {path!r}" if path else f"returned {declared!r}"
        raise DeclarationTypeError(f"{owner} {where} ({_kind(declared)}): expected {_EXPECTED}.")


def _join(path: str, name: Any) -> str:
    return f"{path}/{name}" if path else str(name)


def _kind(value: object) -> str:
    return type(value).__name__
