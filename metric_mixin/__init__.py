"""Declare metrics in one method; get exact, logged, reset metrics in train, val and test, in any LightningModule.

The way of the data, a file a step:

1. ``_declare``: what the factory returned -> metrics by name (``_names``: what a name may be)
2. ``_step``, ``_inputs``: a batch -> what metrics and loss take
3. ``_stage``, ``_loss``: inputs -> states -> values
4. ``_layout``, ``_keys``: values -> one scalar per key, and the arrays that are left
5. ``_log``, ``_figures``, ``_report``: scalars -> Trainer and loggers; arrays -> pictures; both -> tables
6. ``_epoch``: an epoch begun and ended, these steps in order; then everything is reset

Beside it: ``_options`` (every option), ``_recorder`` (what one module declared and found), ``_trainer`` (what the
running Trainer says), ``_guards`` (mistakes in a class or hook), ``_mixin`` (Lightning's hooks), ``_errors``.
"""

from metric_mixin._errors import (
    BatchError,
    ClassDefinitionError,
    ClassNamesError,
    ComputeError,
    DeclarationError,
    DeclarationTypeError,
    EmptyMetricError,
    ForgottenSuperError,
    KeyCollisionError,
    LabelRangeError,
    LoaderNamesError,
    LoggedMetricError,
    ManualOptimizationError,
    MetricMixinError,
    MetricMixinWarning,
    MissingDependencyError,
    MissingLossError,
    NoResultError,
    OptionError,
    ResumeError,
    StageError,
    UnknownMetricError,
    UpdateError,
)
from metric_mixin._mixin import ManualMetricLoggingMixin
from metric_mixin._module import ManualMetricLoggingModule
from metric_mixin._options import MetricLogging
from metric_mixin._report import MetricReport
from metric_mixin._stage import StageMetrics

__version__ = "0.1.0"

__all__ = [
    "BatchError",
    "ClassDefinitionError",
    "ClassNamesError",
    "ComputeError",
    "DeclarationError",
    "DeclarationTypeError",
    "EmptyMetricError",
    "ForgottenSuperError",
    "KeyCollisionError",
    "LabelRangeError",
    "LoaderNamesError",
    "LoggedMetricError",
    "ManualMetricLoggingMixin",
    "ManualMetricLoggingModule",
    "ManualOptimizationError",
    "MetricLogging",
    "MetricMixinError",
    "MetricMixinWarning",
    "MetricReport",
    "MissingDependencyError",
    "MissingLossError",
    "NoResultError",
    "OptionError",
    "ResumeError",
    "StageError",
    "StageMetrics",
    "UnknownMetricError",
    "UpdateError",
    "__version__",
]
