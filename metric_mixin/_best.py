"""The best value so far of tracked keys: an epoch's scalars in, ``KEY_best`` out; moves only in ``fit``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.wrappers import MultitaskWrapper

from metric_mixin._errors import OptionError
from metric_mixin._layout import inner_metric

SUFFIX = "_best"


class BestValues:
    """Key to its mode, its best value so far, a 0-d CPU tensor, and the epoch of that value."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[str, Tensor, int | None]] = {}

    def move(self, key: str, mode: str, value: Tensor, epoch: int | None = None) -> None:
        """Take a new value where it is better; NaN never is. Another mode than before begins anew."""
        value = value.detach().cpu()
        kept_mode, best, _ = self.values.get(key, (mode, None, None))
        new, old = value.item(), None if best is None else best.item()  # as numbers: torch compares not every dtype
        if math.isnan(new):
            return
        if old is None or kept_mode != mode or (new > old if mode == "max" else new < old):
            self.values[key] = (mode, value.clone(), epoch)  # of a class: a checkpoint would have those of all

    def get(self, key: str, mode: str) -> Tensor | None:
        """Return the best value of ``key`` so far, or ``None``."""
        kept_mode, best, _ = self.values.get(key, (mode, None, None))
        return best if kept_mode == mode else None

    def epochs(self) -> dict[str, int | None]:
        """Return the epoch of each best value, ``None`` where it is not known."""
        return {key: epoch for key, (_, _, epoch) in self.values.items()}

    def to_checkpoint(self) -> dict[str, dict[str, Any]]:
        """Return plain containers and tensors."""
        return {
            key: {"mode": mode, "value": value, "epoch": epoch} for key, (mode, value, epoch) in self.values.items()
        }

    def from_checkpoint(self, entry: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the values of ``to_checkpoint`` instead of those kept."""
        self.values = {key: (str(kept["mode"]), kept["value"], kept.get("epoch")) for key, kept in entry.items()}


def mode_of(key: str, wanted: str, path: str, metric: Metric | None) -> str:
    """Return ``"max"`` or ``"min"`` for a tracked key.

    Args:
        key: The key, for the message.
        wanted: What the option says; ``"auto"`` asks the metric.
        path: What follows the metric's name in the key, without its slash.
        metric: The metric, or ``None`` for the loss.

    Raises:
        OptionError: ``"auto"``, and the metric does not tell.
    """
    if wanted != "auto":
        return wanted
    better = False if metric is None else _higher_is_better(metric, path)
    if better is None:
        raise OptionError(
            f"MetricLogging(track_best={{{key!r}: 'auto'}}): {type(metric).__name__} does not say whether higher is "
            "better. Write 'max' or 'min'."
        )
    return "max" if better else "min"


def _higher_is_better(metric: Any, path: str) -> bool | None:
    if isinstance(metric, MultitaskWrapper | MetricCollection):
        members = metric.items(flatten=False) if isinstance(metric, MultitaskWrapper) else metric.items()
        named = [(name, member) for name, member in members if f"{path}/".startswith(f"{name}/")]
        if not named:
            return None
        name, member = max(named, key=lambda pair: len(pair[0]))
        return _higher_is_better(member, path[len(name) + 1 :])
    inner = inner_metric(metric)
    if inner is not None:
        return _higher_is_better(inner, path)
    better: bool | None = getattr(metric, "higher_is_better", None)
    return better
