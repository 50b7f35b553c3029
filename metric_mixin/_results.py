"""Scalars by key -> Lightning's results of the running loop, at microseconds a key; there as if logged one by one.

``LightningModule.log`` makes a torchmetrics ``Metric`` of each value, which takes a third of a millisecond; there is no
public way for many. So one key is logged by ``log``, with all its checks and its bookkeeping, and the others are placed
beside it, each as the few attributes that Lightning reads of a result that has been computed.

Private names used (read: Lightning 2.5.1 and 2.6.6): ``trainer._results``, a ``_ResultCollection``, which is a dict
from ``HOOK.KEY`` to results; of a result ``meta`` (a ``_Metadata``), ``is_tensor``, ``has_reset``, ``_computed`` and
``_forward_cache``. Whether they are all that is read is tried out, whatever the version, before they are relied on.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


class LightResult:
    """One computed value, as far as Lightning looks at it; no ``Metric``, so that nothing moves or copies it."""

    __slots__ = ("_computed", "_forward_cache", "has_reset", "is_tensor", "meta")

    def __init__(self, meta: Any, value: Tensor) -> None:
        self.meta = meta
        self.is_tensor = True
        self.has_reset = False
        self._computed: Tensor | None = value
        self._forward_cache: Tensor | None = value

    def reset(self) -> None:
        """Give the value up; a result that was reset is not looked at."""
        self.has_reset = True
        self._computed = self._forward_cache = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.meta.name!r}, value={self._computed})"


def place(results: Any, hook: str, like: str, values: Mapping[str, Tensor], bar: Collection[str]) -> None:
    """Put values into ``results`` beside the key ``like``, as if each had been logged in the same hook as that one.

    Args:
        results: A collection for which ``takes_light_results`` holds.
        hook: The hook that runs.
        like: A key that ``log`` has logged in it.
        values: Key to 0-d tensor of float32 or float64, without a graph.
        bar: The keys that go to the progress bar.
    """
    meta = results[f"{hook}.{like}"].meta
    shared = {**vars(meta), "enable_graph": True}  # there is none: Lightning need not detach each value at each look
    kind = type(meta)
    for key, value in values.items():
        of_key = object.__new__(kind)
        of_key.__dict__.update(shared, name=key, prog_bar=key in bar)
        results[f"{hook}.{key}"] = LightResult(of_key, value)


def give_way(results: Any, name: str) -> None:
    """Make room for ``log``, which would take a light result of an earlier epoch for one of its own."""
    if isinstance(results.get(name), LightResult):
        del results[name]


def clear(results: Any) -> None:
    """Take out what an epoch that is over has left: Lightning goes through all results twice a batch."""
    for name in [name for name, one in results.items() if isinstance(one, LightResult) and one.has_reset]:
        del results[name]


def set_computed(result: Any, value: Tensor) -> None:
    """Give Lightning the epoch's value as computed, so that it does not recommend ``sync_dist=True`` for it."""
    if hasattr(result, "_computed"):
        result._computed = value


@lru_cache(maxsize=8)
def takes_light_results(kind: Hashable) -> bool:
    """Whether collections of this type give back a light result like one of their own: tried, once a type."""
    try:
        return _tried(kind)
    except Exception:  # whatever has become of a private name
        return False


def _tried(kind: Any) -> bool:
    with torch.inference_mode(False):
        results, value = kind(False), torch.tensor(0.5)
        results.log("hook", "own", value, prog_bar=True, batch_size=1)
        set_computed(results["hook.own"], value)
        place(results, "hook", "own", {"light": value, "other": value}, {"light"})
        results.to("cpu")
        found = results.metrics(on_step=False)
        at_step = results.metrics(on_step=True)
        results.reset(metrics=True)
        results.reset(fx="another")
        kept = results.metrics(on_step=False)
        results.reset(metrics=False, fx="hook")
        left = results.metrics(on_step=False)
    three = {"own": 0.5, "light": 0.5, "other": 0.5}
    wanted = {"callback": three, "log": three, "pbar": {"own": 0.5, "light": 0.5}}
    nothing: dict[str, Any] = {"callback": {}, "log": {}, "pbar": {}}
    return bool(found == kept == wanted and at_step == left == nothing)
