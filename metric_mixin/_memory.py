"""Metrics as they stand -> the bytes that each keeps now, and which of its states grow with the rows; pure."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat
from torchmetrics.wrappers import Running


class Kept(NamedTuple):
    """What one metric keeps.

    Attributes:
        bytes: What its states take now, those of metrics that it wraps included. Of metrics that share a state the
            first has the bytes of all, and the others none.
        unbounded: Names of its states that keep every row until the reset.
        shared_with: Names of metrics that keep one state with it, which is updated once for all of them.
        buffers: Bytes of its parameters and buffers, e.g. a network or thresholds; one that a metric before it has too
            counts there alone.
        devices: Where states, parameters and buffers are.
    """

    bytes: int
    unbounded: tuple[str, ...] = ()
    shared_with: tuple[str, ...] = ()
    buffers: int = 0
    devices: tuple[str, ...] = ()

    @property
    def growth(self) -> Literal["fixed", "unbounded"]:
        """Whether ``bytes`` stay as they are from the first batch on, or grow with every batch until the reset."""
        return "unbounded" if self.unbounded else "fixed"


class Memory(dict[str, Kept]):
    """What each metric of a stage keeps, by name; ``str()`` is a table.

    Attributes:
        counted: Bytes of what was counted for several metrics at once, beside their states: put into them when they
            are looked at.
    """

    def __init__(self, kept: Mapping[str, Kept], counted: int = 0) -> None:
        super().__init__(kept)
        self.counted = counted

    @property
    def total(self) -> int:
        """All bytes: states, parameters and buffers, and what is counted."""
        return sum(one.bytes + one.buffers for one in self.values()) + self.counted

    def __str__(self) -> str:
        rows = [("metric", "keeps", "growth")]
        names = list(self)
        for name, one in self.items():
            first = min((name, *one.shared_with), key=names.index)
            rows.append((name, readable(one.bytes + one.buffers), _words(name, one, first)))
        if self.counted:
            rows.append(("(counted)", readable(self.counted), "fixed"))
        rows.append(("total", readable(self.total), ""))
        wide, narrow = (max(len(row[i]) for row in rows) for i in (0, 1))
        return "\n".join(f"{name:{wide}}  {size:>{narrow}}  {words}".rstrip() for name, size, words in rows)


def memory_of(metrics: Mapping[str, Metric], groups: Iterable[Sequence[str]], beside: object) -> Memory:
    """Measure metrics as they stand; nothing is changed, copied or moved.

    Args:
        metrics: Metrics by name.
        groups: Names of metrics that share a state, in groups.
        beside: What else holds tensors for them: an object, of whose attributes those in containers and in objects of
            this package are found.
    """
    seen: set[int] = set()
    together = {name: sorted(group, key=list(metrics).index) for group in groups for name in group}
    kept = {name: _kept(name, metrics, together.get(name, [name]), seen) for name in metrics}
    return Memory(kept, sum(_size(tensor) for tensor in _tensors_beside(beside, set()) if _is_new(tensor, seen)))


def _kept(name: str, metrics: Mapping[str, Metric], group: Sequence[str], seen: set[int]) -> Kept:
    metric = metrics[name]
    states = list(_states(metric))
    parts = [*metric.parameters(), *metric.buffers()]
    of_group = [value for member in group for *_, value in _states(metrics[member])] if name == group[0] else []
    tensors = [leaf for leaf in _leaves([value for *_, value in states]) if isinstance(leaf, Tensor)]
    return Kept(
        bytes=sum(_size(leaf) for leaf in _leaves(of_group) if _is_new(leaf, seen)),
        unbounded=tuple(dict.fromkeys(state for owner, state, _ in states if _grows(owner, state))),
        shared_with=tuple(other for other in group if other != name),
        buffers=sum(_size(part) for part in parts if _is_new(part, seen)),
        devices=tuple(dict.fromkeys(str(tensor.device) for tensor in (*tensors, *parts))),
    )


def _states(metric: Metric) -> Iterator[tuple[Metric | None, str, Any]]:
    """The states of a metric and of those that it wraps, each with its owner; ``None`` where only a window is kept."""
    windows: set[nn.Module] = set()
    for module in metric.modules():
        if isinstance(module, Running):
            windows |= set(module.modules())
        if isinstance(module, Metric):
            for name in module._defaults:
                yield None if module in windows else module, name, getattr(module, name)


def _grows(metric: Metric | None, state: str) -> bool:
    """Whether a state keeps rows: a list, or a tensor to which each update appends."""
    if metric is None:
        return False
    return isinstance(metric._defaults[state], list) or metric._reductions[state] is dim_zero_cat


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        yield value
        return
    for part in value:
        yield from _leaves(part)


def _tensors_beside(value: Any, visited: set[int]) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif not isinstance(value, nn.Module | str) and id(value) not in visited:
        visited.add(id(value))
        if isinstance(value, Mapping):
            parts: Collection[Any] = value.values()
        elif isinstance(value, list | tuple | set | frozenset):
            parts = value
        else:
            parts = vars(value).values() if type(value).__module__.startswith("metric_mixin.") else ()
        for part in parts:
            yield from _tensors_beside(part, visited)


def _is_new(leaf: Any, seen: set[int]) -> bool:
    """Whether it is met for the first time: one object in two places takes its bytes once."""
    if id(leaf) in seen:
        return False
    seen.add(id(leaf))
    return True


def _size(leaf: Any) -> int:
    return leaf.numel() * leaf.element_size() if isinstance(leaf, Tensor) else sys.getsizeof(leaf)


def _words(name: str, kept: Kept, first: str) -> str:
    if first != name:
        return f"shares the state of {first}"
    devices = "" if set(kept.devices) <= {"cpu"} else f"; on {', '.join(kept.devices)}"
    return f"{kept.growth}: {', '.join(kept.unbounded)}{devices}" if kept.unbounded else f"{kept.growth}{devices}"


def readable(size: int) -> str:
    """Bytes for people, with three digits.

    Examples:
        >>> [readable(size) for size in (999, 1000, 999_999, 12_345_678)]
        ['999 B', '1.00 kB', '1.00 MB', '12.3 MB']
    """
    if size < 1000:
        return f"{size} B"
    value, units = size / 1000, ["kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        del units[0]
    places = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{places}f} {units[0]}"
