"""One batch: forward, loss, metrics and the epoch's loss fed; a batch in, its loss out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from metric_mixin._epoch import enter_train_epoch, train_epoch
from metric_mixin._errors import (
    BatchError,
    ManualOptimizationError,
    MissingLossError,
    StageError,
    UnknownMetricError,
    UpdateError,
    closest,
)
from metric_mixin._inputs import checked_loss, checked_weight, describe
from metric_mixin._log import Log, log_step
from metric_mixin._names import RESERVED
from metric_mixin._options import matches, options_of
from metric_mixin._padding import Rows, trimmed, trimmed_batch
from metric_mixin._record import Part, StageRecord
from metric_mixin._trainer import is_logging_step, running_stage, runs_batch, train_position, trainer_of
from metric_mixin._types import Stage, as_stage


def run(module: Any, log: Log, stage: Stage, batch: Any, loader: int | None = None) -> Tensor:
    """Run the default step of a stage.

    Args:
        module: A module with the mixin.
        log: ``LightningModule.log`` of the module.
        stage: The stage of the step.
        batch: What the dataloader gave.
        loader: Index of the dataloader; the running one where ``None``.

    Returns:
        The batch's loss, 0-d, with its graph.

    Raises:
        ManualOptimizationError: It is a training step under manual optimisation.
        MissingLossError: The module has no ``loss``.
        BatchError: The batch, the loss or the weight is not of the expected form.
    """
    name = type(module).__name__
    if stage == "train" and not module.automatic_optimization:
        raise ManualOptimizationError(
            f"{name} has automatic_optimization=False, and the default `training_step` steps no optimizer. "
            "Write `training_step` and feed the metrics with `self.update_metrics(...)`."
        )
    loss_fn = getattr(module, "loss", None)
    if not callable(loss_fn):
        has = "has no `loss`" if loss_fn is None else f"has a `loss` that is {describe(loss_fn)}"
        raise MissingLossError(
            f"{name} {has}: expected a method `loss(self, outputs, target)` or an attribute such as "
            "`self.loss = nn.CrossEntropyLoss()`."
        )
    inputs, target = _pair(module, batch)
    rows = None if stage == "train" else _padded(module, stage)
    outputs = module(inputs)  # of all rows, so that collectives in it stay in step
    if rows is not None:
        if rows.counted == 0:
            return torch.zeros((), device=module.device)
        outputs, target = trimmed(outputs, rows, "the outputs"), trimmed(target, rows, "the target")
        if not (_is_default(module.metric_inputs) and _is_default(module.batch_weight)):  # which do not look at it
            batch = trimmed_batch(batch, rows)
    loss = checked_loss(loss_fn(outputs, target))
    feed(module, log, stage, loader, loss, outputs, target, batch, rows)
    return loss


@torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
def _padded(module: Any, *stages: Stage) -> Rows | None:
    """Return the rows of the batch that runs, where some of them are padding."""
    for stage in stages:
        record = module._metric_recorder.stages.get(stage)
        rows: Rows | None = None if record is None else record.batch_rows
        if rows is not None and rows.counted != rows.given and runs_batch(module, stage):
            return rows
    return None


def counted_rows(module: Any) -> int:
    """Return the number of rows of the running batch that are no padding; see the property of that name."""
    records = [(stage, record) for stage, record in module._metric_recorder.stages.items() if stage != "train"]
    running = [
        record.batch_rows for stage, record in records if record.batch_rows is not None and runs_batch(module, stage)
    ]
    if not running:
        raise StageError(
            f"{type(module).__name__}.counted_rows is the number of rows of a batch of validation or test, and "
            f"none is running (stage: {running_stage(trainer_of(module))!r})."
        )
    if running[0].counted is None:
        raise BatchError(
            f"{type(module).__name__}.counted_rows: neither the dataloader nor the batch tells its number of rows."
        )
    return int(running[0].counted)


@torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
def feed(
    module: Any,
    log: Log,
    stage: Stage,
    loader: int | None,
    loss: Tensor,
    outputs: Any,
    target: Any,
    batch: Any,
    rows: Rows | None = None,
) -> None:
    """Feed one batch of a default step to the epoch's loss and to the metrics; never a part of a compiled graph."""
    recorder, trainer = module._metric_recorder, trainer_of(module)
    record = _record(module, stage)
    part = record.part(loader)
    if stage == "train" and trainer is not None:
        before, position = recorder.last_batch, train_position(trainer)
        if before is not None and before[0] is batch and before[1] == position:
            return  # an optimizer such as LBFGS runs a batch several times; its rows count once
        recorder.last_batch = batch, position
    given = module.metric_inputs(outputs, target, batch)
    if not isinstance(given, tuple | dict):
        raise BatchError(
            f"{type(module).__name__}.metric_inputs must return a tuple of positional arguments or a dict of keyword "
            f"arguments, got {describe(given)}."
        )
    if record.aggregators and _is_default(module.metric_inputs):
        _check_aggregators(record.aggregators)
    weighs_rows = _is_default(module.batch_weight)
    known = None if rows is None or not weighs_rows else rows.counted
    weight = module.batch_weight(target, batch) if known is None else known
    _count_rows(module, part, stage, weight if weighs_rows else None)
    if isinstance(given, dict):
        names, taken = part.metrics.taken(given)
        part.metrics.update_only(names, **taken)
    else:
        part.metrics.update_only(None, *given)
    _add_loss(module, log, stage, part, loss, weight)


@torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
def update(
    module: Any,
    log: Log,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    metrics: str | Iterable[str] | None,
    stage: Stage | None,
    loader: int | None,
    trim: bool = True,
) -> None:
    """Feed a hand-written step's values to some metrics or to the epoch's loss; see ``update_metrics``."""
    running = running_stage(trainer_of(module)) if stage is None else as_stage(stage)
    if running is None:
        raise StageError(
            f"{type(module).__name__}.update_metrics: no stage is running, so `stage` is needed: one of 'train', "
            "'val', 'test'."
        )
    rows = _padded(module, "val", "test") if trim else None
    if metrics == RESERVED:
        _update_loss(module, log, running, loader, rows, *args, **kwargs)
        return
    if not isinstance(metrics, str | Iterable | None):
        raise UnknownMetricError(f"`update_metrics(metrics={metrics!r})`: expected a name or names of metrics.")
    names = [metrics] if isinstance(metrics, str) else None if metrics is None else list(dict.fromkeys(metrics))
    part = _part(module, running, loader)
    stage_metrics = part.metrics
    if names is not None and RESERVED in names:
        raise UnknownMetricError(
            f"`update_metrics(metrics={names!r})`: {RESERVED!r} takes a loss and a weight, the metrics do not. "
            f"Feed it by a call of its own: `update_metrics(value, weight, metrics={RESERVED!r})`."
        )
    for name in names or ():
        if name not in stage_metrics.names():
            raise UnknownMetricError(
                f"`update_metrics(metrics={name!r})`: stage {running!r} has no such metric; the closest: "
                f"{closest(name, stage_metrics.names())}."
            )
    if rows is not None:
        if rows.counted == 0:
            return
        args = tuple(trimmed(value, rows, f"argument {i} of `update_metrics`") for i, value in enumerate(args))
        kwargs = {key: trimmed(value, rows, f"`update_metrics({key}=...)`") for key, value in kwargs.items()}
    stage_metrics.update_only(names, *args, **kwargs)
    _count_rows(module, part, running)


def _record(module: Any, stage: Stage) -> StageRecord:
    """Return where the rows of a stage go; in training, of the epoch that runs."""
    if stage == "train":
        enter_train_epoch(module)
    record: StageRecord = module._metric_recorder.stage(module, stage)
    return record


def _part(module: Any, stage: Stage, loader: int | None) -> Part:
    """Return where the rows of a dataloader go."""
    return _record(module, stage).part(loader)


