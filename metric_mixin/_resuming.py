"""When a checkpoint's entry is written, taken or dropped: the module and its Trainer in; said, where rows are lost."""

from __future__ import annotations

from typing import Any

from metric_mixin._options import options_of
from metric_mixin._resume import (
    ENTRY,
    VERSION,
    checked_entry,
    extremes_of,
    restore_extremes,
    restore_states,
    states_of,
)
from metric_mixin._trainer import is_fitting, train_loaders_are_stateful, train_position, trainer_of


def save(module: Any, checkpoint: dict[str, Any]) -> None:
    """Put our entry into a checkpoint: best values, names of classes, and the rows of a running train epoch."""
    recorder = module._metric_recorder
    recorder.hook_calls["on_save_checkpoint"] += 1
    if not options_of(module).checkpoint_states:
        return
    trainer = trainer_of(module)
    epoch, batches = (0, 0) if trainer is None else train_position(trainer)
    train = recorder.stages.get("train")
    checkpoint[ENTRY] = {
        "version": VERSION,
        "epoch": epoch,
        "batches": batches,
        "best": recorder.best.to_checkpoint(),
        "class_names": None if recorder.class_names is None else list(recorder.class_names),
        "extremes": {stage: extremes_of(record) for stage, record in recorder.stages.items()},
        "train": {} if train is None or trainer is None or not is_fitting(trainer) else states_of(train),
    }


def load(module: Any, checkpoint: dict[str, Any]) -> None:
    """Take best values and extremes where ``fit`` resumes, and keep the states until its first training step.

    Validating, testing and loading a module take the names of the classes alone.

    Raises:
        ResumeError: The entry is damaged, or is none of ours.
    """
    if not options_of(module).checkpoint_states:
        return
    entry = checked_entry(checkpoint)
    recorder = module._metric_recorder
    if entry is not None and entry.get("class_names") is not None and recorder.class_names is None:
        recorder.class_names = tuple(entry["class_names"])
        for stage in recorder.stages:
            recorder.describe(module, stage)
    trainer = trainer_of(module)
    if trainer is None or not is_fitting(trainer):
        return
    recorder.loaded = entry or {"epoch": None, "batches": 0, "train": {}}
    if entry is not None:
        recorder.best.from_checkpoint(entry["best"])
        for stage, extremes in entry["extremes"].items():
            if stage in recorder.stages:
                restore_extremes(recorder.stages[stage], extremes)


def take_loaded(module: Any, trainer: Any, *, announced: bool = False, epoch_ends: bool = False) -> None:
    """On the first step of a training epoch: take the loaded rows where this epoch goes on, or drop them and say so.

    Args:
        module: The module.
        trainer: Its Trainer, fitting.
        announced: Whether Lightning announced the epoch, so that no batch of it is done.
        epoch_ends: Whether the epoch ends at once, so that no batch of it is left.
    """
    recorder = module._metric_recorder
    entry, recorder.loaded = recorder.loaded, None
    if entry is None:
        return
    epoch, batches = train_position(trainer)
    goes_on = entry["epoch"] == epoch and entry["batches"] == batches
    if entry["train"] and goes_on and (epoch_ends or train_loaders_are_stateful(trainer)):
        if missing := restore_states(recorder.stage(module, "train"), entry["train"]):
            recorder.say(
                f"resume {missing}",
                f"Resumed within epoch {epoch}: the checkpoint has no states of {', '.join(map(repr, missing))} as "
                "declared now, so their values of this epoch cover the rows since the resume.",
            )
    elif entry["train"] or (batches and not announced):
        saved = f"epoch {entry['epoch']} after {entry['batches']} batches" if entry["train"] else f"epoch {epoch}"
        recorder.say(
            "resume",
            f"Resumed within {saved}: the training values of epoch {epoch} cover the rows since the resume alone. "
            "Rows before it count only with dataloaders that keep their place (a `state_dict`, such as torchdata's "
            "StatefulDataLoader), or where no batch of the epoch was left.",
        )
