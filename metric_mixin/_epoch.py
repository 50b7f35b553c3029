"""One epoch of a stage: begun, and at its end computed, logged, drawn, reported and reset, in that order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from metric_mixin._errors import NoResultError
from metric_mixin._inputs import mapped
from metric_mixin._log import Log, forget_last_epoch, log_epoch
from metric_mixin._monitors import check_early_train_keys, check_monitors, trains_without_own_code
from metric_mixin._options import options_of
from metric_mixin._padding import Shard, rows_in_doubt, rows_of_batch, sampling, shard_of
from metric_mixin._patterns import is_matched, matched_keys
from metric_mixin._pictures import show
from metric_mixin._record import Keyed
from metric_mixin._report import MetricReport, report_values
from metric_mixin._resuming import take_loaded
from metric_mixin._trainer import (
    data_ranks,
    eval_loaders,
    is_fitting,
    loader_count,
    logged_step,
    passed_over,
    running_hook,
    trainer_of,
)
from metric_mixin._transfer import on_cpu
from metric_mixin._types import STAGES, Stage

_END_HOOKS: dict[Stage, str] = {
    "train": "on_train_epoch_end",
    "val": "on_validation_epoch_end",
    "test": "on_test_epoch_end",
}
_START_HOOKS = {stage: hook.replace("_end", "_start") for stage, hook in _END_HOOKS.items()}
_BATCH_HOOKS = {stage: hook.replace("epoch_end", "batch_start") for stage, hook in _END_HOOKS.items()}


def begin(module: Any, stage: Stage) -> None:
    """Begin an epoch: forget the rows that an interrupted one left, and see that dataloaders and names agree."""
    recorder = module._metric_recorder
    recorder.hook_calls[_START_HOOKS[stage]] += 1
    record = recorder.stage(module, stage)
    record.logged_early, record.early = False, {}
    record.reset()
    record.shards = record.batch_rows = None
    trainer = trainer_of(module)
    if trainer is None:
        return
    if trainer.sanity_checking:
        record.keep()
    forget_last_epoch(trainer)
    if stage == "train":
        record.epoch, record.open = train_epoch(recorder, trainer), True
        take_loaded(module, trainer, announced=True)
        check_monitors(module, trainer, "train", own_log_possible=not trains_without_own_code(module, trainer))
    else:
        recorder.set_loaders(module, stage, loader_count(trainer, stage))
        record.shards = _shards(module, stage, trainer)


def begin_batch(module: Any, stage: Stage, batch: Any, index: int, loader: int | None = None) -> None:
    """Take note of the batch that comes; in training, begin an epoch that Lightning did not announce."""
    recorder = module._metric_recorder
    recorder.hook_calls[_BATCH_HOOKS[stage]] += 1
    if stage == "train":
        recorder.last_batch = None
        enter_train_epoch(module)
        recorder.stage(module, stage).batch_rows = rows_of_batch(None, index, batch)
        return
    record = recorder.stage(module, stage)
    record.running = loader
    if (loader or 0) not in record.visited:
        record.visited.append(loader or 0)
    if record.shards is None:
        record.shards = _shards(module, stage, trainer_of(module))
    shard = record.shards[loader or 0] if (loader or 0) < len(record.shards) else None
    record.batch_rows = rows_of_batch(shard, index, batch)


def _shards(module: Any, stage: Stage, trainer: Any | None) -> list[Shard | None]:
    """What each dataloader gives on this rank; where rows may be padding and nobody can tell which, that is said."""
    loaders, known = ([], True) if trainer is None else eval_loaders(trainer)
    shards = [shard_of(loader) for loader in loaders]
    ranks, _ = data_ranks(trainer)
    if trainer is None or ranks == 1 or not options_of(module).exact_eval:
        return [shard and shard._replace(real=shard.given, repeated=0) for shard in shards] if known else []
    for i, (loader, shard) in enumerate(zip(loaders, shards, strict=True)):
        if shard is None or not known:
            doubtful = rows_in_doubt(loader, ranks or 1) if shard is None else shard.repeated
            if doubtful != 0:
                module._metric_recorder.say(
                    f"padding {stage} {i}",
                    f"Dataloader {i} of stage {stage!r} ({sampling(loader)}) may repeat rows, so that all "
                    f"{ranks} processes have as many, and it cannot be told which. Rows that may count "
                    f"twice: {'an unknown number' if doubtful is None else doubtful}. "
                    "A `DistributedSampler`, a plain batch sampler, batches in order and one dataloader after the "
                    "other are exact.",
                )
    return shards if known else []


def enter_train_epoch(module: Any, *, epoch_ends: bool = False) -> None:
    """Begin a training epoch on its first step where ``on_train_epoch_start`` did not run, as after some resumes."""
    recorder = module._metric_recorder
    record = recorder.stage(module, "train")
    trainer = trainer_of(module)
    if trainer is None or record.epoch == (epoch := train_epoch(recorder, trainer)):
        return
    if record.epoch is not None or recorder.loaded is not None:
        record.reset()
    record.epoch, record.open = epoch, True
    record.logged_early = False
    take_loaded(module, trainer, epoch_ends=epoch_ends)


def train_epoch(recorder: Any, trainer: Any) -> tuple[Any, ...]:
    """What tells the running training epoch from every other one."""
    return id(trainer), recorder.runs, trainer.current_epoch


@contextmanager
def finishing(module: Any, log: Log, stage: Stage, *, early: bool = False) -> Iterator[None]:
    """End an epoch, or, ``early``, what was fed of it so far: compute, log, draw, report, hand over, reset.

    The hook of a task behind the mixin runs in between, after the values are computed, since it may reset the metrics,
    and before anything is reset, since it may compute them. In a sanity check the values are computed, so that errors
    show, and nothing else happens. States are reset whatever is raised.
    """
    recorder = module._metric_recorder
    record = recorder.stage(module, stage)
    trainer = trainer_of(module)
    recorder.ending = None if early else _END_HOOKS[stage]
    if not early:
        recorder.hook_calls[_END_HOOKS[stage]] += 1
        if stage == "train":
            enter_train_epoch(module, epoch_ends=True)
    sanity = trainer is not None and trainer.sanity_checking
    try:
        with record.untouched() if sanity else nullcontext():
            keyed = recorder.compute(module, stage, _about(trainer, sanity, early), sanity=sanity)
        yield
        if (keyed and not sanity) or not (sanity or record.logged_early):
            keyed = _publish(module, trainer, log, stage, keyed)
        elif not sanity and not early and trainer is not None:
            _log(module, trainer, log, stage, record.early)  # nothing came after it: the epoch ends with it
        record.early = keyed if early else {}
    finally:
        if sanity and not early:
            record.put_back()
        record.reset()
        record.open = early and record.open
        if not early:
            record.shards = record.batch_rows = None
        record.logged_early = early
        recorder.last_batch = recorder.ending = None


def take_part(module: Any, log: Log, stage: Stage) -> None:
    """End an epoch that Lightning passed over on this process, whose dataloaders have no batch, with the others.

    Each process then has the values of all rows. Where none has a batch, nothing comes of it.
    """
    trainer = trainer_of(module)
    if trainer is None or data_ranks(trainer)[0] == 1 or not passed_over(trainer):
        return
    begin(module, stage)
    module._metric_recorder.stages[stage].logged_early = True  # so that it may be empty
    with finishing(module, log, stage):
        pass


def _about(trainer: Any | None, sanity: bool, early: bool) -> dict[str, str]:
    """What tells the end of this epoch from every other one, in words."""
    when = "sanity check" if sanity else "log_metrics" if early else "the epoch's end"
    return {"called by": when} | ({} if trainer is None else {"epoch": str(trainer.current_epoch)})


def ended(module: Any, stage: Stage) -> None:
    """When the end of an epoch is over, the user's own hook included: judge monitors, before any callback looks.

    Keys of validation are known after the first one; a sanity check is enough.
    """
    trainer = trainer_of(module)
    if trainer is None or not is_fitting(trainer) or module._metric_recorder.hook_depth:
        return
    check_monitors(module, trainer, stage, own_log_possible=False)
    if stage == "val" and not trainer.sanity_checking:
        check_early_train_keys(module, trainer)


def _publish(module: Any, trainer: Any | None, log: Log, stage: Stage, keyed: Keyed) -> Keyed:
    """Do with an epoch's values all that is done outside of a sanity check; return them with the best so far."""
    recorder = module._metric_recorder
    epoch = trainer.current_epoch if trainer is not None and is_fitting(trainer) else None
    keyed = recorder.with_best(module, stage, on_cpu(keyed), epoch)
    values = {key: entry.value if entry.is_scalar else mapped(_kept, entry.value) for key, entry in keyed.items()}
    recorder.results[stage] = values
    recorder.reports[stage] = _report(trainer, module, stage, keyed)
    _say_arrays(module, stage, keyed)
    if trainer is not None:
        _log(module, trainer, log, stage, keyed)
        show(module, trainer, stage, keyed, values, _step(trainer, module, stage))
    module.on_metrics_computed(stage, values)
    return keyed