def _update_loss(
    module: Any, log: Log, stage: Stage, loader: int | None, rows: Rows | None, *given: Any, **unknown: Any
) -> None:
    if len(given) != 2 or any(one is None for one in given) or unknown:
        raise UpdateError("`update_metrics(value, weight, metrics='loss')` takes a batch's loss and its weight.")
    value, weight = given
    if rows is not None:
        if rows.counted == 0:
            return
        if checked_weight(weight) == rows.given:
            raise UpdateError(
                f"`update_metrics(value, weight, metrics='loss')`: the weight is {rows.given}, but of the batch's "
                f"{rows.given} rows only {rows.counted} are no padding. Take the loss over the first "
                "`self.counted_rows` rows, and that number for its weight, or pass `trim=False`."
            )
    value = torch.tensor(float(value)) if isinstance(value, int | float) else value
    feed_loss(module, log, stage, loader, checked_loss(value), weight)
    _count_rows(module, _part(module, stage, loader), stage)


def _count_rows(module: Any, part: Part, stage: Stage, rows: int | None = None) -> None:
    """Count the rows of the batch that runs, or ``rows`` where the batch does not tell or none runs."""
    batch = module._metric_recorder.stages[stage].batch_rows if runs_batch(module, stage) else None
    part.count(rows if batch is None or batch.counted is None else batch.counted, batch)


@torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
def feed_loss(module: Any, log: Log, stage: Stage, loader: int | None, loss: Tensor, weight: Any) -> None:
    """Add a batch to the epoch's loss; while training, log the batch's own on the steps that are logged."""
    _add_loss(module, log, stage, _part(module, stage, loader), loss, weight)


def _add_loss(module: Any, log: Log, stage: Stage, part: Part, loss: Tensor, weight: Any) -> None:
    recorder = module._metric_recorder
    part.add_loss(loss, checked_weight(weight))
    if not recorder.stages[stage].loss_noted:
        recorder.note_loss(module, stage)
    trainer = trainer_of(module)
    if stage != "train" or trainer is None:
        return
    epoch = train_epoch(recorder, trainer)
    first, recorder.step_epoch = recorder.step_epoch != epoch, epoch
    if first or is_logging_step(trainer):
        name = f"{RESERVED}_step"
        key = recorder.step_key = module.metric_key(stage, name, None)
        bar = any(matches(p, name, f"{stage}/{name}", key) for p in options_of(module).prog_bar)
        log_step(module, trainer, log, key, loss, first=first, bar=bar)


def predict(module: Any, behind: Callable[..., Any], batch: Any, *args: Any, **kwargs: Any) -> Any:
    """Run the task's own ``predict_step`` where it has one, otherwise ``forward`` on the inputs of the batch."""
    owner = getattr(behind, "__func__", behind)
    if not owner.__module__.startswith(("lightning.pytorch.core.", "pytorch_lightning.core.")):
        return behind(batch, *args, **kwargs)
    try:
        inputs, _ = module.split_batch(batch)
    except BatchError:
        inputs = batch
    return module(inputs)


def _pair(module: Any, batch: Any) -> tuple[Any, Any]:
    pair = module.split_batch(batch)
    if isinstance(pair, tuple | list) and len(pair) == 2:
        return pair[0], pair[1]
    raise BatchError(f"{type(module).__name__}.split_batch must return (inputs, target), got {describe(pair)}.")


def _is_default(method: Any) -> bool:
    """Whether a method is the mixin's own, not one that a subclass or an object overrides."""
    return bool(getattr(method, "__func__", method).__module__ == "metric_mixin._mixin")


def _check_aggregators(aggregators: Mapping[str, str]) -> None:
    for name, kind in aggregators.items():
        raise UpdateError(
            f"Metric {name!r} ({kind}) aggregates given values, but `metric_inputs` returns "
            "positional arguments, of which it would take the target for a weight. Return a dict with its own "
            "keyword as well, e.g. {'preds': outputs, 'target': target, 'value': ...}, or one without that "
            f"keyword, which leaves this metric out, and feed it with `self.update_metrics(value, metrics={name!r})`."
        )
