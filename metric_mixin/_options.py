"""``MetricLogging``: every option, checked when it is made; plain values in, a frozen object out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import FrozenInstanceError, dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch

from metric_mixin._errors import OptionError, listed
from metric_mixin._names import name_fault


@dataclass(frozen=True)
class MetricLogging:
    """How metrics are logged, drawn and kept. Set as the attribute ``metric_logging`` of a class or an object.

    A *pattern* is an ``fnmatch`` glob (``*`` crosses ``/``) that matches a metric's name, ``stage/name``, or its
    key as logged. Lists and dtype names, as YAML gives them, are accepted and stored as tuples and dtypes.

    Args:
        prog_bar: Patterns of the keys for the progress bar.
        figures: Patterns of what to draw after each epoch: arrays by their metric's own ``plot``, scalars, those of
            several classes in one picture, over the epochs of the run.
        figures_every_n_epochs: While fitting, draw in every n-th epoch only: the n-th, the 2n-th and so on.
        track_best: Key to ``"max"``, ``"min"`` or ``"auto"`` (from the metric's ``higher_is_better``).
        class_names: Names of the classes in order, or a mapping from pattern to names. ``None`` asks the
            datamodule's attribute ``class_names``, for metrics with ``num_classes`` or ``num_labels``.
        val_loaders: Names of the validation dataloaders, in order.
        test_loaders: Names of the test dataloaders, in order.
        pooled: With several loaders, also log the value over all of them.
        exact_eval: In validation and test on several processes, rows that a ``DistributedSampler`` repeats, so that
            all have as many, do not count: they go through ``forward``, and are cut from outputs, target and batch
            before ``loss``, ``metric_inputs`` and ``batch_weight``. A sampler that cannot be seen through is said.
        on_empty: What becomes of a metric that was never updated: ``"skip"``, ``"nan"`` or ``"raise"``.
        on_error: What becomes of a metric whose ``compute`` raises: ``"raise"``, or ``"warn"`` and log the others.
        checkpoint_states: Metric states and best values travel in checkpoints.
        metric_dtype: Floating states keep this dtype under ``*-true`` precision.

    Raises:
        OptionError: An option has a value that it cannot have; the message names it and what was expected.

    Examples:
        >>> MetricLogging(prog_bar=["*/acc"], metric_dtype="float64").metric_dtype
        torch.float64
    """

    prog_bar: Sequence[str] = ("*/loss", "train/loss_step")
    figures: Sequence[str] = ()
    figures_every_n_epochs: int = 1
    track_best: Mapping[str, Literal["max", "min", "auto"]] = field(default_factory=dict)
    class_names: Sequence[str] | Mapping[str, Sequence[str] | None] | None = None
    val_loaders: Sequence[str] = ()
    test_loaders: Sequence[str] = ()
    pooled: bool = False
    exact_eval: bool = True
    on_empty: Literal["skip", "nan", "raise"] = "skip"
    on_error: Literal["raise", "warn"] = "raise"
    checkpoint_states: bool = True
    metric_dtype: torch.dtype | str = torch.float32  # a name is stored as the dtype

    def __post_init__(self) -> None:
        for option, check in _CHECKS.items():
            object.__setattr__(self, option, check(option, getattr(self, option)))

    @classmethod
    def default(cls, option: str) -> Any:
        """The default of ``option``, to tell what the user set from what stood there."""
        return getattr(cls(), option)


def _set(self: MetricLogging, name: str, value: Any) -> None:
    """Refuse to change an option, but let it be set to the value that it has.

    With omegaconf installed, Lightning copies each dataclass among the hyperparameters and sets its fields to what they
    were, and ends the run where one is frozen: ``save_hparams_to_yaml`` (2.6.6), ``apply_to_collection`` of
    lightning_utilities (0.15).
    """
    if name not in vars(self) or vars(self)[name] != value:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")


MetricLogging.__setattr__ = _set  # type: ignore[method-assign,assignment]


def options_of(module: Any) -> MetricLogging:
    """Return the options of a module, or raise ``OptionError`` where its ``metric_logging`` is something else."""
    options = module.metric_logging
    if not isinstance(options, MetricLogging):
        raise OptionError(
            f"{type(module).__name__}.metric_logging must be a MetricLogging, got {type(options).__name__} "
            f"{options!r}. Write `metric_logging = MetricLogging(...)`."
        )
    return options


def matches(pattern: str, *candidates: str) -> bool:
    """Whether a pattern of an option matches one of the forms of a name."""
    return any(fnmatchcase(candidate, pattern) for candidate in candidates)


def _wrong(option: str, value: object, expected: str) -> OptionError:
    return OptionError(f"MetricLogging({option}={value!r}): expected {expected}, got {type(value).__name__} {value!r}.")


def _strings(option: str, value: Any) -> tuple[str, ...]:
    value = value.tolist() if hasattr(value, "tolist") else value  # an array of numpy's
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(v, str) and v for v in value):
        raise _wrong(option, value, "a tuple or list of non-empty strings (write a single one as ('x',))")
    return tuple(value)


def _loaders(option: str, value: Any) -> tuple[str, ...]:
    names = _strings(option, value)
    for name in names:
        if fault := name_fault(name):
            raise _wrong(option, value, f"names of dataloaders; {name!r} {fault}")
    if len(set(names)) < len(names):
        raise _wrong(option, value, "a name for each dataloader, no two alike")
    return names


def _class_names(option: str, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {
            pattern: _names(option, value[pattern])
            for pattern in _strings(option, list(value))
            if value[pattern] is not None
        }
    return _names(option, value)


def _names(option: str, value: Any) -> tuple[str, ...]:
    names = _strings(option, value)
    for name in names:
        if fault := name_fault(name):
            raise _wrong(option, value, f"names of classes; {name!r} {fault}")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise _wrong(option, value, f"a name of its own for each class; {listed(twice)} occurs twice")
    return names


def _best(option: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) and key for key in value):
        raise _wrong(option, value, "a mapping from key to 'max', 'min' or 'auto'")
    for mode in value.values():
        if mode not in ("max", "min", "auto"):
            raise _wrong(option, value, f"'max', 'min' or 'auto' for each key, not {mode!r}")
    return dict(value)


def _positive(option: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _wrong(option, value, "a whole number of at least 1")
    return value


def _flag(option: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(option, value, "True or False")
    return value


def _choice(*choices: str) -> Any:
    def check(option: str, value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise _wrong(option, value, f"one of {listed(choices)}")
        return value

    return check


def _dtype(option: str, value: Any) -> torch.dtype:
    dtype = getattr(torch, value.removeprefix("torch."), None) if isinstance(value, str) else value
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise _wrong(option, value, "a floating-point torch.dtype, or its name such as 'float32'")
    return dtype


_CHECKS: dict[str, Any] = {
    "prog_bar": _strings,
    "figures": _strings,
    "figures_every_n_epochs": _positive,
    "track_best": _best,
    "class_names": _class_names,
    "val_loaders": _loaders,
    "test_loaders": _loaders,
    "pooled": _flag,
    "exact_eval": _flag,
    "on_empty": _choice("skip", "nan", "raise"),
    "on_error": _choice("raise", "warn"),
    "checkpoint_states": _flag,
    "metric_dtype": _dtype,
}

_OPTION_NAMES: Collection[str] = {f.name for f in fields(MetricLogging)}
if _CHECKS.keys() != _OPTION_NAMES:  # pragma: no cover - a slip of ours, found at import
    raise AssertionError(f"options without a check: {_OPTION_NAMES ^ _CHECKS.keys()}")

torch.serialization.add_safe_globals([MetricLogging])  # so that a checkpoint with one loads with weights_only=True
