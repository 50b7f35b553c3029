"""What is wrong with a class or a hook -> an error: the order of the bases, a ``super()`` that was forgotten."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from metric_mixin._errors import ClassDefinitionError, ForgottenSuperError
from metric_mixin._types import Stage

WATCHED: dict[str, Stage] = {
    "on_train_epoch_start": "train",
    "on_train_epoch_end": "train",
    "on_validation_epoch_start": "val",
    "on_validation_batch_start": "val",
    "on_validation_epoch_end": "val",
    "on_test_epoch_start": "test",
    "on_test_batch_start": "test",
    "on_test_epoch_end": "test",
    "on_save_checkpoint": "train",
}
"""Hooks of the mixin in which a forgotten ``super()`` can lose values, and the stage of each."""


def check_bases(cls: type, mixin: type) -> None:
    """Raise ``ClassDefinitionError`` unless every LightningModule class of ``cls`` stands behind the mixin."""
    lightning = _lightning_modules()
    modules = [base for base in cls.__mro__ if issubclass(base, lightning)]
    others = [base for base in modules if not issubclass(base, mixin)]
    if not others:
        raise ClassDefinitionError(
            f"class {cls.__name__} has {mixin.__name__} but no LightningModule among its bases "
            f"({_names(cls.__bases__)}). Write `class {cls.__name__}({mixin.__name__}, LightningModule)` or subclass "
            "ManualMetricLoggingModule."
        )
    early = [base for base in others if cls.__mro__.index(base) < cls.__mro__.index(mixin)]
    if early:
        rest = [base.__name__ for base in cls.__bases__ if base is not mixin]
        raise ClassDefinitionError(
            f"class {cls.__name__}({_names(cls.__bases__)}): {early[0].__name__} stands before {mixin.__name__}, so "
            f"its steps and hooks would hide those of the mixin. Write `class {cls.__name__}"
            f"({', '.join([mixin.__name__, *rest])})`."
        )


def watch_hooks(cls: type, mixin: type) -> None:
    """Wrap each watched hook that ``cls`` has from a class before the mixin, to see a forgotten ``super()``."""
    before = cls.__mro__[: cls.__mro__.index(mixin)]
    for hook in WATCHED:
        definer = next((base for base in before if hook in vars(base)), None)
        if definer is None:
            continue
        function = vars(definer)[hook]
        if getattr(function, _MARK, None) is not function:
            setattr(cls, hook, _watched(hook, function, definer))


_MARK = "__metric_mixin_watched__"


def _watched(hook: str, function: Any, definer: type) -> Callable[..., Any]:
    @functools.wraps(getattr(function, "__func__", function))
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = self._metric_recorder
        calls = recorder.hook_calls[hook]
        recorder.hook_depth += 1
        try:
            result = function.__get__(self, type(self))(*args, **kwargs)
        finally:
            recorder.hook_depth -= 1
        called = recorder.hook_calls[hook] > calls
        if (not called or hook.endswith("epoch_end")) and (lost := recorder.lost_without(hook, WATCHED[hook])):
            what = "fed metrics after" if called else "did not call"
            where = "Feed them before it" if called else "Call it in the hook"
            raise ForgottenSuperError(f"{definer.__name__}.{hook} {what} `super().{hook}()`, so {lost}. {where}.")
        if hook.endswith("epoch_end") and recorder.hook_depth == 0:
            self._metric_epoch_ended(WATCHED[hook])
        return result

    setattr(call, _MARK, call)
    return call


def _lightning_modules() -> tuple[type, ...]:
    """LightningModule of each of the two packages that was imported; neither is imported for this."""
    found = (getattr(sys.modules.get(name), "LightningModule", None) for name in _PACKAGES)
    return tuple(module for module in found if module is not None)


_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def _names(classes: tuple[type, ...]) -> str:
    return ", ".join(cls.__name__ for cls in classes)
