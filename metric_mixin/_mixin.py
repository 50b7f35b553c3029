"""Lightning's hooks -> the steps of the package, in order; no logic of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from metric_mixin import _epoch, _resuming, _step
from metric_mixin._errors import DeclarationError, MetricMixinError
from metric_mixin._guards import check_bases, watch_hooks
from metric_mixin._inputs import count_rows, split_pair
from metric_mixin._options import MetricLogging
from metric_mixin._patterns import check_patterns
from metric_mixin._recorder import Recorder
from metric_mixin._report import MetricReport
from metric_mixin._stage import StageMetrics
from metric_mixin._trainer import plain_names, running_hook
from metric_mixin._types import STAGES, Stage, as_stage

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule as _Base
else:
    _Base = object

_STAGES_OF_FN: dict[str, tuple[Stage, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}


class ManualMetricLoggingMixin(_Base):
    """Exact, logged and reset metrics in train, val and test, for any LightningModule.

    Put it in front of a LightningModule class, of ``lightning.pytorch`` or of ``pytorch_lightning``; write
    ``forward`` and ``loss``, return metrics from ``configure_metrics``, and call ``super()`` in hooks you override.
    It has no ``__init__``. Its three steps replace those of a task behind it.

    Attributes:
        metric_logging: Every option; set it on the class or on the object.

    Examples:
        >>> import torch
        >>> from lightning.pytorch import LightningModule
        >>> from torchmetrics.classification import BinaryAccuracy
        >>> class Lit(ManualMetricLoggingMixin, LightningModule):
        ...     def configure_metrics(self):
        ...         return {"acc": BinaryAccuracy()}
        >>> module = Lit()
        >>> module.update_metrics(torch.tensor([0.9, 0.2, 0.8]), torch.tensor([1, 0, 0]), stage="val")
        >>> module.val_metrics.compute()
        {'acc': tensor(0.6667)}
    """

    metric_logging: MetricLogging = MetricLogging()
    _metric_plain_names: frozenset[str] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_bases(cls, ManualMetricLoggingMixin)
        watch_hooks(cls, ManualMetricLoggingMixin)
        cls._metric_plain_names = plain_names(cls, ManualMetricLoggingMixin)
        properties = [name for name, value in vars(ManualMetricLoggingMixin).items() if isinstance(value, property)]
        cls.__jit_unused_properties__ = [*getattr(cls, "__jit_unused_properties__", ()), *properties]

    # Declare: what a subclass may override

    def configure_metrics(self) -> Any:
        """Return the metrics of every stage; to override.

        Returns:
            A ``Metric``, a sequence of them (named by class), a mapping from name to ``Metric`` or
            ``MetricCollection``, a ``MetricCollection``, or ``None`` for no metrics. Fresh objects, or the same one
            again, which is then cloned.

        Raises:
            DeclarationError: A task behind the mixin has a ``configure_metrics`` that returns nothing.
        """
        behind = getattr(super(), "configure_metrics", None)
        if behind is None:
            return None
        declared = behind()
        if declared is None:
            raise DeclarationError(
                f"{type(self).__name__} inherits `configure_metrics` from a task behind the mixin, and it returns "
                "nothing. Override it to return the metrics: a Metric, a sequence, a mapping from name to Metric, or "
                "a MetricCollection."
            )
        return declared

    def configure_stage_metrics(self, stage: Stage) -> Any:
        """Return the metrics of one stage, called once a stage; by default ``configure_metrics()``."""
        return self.configure_metrics()

    def split_batch(self, batch: Any) -> tuple[Any, Any]:
        """Return inputs and target of a batch; by default the two items of a 2-tuple or 2-list.

        Raises:
            BatchError: The batch is no pair.
        """
        return split_pair(batch)

    def metric_inputs(self, outputs: Any, target: Any, batch: Any) -> tuple[Any, ...] | dict[str, Any]:
        """Return what the metrics are updated with.

        Args:
            outputs: What ``forward`` returned, e.g. logits of shape ``(N, C)``.
            target: The target of ``split_batch``, e.g. class indices of shape ``(N,)``.
            batch: The whole batch.

        Returns:
            A tuple of positional arguments, or a dict of keyword arguments of which each metric gets those that its
            ``update`` names. By default ``(outputs, target)``.
        """
        return outputs, target

    def batch_weight(self, target: Any, batch: Any) -> int | Tensor:
        """Return the weight of a batch in the epoch's loss: by default its number of rows.

        Override it for an exact denominator, e.g. the number of valid pixels or tokens, as an int or a 0-d tensor.

        Raises:
            BatchError: The rows cannot be counted.
        """
        return count_rows(target, batch)

    def metric_key(self, stage: Stage, name: str, loader: str | int | None = None) -> str:
        """Return the key under which a value is logged.

        Args:
            stage: ``"train"``, ``"val"`` or ``"test"``.
            name: The full path, e.g. ``"acc"``, ``"recall/cat"``, ``"map/map_50"``.
            loader: Name of the dataloader, its index where it has none, ``None`` for a single one.

        Examples:
            >>> ManualMetricLoggingMixin.metric_key(None, "val", "acc")
            'val/acc'
            >>> ManualMetricLoggingMixin.metric_key(None, "val", "acc", "night")
            'val/night/acc'
            >>> ManualMetricLoggingMixin.metric_key(None, "val", "acc", 1)
            'val/acc/dataloader_idx_1'
        """
        if loader is None:
            return f"{stage}/{name}"
        return f"{stage}/{loader}/{name}" if isinstance(loader, str) else f"{stage}/{name}/dataloader_idx_{loader}"

    def on_metrics_computed(self, stage: Stage, values: Mapping[str, Any]) -> None:
        """Do something with an epoch's values; called on every rank after each epoch, sanity checks excepted.

        Args:
            stage: The stage that ended.
            values: Key to value, as in ``metric_results[stage]``.
        """

    # Update

    def training_step(self, batch: Any, batch_idx: int | None = None) -> Tensor:
        """Run ``forward`` and ``loss``, feed the metrics and the epoch's loss, and return the loss, 0-d."""
        return _step.run(self, super().log, "train", batch)

    def validation_step(self, batch: Any, batch_idx: int | None = None, dataloader_idx: int | None = None) -> Tensor:
        """Run ``forward`` and ``loss``, feed the metrics and the epoch's loss, and return the loss, 0-d."""
        return _step.run(self, super().log, "val", batch, dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int | None = None, dataloader_idx: int | None = None) -> Tensor:
        """Run ``forward`` and ``loss``, feed the metrics and the epoch's loss, and return the loss, 0-d."""
        return _step.run(self, super().log, "test", batch, dataloader_idx)

    def predict_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the task's own ``predict_step``, or ``forward`` on the inputs of the batch where it has none."""
        return _step.predict(self, super().predict_step, batch, *args, **kwargs)

    def update_metrics(
        self,
        *args: Any,
        metrics: str | Iterable[str] | None = None,
        stage: Stage | None = None,
        dataloader_idx: int | None = None,
        trim: bool = True,
        **kwargs: Any,
    ) -> None:
        """Feed some or all metrics from a hand-written step, also under manual optimisation.

        Args:
            args: Positional arguments of each metric's ``update``; with ``metrics="loss"`` a batch's loss, 0-d, and
                its weight.
            metrics: Name or names of the metrics to feed; all where ``None``.
            stage: The stage to feed; the running one where ``None``. Needed without a Trainer.
            dataloader_idx: The dataloader that the rows come from; the running one where ``None``.
            trim: In validation and test, leave out rows that a sampler repeats as padding (see ``exact_eval``): each
                argument is cut that has the rows of the batch, and a batch of padding alone feeds nothing. A value of
                your own over the rows, as a loss, cannot be cut: take it over the first ``counted_rows`` rows.
            kwargs: Keyword arguments, of which each metric gets those that its ``update`` names.

        Raises:
            UnknownMetricError: A metric or a keyword is unknown.
            StageError: The stage is unknown, or none is running and none was given.
            BatchError: In a batch with padding, an argument has another number of rows, or its rows are unclear.
            UpdateError: A metric refused its inputs, or a loss was weighted with the padding.
        """
        _step.update(self, super().log, args, kwargs, metrics=metrics, stage=stage, loader=dataloader_idx, trim=trim)

    @property
    def counted_rows(self) -> int:
        """Number of rows of the running batch of validation or test that are no padding; they come first.

        With ``exact_eval=False``, on one process, and in most batches, that is all of them. They are as many as the
        dataloader's sampler gives, whatever a ``collate_fn`` made of them; without a sampler, as the batch has.

        Raises:
            StageError: No batch of validation or test is running.
            BatchError: The batch is of no form whose rows can be counted.
        """
        return _step.counted_rows(self)

    # Compute, log, reset

    def log_metrics(self, stage: Stage) -> None:
        """Compute, log and reset the metrics of a stage now, on all ranks; the epoch's end then covers the rest."""
        with _epoch.finishing(self, super().log, as_stage(stage), early=True):
            pass

    # Read

    @property
    def train_metrics(self) -> StageMetrics:
        """The metrics of the training stage, built on first use."""
        return self._stage_metrics("train")

    @property
    def val_metrics(self) -> StageMetrics:
        """The metrics of the validation stage, built on first use."""
        return self._stage_metrics("val")

    @property
    def test_metrics(self) -> StageMetrics:
        """The metrics of the test stage, built on first use."""
        return self._stage_metrics("test")

    @property
    def metric_results(self) -> dict[Stage, dict[str, Any]]:
        """The last finished epoch of each stage: all logged scalars (0-d CPU tensors) and each array, by key."""
        return self._metric_recorder.results

    def metric_report(self, stage: Stage) -> MetricReport:
        """Return the last finished epoch of ``stage`` as a table.

        Raises:
            NoResultError: No epoch of the stage has ended yet.
        """
        return _epoch.report(self, as_stage(stage))

    def expected_metric_keys(self, stage: Stage) -> list[str]:
        """Return the keys that an epoch of ``stage`` logs: exact once computed, before that what settings tell."""
        return self._metric_recorder.expected_keys(self, as_stage(stage))

    # Lightning's hooks

    def setup(self, stage: str) -> None:
        """Build the metrics of the stages that will run."""
        super().setup(stage)
        self._metric_recorder.runs += 1
        for name in _STAGES_OF_FN.get(getattr(stage, "value", stage), ()):
            self._metric_recorder.stage(self, name)
        check_patterns(self)

    def teardown(self, stage: str) -> None:
        """Take part in an evaluation that Lightning passed over on this process alone, for want of a batch."""
        super().teardown(stage)
        if (fn := getattr(stage, "value", stage)) in ("validate", "test"):
            _epoch.take_part(self, super().log, *_STAGES_OF_FN[fn])

    def on_train_epoch_start(self) -> None:
        """Forget rows that an interrupted epoch left."""
        super().on_train_epoch_start()
        _epoch.begin(self, "train")

    def on_validation_epoch_start(self) -> None:
        """Forget rows that an interrupted epoch left."""
        super().on_validation_epoch_start()
        _epoch.begin(self, "val")

    def on_test_epoch_start(self) -> None:
        """Forget rows that an interrupted epoch left."""
        super().on_test_epoch_start()
        _epoch.begin(self, "test")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> Any:
        """Begin an epoch that Lightning did not announce, as after some resumes."""
        result = super().on_train_batch_start(batch, batch_idx)
        _epoch.begin_batch(self, "train", batch, batch_idx)
        return result

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> None:
        """Take note of the batch that comes, and of its dataloader."""
        super().on_validation_batch_start(batch, batch_idx, *(() if dataloader_idx is None else (dataloader_idx,)))
        _epoch.begin_batch(self, "val", batch, batch_idx, dataloader_idx)

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> None:
        """Take note of the batch that comes, and of its dataloader."""
        super().on_test_batch_start(batch, batch_idx, *(() if dataloader_idx is None else (dataloader_idx,)))
        _epoch.begin_batch(self, "test", batch, batch_idx, dataloader_idx)

    def on_train_epoch_end(self) -> None:
        """Compute, log, draw, report and reset."""
        with _epoch.finishing(self, super().log, "train"):
            super().on_train_epoch_end()
        self._metric_epoch_ended("train")

    def on_validation_epoch_end(self) -> None:
        """Compute, log, draw, report and reset."""
        with _epoch.finishing(self, super().log, "val"):
            super().on_validation_epoch_end()
        self._metric_epoch_ended("val")

    def on_test_epoch_end(self) -> None:
        """Compute, log, draw, report and reset."""
        with _epoch.finishing(self, super().log, "test"):
            super().on_test_epoch_end()
        self._metric_epoch_ended("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save best values and the rows of a running training epoch."""
        super().on_save_checkpoint(checkpoint)
        _resuming.save(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load best values, and the rows of a training epoch that goes on."""
        super().on_load_checkpoint(checkpoint)
        _resuming.load(self, checkpoint)

    # LightningModule and nn.Module

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        """Log as Lightning does, after a check that neither the key nor the metric is one of ours."""
        forked = bool(kwargs.get("on_step") and kwargs.get("on_epoch"))
        self._metric_recorder.check_user_log(name, value, running_hook(self), forked=forked)
        super().log(name, value, *args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._metric_plain_names:
            self.__dict__[name] = value
            return
        if name in _PROPERTIES:
            raise DeclarationError(
                f"{type(self).__name__}.{name} cannot be assigned (got {type(value).__name__}): it gives the metrics "
                "of the stage. Return them from `configure_metrics` or `configure_stage_metrics` instead."
            )
        super().__setattr__(name, value)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Move the metrics with the module, and only move them: dtypes of states are not the module's."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for record in self._metric_recorder.stages.values():
            record.to(fn(torch.empty(0, device=record.parts[0].loss.device)).device)
        return self

    @property
    def _metric_recorder(self) -> Recorder:
        """What this module declared, accumulated and found; made on first use."""
        recorder: Recorder | None = self.__dict__.get("_metric_recorder_")
        if recorder is None:
            recorder = self.__dict__["_metric_recorder_"] = Recorder()
        return recorder

    def _metric_epoch_ended(self, stage: Stage) -> None:
        """Called after each end of an epoch, again when a hook that overrides it returns."""
        _epoch.ended(self, stage)

    def _stage_metrics(self, stage: Stage) -> StageMetrics:
        try:
            return self._metric_recorder.stage(self, stage).metrics
        except AttributeError as error:  # which a property would turn into "no attribute 'train_metrics'"
            raise MetricMixinError(f"{type(self).__name__}.configure_metrics failed: {error}") from error


_PROPERTIES = frozenset(f"{stage}_metrics" for stage in STAGES)
