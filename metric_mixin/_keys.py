"""Computed values -> one entry a key, scalars and the arrays that are left; the only place keys are made; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from numbers import Complex, Number, Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metric_mixin._errors import ClassNamesError, DeclarationError, KeyCollisionError, listed
from metric_mixin._layout import Array, Fields, Layout, PerClassSeen, PerLabel, Scalar, Stems
from metric_mixin._names import name_fault


class Entry(NamedTuple):
    """One value under its name.

    Attributes:
        metric: Name of the metric in its declaration.
        path: The metric's name and the keys of dicts below it; what the values of several labels have in common.
        label: The class, label or output that the value belongs to, or ``None``.
        value: A 0-d tensor where ``is_scalar``, otherwise whatever the metric returned.
        is_scalar: Whether the value is logged (or, as an array, kept whole).
        loader: The dataloader, as ``metric_key`` gets it.
    """

    metric: str
    path: str
    label: str | None
    value: Any
    is_scalar: bool = True
    loader: str | int | None = None

    @property
    def name(self) -> str:
        """What follows the stage in the key."""
        return self.path if self.label is None else f"{self.path}/{self.label}"


def flatten(metric: str, layout: Layout, value: Any, names: Sequence[str] | None = None) -> list[Entry]:
    """Take one metric's computed value apart into entries.

    Args:
        metric: The metric's name.
        layout: What its class and settings say it returns.
        value: What ``compute`` returned, e.g. a tensor of shape ``()`` or ``(C,)``, a dict or a tuple.
        names: Names of the classes in order, or ``None`` for their indices.

    Returns:
        Entries in the order of the value. Dtypes and devices are unchanged; Python numbers become 0-d tensors.

    Raises:
        ClassNamesError: There is another number of names than of classes.

    Examples:
        >>> from torch import tensor
        >>> [e.name for e in flatten("recall", PerLabel(2), tensor([1.0, 0.5]), ["cat", "dog"])]
        ['recall/cat', 'recall/dog']
        >>> [e.name for e in flatten("map", Scalar(known=False), {"map_50": tensor(0.5)})]
        ['map/map_50']
    """
    return list(_flatten(metric, metric, layout, value, names))


def expected(metric: str, layout: Layout, names: Sequence[str] | None = None) -> list[Entry]:
    """Return the entries that class and settings promise, without values; what they do not tell is left out.

    Raises:
        ClassNamesError: There is another number of names than of classes.
        DeclarationError: A part of a name is not legal.
    """
    return list(_expected(metric, metric, layout, names))


def check_distinct(keys: Iterable[tuple[str, str]], remedy: str = "Rename one of them.") -> None:
    """Raise ``KeyCollisionError`` where two sources have one key; ``keys`` are pairs of key and source."""
    sources: dict[str, str] = {}
    for key, source in keys:
        if key in sources:
            raise KeyCollisionError(f"Two sources for the key {key!r}: {sources[key]} and {source}. {remedy}")
        sources[key] = source


def _flatten(metric: str, path: str, layout: Layout, value: Any, names: Sequence[str] | None) -> Iterator[Entry]:
    if isinstance(value, Mapping) and not isinstance(layout, PerLabel):
        if isinstance(layout, PerClassSeen):
            yield from _per_class_seen(metric, path, layout, value, names)
            return
        known = layout.fields if isinstance(layout, Fields) else {}
        other = layout if isinstance(layout, Array) else Scalar(known=False)
        for key, part in value.items():
            _check_part(metric, key)
            if isinstance(layout, Stems):
                key = str(key).partition("_")[0]
            yield from _flatten(metric, f"{path}/{key}", known.get(str(key), other), part, names)
        if isinstance(layout, Stems):
            yield Entry(metric, f"{path}/groups", None, list(value), is_scalar=False)
    elif isinstance(layout, PerLabel) and (values := _vector(value)) is not None:
        if layout.size not in (None, len(values)):
            scalar = _scalar(value)
            yield Entry(metric, path, None, value if scalar is None else scalar, is_scalar=scalar is not None)
            return
        for label, one in zip(_labels(metric, layout, len(values), _fixed(names)), values, strict=True):
            yield Entry(metric, path, label, one)
    elif not isinstance(layout, Array) and (scalar := _scalar(value)) is not None:
        yield Entry(metric, path, None, scalar)
    else:
        yield Entry(metric, path, None, value, is_scalar=False)


def _expected(metric: str, path: str, layout: Layout, names: Sequence[str] | None) -> Iterator[Entry]:
    if isinstance(layout, Fields):
        for key, part in layout.fields.items():
            _check_part(metric, key)
            yield from _expected(metric, f"{path}/{key}", part, names)
    elif isinstance(layout, PerClassSeen | Stems):
        keys = layout.stems if isinstance(layout, Stems) else layout.scalars
        yield from (Entry(metric, f"{path}/{key}", None, None) for key in keys)
    elif isinstance(layout, PerLabel):
        size = layout.size
        if size is None and layout.labels is not None:
            size = len(layout.labels)
        if size is not None:
            yield from (Entry(metric, path, label, None) for label in _labels(metric, layout, size, _fixed(names)))
    elif isinstance(layout, Scalar):
        yield Entry(metric, path, None, None)


def _check_part(metric: str, key: Any) -> None:
    if fault := name_fault(str(key)):
        raise DeclarationError(
            f"Metric {metric!r} returns a dict with the key {key!r}, which {fault}. Return it under a key that can be "
            "a part of a logger's key; a wrapper's or a collection's prefix and postfix are part of it."
        )


def _fixed(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(map(str, names))


@lru_cache(maxsize=256)  # of thousands of classes, the check of each name takes longer than all else that is done here
def _labels(metric: str, layout: PerLabel, count: int, names: tuple[str, ...] | None) -> Sequence[str]:
    """The name of each of ``count`` values, from the metric's own labels, the given names, or the indices."""
    labels = layout.labels
    if labels is None and names is not None:
        labels, wanted = names[layout.first :], count + layout.first
        if len(names) != wanted:
            raise ClassNamesError(
                f"Metric {metric!r} has {wanted} {_PLURAL[layout.of]}, but `class_names` gives it {len(names)}: "
                f"{listed(names)}. Give one name for each, in order."
            )
    if labels is None:
        labels = tuple(str(i + layout.first) for i in range(count))
    if len(labels) != count:
        raise ClassNamesError(
            f"Metric {metric!r} has {count} {_PLURAL[layout.of]}, but its `labels` are {len(labels)}: "
            f"{listed(labels)}. Give one label for each, in order."
        )
    return _checked(metric, tuple(f"{layout.prefix}{label}{layout.postfix}" for label in labels))


