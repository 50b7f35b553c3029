"""Scalars -> Trainer and loggers: values by key in; what Lightning's own ``log`` would have put, put there.

Private names used (Lightning 2.5.1 and 2.6.6): ``trainer._logger_connector.log_metrics``, which writes a row outside of
the epoch's end, and its ``_callback_metrics``, ``_logged_metrics`` and ``_progress_bar_metrics``, for keys of one of
several dataloaders; ``trainer._results``, of which ``_results`` says more. Without them the loggers, and ``log`` for
each key, are called directly; ``docs/private-api.md`` lists them.

What MLflow makes of a key is read from Lightning's ``MLFlowLogger.log_metrics`` (2.6.6), which removes signs, and
mlflow's ``utils/validation.py`` (3.17), which refuses what is no plain path. TensorBoard, W&B and CSV files take any;
but where tensorboard is not installed, Lightning writes by tensorboardX, whose ``summary._clean_tag`` (2.6.5) rewrites
signs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.util import find_spec
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any

import torch
from torch import Tensor

from metric_mixin._errors import DeclarationError, KeyCollisionError
from metric_mixin._results import clear, give_way, place, set_computed, takes_light_results
from metric_mixin._trainer import is_logging_step, logged_outputs, logged_step, running_hook, running_results
from metric_mixin._types import Stage

_IN_A_STEP = ("_batch_", "backward", "zero_grad", "optimizer")
"""What is in the names of the hooks in which Lightning takes values of a step, and not of an epoch."""

_STEP_HOOKS = ("training_step", "on_train_batch_start", "on_train_batch_end", "on_before_zero_grad")

_NOT_FOR_TENSORBOARDX = re.compile(r"[^-/\w.]")

_NOT_FOR_MLFLOW = re.compile(r"[^a-zA-Z0-9_/. -]+")
_LONGEST_FOR_MLFLOW = 250

_ADVICE = (
    "Give the metric, or its class (`MetricLogging(class_names=...)`), another name, or the key another form in "
    "`metric_key`."
)

Log = Callable[..., None]


def check_logger_keys(trainer: Any, keys: Iterable[str]) -> None:
    """See, before anything is logged, that no logger writes two keys as one or refuses one.

    Raises:
        KeyCollisionError: A logger writes two keys under one name, or one below the other where that cannot be.
        DeclarationError: A logger refuses a key.
    """
    for logger in () if trainer is None else trainer.loggers:
        classes = {cls.__name__ for cls in type(logger).__mro__}
        if "MLFlowLogger" in classes:
            _check_mlflow_keys(keys, in_files=logger.save_dir is not None)
        elif "TensorBoardLogger" in classes and find_spec("tensorboard") is None:
            advice = f"tensorboardX does, which Lightning takes where tensorboard is not installed. {_ADVICE}"
            _check_written(keys, "TensorBoardLogger", lambda key: _NOT_FOR_TENSORBOARDX.sub("_", key), advice)


def _check_written(keys: Iterable[str], logger: str, rewritten: Callable[[str], str], advice: str) -> dict[str, str]:
    """See that no two keys are written under one name; return the key of each name."""
    sources: dict[str, str] = {}
    for key in keys:
        name = rewritten(key)
        if name in sources:
            raise KeyCollisionError(f"{logger} writes the keys {sources[name]!r} and {key!r} as {name!r}. {advice}")
        sources[name] = key
    return sources


def _check_mlflow_keys(keys: Iterable[str], *, in_files: bool) -> None:
    advice = f"MLflow takes the letters a to z, digits and '_', '/', '.', ' ', '-'. {_ADVICE}"

    def rewritten(key: str) -> str:
        name = _NOT_FOR_MLFLOW.sub("", key)
        plain = normpath(name) == name != "." and not name.startswith(("..", "/"))
        if not plain or len(name) > _LONGEST_FOR_MLFLOW:
            raise DeclarationError(f"MLFlowLogger writes the key {key!r} as {name!r}, which MLflow refuses. {advice}")
        return name

    sources = _check_written(keys, "MLFlowLogger", rewritten, advice)
    for name, key in sources.items() if in_files else ():
        for parent in map(str, PurePosixPath(name).parents):
            if parent in sources:
                raise KeyCollisionError(
                    f"MLFlowLogger keeps its values in files, where {sources[parent]!r} cannot be a file and the "
                    f"folder of {key!r}. Rename one of them, or give it a database: "
                    "`MLFlowLogger(tracking_uri='sqlite:///mlflow.db')`."
                )


def log_epoch(
    module: Any,
    trainer: Any,
    log: Log,
    stage: Stage,
    scalars: Mapping[str, Tensor],
    bar: Collection[str],
    of_loader: Mapping[str, int],
) -> None:
    """Log an epoch's scalars by ``log``, Lightning's own; outside of an epoch's hooks, log them at once.

    A key of one dataloader is put into that dataloader's results alone, from where Lightning hands it to the loggers
    and prints it in that dataloader's column. Logged the plain way it would be in the results of each.

    Args:
        module: The module, in one of its hooks.
        trainer: Its Trainer.
        log: ``LightningModule.log`` of the module.
        stage: The stage that the values belong to.
        scalars: Key to 0-d tensor. Other dtypes than floating ones are logged as float64, which holds them exactly.
        bar: The keys that go to the progress bar.
        of_loader: Of each key that belongs to one of several dataloaders, that one's place among the results.
    """
    if trainer.barebones or not scalars:
        return
    hook = running_hook(module)
    if hook in (None, "teardown") or running_results(trainer) is None:
        _seen_by_callbacks(trainer, scalars, ())
        _write_row(trainer, stage, scalars)
        return
    at_epoch = not hook.endswith("_step") and not any(part in hook for part in _IN_A_STEP)
    results = (logged_outputs(trainer) if at_epoch and stage != "train" else None) or []
    options = {"on_step": not at_epoch, "on_epoch": at_epoch, "batch_size": 1, "add_dataloader_idx": False}
    values = {key: _as_logged(value) for key, value in scalars.items()}
    apart = {key: values.pop(key) for key, place in of_loader.items() if key in values and place < len(results)}
    pooled = {key: value for key, value in values.items() if key not in of_loader} if of_loader else {}
    for result in results:  # first: of keys that differ by an index alone Lightning prints the last
        result.update(pooled)
    for key, value in apart.items():
        results[of_loader[key]][key] = value
    if not _seen_by_callbacks(trainer, apart, bar):
        for key, value in apart.items():
            log(key, value, prog_bar=key in bar, logger=False, **options)
    _log_all(trainer, log, hook, values, bar, {"logger": None if at_epoch else False, **options})
    if not at_epoch:
        _write_row(trainer, stage, scalars)


def forget_last_epoch(trainer: Any) -> None:
    """Let no batch wait for what Lightning keeps of the keys of the epoch before."""
    if results := running_results(trainer):
        clear(results)


def _as_logged(value: Tensor) -> Tensor:
    """A value without a graph, in a dtype that Lightning keeps as it is."""
    if value.dtype not in (torch.float32, torch.float64):
        exact = torch.get_default_dtype() == torch.float64 or not value.is_floating_point()
        value = value.to(torch.float64 if exact else torch.float32)
    return value.detach() if value.requires_grad else value


def _log_all(
    trainer: Any, log: Log, hook: str, values: Mapping[str, Tensor], bar: Collection[str], options: dict[str, Any]
) -> None:
    """Log the first value by ``log``, and the others beside it where that is Lightning's own; otherwise each by it."""
    results: Any = running_results(trainer)
    kind: Any = type(results)
    light = _is_lightnings(log) and takes_light_results(kind)
    for key, value in values.items():
        name = f"{hook}.{key}"
        give_way(results, name)
        log(key, value, prog_bar=key in bar, **options)
        if options["on_epoch"] and name in results:
            set_computed(results[name], value)
        if light and name in results:
            place(results, hook, key, {other: one for other, one in values.items() if other != key}, bar)
            return


