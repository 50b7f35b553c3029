"""A ``torchmetrics.MetricCollection`` whose metrics may have any legal name; the container of ``StageMetrics``."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from functools import cache, lru_cache
from typing import Any

import torch
from torchmetrics import Metric, MetricCollection

from metric_mixin._errors import UnknownMetricError, closest


class NamedCollection(MetricCollection):
    """Keeps metrics under keys that ``nn.ModuleDict`` accepts, and shows them under their names."""

    version = 0  # counts changes of what is declared

    def names(self) -> list[str]:
        """Names of the metrics in the order of the declaration, without prefix and postfix."""
        return [_name(key) for key in self._modules]

    def _key(self, name: str) -> str:
        if (key := _store(name)) not in self._modules:
            raise UnknownMetricError(f"No metric is named {name!r}; the closest: {closest(name, self.names())}.")
        return key

    def _member(self, name: str) -> Metric:
        return self._modules[self._key(name)]

    def _pairs(self) -> Iterator[tuple[str, Metric]]:
        """Names and metrics as they stand, for reading."""
        return ((_name(key), metric) for key, metric in self._modules.items())

    def _decorated(self, name: str) -> str:
        return f"{self.prefix or ''}{name}{self.postfix or ''}"

    def _set_name(self, base: str) -> str:
        return self._decorated(_name(base))

    def _base_key(self, name: str) -> str:
        bare = _store(name.removeprefix(self.prefix or "").removesuffix(self.postfix or ""))
        return bare if bare in self._modules else _store(name)

    def named_children(self) -> Iterator[tuple[str, torch.nn.Module]]:
        """Storage keys and metrics, each with its state."""
        self._compute_groups_create_state_ref()
        return super().named_children()

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        if isinstance(value, Metric):
            self._compute_groups_create_state_ref(copy=True)
        return value

    def __setitem__(self, key: str, module: torch.nn.Module) -> None:
        self._settle()
        device = next((metric.device for metric in self._modules.values()), None)
        super().__setitem__(_store(key), module if device is None else module.to(device))
        self._changed(_name(_store(key)))

    def __getitem__(self, key: str, copy_state: bool = True) -> Metric:
        self._compute_groups_create_state_ref(copy_state)
        return self._member(_name(self._base_key(key)))

    def __delitem__(self, key: str) -> None:
        key = self._key(_name(self._base_key(key)))
        self._settle()
        super().__delitem__(key)
        self._changed(_name(key))

    def _settle(self) -> None:
        """Called before a metric is set or deleted."""

    def _changed(self, name: str) -> None:
        """Called when the metric ``name`` was set or deleted."""
        self.version += 1

    def clear(self) -> None:
        """Delete every metric."""
        for name in self.names():
            del self[self._decorated(name)]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._base_key(key) in self._modules

    def keys(self, keep_base: bool = False) -> Iterable[Hashable]:  # type: ignore[override]  # as its base has it
        """Names of the metrics, with prefix and postfix unless ``keep_base``."""
        return self.names() if keep_base else super().keys()

    def items(  # type: ignore[override]  # as its base has it
        self, keep_base: bool = False, copy_state: bool = True
    ) -> Iterable[tuple[str, Metric]]:
        """Names and metrics, with prefix and postfix unless ``keep_base``."""
        if keep_base:
            return list(zip(self.names(), self.values(copy_state), strict=True))
        return super().items(keep_base=False, copy_state=copy_state)


_MARK = "~"


@lru_cache(maxsize=4096)  # which is asked for every metric several times a batch
def _store(name: str) -> str:
    """The key under which ``nn.ModuleDict`` can keep a metric called ``name``; the inverse of ``_name``."""
    if name in _taken() or "." in name or name.startswith((_MARK, "_")):
        return _MARK + name.replace("%", "%25").replace(".", "%2E")
    return name


def _name(key: str) -> str:
    return key[1:].replace("%2E", ".").replace("%25", "%") if key.startswith(_MARK) else key


@cache
def _taken() -> frozenset[str]:
    """What a module's own attributes are called; ``nn.Module.add_module`` refuses a child of such a name."""
    classes: list[Any] = [NamedCollection, *NamedCollection.__subclasses__()]
    return frozenset(name for cls in classes for name in dir(cls([])))
