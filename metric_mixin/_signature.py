"""What a metric was declared with: a metric in, its class, settings and states as words out; pure.

Ranks compare these words before they exchange states. They are taken when a metric is declared, since an update may
change what stands on the object.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

_MANY = 100_000  # numbers of a tensor up to which its values are told, by a digest of them


def settings_of(metric: Metric) -> dict[str, str]:
    """Return class, settings and states of a metric and of those that it wraps, each in words.

    Settings are the public attributes that are numbers, strings, dtypes, tensors, ``None`` or sequences of such.

    Examples:
        >>> from torchmetrics.classification import MulticlassConfusionMatrix
        >>> words = settings_of(MulticlassConfusionMatrix(2, ignore_index=-1))
        >>> words[""], words[".ignore_index"], words[".confmat"]
        ('MulticlassConfusionMatrix', '-1', 'torch.int64 of shape (2, 2), dim_zero_sum')
    """
    words: dict[str, str] = {}
    for path, module in metric.named_modules():
        if isinstance(module, Metric):
            at = f".{path}" if path else ""
            words[at] = type(module).__qualname__
            for name, value in (vars(module) | dict(module._buffers)).items():
                if (
                    not name.startswith("_")
                    and name not in module._defaults
                    and name != "training"
                    and _is_plain(value)
                ):
                    words[f"{at}.{name}"] = _in_words(value)
            for name, default in module._defaults.items():
                form = f"{default.dtype} of shape {tuple(default.shape)}" if isinstance(default, Tensor) else "list"
                words[f"{at}.{name}"] = f"{form}, {getattr(module._reductions[name], '__name__', 'no reduction')}"
    return words


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list | frozenset | set):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | complex | str | torch.dtype | Tensor)


def _in_words(value: Any) -> str:
    if isinstance(value, Tensor) and value.numel() > 1:
        whole = value.detach().cpu().reshape(-1).tolist() if value.numel() <= _MANY else []
        return f"{value.dtype} of shape {tuple(value.shape)}, {hashlib.sha256(repr(whole).encode()).hexdigest()[:8]}"
    if isinstance(value, Tensor):
        return repr(value.detach().cpu().reshape(-1).tolist())
    return repr(sorted(value, key=repr)) if isinstance(value, set | frozenset) else repr(value)
