"""States and best values to and from a checkpoint: a stage in, tensors and plain containers out, and back.

The entry says the epoch and the batches done, since states fit only where ``fit`` goes on in that very epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat, dim_zero_max, dim_zero_min, dim_zero_sum
from torchmetrics.wrappers import Running

from metric_mixin._errors import ResumeError
from metric_mixin._inputs import describe
from metric_mixin._merge import merged_state
from metric_mixin._record import Part, StageRecord
from metric_mixin._states import set_updates, updates_of

ENTRY = "metric_mixin"
VERSION = 1
_POOLED = "pooled"
_HINT = "Load the checkpoint with `MetricLogging(checkpoint_states=False)` to go on without it."


def states_of(record: StageRecord) -> dict[str, Any]:
    """Return the rows of a stage so far: by dataloader, metric and module, states on the CPU."""
    return {str(index): _part_states(part) for index, part in record.parts.items() if part.pending()}


def extremes_of(record: StageRecord) -> dict[str, Any]:
    """Return what outlasts a reset, the extremes of each ``MinMaxMetric``, by dataloader and path."""
    parts = {str(index): part for index, part in record.parts.items()}
    if record.all_rows is not None:
        parts[_POOLED] = record.all_rows
    return {
        of: {path: [metric.min_val.cpu(), metric.max_val.cpu()] for path, metric in part.lasting().items()}
        for of, part in parts.items()
    }


def checked_entry(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the entry of a checkpoint, or ``None`` where it has none.

    Raises:
        ResumeError: The entry is damaged, or is none of ours.
    """
    entry = checkpoint.get(ENTRY)
    if entry is None:
        return None
    if not isinstance(entry, dict) or entry.get("version") != VERSION:
        got = entry.get("version") if isinstance(entry, dict) else describe(entry)
        raise ResumeError(f"The checkpoint's entry {ENTRY!r} must be a dict of version {VERSION}, got {got}. {_HINT}")
    for field, kind in (("best", dict), ("train", list), ("extremes", dict), ("epoch", int), ("batches", int)):
        if not isinstance(entry.get(field), kind):
            raise ResumeError(
                f"The checkpoint's entry {ENTRY!r} is damaged: {field!r} must be {kind.__name__}, got "
                f"{describe(entry.get(field))}. {_HINT}"
            )
    for key, kept in entry["best"].items():
        value = kept.get("value") if isinstance(kept, dict) else None
        if not isinstance(value, Tensor) or value.ndim or kept.get("mode") not in ("max", "min"):
            raise ResumeError(
                f"The checkpoint's entry {ENTRY!r} is damaged: the best value of {key!r} must be a mode and a 0-d "
                f"tensor, got {describe(kept)}. {_HINT}"
            )
    for parts in entry["extremes"].values():
        for kept in parts.values() if isinstance(parts, dict) else (parts,):
            if not (isinstance(kept, dict) and all(map(_is_pair, kept.values()))) and kept != []:  # of no metric, once
                raise ResumeError(
                    f"The checkpoint's entry {ENTRY!r} is damaged: 'extremes' must hold two numbers as tensors by "
                    f"stage, dataloader and path, got {describe(kept)}. {_HINT}"
                )
    for rank in entry["train"]:
        for states in rank.values() if isinstance(rank, dict) else (rank,):
            if not isinstance(states, dict) or not isinstance(states.get("metrics"), dict):
                raise ResumeError(
                    f"The checkpoint's entry {ENTRY!r} is damaged: 'train' must hold states by rank and dataloader, "
                    f"got {describe(states)}. {_HINT}"
                )
    return entry


def _is_pair(kept: Any) -> bool:
    return (
        isinstance(kept, list) and len(kept) == 2 and all(isinstance(one, Tensor) and one.numel() == 1 for one in kept)
    )


def restore_extremes(record: StageRecord, entry: Mapping[str, Any]) -> None:
    """Give each ``MinMaxMetric`` the extremes that ``extremes_of`` saved, where it had some."""
    for of, kept in entry.items():
        part = record.for_all_rows() if of == _POOLED else record.part(int(of))
        for path, metric in part.lasting().items():
            if path in kept:
                metric.min_val, metric.max_val = kept[path]