def _checked(metric: str, labels: Sequence[str]) -> Sequence[str]:
    """The labels of one metric, each legal and no two alike."""
    for label in labels:
        if fault := name_fault(label):
            raise ClassNamesError(f"Metric {metric!r} has the label {label!r}, which {fault}.")
    if len(set(labels)) < len(labels):
        twice = sorted({label for label in labels if labels.count(label) > 1})
        raise ClassNamesError(f"Metric {metric!r} has the label {listed(twice)} more than once.")
    return labels


_PLURAL = {"class": "classes", "output": "outputs"}


def _per_class_seen(
    metric: str, path: str, layout: PerClassSeen, value: Mapping[str, Any], names: Sequence[str] | None
) -> Iterator[Entry]:
    """Detection: entries with one number for each class seen, or of one class, named by that class."""
    classes = torch.as_tensor(value.get("classes", ())).reshape(-1).int().tolist()
    labels = _checked(metric, [_class_name(metric, index, names) for index in classes])
    for key, part in value.items():
        scalar = _scalar(part)
        values = _vector(part) if key in layout.per_class else None
        if layout.mark and key.startswith(layout.mark) and scalar is not None:
            label = _class_name(metric, int(key.removeprefix(layout.mark)), names)
            _checked(metric, [label])
            yield Entry(metric, f"{path}/{layout.mark.rpartition('/')[0]}", label, scalar)
        elif key in layout.scalars and scalar is not None:
            yield Entry(metric, f"{path}/{key}", None, scalar)
        elif values is None or len(values) != len(classes):
            yield Entry(metric, f"{path}/{key}", None, part, is_scalar=False)
        else:
            for label, one in zip(labels, values, strict=True):
                yield Entry(metric, f"{path}/{key}", label, one)


def _class_name(metric: str, index: int, names: Sequence[str] | None) -> str:
    if names is None:
        return str(index)
    if not 0 <= index < len(names):
        raise ClassNamesError(
            f"Metric {metric!r} saw class {index}, but `class_names` gives it {len(names)}: {listed(names)}. "
            "Give one name for each class from 0 on."
        )
    return names[index]


def _vector(value: Any) -> Sequence[Any] | None:
    """The real values of a 0-d or 1-d tensor, of a row, or of a dict of scalars in its order; ``None`` for others."""
    if isinstance(value, Mapping):
        scalars = [_scalar(one) for one in value.values()]
        return None if not scalars or any(one is None for one in scalars) else scalars
    if not isinstance(value, Tensor) or not _has_numbers(value) or not value.numel():
        return None
    return value.reshape(-1).unbind() if value.ndim <= 1 or (value.ndim == 2 and len(value) == 1) else None


def _scalar(value: Any) -> Tensor | None:
    """A real number as a 0-d tensor, or ``None``."""
    if isinstance(value, Tensor):
        return value.reshape(()).as_subclass(Tensor) if _has_numbers(value) and value.numel() == 1 else None
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()
    if not isinstance(value, Number) or (isinstance(value, Complex) and not isinstance(value, Real)):
        return None
    try:
        return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # a number that no dtype holds: fractions, 2**70
        return _as_float(value)


def _has_numbers(value: Tensor) -> bool:
    """Whether a tensor has real numbers in memory: none of the meta device, sparse, nested or quantized."""
    without = value.is_meta or value.is_nested or value.is_quantized or value.is_complex()
    return value.layout == torch.strided and not without


def _as_float(value: Any) -> Tensor | None:
    try:
        return torch.tensor(float(value), dtype=torch.float64)
    except (TypeError, ValueError, OverflowError):  # 10**400
        return None
