"""What ranks compare: a metric in, its class, settings and states as words out; where words differ, an error; pure.

Ranks compare these words before they exchange states. They are taken when a metric is declared, since an update may
change what stands on the object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from metric_mixin._errors import MetricMixinError, SyncError

_NO_SETTING = ("training", "process_group")  # of a group only the ranks in it have an object
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
            for name, value in plain_attributes(module):
                words[f"{at}.{name}"] = _in_words(value)
            for name, default in module._defaults.items():
                form = f"{default.dtype} of shape {tuple(default.shape)}" if isinstance(default, Tensor) else "list"
                words[f"{at}.{name}"] = f"{form}, {getattr(module._reductions[name], '__name__', 'no reduction')}"
    return words


def plain_attributes(metric: Metric) -> Iterator[tuple[str, Any]]:
    """Yield name and value of the public attributes that are no states, and are numbers, strings, tensors or such."""
    for name, value in (vars(metric) | dict(metric._buffers)).items():
        if not name.startswith("_") and name not in metric._defaults and name not in _NO_SETTING and _is_plain(value):
            yield name, value


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list | frozenset | set):
        return all(map(_is_plain, value))
    if isinstance(value, Tensor):
        return value.layout == torch.strided and not value.is_quantized and not value.is_meta
    return value is None or isinstance(value, bool | int | float | complex | str | torch.dtype)


def _in_words(value: Any) -> str:
    if isinstance(value, Tensor) and value.numel() > 1:
        whole = value.detach().cpu().reshape(-1).tolist() if value.numel() <= _MANY else []
        return f"{value.dtype} of shape {tuple(value.shape)}, {hashlib.sha256(repr(whole).encode()).hexdigest()[:8]}"
    if isinstance(value, Tensor):
        return repr(value.detach().cpu().reshape(-1).tolist())
    return repr(sorted(value, key=repr)) if isinstance(value, set | frozenset) else repr(value)


def raise_faults(faults: Mapping[int, tuple[type[MetricMixinError], str] | None]) -> None:
    """Raise the first fault of a rank, which every rank got."""
    for rank, fault in faults.items():
        if fault is not None:
            kind, message = fault
            raise kind(f"On rank {rank}: {message}")


def raise_differences(words: Mapping[int, Mapping[str, str]]) -> None:
    """Raise ``SyncError`` where what ranks have in words is not the same on all, saying who has what."""
    names = dict.fromkeys(name for its in words.values() for name in its)
    _raise_different({name: {rank: its.get(name, "absent") for rank, its in words.items()} for name in names})


def raise_other_forms(name: str, parts: Mapping[int, Any]) -> None:
    """Raise where one state is a tensor of another dtype or shape on some ranks, dimensions of one aside."""
    forms = {
        rank: f"{part.dtype} of shape {tuple(n for n in part.shape if n != 1)}"
        for rank, part in parts.items()
        if isinstance(part, Tensor)
    }
    _raise_different({name: forms})


def _raise_different(values: Mapping[str, Mapping[int, str]]) -> None:
    different = {name: by_rank for name, by_rank in values.items() if len(set(by_rank.values())) > 1}
    if not different:
        return
    shown = [f"{name} is {_told(by_rank)}" for name, by_rank in list(different.items())[:_SHOWN]]
    more = f"; and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
    raise SyncError(
        f"The ranks came to exchange metrics and differ: {'; '.join(shown)}{more}. Every rank must declare the same "
        "metrics with the same settings, and end the same epochs of the same stages in the same order. What is a "
        "rank's own on a metric, such as a folder, is left out where its name begins with an underscore."
    )


_SHOWN = 5


def _told(by_rank: Mapping[int, str]) -> str:
    ranks: dict[str, list[str]] = {}
    for rank, value in by_rank.items():
        ranks.setdefault(value, []).append(str(rank))
    return ", ".join(f"{value} on rank {' and '.join(its)}" for value, its in ranks.items())
