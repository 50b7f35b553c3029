"""What one module has declared, accumulated and found; the object behind the mixin, made on first use.

It holds no reference to the module or its Trainer, so that it is copied and pickled with the module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
from torchmetrics import Metric, MetricCollection

from metric_mixin._declare import declare
from metric_mixin._errors import (
    ClassNamesError,
    ComputeError,
    DeclarationError,
    EmptyMetricError,
    KeyCollisionError,
    LoggedMetricError,
    closest,
    said,
)
from metric_mixin._keys import Entry, check_distinct, expected, flatten
from metric_mixin._layout import Layout, PerClassSeen, PerLabel, layout_of
from metric_mixin._loss import EpochLoss
from metric_mixin._names import RESERVED
from metric_mixin._options import MetricLogging, matches, options_of
from metric_mixin._report import MetricReport
from metric_mixin._stage import StageMetrics, own_metrics
from metric_mixin._types import STAGES, Stage

Keyed = dict[str, Entry]
"""Entries by the key under which they are logged."""


class StageRecord:
    """One stage: its metrics, its loss, and what is known of its keys."""

    def __init__(self, metrics: StageMetrics) -> None:
        self.metrics = metrics
        self.loss = EpochLoss()
        self.layouts: dict[str, Layout] = {}
        self.promised: Keyed = {}
        self.found: Keyed | None = None
        self.logged_early = False

    def pending(self) -> bool:
        """Whether anything was fed since the last reset."""
        return self.loss.update_called or any(self.metrics.updated(name) for name in self.metrics.names())

    def reset(self) -> None:
        """Forget the rows of an epoch."""
        self.metrics.reset()
        with torch.inference_mode(False):
            self.loss.reset()

    def to(self, device: torch.device) -> None:
        """Move every state to ``device``."""
        if device.type == "mps":  # which has no float64
            self.loss.set_dtype(torch.float32)
        self.metrics.to(device)
        self.loss.to(device)

    def known(self) -> Keyed:
        """Keys and entries as last computed, or, before that, as class and settings promise."""
        return self.promised if self.found is None else self.found


class Recorder:
    """The stages of one module, their results, and what its hooks did."""

    def __init__(self) -> None:
        self.stages: dict[Stage, StageRecord] = {}
        self.results: dict[Stage, dict[str, Any]] = {stage: {} for stage in STAGES}
        self.reports: dict[Stage, MetricReport] = {}
        self.user_keys: dict[str, str] = {}
        self.class_names: tuple[str, ...] | None = None
        self.hook_calls: Counter[str] = Counter()
        self.step_epoch: tuple[Any, ...] | None = None
        self._said: set[str] = set()

    def say(self, about: str, message: str) -> None:
        """Warn, once for each thing ``about``."""
        if about not in self._said:
            self._said.add(about)
            said(message, stacklevel=3)

    # Declare

    def stage(self, module: Any, stage: Stage) -> StageRecord:
        """Return a stage, built from the module's factory on first use."""
        if stage not in self.stages:
            owner = f"{type(module).__name__}.configure_metrics"
            metrics = declare(module.configure_stage_metrics(stage), owner=owner)
            taken = [metric for record in self.stages.values() for _, metric in record.metrics.items(copy_state=False)]
            record = StageRecord(StageMetrics(own_metrics(metrics, taken)))
            record.to(module.device)
            self._describe(module, stage, record)
            self.stages[stage] = record
        record = self.stages[stage]
        if len(record.metrics) != len(record.layouts):  # a metric was added late
            self._describe(module, stage, record)
        return record

    def _describe(self, module: Any, stage: Stage, record: StageRecord) -> None:
        """Find out what each metric returns and which keys that promises; every check that needs no value."""
        record.layouts = {name: layout_of(metric) for name, metric in record.metrics.items(copy_state=False)}
        record.promised = self._keyed(module, stage, self._promised(module, stage, record))
        record.found = None

    def _promised(self, module: Any, stage: Stage, record: StageRecord) -> Iterator[Entry]:
        for name, layout in record.layouts.items():
            yield from expected(name, layout, self.names_for(module, stage, name, layout))

    def _keyed(self, module: Any, stage: Stage, entries: Iterable[Entry]) -> Keyed:
        """Put each entry under its key, and see that no two have the same."""
        keyed = [(self._key(module, stage, entry.name), entry) for entry in entries]
        check_distinct((key, _source(stage, entry)) for key, entry in keyed)
        for key, entry in keyed:
            if key in self.user_keys:
                raise _collision(key, _source(stage, entry), self.user_keys[key])
        return dict(keyed)

    def _key(self, module: Any, stage: Stage, name: str) -> str:
        key = module.metric_key(stage, name, None)
        if not isinstance(key, str) or not key:
            raise DeclarationError(
                f"{type(module).__name__}.metric_key({stage!r}, {name!r}) must return a non-empty string, got {key!r}."
            )
        return key

    def names_for(self, module: Any, stage: Stage, name: str, layout: Layout) -> Sequence[str] | None:
        """Return the names of a metric's classes, from the options or the datamodule, or ``None``."""
        if isinstance(layout, PerLabel) and layout.of == "class":
            return self.class_names_for(module, stage, name)
        option = options_of(module).class_names
        named = isinstance(option, dict) or isinstance(layout, PerClassSeen)
        return self.class_names_for(module, stage, name, datamodule=False) if named else None

    def class_names_for(self, module: Any, stage: Stage, name: str, *, datamodule: bool = True) -> Sequence[str] | None:
        """Return the class names that the options, or the datamodule, have for a metric."""
        option = options_of(module).class_names
        if isinstance(option, dict):
            forms = (name, f"{stage}/{name}", module.metric_key(stage, name, None))
            return next((names for pattern, names in option.items() if matches(pattern, *forms)), None)
        if isinstance(option, Sequence):
            return option
        return self._datamodule_names(module) if datamodule else None

    def _datamodule_names(self, module: Any) -> tuple[str, ...] | None:
        from metric_mixin._trainer import trainer_of

        names = getattr(getattr(trainer_of(module), "datamodule", None), "class_names", None)
        if names is None:
            return self.class_names
        if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(n, str) for n in names):
            raise ClassNamesError(
                f"The datamodule's attribute `class_names` must be a sequence of strings, got {type(names).__name__} "
                f"{names!r}. Or set `MetricLogging(class_names=...)`."
            )
        self.class_names = tuple(names)
        return self.class_names

    # Update

    def pending(self, stage: Stage) -> bool:
        """Whether rows of ``stage`` wait to be computed."""
        return stage in self.stages and self.stages[stage].pending()

    # Compute

    def compute(self, module: Any, stage: Stage) -> Keyed:
        """Compute what was fed and put it under its keys; the loss comes first."""
        record = self.stage(module, stage)
        options = options_of(module)
        entries: list[Entry] = []
        if record.loss.update_called:
            entries.append(Entry(RESERVED, RESERVED, None, record.loss.compute().float()))
        fed = [name for name in record.metrics.names() if record.metrics.updated(name)]
        empty = [name for name in record.metrics.names() if name not in fed]
        on_error = self._warn_of_failure(stage) if options.on_error == "warn" else None
        values = dict(record.metrics.compute_values(fed, on_error))
        if not (record.logged_early and not fed):
            self._check_empty(stage, empty, options)
        for name, layout in record.layouts.items():
            if name in values:
                entries += flatten(name, layout, values[name], self.names_for(module, stage, name, layout))
            elif name in empty and options.on_empty == "nan":
                known = [e for e in record.known().values() if e.metric == name and e.is_scalar]
                entries += [Entry(e.metric, e.path, e.label, torch.tensor(torch.nan)) for e in known]
        keyed = self._keyed(module, stage, entries)
        record.found = self._merged(record, keyed)
        return keyed

    def _warn_of_failure(self, stage: Stage) -> Callable[[ComputeError], None]:
        return lambda failure: self.say(f"{stage} {failure}", f"In stage {stage!r}: {failure}")

    def _check_empty(self, stage: Stage, empty: Collection[str], options: MetricLogging) -> None:
        for name in empty:
            what = f"Metric {name!r} was not updated in a {stage!r} epoch"
            if options.on_empty == "raise":
                raise EmptyMetricError(f"{what}, and `MetricLogging(on_empty='raise')`.")
            if options.on_empty == "skip":
                self.say(
                    f"empty {stage} {name}",
                    f"{what}: it has no value and is left out. `MetricLogging(on_empty=...)` takes 'nan' and 'raise' "
                    "as well; `configure_stage_metrics` can declare other metrics for this stage.",
                )

    @staticmethod
    def _merged(record: StageRecord, keyed: Keyed) -> Keyed:
        """What is known of the keys: those just found, and, of metrics without a value now, those known before."""
        seen = {entry.metric for entry in keyed.values()}
        return keyed | {key: entry for key, entry in record.known().items() if entry.metric not in seen}

    # Keys

    def expected_keys(self, module: Any, stage: Stage) -> list[str]:
        """Return the keys that an epoch of ``stage`` logs, as far as they are known."""
        record = self.stage(module, stage)
        keys = [key for key, entry in record.known().items() if entry.is_scalar]
        if record.found is None:
            keys.insert(0, self._key(module, stage, RESERVED))
        return keys

    def bar_keys(self, module: Any, stage: Stage, keyed: Keyed) -> set[str]:
        """Return the keys that go to the progress bar."""
        patterns = options_of(module).prog_bar
        return {
            key for key, entry in keyed.items() if any(matches(p, *entry_forms(stage, key, entry)) for p in patterns)
        }

    def check_patterns(self, module: Any) -> None:
        """Say which patterns that the user set match nothing that is declared, with the closest names."""
        options = options_of(module)
        forms = {
            f
            for stage, record in self.stages.items()
            for k, e in record.known().items()
            for f in entry_forms(stage, k, e)
        }
        for stage, record in self.stages.items():
            names = [RESERVED, f"{RESERVED}_step", *record.metrics.names()]
            forms |= {form for name in names for form in (name, f"{stage}/{name}", self._key(module, stage, name))}
        metrics = {name for record in self.stages.values() for name in record.metrics.names()}
        forms |= {f"{stage}/{name}" for stage in STAGES if stage not in self.stages for name in metrics}
        class_names = options.class_names if isinstance(options.class_names, dict) else ()
        wanted = {"prog_bar": options.prog_bar, "figures": options.figures, "class_names": class_names}
        for option, patterns in wanted.items():
            if patterns == MetricLogging.default(option):
                continue
            for pattern in patterns:
                below = any(pattern.startswith((f"{m}/", *(f"{s}/{m}/" for s in STAGES))) for m in metrics)
                if not below and not any(matches(pattern, form) for form in forms):
                    self.say(
                        f"{option} {pattern}",
                        f"MetricLogging({option}=...): the pattern {pattern!r} matches no metric; the closest: "
                        f"{closest(pattern, sorted(forms))}.",
                    )

    # The user's own log

    def check_user_log(self, name: object, value: object, hook: str | None) -> None:
        """Raise where ``self.log`` is given one of our metrics or one of our keys; remember the key otherwise."""
        if isinstance(value, Metric | MetricCollection):
            for stage, record in self.stages.items():
                for metric_name, metric in record.metrics.items():
                    if any(value is member for member in metric.modules()):
                        raise LoggedMetricError(
                            f"`self.log({name!r}, ...)` was given metric {metric_name!r} ({type(value).__name__}) of "
                            f"stage {stage!r}, which is already logged and reset each epoch. Remove the call, rename "
                            "the key in `metric_key`, or log the value from `metric_results`."
                        )
        if not isinstance(name, str):
            return
        where = f"`self.log({name!r}, ...)`" + (f" in {hook}" if hook else "")
        for stage, record in self.stages.items():
            if (entry := record.known().get(name)) is not None and entry.is_scalar:
                raise _collision(name, _source(stage, entry), where)
        self.user_keys.setdefault(name, where)


def check_bar(options: MetricLogging, stage: Stage, name: str, key: str) -> bool:
    """Whether the key of a name that is no metric (``loss_step``) goes to the progress bar."""
    return any(matches(pattern, name, f"{stage}/{name}", key) for pattern in options.prog_bar)


def entry_forms(stage: Stage, key: str, entry: Entry) -> tuple[str, ...]:
    """The forms of a name that a pattern may match: of the metric, of the entry, with the stage, and the key."""
    names = dict.fromkeys((entry.metric, entry.path, entry.name))
    return (*names, *(f"{stage}/{name}" for name in names), key)


def _source(stage: Stage, entry: Entry) -> str:
    return f"metric {entry.metric!r} of stage {stage!r}" + (f" ({entry.name!r})" if entry.name != entry.metric else "")


def _collision(key: str, ours: str, theirs: str) -> KeyCollisionError:
    return KeyCollisionError(
        f"Two sources for the key {key!r}: {ours} and {theirs}. Rename one of them; a metric's key in `metric_key`."
    )
