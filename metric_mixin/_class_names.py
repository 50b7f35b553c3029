"""Names of a metric's classes: from the options, the datamodule, or the checkpoint that is gone on with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metric_mixin._errors import ClassNamesError
from metric_mixin._layout import Layout, PerClassSeen, PerLabel
from metric_mixin._options import matches, options_of
from metric_mixin._trainer import trainer_of
from metric_mixin._types import Stage


class ClassNames:
    """The names of classes in one module.

    Attributes:
        known: Those that the datamodule last had, or a checkpoint; ``None`` where there were none.
    """

    def __init__(self) -> None:
        self.known: tuple[str, ...] | None = None

    def of(self, module: Any, stage: Stage, name: str, layout: Layout) -> Sequence[str] | None:
        """Return the names for the metric ``name``, as far as what it returns has classes, or ``None``."""
        if isinstance(layout, PerLabel) and layout.of == "class":
            return self.for_metric(module, stage, name)
        option = options_of(module).class_names
        named = isinstance(option, dict) or isinstance(layout, PerClassSeen)
        return self.for_metric(module, stage, name, datamodule=False) if named else None

    def for_metric(self, module: Any, stage: Stage, name: str, *, datamodule: bool = True) -> Sequence[str] | None:
        """Return the names that the options, or the datamodule, have for the metric ``name``."""
        option = options_of(module).class_names
        if isinstance(option, dict):
            forms = (name, f"{stage}/{name}", module.metric_key(stage, name, None))
            return next((names for pattern, names in option.items() if matches(pattern, *forms)), None)
        if isinstance(option, Sequence):
            return option
        return self._of_datamodule(module) if datamodule else None

    def _of_datamodule(self, module: Any) -> tuple[str, ...] | None:
        names = getattr(getattr(trainer_of(module), "datamodule", None), "class_names", None)
        if names is None:
            return self.known
        names = names.tolist() if hasattr(names, "tolist") else names
        if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(n, str) for n in names):
            raise ClassNamesError(
                f"The datamodule's attribute `class_names` must be a sequence of strings, got {type(names).__name__} "
                f"{names!r}. Or set `MetricLogging(class_names=...)`."
            )
        self.known = tuple(names)
        return self.known
