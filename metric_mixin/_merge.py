"""States of one metric from several places -> one state, by the metric's own reductions; as if it had seen all rows.

Sources: ``Metric._sync_dist`` (torchmetrics 1.9.0), whose semantics of reductions this keeps: tensors are stacked and
reduced, lists are joined, in the order of the places. It is left where it raises or loses rows: an average of integers
is a float, and ``"cat"`` joins tensors of rows, and lists with tensors, as it joins lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat, dim_zero_mean, dim_zero_sum
from torchmetrics.wrappers import Running


def merge_into(merged: Metric, parts: Sequence[Metric]) -> None:
    """Give ``merged`` the state of all of ``parts``, which were made alike and have each seen rows.

    Metrics that they wrap are merged likewise. States keep dtype and device of the first part, averages of
    integers excepted.
    """
    modules = [dict(part.named_modules()) for part in parts]
    for path, target in merged.named_modules():
        if not isinstance(target, Metric):
            continue
        sources: list[Any] = [module[path] for module in modules]
        if isinstance(target, Running):
            _merge_windows(target, sources)
            continue
        for state, reduce in target._reductions.items():
            setattr(target, state, merged_state([getattr(source, state) for source in sources], reduce))
        target._update_count = sum(source._update_count for source in sources)
        target._computed = None


def _merge_windows(merged: Running, sources: Sequence[Running]) -> None:
    """Give ``merged`` the last batches of all places, which came one after the other."""
    window, states = merged.window, list(merged.base_metric._defaults)
    batches = [
        {state: getattr(source, f"{state}_{i % window}") for state in states}
        for source in sources
        for i in range(max(0, source._num_vals_seen - window), source._num_vals_seen)
    ][-window:]
    for i, batch in enumerate(batches):
        for state, value in batch.items():
            setattr(merged, f"{state}_{i}", value.clone() if isinstance(value, Tensor) else list(value))
    merged._num_vals_seen = len(batches)


def merged_state(states: Sequence[Any], reduce: Any) -> Any:
    """Merge one state; ``reduce`` is what the metric gave as ``dist_reduce_fx``."""
    if any(isinstance(state, list) for state in states):
        joined = [item for state in states for item in (state if isinstance(state, list) else [state])]
        return joined if reduce is None or reduce is dim_zero_cat or not joined else reduce(joined)
    if len(states) == 1:
        return states[0].clone()
    if reduce is dim_zero_cat:
        return dim_zero_cat(list(states))
    shape = max((state.shape for state in states), key=len)  # of one value torchmetrics 1.7 drops a dimension at times
    stacked = torch.stack([state.to(states[0].device).reshape(shape) for state in states])
    if reduce is dim_zero_mean and not stacked.is_floating_point() and not stacked.is_complex():
        stacked = stacked.float()  # torch has no mean of integers
    reduced: Tensor = stacked if reduce is None else reduce(stacked)
    return reduced.to(torch.uint64) if stacked.dtype == torch.uint64 and reduce is dim_zero_sum else reduced
