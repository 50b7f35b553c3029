"""One stage's metrics: inputs in, states kept, values by name out; a ``torchmetrics.MetricCollection``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from functools import cache
from typing import Any

import torch
from torchmetrics import Metric, MetricCollection
from torchmetrics.wrappers import ClasswiseWrapper, Running
from torchmetrics.wrappers.abstract import WrapperMetric

from metric_mixin._declare import declare
from metric_mixin._errors import ComputeError, KeyCollisionError, UnknownMetricError, UpdateError, closest
from metric_mixin._keys import check_distinct, expected, flatten
from metric_mixin._layout import inner_metric, layout_of


class StageMetrics(MetricCollection):
    """The metrics of one stage, made like a ``MetricCollection`` and used like one.

    It differs in what its users rely on: names are the paths of the declaration and do not change with their
    neighbours, any legal name may be used (``values``, ``iou@0.5``), ``compute`` takes every kind of value, and
    no two metrics are ever merged because their values happened to be equal.

    Args:
        metrics: A ``Metric``, a sequence of metrics, a mapping from name to metric, mapping or ``MetricCollection``,
            or a ``MetricCollection``. The given objects are used, not copied.
        more: Further metrics after a first one.
        prefix: Put in front of every key.
        postfix: Put behind every key.

    Raises:
        DeclarationError: What was given are no metrics, or a name is not legal or used twice.

    Example:
        >>> from torch import tensor
        >>> from torchmetrics.classification import MulticlassAccuracy
        >>> stage = StageMetrics({"acc": MulticlassAccuracy(2), "each": MulticlassAccuracy(2, average=None)})
        >>> stage.update(tensor([0, 1, 1]), tensor([0, 1, 0]))
        >>> stage.compute()
        {'acc': tensor(0.7500), 'each/0': tensor(0.5000), 'each/1': tensor(1.)}
    """

    def __init__(self, metrics: Any, *more: Any, prefix: str | None = None, postfix: str | None = None) -> None:
        self._fed: dict[str, int]  # storage key -> updates since the last reset
        super().__init__([], prefix=prefix, postfix=postfix, compute_groups=False)
        self._fed = {}
        self.add_metrics(metrics, *more)

    # Declare

    def add_metrics(self, metrics: Any, *additional_metrics: Any) -> None:
        """Add metrics under their names; a name in use is an error."""
        for name, metric in declare(metrics, *additional_metrics, owner=type(self).__name__).items():
            if _store(name) in self._modules:
                raise KeyCollisionError(f"{type(self).__name__} already has a metric named {name!r}.")
            self[name] = metric.clone() if any(metric is other for other in self._modules.values()) else metric
        check_distinct(
            (entry.name, f"metric {name!r}")
            for name in self.names()
            for entry in expected(name, layout_of(self._member(name)))
        )

    def names(self) -> list[str]:
        """Names of the metrics in the order of the declaration, without prefix and postfix."""
        return [_name(key) for key in self._modules]

    # Update

    @torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
    def update(self, *args: Any, **kwargs: Any) -> None:
        """Update every metric; of ``kwargs`` each gets those that its ``update`` names.

        Raises:
            UpdateError: A metric refused its inputs; the message names it.
        """
        self.update_only(None, *args, **kwargs)

    def update_only(self, names: Collection[str] | None, /, *args: Any, **kwargs: Any) -> None:
        """Update the named metrics, or all where ``names`` is ``None``.

        Raises:
            UnknownMetricError: A name is not declared, or no metric takes one of ``kwargs``.
            UpdateError: A metric refused its inputs; the message names it.
        """
        keys = list(self._modules) if names is None else [self._key(name) for name in names]
        for _ in self._feed(keys, _update, args, kwargs):
            pass

    def _feed(
        self, keys: Collection[str], feed: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[tuple[str, Any]]:
        """Hand the inputs to each metric by ``feed`` and yield its name and what that returned."""
        if kwargs:
            self._check_keywords(keys, kwargs)
        for key in keys:
            metric = self._modules[key]
            try:
                value = feed(metric, *args, **_accepted(metric, kwargs))
            except Exception as error:
                raise UpdateError(
                    f"Metric {_name(key)!r} ({type(metric).__name__}) refused its inputs: {str(error).rstrip('.')}. "
                    "What was accumulated since the last reset is void: other metrics may have taken this batch."
                ) from error
            self._fed[key] = self._fed.get(key, 0) + 1
            yield _name(key), value

    def _check_keywords(self, keys: Iterable[str], kwargs: dict[str, Any]) -> None:
        taken: set[str] = set()
        for key in keys:
            taken |= _accepted(self._modules[key], kwargs).keys()
        if unknown := sorted(kwargs.keys() - taken):
            raise UnknownMetricError(
                f"No metric takes the keyword {unknown[0]!r}: expected names that the `update` of one of "
                f"{', '.join(repr(_name(key)) for key in self._modules)} has. Got {', '.join(map(repr, kwargs))}."
            )

    # Compute

    def compute(self) -> dict[str, Any]:
        """Compute every metric and return scalars (0-d tensors) and arrays by key, in the order of the declaration."""
        return self._flat(self.compute_values())

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Update with a batch and return that batch's values, keys as in ``compute``; costs a second update."""
        return self._flat(self._feed(list(self._modules), Metric.__call__, args, kwargs))

    def _flat(self, values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        entries = [
            (name, entry) for name, value in values for entry in flatten(name, layout_of(self._member(name)), value)
        ]
        check_distinct((entry.name, f"metric {name!r}") for name, entry in entries)
        return {self._decorated(entry.name): entry.value for _, entry in entries}

    def compute_values(
        self, names: Collection[str] | None = None, on_error: Callable[[ComputeError], None] | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Yield name and raw value of each metric (of ``names`` only, where given).

        Args:
            names: Metrics to compute; all where ``None``.
            on_error: Called with the error of a metric that fails, which is then left out; ``None`` raises it.

        Raises:
            ComputeError: A metric failed; the message names it.
        """
        for key, metric in self._modules.items():
            if names is not None and _name(key) not in names:
                continue
            try:
                value = _compute(metric)
            except Exception as error:
                failure = ComputeError(
                    f"Metric {_name(key)!r} ({type(metric).__name__}) failed to compute: {type(error).__name__}: "
                    f"{error}. `MetricLogging(on_error='warn')` logs the others without it."
                )
                failure.__cause__ = error
                if on_error is None:
                    raise failure from error
                on_error(failure)
                continue
            yield _name(key), value

    def updated(self, name: str) -> bool:
        """Whether the metric was updated since its last reset, through this collection or by itself."""
        key = self._key(name)
        return self._fed.get(key, 0) > 0 or _was_updated(self._modules[key])

    def expected_keys(self) -> list[str]:
        """Keys of the scalars that class and settings promise."""
        return [
            self._decorated(entry.name)
            for key, metric in self._modules.items()
            for entry in expected(_name(key), layout_of(metric))
        ]

    # Reset

    def reset(self) -> None:
        """Reset every metric to states that can be updated in and outside of inference mode."""
        with torch.inference_mode(False):
            super().reset()
        self._fed.clear()

    # A MetricCollection under any legal name

    def _key(self, name: str) -> str:
        if (key := _store(name)) not in self._modules:
            raise UnknownMetricError(f"No metric is named {name!r}; the closest: {closest(name, self.names())}.")
        return key

    def _member(self, name: str) -> Metric:
        return self._modules[self._key(name)]

    def _decorated(self, name: str) -> str:
        return f"{self.prefix or ''}{name}{self.postfix or ''}"

    def _set_name(self, base: str) -> str:
        return self._decorated(_name(base))

    def _base_key(self, name: str) -> str:
        name = name.removeprefix(self.prefix or "").removesuffix(self.postfix or "")
        return _store(name)

    def __setitem__(self, key: str, module: torch.nn.Module) -> None:
        device = next((metric.device for metric in self._modules.values()), None)
        super().__setitem__(_store(key), module if device is None else module.to(device))
        self._fed.pop(_store(key), None)

    def __getitem__(self, key: str, copy_state: bool = True) -> Metric:
        self._compute_groups_create_state_ref(copy_state)
        return self._member(_name(self._base_key(key)))

    def __delitem__(self, key: str) -> None:
        key = self._key(_name(self._base_key(key)))
        super().__delitem__(key)
        self._fed.pop(key, None)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._base_key(key) in self._modules

    def keys(self, keep_base: bool = False) -> Iterable[Hashable]:  # type: ignore[override]  # as its base has it
        """Names of the metrics, with prefix and postfix unless ``keep_base``."""
        return self.names() if keep_base else super().keys()

    def items(  # type: ignore[override]  # as its base has it
        self, keep_base: bool = False, copy_state: bool = True
    ) -> Iterable[tuple[str, Metric]]:
        """Names and metrics, with prefix and postfix unless ``keep_base``."""
        if keep_base:
            return list(zip(self.names(), self.values(copy_state), strict=True))
        return super().items(keep_base=False, copy_state=copy_state)


def _compute(metric: Metric) -> Any:
    """Compute one metric, for a ``ClasswiseWrapper`` the vector behind it, of which its own zip may drop values."""
    return metric.metric.compute() if type(metric) is ClasswiseWrapper else metric.compute()


def _update(metric: Metric, *args: Any, **kwargs: Any) -> None:
    metric.update(*args, **kwargs)


def _accepted(metric: Metric, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments that the ``update`` of a metric names; of a wrapper that hands all on, its metric's."""
    if not kwargs:
        return kwargs
    inner = inner_metric(metric)
    return metric._filter_kwargs(**kwargs) if inner is None else _accepted(inner, kwargs)


def _was_updated(metric: Metric) -> bool:
    """Whether a metric, or one that it wraps, was updated since its reset, by whomever."""
    if isinstance(metric, Running):  # which resets the metric it wraps after each update
        return metric._num_vals_seen > 0
    members = (m for m in metric.modules() if isinstance(m, Metric) and not isinstance(m, WrapperMetric))
    return any(member.update_called for member in members)


_MARK = "~"


def _store(name: str) -> str:
    """The key under which ``nn.ModuleDict`` can keep a metric called ``name``; the inverse of ``_name``."""
    if name in _taken() or "." in name or name.startswith(_MARK):
        return _MARK + name.replace("%", "%25").replace(".", "%2E")
    return name


def _name(key: str) -> str:
    return key[1:].replace("%2E", ".").replace("%25", "%") if key.startswith(_MARK) else key


@cache
def _taken() -> frozenset[str]:
    """What a module's own attributes are called; ``nn.Module.add_module`` refuses a child of such a name."""
    return frozenset(dir(StageMetrics([])))
