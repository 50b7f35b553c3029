"""Monitors of callbacks and schedulers that match no key -> said with the closest keys; Lightning's own error stays.

A key of the training stage may be logged by the user's own code in a step to come. So it is judged before the first
step only where there is no such code, else at the end of the first training epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from metric_mixin._best import SUFFIX
from metric_mixin._errors import closest
from metric_mixin._layout import Fields, PerClassSeen, PerLabel, Scalar
from metric_mixin._names import RESERVED
from metric_mixin._types import STAGES, Stage

_TRAIN_HOOKS = (
    "training_step",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_before_backward",
    "on_after_backward",
    "on_before_zero_grad",
    "on_before_optimizer_step",
    "optimizer_step",
    "forward",
    "loss",
    "metric_inputs",
    "batch_weight",
    "split_batch",
    "on_metrics_computed",
)
"""Where a user's own ``self.log`` of a training key may stand."""


def check_monitors(module: Any, trainer: Any, stage: Stage, *, own_log_possible: bool) -> None:
    """Say which monitors look like keys of ``stage`` and match none.

    Args:
        module: The module, its stages built and, for ``"val"``, computed at least once.
        trainer: Its Trainer, fitting.
        stage: The stage whose keys are known by now.
        own_log_possible: Whether the user's own code may still log a key that it has not logged yet.
    """
    recorder = module._metric_recorder
    if stage in recorder.monitors_checked or own_log_possible:
        return
    recorder.monitors_checked.add(stage)
    prefix = _prefix(module, stage)
    if not prefix:
        return
    known = _known_keys(module, stage)
    for owner, monitor in _monitors(trainer):
        if monitor.startswith(prefix) and monitor not in known and not _below_a_dict(module, stage, monitor):
            recorder.say(
                f"monitor {monitor}",
                f"{owner} monitors {monitor!r}, which nothing logs; the closest keys: {closest(monitor, known)}.",
            )


def check_early_train_keys(module: Any, trainer: Any) -> None:
    """At the end of a validation within ``fit``, explain a training key that is looked for before it exists."""
    recorder = module._metric_recorder
    if "train" not in recorder.stages or "early" in recorder.monitors_checked:
        return
    recorder.monitors_checked.add("early")
    keys = recorder.expected_keys(module, "train")
    for callback in trainer.callbacks:
        monitor = getattr(callback, "monitor", None)
        too_early = getattr(callback, "_check_on_train_epoch_end", None) is False
        if too_early and monitor in keys and monitor not in trainer.callback_metrics:
            recorder.say(
                f"early {monitor}",
                f"{type(callback).__name__} monitors {monitor!r} at the end of each validation, but the training "
                "epoch that makes it has not ended yet. Pass `check_on_train_epoch_end=True`.",
            )


def trains_without_own_code(module: Any, trainer: Any) -> bool:
    """Whether no code of the user's can log a training key before the first training epoch ends."""
    for hook in _TRAIN_HOOKS:
        owner = next((base for base in type(module).__mro__ if hook in vars(base)), None)
        if owner is None or owner.__module__.startswith(_OURS):
            continue
        function = getattr(getattr(type(module), hook, None), "__code__", None)
        names = getattr(function, "co_names", ())
        if "log" in names or "log_dict" in names:
            return False
        if hook in ("training_step", *(h for h in _TRAIN_HOOKS if h.startswith("on_"))):
            return False
    return all(type(callback).__module__.startswith(_OURS) for callback in trainer.callbacks)


_OURS = ("metric_mixin.", "lightning.", "pytorch_lightning.", "torch.")


def _monitors(trainer: Any) -> Iterator[tuple[str, str]]:
    for callback in trainer.callbacks:
        if isinstance(monitor := getattr(callback, "monitor", None), str):
            yield type(callback).__name__, monitor
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau and isinstance(config.monitor, str):
            yield type(config.scheduler).__name__, config.monitor


def _prefix(module: Any, stage: Stage) -> str:
    """What every key of a stage begins with, by ``metric_key``; empty where stages cannot be told apart."""
    keys = [module.metric_key(name, "\0", None) for name in STAGES]
    prefixes = dict(zip(STAGES, (str(key).split("\0")[0] for key in keys), strict=True))
    prefix = prefixes.pop(stage)
    return "" if any(other.startswith(prefix) or prefix.startswith(other) for other in prefixes.values()) else prefix


def _known_keys(module: Any, stage: Stage) -> list[str]:
    recorder = module._metric_recorder
    keys = recorder.expected_keys(module, stage)
    if stage == "train":
        keys = [*keys, module.metric_key(stage, f"{RESERVED}_step", None)]
    tracked = [key + SUFFIX for key in recorder.tracked_keys(module)]
    return [*keys, *tracked, *(key for key in recorder.user_keys)]


def _below_a_dict(module: Any, stage: Stage, monitor: str) -> bool:
    """Whether the key may be one that only a value tells, below a metric that returns a dict."""
    record = module._metric_recorder.stages[stage]
    for name, layout in record.layouts.items():
        open_ended = isinstance(layout, PerClassSeen) or (isinstance(layout, Fields) and not layout.fields)
        open_ended = open_ended or (isinstance(layout, Scalar) and not layout.known)
        open_ended = open_ended or (isinstance(layout, PerLabel) and layout.size is None)
        if open_ended and monitor.startswith(f"{module.metric_key(stage, name, None)}/"):
            return True
    return False
