"""Declare metrics in one method; get exact, logged, reset metrics in train, val and test, in any LightningModule.

The way of the data, a file a step:

1. ``_declare``: what the factory returned -> metrics by name (``_names``: what a name may be)
2. ``_step``, ``_inputs``, ``_padding``: a batch -> what metrics and loss take, without rows that a sampler repeats
3. ``_stage``, ``_loss``: inputs -> states -> values (``_groups``, ``_families``, ``_sharing``: who shares what;
   ``_labels``, ``_precision``: inputs as they are counted; ``_members``: one metric; ``_collection``: under any name;
   ``_memory``: bytes; ``_insides``: what of torchmetrics must be there)
4. ``_record``, ``_sync``, ``_merge``: one stage over its dataloaders; the states of all ranks, and of all dataloaders,
   as one (``_signature``: what ranks compare; ``_packing``: states as bytes; ``_states``: taken and put back;
   ``_ranks``: the collectives)
5. ``_layout``, ``_keys``: values -> one scalar per key, and the arrays that are left (``_class_names``)
6. ``_best``, ``_log``, ``_pictures``, ``_report``: scalars -> the best so far, Trainer and loggers, pictures, tables
   (``_transfer``: scalars on the CPU; ``_results``: many keys, as Lightning keeps them; ``_figures``: a value -> a
   picture; ``_fit``: texts that fit; ``_history``: its course over epochs; ``_paths``: a key -> a folder)
7. ``_epoch``: an epoch begun and ended, these steps in order; then everything is reset

Beside it: ``_options`` and ``_patterns`` (every option, and what it matches), ``_recorder`` (what one module declared
and found), ``_trainer`` (what the running Trainer says), ``_resume`` and ``_resuming`` (checkpoints), ``_guards`` and
``_monitors`` (mistakes in a class, a hook or a monitor), ``_mixin`` (Lightning's hooks), ``_errors``.
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
    RankError,
    RankTimeoutError,
    ResumeError,
    StageError,
    SyncError,
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
    "RankError",
    "RankTimeoutError",
    "ResumeError",
    "StageError",
    "StageMetrics",
    "SyncError",
    "UnknownMetricError",
    "UpdateError",
    "__version__",
]
