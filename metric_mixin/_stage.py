"""One stage's metrics: inputs in, states kept, values by name out; a ``torchmetrics.MetricCollection``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torchmetrics.wrappers.transformations import MetricInputTransformer

from metric_mixin._collection import NamedCollection
from metric_mixin._declare import declare
from metric_mixin._errors import ComputeError, KeyCollisionError, MetricMixinError, UpdateError
from metric_mixin._groups import keeper, safe_groups
from metric_mixin._inputs import exact_numerics, first_device, has_half, prepared
from metric_mixin._insides import check_insides
from metric_mixin._keys import check_distinct, expected, flatten
from metric_mixin._labels import LabelRanges
from metric_mixin._layout import layout_of
from metric_mixin._members import accepted, begun_update, check_keywords, computed, keeps_rows, own_metrics, was_updated
from metric_mixin._memory import Memory, memory_of
from metric_mixin._precision import widened
from metric_mixin._ranks import several_ranks
from metric_mixin._sharing import NOTHING, Counted, Sharing
from metric_mixin._signature import settings_of
from metric_mixin._sync import Unit, synced

_PAIR = {"preds", "target"}


class StageMetrics(NamedCollection):
    """The metrics of one stage, made like a ``MetricCollection`` and used like one.

    It differs in what its users rely on: names are the paths of the declaration and do not change with their
    neighbours, any legal name may be used (``values``, ``iou@0.5``), ``compute`` takes every kind of value,
    metrics share an update only where class and settings prove that they keep one state, labels outside of the classes
    are an error, inputs are detached, and half-precision inputs are accumulated in ``metric_dtype``. A metric in it may
    be updated or reset by itself where it was reached by name or by ``items()`` and ``values()``; an object that was
    given belongs to it.

    Args:
        metrics: A ``Metric``, a sequence of metrics, a mapping from name to metric, mapping or ``MetricCollection``,
            or a ``MetricCollection``. The given objects are used, not copied.
        more: Further metrics after a first one.
        prefix: Put in front of every key.
        postfix: Put behind every key.

    Attributes:
        metric_dtype: Floating-point dtype of states; set it by ``keep_dtype``.

    Raises:
        DeclarationError: What was given are no metrics, or a name is not legal or used twice.

    Examples:
        >>> from torch import tensor
        >>> from torchmetrics.classification import MulticlassAccuracy
        >>> stage = StageMetrics({"acc": MulticlassAccuracy(2), "each": MulticlassAccuracy(2, average=None)})
        >>> stage.update(tensor([0, 1, 1]), tensor([0, 1, 0]))
        >>> stage.compute()
        {'acc': tensor(0.7500), 'each/0': tensor(0.5000), 'each/1': tensor(1.)}
    """

    _left_alone = False
    _resets = 0  # after a compute, by which ranks see that one of them asked once more
    _computed_since_reset = False

    def __init__(self, metrics: Any, *more: Any, prefix: str | None = None, postfix: str | None = None) -> None:
        check_insides()
        super().__init__([], prefix=prefix, postfix=postfix, compute_groups=False)
        self.metric_dtype = torch.float32
        self._fed: set[str] = set()  # names that were updated since the last reset
        self._names: list[str] = []
        self._sharing = Sharing()
        self._ranges = LabelRanges()
        self._declared: dict[str, dict[str, str]] = {}  # name -> its settings, as ranks compare them
        self.add_metrics(metrics, *more)

    # Declare

    def add_metrics(self, metrics: Any, *additional_metrics: Any) -> None:
        """Add metrics under their names; a name in use is an error."""
        known = dict(self._pairs())
        new = declare(metrics, *additional_metrics, owner=type(self).__name__)
        for name in new:
            if name in known:
                raise KeyCollisionError(f"{type(self).__name__} already has a metric named {name!r}.")
        check_distinct(
            (entry.name, f"metric {name!r}")
            for name, metric in (known | new).items()
            for entry in expected(name, layout_of(metric))
        )
        for name, metric in own_metrics(new, known.values()).items():
            self[name] = metric

    def keep_dtype(self, dtype: torch.dtype) -> StageMetrics:
        """Keep floating-point states in ``dtype`` from now on, those of double precision excepted."""
        self.metric_dtype = dtype
        self._settle()
        for _, metric in self._pairs():
            metric._apply(lambda t: t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t)
        self._changed("")
        return self

    def _changed(self, name: str) -> None:
        super()._changed(name)
        self._fed.discard(name)
        metrics = dict(self._pairs())
        self._names = list(metrics)
        changed = [name] if name in metrics else metrics if not name else ()
        self._declared = {key: words for key, words in self._declared.items() if key in metrics}
        self._declared |= {key: settings_of(metrics[key]) for key in changed}
        self._sharing.set_groups(metrics, safe_groups(metrics), changed=name, fed=bool(self._fed))
        self._ranges = LabelRanges(metrics, self._ranges)
        self._groups = dict(enumerate(self._sharing.groups))

    # Update

    @torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
    def update(self, *args: Any, **kwargs: Any) -> None:
        """Update every metric; of ``kwargs`` each gets those that its ``update`` names.

        Raises:
            LabelRangeError: A label is none of the classes; no state has changed.
            UnknownMetricError: No metric takes one of ``kwargs``; no state has changed.
            UpdateError: A metric refused its inputs; the message names it.
        """
        self.update_only(None, *args, **kwargs)

    def update_only(self, names: Collection[str] | None, /, *args: Any, **kwargs: Any) -> None:
        """Update the named metrics, or all where ``names`` is ``None``; a name that is not declared is an error."""
        wanted = self._names if names is None else list(dict.fromkeys(names))
        counted = self._looked_at(wanted, args, kwargs)
        rest = [name for name in wanted if name not in counted.names]
        if rest or not counted.batches:
            half = has_half((args, kwargs))
            args, kwargs = self._prepared(wanted, args, kwargs, labels_of=rest)
            leaders = self._sharing.leaders(rest, self._member)
            self._sharing.count(counted, self._member)
            self._update_each(leaders, args, kwargs, half=half)
        else:
            self._sharing.count(counted, self._member)
        self._fed.update(wanted)

    def _looked_at(self, names: Collection[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Counted:
        """Let families look at a batch of predictions and target; what they accept needs no other check."""
        pair = args if not kwargs else () if args or kwargs.keys() != _PAIR else (kwargs["preds"], kwargs["target"])
        if len(pair) != 2 or type(pair[0]) is not Tensor or type(pair[1]) is not Tensor:
            return NOTHING
        preds = prepared(pair[0], self.metric_dtype) if has_half(pair[0]) else pair[0]
        return self._sharing.looked_at(names, preds, pair[1], self._member)

    def _update_each(
        self, leaders: Collection[str], args: tuple[Any, ...], kwargs: dict[str, Any], *, half: bool
    ) -> None:
        """Update the first of each group; ``half`` where inputs had half precision."""
        try:
            with exact_numerics(self.metric_dtype), torch.no_grad():
                for name in leaders:
                    metric = self._member(name)
                    try:
                        with widened(metric) if half else nullcontext():
                            begun_update(metric)(*args, **accepted(metric, kwargs))
                    except Exception as error:
                        raise self._refused(name, error) from error
        finally:
            self._sharing.updated(leaders, self._member)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Update with a batch and return that batch's values, keys as in ``compute``; costs a second update."""
        names = self.names()
        args, kwargs = self._prepared(names, args, kwargs, labels_of=names)
        self._sharing.part(names, self._member)
        values = []
        with exact_numerics(self.metric_dtype):
            for name in names:
                metric = self._member(name)
                try:
                    values.append((name, metric(*args, **accepted(metric, kwargs))))
                except Exception as error:
                    raise self._refused(name, error) from error
                self._fed.add(name)
        return self._flat(values)

    def _prepared(
        self, names: Collection[str], args: tuple[Any, ...], kwargs: dict[str, Any], labels_of: Collection[str]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Check everything that can be checked before a state changes, and return inputs ready to be accumulated."""
        members = [self._member(name) for name in names]
        if kwargs:
            check_keywords(names, members, kwargs)
        args, kwargs = prepared(args, self.metric_dtype), prepared(kwargs, self.metric_dtype)
        device = first_device((*args, *kwargs.values()))
        if members and device is not None and not self._fed and members[0].device != device:
            self.to(device)
        self._ranges.check(labels_of, args, kwargs)
        return args, kwargs

    def _refused(self, name: str, error: Exception) -> UpdateError:
        return UpdateError(
            f"Metric {name!r} ({type(self._member(name)).__name__}) refused its inputs: {str(error).rstrip('.')}. "
            "What was accumulated since the last reset is void: other metrics may have taken this batch."
        )

    # Compute

    def compute(self) -> dict[str, Any]:
        """Compute every metric and return scalars (0-d tensors) and arrays by key, in the order of the declaration."""
        if not several_ranks():
            return self._flat(self.compute_values())
        fault = self.fault()
        units = [] if fault else self.units()
        own = {"": type(self).__name__, "prefix": repr(self.prefix), "postfix": repr(self.postfix)}
        own["resets after a compute"] = str(self._resets)
        self._computed_since_reset = True
        with synced(units, own | self.declared(), fault=fault), self.left_alone():
            return self._flat(self.compute_values())

    def _flat(self, values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        entries = [
            (name, entry) for name, value in values for entry in flatten(name, layout_of(self._member(name)), value)
        ]
        flat = {self._decorated(entry.name): entry.value for _, entry in entries}
        if len(flat) < len(entries):
            check_distinct((entry.name, f"metric {name!r}") for name, entry in entries)
        return flat

    def compute_values(
        self, names: Collection[str] | None = None, on_error: Callable[[ComputeError], None] | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Yield name and raw value of each metric (of ``names`` only, where given).

        Args:
            names: Metrics to compute; all where ``None``.
            on_error: Called with the error of a metric that fails, which is then left out; ``None`` raises it.

        Raises:
            ComputeError: A metric failed; the message names it.
            LabelRangeError: Labels of this epoch, checked on another device than the CPU, were none of the classes.
        """
        self._ranges.raise_deferred()
        self._compute_groups_create_state_ref()
        for name, metric in self._pairs():
            if names is not None and name not in names:
                continue
            try:
                with exact_numerics(self.metric_dtype):
                    value = computed(metric)
            except Exception as error:
                failure = ComputeError(
                    f"Metric {name!r} ({type(metric).__name__}) failed to compute: {type(error).__name__}: "
                    f"{error}. `MetricLogging(on_error='warn')` logs the others without it."
                )
                failure.__cause__ = error
                if on_error is None:
                    raise failure from error
                on_error(failure)
                continue
            yield name, value

    def units(self, of: str = "") -> list[Unit]:
        """Return the metrics that keep a state, those of one state together; ``of`` says of what, for messages."""
        self._compute_groups_create_state_ref()
        return self._sharing.units(lambda name: (f"metric {name!r}{of}", keeper(self._member(name))))

    @contextmanager
    def left_alone(self) -> Iterator[None]:
        """Inside, nothing is done to make the metrics of a group alike: somebody else gave them their states."""
        before, self._left_alone = self._left_alone, True
        try:
            yield
        finally:
            self._left_alone = before

    def declared(self) -> dict[str, str]:
        """Return what must be the same on all ranks: class, settings and states of each metric, in words."""
        return {
            f"metric {name!r}{setting}": words
            for name, settings in self._declared.items()
            for setting, words in settings.items()
        }

    def fault(self) -> MetricMixinError | None:
        """Return what is wrong with the states, and is raised when they are computed; ``None`` where nothing is."""
        try:
            self._ranges.raise_deferred()
            self._compute_groups_create_state_ref()
        except MetricMixinError as error:
            return error
        return None

    def taken(self, kwargs: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        """Return who takes some of ``kwargs``, and those of them that the ``update`` of one of the metrics names.

        Where nobody takes one of them, which may be misspelt, or there is none, all metrics take part, so that who
        misses it says so.
        """
        each_takes = {name: accepted(metric, kwargs) for name, metric in self._pairs()}
        keys = {key for each in each_takes.values() for key in each}
        all_used = 0 < len(keys) == len(kwargs)
        names = [name for name, each in each_takes.items() if each or not all_used]
        return names, {key: value for key, value in kwargs.items() if key in keys}

    def updated(self, name: str) -> bool:
        """Whether the metric was updated since its last reset, through this collection or by itself."""
        metric = keeper(self._member(name))
        if self._sharing.handed_out and keeps_rows(metric):
            return metric.update_called  # its own state, whoever updated or reset it
        return name in self._fed or was_updated(metric)

    @contextmanager
    def states_from_outside(self, names: Collection[str]) -> Iterator[None]:
        """While the states of ``names`` are set from outside: each stands alone from then on until the next reset."""
        self._sharing.part(names, self._member)
        yield
        self._fed.update(names)

    def expected_keys(self) -> list[str]:
        """Keys of the scalars that class and settings promise."""
        return [
            self._decorated(entry.name) for name, metric in self._pairs() for entry in expected(name, layout_of(metric))
        ]

    def memory(self) -> Memory:
        """Return what each metric keeps now, in bytes, and whether that grows; a look that changes nothing.

        States are freed by ``reset``, so look before it: between two batches, or before the epoch ends.

        Returns:
            A dict from name to a named tuple: ``bytes`` of its states (of metrics that share one state the first has
            all), ``unbounded`` (names of the states that keep every row), ``shared_with`` (names of metrics),
            ``buffers`` (bytes of its parameters and buffers), ``devices``; ``growth`` is ``"fixed"`` or
            ``"unbounded"``. The dict itself has ``counted`` (bytes of what was counted for several metrics at once and
            is not in their states yet) and ``total``, and is a table as ``str``.

        Examples:
            >>> from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision
            >>> stage = StageMetrics({"auroc": BinaryAUROC(), "ap": BinaryAveragePrecision()})
            >>> stage.update(torch.rand(1000), torch.ones(1000, dtype=torch.int64))
            >>> print(stage.memory())
            metric    keeps  growth
            auroc   12.0 kB  unbounded: preds, target
            ap          0 B  shares the state of auroc
            total   12.0 kB
            >>> stage.memory()["auroc"].bytes  # 1,000 scores of 4 bytes, and as many labels of 8
            12000
        """
        groups = [] if self._sharing.handed_out else self._sharing.groups
        return memory_of(dict(self._pairs()), groups, self._sharing)

    # Reset

    def reset(self) -> None:
        """Reset every metric to states that can be updated in and outside of inference mode.

        A setting that was changed on a metric, as its threshold, holds from now on, for that metric alone.
        """
        with torch.inference_mode(False):
            for _, metric in self._pairs():
                metric.reset()
                for member in metric.modules():
                    if isinstance(member, MetricInputTransformer):  # torchmetrics 1.7 leaves the metric in it as it is
                        member.wrapped_metric.reset()
        self._resets += self._computed_since_reset
        self._computed_since_reset = False
        self._fed.clear()
        self._ranges.reset()
        self._sharing.reset(self._member, safe_groups(dict(self._pairs())))
        self._groups = dict(enumerate(self._sharing.groups))

    # States that are shared

    def _compute_groups_create_state_ref(self, copy: bool = False) -> None:
        """Give every metric the state of its group; ``copy`` where metrics are handed out."""
        if "_sharing" in self.__dict__ and not self._left_alone:
            self._sharing.show(self._member, copy=copy)

    def _settle(self) -> None:
        """Give every metric a state of its own, before the collection changes."""
        if "_sharing" in self.__dict__:
            self._sharing.settle(self._member)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Move every metric, whatever was counted for it, without a look at a value."""
        with self._sharing.moved(self._member), self.left_alone():
            return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call,unused-ignore]

    def train(self, mode: bool = True) -> StageMetrics:
        """Set the mode of every metric, without a look at a value."""
        with self.left_alone():
            return super().train(mode)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if any(key.startswith(prefix) for key in state_dict):  # persistent states, each metric's own
            self._sharing.part(self.names(), self._member)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # any of its forms
        """Return states that metrics keep persistently, every metric with the state of its group."""
        self._compute_groups_create_state_ref()
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        return state
