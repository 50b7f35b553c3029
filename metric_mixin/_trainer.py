"""What the running Trainer says: a module in, its trainer, stage and step out. Reads, never changes.

Private names read (Lightning 2.6.6): ``fit_loop.epoch_loop._batches_that_stepped``, ``_logger_connector`` with
``should_update_logs``, ``LightningModule._current_fx_name``. Each has a public stand-in where it is missing.
"""

from __future__ import annotations

from typing import Any

from metric_mixin._types import Stage

_STAGES: dict[str, Stage] = {"train": "train", "validate": "val", "sanity_check": "val", "test": "test"}


def trainer_of(module: Any) -> Any | None:
    """Return the Trainer that runs ``module``, or ``None`` (alone, or with Fabric)."""
    if getattr(module, "fabric", None) is not None:
        return None
    try:
        return module.trainer
    except RuntimeError:
        return None


def running_stage(trainer: Any | None) -> Stage | None:
    """Return the stage in which ``trainer`` is, or ``None`` outside of train, val and test."""
    stage = None if trainer is None else trainer.state.stage
    return None if stage is None else _STAGES.get(getattr(stage, "value", stage))


def logged_step(trainer: Any, stage: Stage, *, epoch_end: bool) -> int:
    """Return the step under which Lightning itself logs what is logged now."""
    loop = trainer.fit_loop.epoch_loop
    step = int(getattr(loop, "_batches_that_stepped", trainer.global_step))
    return step - 1 if stage == "train" and epoch_end else step


def is_logging_step(trainer: Any) -> bool:
    """Whether Lightning writes this training batch's values to the loggers."""
    connector = getattr(trainer, "_logger_connector", None)
    if (should := getattr(connector, "should_update_logs", None)) is not None:
        return bool(should or trainer.fast_dev_run)
    every = trainer.log_every_n_steps
    return bool(trainer.fast_dev_run or (every and (trainer.global_step + 1) % every == 0))


def running_hook(module: Any) -> str | None:
    """Return the name of the hook of ``module`` that Lightning is calling."""
    return getattr(module, "_current_fx_name", None)
