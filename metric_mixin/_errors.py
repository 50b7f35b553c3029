"""Every error and warning of the package, and the way they are said; imports nothing of ours."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable


class MetricMixinWarning(UserWarning):
    """Every warning of this package."""


class MetricMixinError(Exception):
    """Base of every error of this package; each child also inherits the builtin that fits it."""

    __str__ = Exception.__str__  # KeyError would print the repr of its message


class ClassDefinitionError(MetricMixinError, TypeError):
    """The base classes of a module stand in an order in which the mixin cannot work."""


class OptionError(MetricMixinError, ValueError):
    """An option of ``MetricLogging`` has a value it cannot have."""


class DeclarationError(MetricMixinError, ValueError):
    """What a metric factory returned cannot be used, or a name in it is not legal."""


class DeclarationTypeError(DeclarationError, TypeError):
    """A metric factory returned something else than metrics."""


class KeyCollisionError(DeclarationError):
    """Two sources would be logged under one key."""


class ClassNamesError(DeclarationError):
    """The names of the classes do not fit the number of classes, or are no usable names."""


class StageError(MetricMixinError, ValueError):
    """A stage is unknown, or must be named and was not."""


class MissingLossError(MetricMixinError, NotImplementedError):
    """A default step ran in a module that has no ``loss``."""


class BatchError(MetricMixinError, TypeError):
    """A batch, a loss, a weight, or a value of a batch with padding is not of the form that a step expects."""


class ManualOptimizationError(MetricMixinError, RuntimeError):
    """The default ``training_step`` ran under manual optimisation, where it would train nothing."""


class UnknownMetricError(MetricMixinError, KeyError):
    """A metric was named that is not declared."""


class UpdateError(MetricMixinError, RuntimeError):
    """A metric refused its inputs."""


class LabelRangeError(MetricMixinError, ValueError):
    """A label is none of the classes of a metric."""


class LoaderNamesError(MetricMixinError, ValueError):
    """There are more or fewer names of dataloaders than dataloaders."""


class SyncError(MetricMixinError, RuntimeError):
    """The ranks came to an exchange of metrics with different things, or one of them did not come."""


class ResumeError(MetricMixinError, ValueError):
    """The entry of a checkpoint is damaged, or was not made by this package."""


class ComputeError(MetricMixinError, RuntimeError):
    """A metric failed to compute its value."""


class EmptyMetricError(MetricMixinError, RuntimeError):
    """A metric was never updated in an epoch, and ``on_empty="raise"``."""


class LoggedMetricError(MetricMixinError, ValueError):
    """``self.log`` was given a metric that this package already logs and resets."""


class ForgottenSuperError(MetricMixinError, RuntimeError):
    """An overridden hook did not call ``super()``, and values would be lost by it."""


class NoResultError(MetricMixinError, LookupError):
    """A result was asked for that no finished epoch has made yet."""


class MissingDependencyError(MetricMixinError, ModuleNotFoundError):
    """An optional package is needed and absent, or a version of torchmetrics is one that this package does not know."""


class RankError(MetricMixinError, RuntimeError):
    """A process of ``metric_mixin.testing.run_ranks`` failed, or could not be started."""


class RankTimeoutError(RankError, TimeoutError):
    """Processes of ``metric_mixin.testing.run_ranks`` had not returned in time."""


def listed(names: Iterable[object]) -> str:
    """``'a', 'b'``, or ``none``."""
    return ", ".join(map(repr, names)) or "none"


def closest(name: str, candidates: Iterable[str]) -> str:
    """The candidates most like ``name``, as words for a message; all of them where none is like it."""
    candidates = list(dict.fromkeys(candidates))
    return listed(difflib.get_close_matches(name, candidates, n=3, cutoff=0.4) or candidates[:10])


def said(message: str) -> None:
    """Warn on rank zero, at the user's own line; who says a thing once keeps track of that himself."""
    from lightning.pytorch.utilities import rank_zero_only

    if getattr(rank_zero_only, "rank", 0) not in (0, None):
        return
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_NOT_THE_USERS):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, MetricMixinWarning, stacklevel=level)


_NOT_THE_USERS = ("metric_mixin.", "lightning.", "pytorch_lightning.", "torch.", "contextlib")