def _log(module: Any, trainer: Any, log: Log, stage: Stage, keyed: Keyed) -> None:
    recorder = module._metric_recorder
    record = recorder.stages[stage]
    scalars = {key: entry.value for key, entry in keyed.items() if entry.is_scalar}
    loaders = record.labels()
    places = {label: record.visited.index(i) for i, label in enumerate(loaders) if i in record.visited}
    several = len(loaders) > 1
    of_loader = {key: places[e.loader] for key, e in keyed.items() if several and e.loader in places}
    log_epoch(module, trainer, log, stage, scalars, matched_keys(options_of(module).prog_bar, stage, keyed), of_loader)


def _kept(tensor: Tensor) -> Tensor:
    """An array for ``metric_results``: on the CPU, without a graph, and usable outside of inference mode."""
    with torch.inference_mode(False):
        tensor = tensor.detach() if tensor.is_meta else tensor.detach().cpu()  # which has nothing to bring
        return tensor.clone() if tensor.is_inference() else tensor


def _say_arrays(module: Any, stage: Stage, keyed: Keyed) -> None:
    """Say once of each array that it is not logged, unless a picture of it was asked for."""
    patterns = options_of(module).figures
    for key, entry in keyed.items():
        if not entry.is_scalar and not any(is_matched(patterns, s, key, entry) for s in STAGES):
            module._metric_recorder.say(
                f"array {entry.name}",
                f"{key!r} is no scalar and is not logged; it is kept whole in `metric_results[{stage!r}]`, and drawn "
                "where `MetricLogging(figures=...)` asks for it.",
            )


def _report(trainer: Any | None, module: Any, stage: Stage, keyed: Keyed) -> MetricReport:
    recorder = module._metric_recorder
    return MetricReport(
        stage=stage,
        epoch=None if trainer is None else trainer.current_epoch,
        step=None if trainer is None else _step(trainer, module, stage),
        values=report_values(keyed, recorder.epochs_of_best(module, stage)),
        rows=recorder.stages[stage].rows,
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