def merged_states(record: StageRecord, ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the rows that several ranks saved as those of one, metrics left out whose states cannot go on from there.

    Sums, extremes and lists can; a mean, or a state without a reduction, cannot be updated once it was merged.
    """
    merged: dict[str, Any] = {}
    for index in dict.fromkeys(index for states in ranks for index in states):
        part = record.part(int(index))
        saved = [states[index] for states in ranks if index in states]
        metrics = {}
        for name, metric in part.metrics.items(copy_state=False):
            parts = [states["metrics"][name] for states in saved if name in states["metrics"]]
            if all(_fits(metric, one) for one in parts) and parts and _can_go_on(metric):
                metrics[name] = _merged(metric, parts)
        losses = [states["loss"] for states in saved if states["loss"]]
        rows = [states.get("rows") for states in saved]
        merged[index] = {
            "metrics": metrics,
            "loss": _merged(part.loss, losses) if losses else {},
            "rows": None if None in rows else sum(rows),
        }
    return merged


_GOES_ON = (dim_zero_sum, dim_zero_max, dim_zero_min)


def _can_go_on(metric: Metric) -> bool:
    return all(
        not isinstance(module, Running)
        and all(
            reduction in _GOES_ON or (isinstance(module._defaults[name], list) and reduction in (dim_zero_cat, None))
            for name, reduction in module._reductions.items()
        )
        for module in metric.modules()
        if isinstance(module, Metric)
    )


def _merged(metric: Metric, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    modules: dict[str, Any] = dict(metric.named_modules())
    return {
        path: {
            "count": sum(part[path]["count"] for part in parts),
            "state": {
                name: merged_state([part[path]["state"][name] for part in parts], modules[path]._reductions[name])
                for name in saved["state"]
            },
        }
        for path, saved in parts[0].items()
    }


def restore_states(record: StageRecord, entry: Mapping[str, Any]) -> list[str]:
    """Give a stage the rows that ``states_of`` saved.

    Returns:
        Names of the metrics that have no states in the entry, or others than they have now; they begin without rows.
    """
    missing: list[str] = []
    for index, states in entry.items():
        part = record.part(int(index))
        metrics = dict(part.metrics.items(copy_state=False))
        names = [name for name, metric in metrics.items() if _fits(metric, states["metrics"].get(name))]
        missing += [name for name in metrics if name not in names]
        with part.metrics.states_from_outside(names):
            for name in names:
                _restore(metrics[name], states["metrics"][name])
        if states.get("loss"):
            _restore(part.loss, states["loss"])
        part.rows = states.get("rows")
    return missing


def _part_states(part: Part) -> dict[str, Any]:
    members = part.metrics.items(copy_state=False)
    metrics = {name: _states(metric) for name, metric in members if part.metrics.updated(name)}
    return {
        "metrics": metrics,
        "loss": _states(part.loss) if part.loss.update_called else {},
        "rows": part.rows,
    }


def _states(metric: Metric) -> dict[str, Any]:
    """States of a metric and of those that it wraps, by the path of the module."""
    return {
        path: {
            "count": updates_of(module),
            "state": {name: _on_cpu(getattr(module, name)) for name in module._defaults},
        }
        for path, module in metric.named_modules()
        if isinstance(module, Metric)
    }


def _on_cpu(state: Any) -> Any:
    """States as plain tensors, the only ones that a checkpoint may hold; predictions can be of any subclass."""
    if isinstance(state, Tensor):
        return state.detach().cpu().clone().as_subclass(Tensor)
    return [_on_cpu(item) for item in state]


def _fits(metric: Metric, kept: Any) -> bool:
    """Whether states of this kind, shape and dtype are those of the metric as it is now declared."""
    modules = {path: module for path, module in metric.named_modules() if isinstance(module, Metric)}
    if not isinstance(kept, dict) or kept.keys() != modules.keys():
        return False
    for path, module in modules.items():
        state = kept[path].get("state") if isinstance(kept[path], dict) else None
        if not isinstance(state, dict) or state.keys() != module._defaults.keys():
            return False
        for name, default in module._defaults.items():
            value = state[name]
            if isinstance(default, Tensor):
                if not isinstance(value, Tensor) or _form(value) != _form(default):
                    return False
            elif not isinstance(value, list) or not all(isinstance(item, Tensor) for item in value):
                return False
    return True


def _form(state: Tensor) -> tuple[Any, ...]:
    """Dtype and shape, without dimensions of one, of which torchmetrics 1.7 drops one at times."""
    return state.dtype, tuple(n for n in state.shape if n != 1)


def _restore(metric: Metric, kept: Mapping[str, Any]) -> None:
    modules: dict[str, Any] = dict(metric.named_modules())
    with torch.inference_mode(False):
        for path, saved in kept.items():
            module = modules[path]
            for name, value in saved["state"].items():
                device = module.device
                moved = value.to(device).clone() if isinstance(value, Tensor) else [item.to(device) for item in value]
                setattr(module, name, moved)
            module._computed = None
            set_updates(module, int(saved["count"]))
