"""What one metric has accumulated: told, taken, put in its place and put back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.wrappers import MinMaxMetric, Running

from metric_mixin._packing import as_bytes, is_dense


class State(NamedTuple):
    """What a metric has accumulated: the number of its updates, and attributes by name, its states above all."""

    updates: int
    states: dict[str, Any]


def updates_of(metric: Metric) -> int:
    """Return how often a metric was updated since its reset."""
    return int(metric._num_vals_seen if isinstance(metric, Running) else metric._update_count)


def set_updates(metric: Metric, updates: int) -> None:
    """Set how often a metric was updated since its reset."""
    if isinstance(metric, Running):
        metric._num_vals_seen = updates
    else:
        metric._update_count = updates


def compute_alone(metric: Metric) -> None:
    """Let ``metric`` and those that it wraps compute from the states they have from now on, without a collective."""
    for _, module in metrics_in(metric):
        module.distributed_available_fn = _no


@contextmanager
def computing_anew_alone(metric: Metric) -> Iterator[None]:
    """Inside, ``metric`` and those that it wraps compute from the states they have, without a collective.

    No value is kept: when one is asked for again, another rank may have had rows.
    """
    kept = [(module, module.distributed_available_fn) for _, module in metrics_in(metric)]
    try:
        for module, _ in kept:
            module._computed = None
        compute_alone(metric)
        yield
    finally:
        for module, available in kept:
            module.distributed_available_fn = available
            module._computed = None


def _no() -> bool:
    return False


@contextmanager
def with_state(metric: Metric, state: State) -> Iterator[None]:
    """Inside, ``metric`` has ``state``."""
    kept = state_of(metric, state.states)
    try:
        set_state(metric, state)
        yield
    finally:
        set_state(metric, kept)


def given_states(module: nn.Module) -> dict[str, State]:
    """Return copies of the states that metrics in ``module`` were given before any row, by their paths."""
    metrics = {path: metric for path, metric in module.named_modules() if isinstance(metric, Metric)}
    given = {path: state_of(metric, metric._defaults) for path, metric in metrics.items() if has_rows(metric)}
    return {path: _copied(state) for path, state in given.items()}


def begin_anew(module: nn.Module, given: Mapping[str, State]) -> None:
    """Give metrics in ``module`` the states ``given``, or their defaults, whatever a ``reset`` of their own keeps."""
    with torch.inference_mode(False):
        for path, metric in module.named_modules():
            if isinstance(metric, Metric):
                set_state(metric, _copied(given.get(path, State(0, metric._defaults))))


def begin_as_declared(clone: Metric, original: Metric, declared: Mapping[int, State]) -> None:
    """Give a clone the states that ``original``, and those in it, were ``declared`` with, by identity; no extremes."""
    with torch.inference_mode(False):
        for metric, known in zip(clone.modules(), original.modules(), strict=True):
            if isinstance(metric, Metric) and (state := declared.get(id(known))) is not None:
                set_state(metric, _copied(state))
                if isinstance(metric, MinMaxMetric):
                    metric.min_val, metric.max_val = torch.tensor(torch.inf), torch.tensor(-torch.inf)


def _copied(state: State) -> State:
    copies = {
        name: value.detach().clone() if isinstance(value, Tensor) else list(value)
        for name, value in state.states.items()
    }
    return State(state.updates, copies)


def state_of(metric: Metric, names: Iterable[str]) -> State:
    """Return what ``metric`` has under these names, as it is."""
    return State(updates_of(metric), {name: getattr(metric, name, _ABSENT) for name in names})


def set_state(metric: Metric, state: State) -> None:
    """Give ``metric`` a state; what was absent when it was taken is absent again."""
    for name, value in state.states.items():
        if value is _ABSENT:
            delattr(metric, name)
        else:
            setattr(metric, name, value)
    set_updates(metric, state.updates)


_ABSENT = object()


def metrics_in(metric: Metric) -> Iterator[tuple[str, Metric]]:
    """The metric and those that it wraps, each behind its path."""
    if not metric._modules:  # `named_modules` hashes a metric, and with it each tensor in its lists
        return iter([("", metric)])
    return ((f".{path}" if path else "", m) for path, m in metric.named_modules() if isinstance(m, Metric))


def has_rows(metric: Metric) -> bool:
    """Whether a metric was updated, or has states from elsewhere: loaded, merged, or left by a ``reset`` of its own."""
    return updates_of(metric) > 0 or any(
        not _is_default(getattr(metric, name), default) for name, default in metric._defaults.items()
    )


def _is_default(state: Any, default: Any) -> bool:
    """Whether a state is what a reset makes of it, to the last bit; of a sparse tensor an update alone can tell."""
    if isinstance(state, list) or isinstance(default, list):
        return isinstance(state, list) and not state
    if not (is_dense(state) and is_dense(default)):
        return True
    return state.shape == default.shape and torch.equal(as_bytes(state), as_bytes(default.to(state)))
