"""One epoch of a stage: begun, and at its end computed, logged, drawn, reported and reset, in that order."""

from __future__ import annotations

from typing import Any

from metric_mixin import _figures
from metric_mixin._errors import MissingDependencyError, NoResultError
from metric_mixin._inputs import mapped
from metric_mixin._keys import Entry
from metric_mixin._log import Log, log_epoch
from metric_mixin._options import matches, options_of
from metric_mixin._recorder import Keyed, entry_forms
from metric_mixin._report import MetricReport
from metric_mixin._trainer import logged_step, running_hook, trainer_of
from metric_mixin._types import STAGES, Stage

_END_HOOKS: dict[Stage, str] = {
    "train": "on_train_epoch_end",
    "val": "on_validation_epoch_end",
    "test": "on_test_epoch_end",
}
_START_HOOKS = {stage: hook.replace("_end", "_start") for stage, hook in _END_HOOKS.items()}


def begin(module: Any, stage: Stage) -> None:
    """Begin an epoch: forget the rows that an interrupted one left."""
    recorder = module._metric_recorder
    recorder.hook_calls[_START_HOOKS[stage]] += 1
    record = recorder.stage(module, stage)
    record.logged_early = False
    record.reset()


def finish(module: Any, log: Log, stage: Stage, *, early: bool = False) -> None:
    """End an epoch, or, ``early``, what was fed of it so far: compute, log, draw, report, hand over, reset.

    In a sanity check the values are computed, so that errors show, and nothing else happens. States are reset
    whatever is raised.
    """
    recorder = module._metric_recorder
    record = recorder.stage(module, stage)
    if not early:
        recorder.hook_calls[_END_HOOKS[stage]] += 1
    try:
        keyed = recorder.compute(module, stage)
        trainer = trainer_of(module)
        if trainer is not None and trainer.sanity_checking:
            return
        if keyed or not record.logged_early:
            _publish(module, trainer, log, stage, keyed)
    finally:
        record.reset()
        record.logged_early = early


def _publish(module: Any, trainer: Any | None, log: Log, stage: Stage, keyed: Keyed) -> None:
    recorder = module._metric_recorder
    values = {key: mapped(lambda t: t.detach().cpu(), entry.value) for key, entry in keyed.items()}
    recorder.results[stage] = values
    recorder.reports[stage] = _report(trainer, module, stage, keyed, values)
    _say_arrays(module, stage, keyed)
    if trainer is not None:
        scalars = {key: entry.value for key, entry in keyed.items() if entry.is_scalar}
        log_epoch(module, trainer, log, stage, scalars, recorder.bar_keys(module, stage, keyed))
        _draw(module, trainer, stage, keyed, values)
    module.on_metrics_computed(stage, values)


def _say_arrays(module: Any, stage: Stage, keyed: Keyed) -> None:
    """Say once of each array that it is not logged, unless a picture of it was asked for."""
    patterns = options_of(module).figures
    for key, entry in keyed.items():
        if not entry.is_scalar and not any(matches(p, *entry_forms(s, key, entry)) for p in patterns for s in STAGES):
            module._metric_recorder.say(
                f"array {entry.name}",
                f"{key!r} is no scalar and is not logged; it is kept whole in `metric_results[{stage!r}]`, and drawn "
                "where `MetricLogging(figures=...)` asks for it.",
            )


def _draw(module: Any, trainer: Any, stage: Stage, keyed: Keyed, values: dict[str, Any]) -> None:
    """Draw what ``figures`` asks for; a picture that fails is said and costs nothing else."""
    options = options_of(module)
    recorder = module._metric_recorder
    record = recorder.stages[stage]
    if not options.figures or trainer.barebones or trainer.current_epoch % options.figures_every_n_epochs:
        return
    for key, entry in keyed.items():
        if entry.is_scalar or not any(matches(p, *entry_forms(stage, key, entry)) for p in options.figures):
            continue
        try:
            names = _axis_names(module, stage, entry)
            figure = _figures.draw(record.metrics[entry.metric], values[key], key, names)
            _figures.write(trainer, key, figure, _step(trainer, module, stage))
        except MissingDependencyError as error:
            recorder.say("matplotlib", str(error))
        except Exception as error:
            recorder.say(f"figure {key}", f"Drawing {key!r} failed: {type(error).__name__}: {error}")


def _axis_names(module: Any, stage: Stage, entry: Entry) -> Any:
    """Names of the classes for the axes, where the options or the datamodule name as many as the metric has."""
    metric = module._metric_recorder.stages[stage].metrics[entry.metric]
    count = getattr(metric, "num_classes", getattr(metric, "num_labels", None))
    names = module._metric_recorder.class_names_for(module, stage, entry.metric)
    return names if names is not None and len(names) == count else None


def _report(trainer: Any | None, module: Any, stage: Stage, keyed: Keyed, values: dict[str, Any]) -> MetricReport:
    numbers = [(entry, values[key].item()) for key, entry in keyed.items() if entry.is_scalar]
    return MetricReport(
        stage=stage,
        epoch=None if trainer is None else trainer.current_epoch,
        step=None if trainer is None else _step(trainer, module, stage),
        scalars=[(entry.name, number) for entry, number in numbers if entry.label is None],
        classes=[(entry.path, entry.label, number) for entry, number in numbers if entry.label is not None],
    )


def _step(trainer: Any, module: Any, stage: Stage) -> int:
    return logged_step(trainer, stage, epoch_end=running_hook(module) == _END_HOOKS[stage])


def report(module: Any, stage: Stage) -> MetricReport:
    """Return the last finished epoch of a stage as a table; see ``metric_report``."""
    reports = module._metric_recorder.reports
    if stage not in reports:
        raise NoResultError(
            f"{type(module).__name__}.metric_report({stage!r}): no {stage!r} epoch has ended yet. "
            f"Ended: {', '.join(map(repr, reports)) or 'none'}."
        )
    found: MetricReport = reports[stage]
    return found
