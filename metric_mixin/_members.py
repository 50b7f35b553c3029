"""One metric of a stage, whatever its class -> owned, fed, computed; what torchmetrics puts around it is known here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from copy import deepcopy
from functools import cache
from typing import Any, TypeVar

import torchmetrics
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection, SumMetric
from torchmetrics.metric import CompositionalMetric
from torchmetrics.wrappers import ClasswiseWrapper, MultitaskWrapper, Running
from torchmetrics.wrappers.abstract import WrapperMetric
from torchmetrics.wrappers.transformations import MetricInputTransformer

from metric_mixin._errors import UnknownMetricError
from metric_mixin._families import READ
from metric_mixin._layout import PerLabel, inner_metric, layout_of


def own_metrics(metrics: Mapping[str, Metric], taken: Iterable[Metric] = ()) -> dict[str, Metric]:
    """Return ``metrics`` with those that are, or hold, an object that somebody else has replaced by fresh clones.

    One object in two places would count its rows twice. A network that several metrics use, as in a ``FeatureShare``,
    keeps no rows and stays shared.
    """
    ids = {id(member) for metric in taken for member in metric.modules() if isinstance(member, Metric)}
    own: dict[str, Metric] = {}
    for name, metric in metrics.items():
        members = {id(member) for member in metric.modules() if isinstance(member, Metric)}
        if members & ids:
            metric = copied(metric)
            metric.reset()
        ids |= members
        own[name] = metric
        for module in metric.modules():
            if isinstance(module, MetricCollection):
                _group_nothing(module)
    return own


_Module = TypeVar("_Module", bound=nn.Module)


def copied(module: _Module) -> _Module:
    """Return a copy of metrics; a process group, which nobody can copy, stays the same."""
    groups = (m.process_group for m in module.modules() if isinstance(m, Metric) and m.process_group is not None)
    return deepcopy(module, {id(group): group for group in groups})


def _group_nothing(collection: MetricCollection) -> None:
    """Let a collection inside of a wrapper update each of its metrics: torchmetrics would group them by values.

    Private names set (torchmetrics 1.7.0 and 1.9.0): ``_enable_compute_groups``, which the argument ``compute_groups``
    sets, and ``_groups_checked``.
    """
    collection._enable_compute_groups = False
    collection._groups_checked = False


def check_keywords(names: Collection[str], members: Iterable[Metric], kwargs: dict[str, Any]) -> None:
    taken: set[str] = set()
    for metric in members:
        taken |= accepted(metric, kwargs).keys()
    if unknown := sorted(kwargs.keys() - taken):
        raise UnknownMetricError(
            f"No metric takes the keyword {unknown[0]!r}: expected names that the `update` of one of "
            f"{', '.join(map(repr, names))} has. Got {', '.join(map(repr, kwargs))}."
        )


def accepted(metric: Metric, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments that the ``update`` of a metric names; of a wrapper that hands all on, its metric's."""
    if not kwargs:
        return kwargs
    inner = inner_metric(metric)
    return metric._filter_kwargs(**kwargs) if inner is None else accepted(inner, kwargs)


def begun_update(metric: Metric) -> Callable[..., None]:
    """Return what is to be called, without gradients, to update a metric: past what torchmetrics puts around it.

    That is an eighth of the time of small metrics. Done here instead: the value computed before is void, and the update
    counts. Left out: a hint in the error of inputs on another device, of which ours names the metric.

    Private names used (read: ``Metric._wrap_update`` of torchmetrics 1.7.0, 1.8.0 and 1.9.0): ``_computed``,
    ``_update_count``, ``_enable_grad``. Any other function around the update, and one of another version, is called.
    """
    update: Any = metric.update
    if getattr(update, "__code__", None) is not _around_updates() or metric.compute_on_cpu or metric._enable_grad:
        return update  # type: ignore[no-any-return]
    kept = metric.__dict__
    kept["_computed"] = None
    kept["_update_count"] += 1
    return update.__wrapped__  # type: ignore[no-any-return]


@cache
def _around_updates() -> Any:
    """The code of the function that torchmetrics puts around every update, where it is one that was read."""
    return SumMetric().update.__code__ if torchmetrics.__version__.startswith(READ) else None


def computed(metric: Any) -> Any:
    """Compute one metric, past what torchmetrics would lose or rename.

    A ``ClasswiseWrapper`` drops values that have no label; a collection in another wrapper lifts the entries of a
    metric's dict, and renames them where another metric has the same.
    """
    if type(metric) is ClasswiseWrapper:
        return _per_class(metric.metric)
    if type(metric) is MultitaskWrapper:
        return {task: computed(member) for task, member in metric.items(flatten=False)}
    if isinstance(metric, MetricInputTransformer) and type(metric).compute is MetricInputTransformer.compute:
        return computed(metric.wrapped_metric)
    if isinstance(metric, MetricCollection):
        return {name: computed(member) for name, member in metric.items(copy_state=False)}
    return metric.compute()


def _per_class(metric: Metric) -> Any:
    value = metric.compute()
    if isinstance(value, Tensor) and not value.ndim and not isinstance(layout_of(metric), PerLabel):
        raise TypeError(
            f"expected one value for each class, but {type(metric).__name__} returned one number. `average=None`, or "
            "what its like is called, asks for them"
        )
    return value


def keeps_rows(metric: nn.Module) -> bool:
    """Whether a module is a metric with states of its own, of which others tell nothing, and a reset ends its count."""
    return isinstance(metric, Metric) and not isinstance(metric, WrapperMetric | CompositionalMetric)


def was_updated(metric: nn.Module) -> bool:
    """Whether a metric, or one that it wraps, was updated since its reset, by whomever."""
    if isinstance(metric, Running):  # which resets the metric it wraps after each update
        return metric._num_vals_seen > 0
    return bool(keeps_rows(metric) and metric.update_called) or any(map(was_updated, metric.children()))
