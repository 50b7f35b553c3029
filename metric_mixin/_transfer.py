"""An epoch's entries, on whatever device -> the same with their scalars on the CPU: one transfer a device and dtype."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from metric_mixin._keys import Entry


def on_cpu(keyed: Mapping[str, Entry]) -> dict[str, Entry]:
    """Bring the scalars of an epoch to the CPU.

    Args:
        keyed: Key to entry.

    Returns:
        A new dict in the same order. Scalars are 0-d CPU tensors of the same dtype, without a graph, and usable outside
        of inference mode; those of several labels share their memory, the others have their own. Arrays are untouched.
    """
    alike: dict[tuple[torch.device, torch.dtype], list[str]] = {}
    for key, entry in keyed.items():
        if entry.is_scalar:
            alike.setdefault((entry.value.device, entry.value.dtype), []).append(key)
    result = dict(keyed)
    with torch.inference_mode(False), torch.no_grad():
        for keys in alike.values():
            values: tuple[Tensor, ...] = torch.stack([keyed[key].value for key in keys]).cpu().unbind()
            for key, value in zip(keys, values, strict=True):
                metric, path, label, _, is_scalar, loader = keyed[key]
                own = value.clone() if label is None else value
                result[key] = Entry(metric, path, label, own, is_scalar, loader)
    return result
