"""What the running Trainer says: a module in, its trainer, stage and step out. Reads, never changes.

Private names read (Lightning 2.5.1 and 2.6.6): ``trainer._results``, ``fit_loop.epoch_loop._batches_that_stepped``,
``fit_loop._combined_loader_states_to_load``, ``_logger_connector`` with ``should_update_logs``,
``LightningModule._current_fx_name``, and of an evaluation loop ``_is_sequential``, ``_logged_outputs``,
``_combined_loader`` and the class of ``_data_fetcher``. Each has a stand-in where it is missing;
``docs/private-api.md`` says which.
"""

from __future__ import annotations

from typing import Any

import torch

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


def data_ranks(trainer: Any | None) -> tuple[int | None, Any]:
    """Return how many processes have rows of their own, and their group; all, where it is ``None``.

    Without a Trainer their number is ``None``, and torch.distributed knows. With a device mesh the ranks of one model
    have the same rows, and those along its dimension ``data_parallel`` have others.
    """
    if trainer is None:
        return None, None
    try:
        mesh = trainer.strategy.device_mesh
    except (AttributeError, RuntimeError):  # none, or none yet
        mesh = None
    if "data_parallel" in (getattr(mesh, "mesh_dim_names", None) or ()):
        return int(mesh["data_parallel"].size()), mesh["data_parallel"].get_group()
    return int(trainer.world_size), None


def loader_count(trainer: Any, stage: Stage) -> int:
    """Return the number of evaluation dataloaders that run one after the other; 1 where their batches come combined."""
    if stage == "train":
        return 1
    batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
    batches = trainer.num_test_batches if stage == "test" else batches
    loop = _evaluation_loop(trainer)
    if not isinstance(batches, list) or not getattr(loop, "_is_sequential", True):
        return 1
    return max(1, len(batches))


def eval_loaders(trainer: Any) -> tuple[list[Any], bool]:
    """Return the evaluation dataloaders that run, as the Trainer made them, and whether hooks know their batches.

    They do not where the batches of several dataloaders come combined, or the step takes batches by itself.
    """
    from torch.utils._pytree import tree_leaves

    loop = _evaluation_loop(trainer)
    combined = getattr(loop, "_combined_loader", None)
    given = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    loaders = list(tree_leaves(given) if combined is None else combined.flattened)
    in_turn = len(loaders) == 1 or getattr(loop, "_is_sequential", True)
    by_itself = type(getattr(loop, "_data_fetcher", None)).__name__ == "_DataLoaderIterDataFetcher"
    return loaders, in_turn and not by_itself


def passed_over(trainer: Any) -> bool:
    """Whether Lightning runs no hook of this evaluation on this process, since its dataloaders have no batch."""
    batches = trainer.num_test_batches if trainer.testing else trainer.num_val_batches
    return bool(batches) and not any(batches)


def running_results(trainer: Any) -> dict[str, Any] | None:
    """Return what the running loop keeps of what was logged, or ``None`` where no loop runs.

    An empty dict stands in for results of another kind than those that were read.
    """
    results = getattr(trainer, "_results", {})
    return results if results is None or isinstance(results, dict) else {}


def logged_outputs(trainer: Any) -> list[dict[str, Any]] | None:
    """Return the results of the running evaluation, a dict for each dataloader that gave a batch, or ``None``."""
    outputs = getattr(_evaluation_loop(trainer), "_logged_outputs", None)
    return outputs if isinstance(outputs, list) else None


def _evaluation_loop(trainer: Any) -> Any:
    if trainer.testing:
        return trainer.test_loop
    return trainer.fit_loop.epoch_loop.val_loop if is_fitting(trainer) else trainer.validate_loop


def is_fitting(trainer: Any) -> bool:
    """Whether ``trainer.fit`` runs, its sanity check and validation included."""
    return bool(getattr(trainer.state.fn, "value", trainer.state.fn) == "fit")


def train_position(trainer: Any) -> tuple[int, int]:
    """Return the running training epoch and its number of batches done."""
    return int(trainer.current_epoch), int(trainer.fit_loop.epoch_loop.batch_progress.current.processed)


def train_loaders_are_stateful(trainer: Any) -> bool:
    """Whether each training dataloader goes on, after a resume, where it was; as Lightning looks at it.

    It does not where Lightning set it up before the checkpoint's loops were restored, as it does where
    ``configure_optimizers`` asks for ``trainer.estimated_stepping_batches`` (lightning#20550): then the states of
    dataloaders still wait to be loaded, and the first batches come once more.
    """
    from torch.utils._pytree import tree_leaves

    if getattr(trainer.fit_loop, "_combined_loader_states_to_load", None):
        return False
    loaders = tree_leaves(getattr(trainer.train_dataloader, "iterables", trainer.train_dataloader))
    return bool(loaders) and all(
        callable(getattr(one, "state_dict", None)) and callable(getattr(one, "load_state_dict", None))
        for one in loaders
    )


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


def runs_batch(module: Any, stage: Stage) -> bool:
    """Whether a batch of ``stage`` runs: one of its steps or batch hooks, of the module or of a callback."""
    hook = running_hook(module)
    in_batch = hook is None or hook.endswith(("_step", "batch_start", "batch_end"))
    return in_batch and running_stage(trainer_of(module)) == stage


def plain_names(cls: type, mixin: type) -> frozenset[str]:
    """Return names of attributes that a module of ``cls`` may write at once, past what lies behind the mixin.

    Lightning notes the hook that runs some forty times a step (private name ``_current_fx_name``, read at 2.5.1 and
    2.6.6), and each time ``nn.Module`` looks whether a string is a parameter, a module or a buffer: 0.1 ms a step.
    None where a class behind the mixin has its own ``__setattr__`` or gives the name a meaning.
    """
    behind = cls.__mro__[cls.__mro__.index(mixin) + 1 :]
    own = [base for base in behind if "__setattr__" in vars(base) and base not in (torch.nn.Module, object)]
    return frozenset() if own or hasattr(cls, _HOOK) else frozenset({_HOOK})


_HOOK = "_current_fx_name"
_UNKNOWN: Any = object()


def running_hook(module: Any, likely: str | None = None) -> str | None:
    """Return the name of the hook of ``module`` that Lightning is calling.

    Where Lightning does not say, it is the end of an epoch that we know of, or else what is ``likely``.
    """
    hook = getattr(module, _HOOK, _UNKNOWN)
    return hook if hook is not _UNKNOWN else module._metric_recorder.ending or likely
