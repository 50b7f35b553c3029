"""When a checkpoint's entry is written, taken or dropped: the module and its Trainer in; said, where rows are lost."""

from __future__ import annotations

from typing import Any

from metric_mixin._options import options_of
from metric_mixin._ranks import gathered, several_ranks
from metric_mixin._resume import (
    ENTRY,
    VERSION,
    checked_entry,
    extremes_of,
    merged_states,
    restore_extremes,
    restore_states,
    states_of,
)
from metric_mixin._signature import raise_faults
from metric_mixin._trainer import data_ranks, is_fitting, train_loaders_are_stateful, train_position, trainer_of


def save(module: Any, checkpoint: dict[str, Any]) -> None:
    """Put our entry into a checkpoint: best values, names of classes, and the rows of a running train epoch."""
    recorder = module._metric_recorder
    recorder.hook_calls["on_save_checkpoint"] += 1
    if not options_of(module).checkpoint_states:
        return
    trainer = trainer_of(module)
    epoch, batches = (0, 0) if trainer is None else train_position(trainer)
    goes_on = "optimizer_states" in checkpoint  # nobody goes on from a file of weights alone
    ranks, whole = _rows_of_epoch(recorder, trainer) if goes_on else ([], True)
    checkpoint[ENTRY] = {
        "version": VERSION,
        "epoch": epoch,
        "batches": batches,
        "best": recorder.best.to_checkpoint(),
        "class_names": None if recorder.class_names.known is None else list(recorder.class_names.known),
        "extremes": {stage: extremes_of(record) for stage, record in recorder.stages.items()},
        "train": ranks,
        "whole": whole,
    }


def _rows_of_epoch(recorder: Any, trainer: Any | None) -> tuple[list[dict[str, Any]], bool]:
    """Return each rank's rows of the training epoch that runs, if one does, and whether those of all ranks are there.

    Within an epoch all ranks come here; on an exception one alone may, and asks no other. Rows of which some have
    labels that are none, as a device told only now, are an error on every rank, and on an exception left out.
    """
    record = recorder.stages.get("train")
    if record is None or trainer is None or not is_fitting(trainer) or not record.open:
        return [], True
    fault = record.fault()
    mine = states_of(record) if fault is None else {}
    ranks, group = data_ranks(trainer)
    alone = ranks == 1 or not several_ranks(group)
    if trainer.interrupted:
        return ([mine] if fault is None else []), alone
    if alone:
        if fault is not None:
            raise fault
        return [mine], True
    found = gathered((None if fault is None else (type(fault), str(fault)), mine), {"stage": "train"}, group)
    raise_faults({rank: one for rank, (one, _) in found.items()})
    return [states for _, states in found.values()], True


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
    if entry is not None and entry.get("class_names") is not None and recorder.class_names.known is None:
        recorder.class_names.known = tuple(entry["class_names"])
        for stage in recorder.stages:
            recorder.describe(module, stage)
    trainer = trainer_of(module)
    if trainer is None or not is_fitting(trainer):
        return
    recorder.loaded = (entry or {"epoch": None, "batches": 0, "train": []}) | {"place": _has_place(checkpoint)}
    if entry is not None:
        recorder.best.from_checkpoint(entry["best"])
        for stage, extremes in entry["extremes"].items():
            if stage in recorder.stages:
                restore_extremes(recorder.stages[stage], extremes)


def _has_place(checkpoint: dict[str, Any]) -> bool:
    """Whether the training dataloaders kept their place when the checkpoint was saved, where Lightning puts it."""
    loop = checkpoint.get("loops", {}).get("fit_loop", {}).get("state_dict", {})
    return bool(loop.get("combined_loader"))


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
    saved_rows = any(entry["train"])
    if saved_rows and goes_on and (epoch_ends or (entry["place"] and train_loaders_are_stateful(trainer))):
        record = recorder.stage(module, "train")
        if missing := restore_states(record, _share_of_rank(record, entry["train"], trainer)):
            recorder.say(
                f"resume {missing}",
                f"Resumed within epoch {epoch}: the checkpoint has no states of {', '.join(map(repr, missing))} as "
                "declared now, or they do not go on from those of another number of processes, so their values of "
                "this epoch cover the rows since the resume.",
            )
        if len(entry["train"]) != data_ranks(trainer)[0] and entry.get("whole", True) and not epoch_ends:
            recorder.say(
                "resume ranks",
                f"Resumed within epoch {epoch} on {data_ranks(trainer)[0]} processes from a checkpoint of "
                f"{len(entry['train'])}: the training values of this epoch cover the rows before it and since. That is "
                "each row once only where the dataloaders go on at the very row where they were, whatever the number "
                "of processes; a `DistributedSampler` does not.",
            )
        if not entry.get("whole", True):
            recorder.say(
                "resume part",
                f"Resumed within epoch {epoch} from a checkpoint that was saved on an exception: of the rows before "
                "it, the training values of this epoch cover those of rank 0 alone.",
            )
    elif saved_rows and entry["epoch"] < epoch:
        recorder.say(
            "resume over",
            f"The checkpoint was saved when the last batch of epoch {entry['epoch']} was done, before that epoch had "
            f"ended, and Lightning goes on in epoch {epoch}: epoch {entry['epoch']} has no training values. A "
            "checkpoint of a validation, or of an epoch's end, loses none.",
        )
    elif saved_rows or (batches and not announced):
        saved = f"epoch {entry['epoch']} after {entry['batches']} batches" if saved_rows else f"epoch {epoch}"
        recorder.say(
            "resume",
            f"Resumed within {saved}: the training values of epoch {epoch} cover the rows since the resume alone. "
            "Rows before it count only with dataloaders that keep their place (a `state_dict`, such as torchdata's "
            "StatefulDataLoader), or where no batch of the epoch was left.",
        )


def _share_of_rank(record: Any, ranks: list[dict[str, Any]], trainer: Any) -> dict[str, Any]:
    """The rows that this rank goes on with: its own, or, of another number of ranks, on rank 0 those of all."""
    if len(ranks) == data_ranks(trainer)[0]:
        own: dict[str, Any] = ranks[_data_rank(trainer)]
        return own
    if _data_rank(trainer) > 0:
        return {}
    return ranks[0] if len(ranks) == 1 else merged_states(record, ranks)


def _data_rank(trainer: Any) -> int:
    """The place of this process among those with rows of their own."""
    return int(trainer.strategy.distributed_sampler_kwargs["rank"]) if data_ranks(trainer)[1] else trainer.global_rank
