"""Sums of many half-precision inputs: states in, states out that are the rounded value of a wider sum.

A sum of 3,000 numbers on the coarse grid of a half precision rounds the same way again and again in float32: the mean
square of 1 ... 3000 is off by 1e-5. While such inputs are accumulated, states that are sums are widened to float64 for
the update, and what rounding takes away is kept until the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_sum

_LOST = "_metric_mixin_lost"  # state -> its tensor and what rounding took away from it


@contextmanager
def widened(metric: Metric) -> Iterator[None]:
    """Widen the float32 sums of a torchmetrics metric, and of those that it wraps, for one update."""
    sums = [
        (module, name)
        for module in metric.modules()
        if isinstance(module, Metric) and type(module).__module__.startswith("torchmetrics.")
        for name, reduction in module._reductions.items()
        if reduction is dim_zero_sum and _is_float32(getattr(module, name)) and module.device.type != "mps"
    ]
    for module, name in sums:
        state: Tensor = getattr(module, name)
        kept, lost = module.__dict__.get(_LOST, {}).get(name, (None, None))
        wide = state.double()
        setattr(module, name, wide + lost if kept is state and lost is not None else wide)
    try:
        yield
    finally:
        for module, name in sums:
            wide = getattr(module, name)
            state = wide.float()
            module.__dict__.setdefault(_LOST, {})[name] = (state, wide - state)
            setattr(module, name, state)


def _is_float32(state: Any) -> bool:
    return isinstance(state, Tensor) and state.dtype == torch.float32