def _is_lightnings(log: Log) -> bool:
    """Whether nobody has overridden ``log``."""
    owner = getattr(getattr(log, "__func__", None), "__module__", "")
    return owner in ("lightning.pytorch.core.module", "pytorch_lightning.core.module")


def _seen_by_callbacks(trainer: Any, values: Mapping[str, Tensor], bar: Collection[str]) -> bool:
    """Put values where ``log`` would, except into every dataloader's results: Lightning 2.5 refuses such keys."""
    connector = getattr(trainer, "_logger_connector", None)
    names = ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics")
    kept: list[Any] = [getattr(connector, name, None) for name in names]
    if not all(isinstance(one, dict) for one in kept):
        return False
    callback, logged, on_bar = kept
    callback.update(values)
    logged.update(values)
    on_bar.update({key: value.item() for key, value in values.items() if key in bar})
    return True


def log_step(module: Any, trainer: Any, log: Log, key: str, value: Tensor, *, first: bool, bar: bool) -> None:
    """Log a training batch's loss, on the first batch of an epoch or on a logging step."""
    if trainer.barebones or running_hook(module, "training_step") not in _STEP_HOOKS:
        return
    log(key, value.detach(), prog_bar=bar, on_step=True, on_epoch=False, batch_size=1)
    if first and not is_logging_step(trainer) and trainer.log_every_n_steps:
        _write_row(trainer, "train", {key: value.detach()})


def _write_row(trainer: Any, stage: Stage, scalars: Mapping[str, Tensor]) -> None:
    """Write one row to the loggers now, at Lightning's own step."""
    if not trainer.loggers:
        return
    connector = getattr(trainer, "_logger_connector", None)
    if connector is not None and hasattr(connector, "log_metrics"):
        connector.log_metrics(dict(scalars))
        return
    row = {key: value.item() for key, value in scalars.items()} | {"epoch": trainer.current_epoch}
    for logger in trainer.loggers:
        logger.log_metrics(row, step=logged_step(trainer, stage, epoch_end=False))
