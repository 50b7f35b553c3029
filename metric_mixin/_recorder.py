"""What one module has declared, accumulated and found; the object behind the mixin, made on first use.

It holds no reference to the module or its Trainer, so that it is copied and pickled with the module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, cast

import torch
from torchmetrics import Metric, MetricCollection

from metric_mixin._best import SUFFIX, BestValues, mode_of
from metric_mixin._class_names import ClassNames
from metric_mixin._declare import declare
from metric_mixin._errors import (
    ComputeError,
    DeclarationError,
    EmptyMetricError,
    KeyCollisionError,
    LoaderNamesError,
    LoggedMetricError,
    said,
)
from metric_mixin._history import History
from metric_mixin._keys import Entry, check_distinct, expected, flatten
from metric_mixin._layout import is_aggregator, layout_of
from metric_mixin._log import check_logger_keys
from metric_mixin._members import own_metrics
from metric_mixin._names import RESERVED
from metric_mixin._options import MetricLogging, options_of
from metric_mixin._record import Keyed, Loader, Part, StageRecord, with_storage
from metric_mixin._report import MetricReport
from metric_mixin._stage import StageMetrics
from metric_mixin._states import begin_as_declared
from metric_mixin._trainer import data_ranks, trainer_of
from metric_mixin._types import STAGES, Stage


class Recorder:
    """The stages of one module, their results, and what its hooks did."""

    def __init__(self) -> None:
        self.stages: dict[Stage, StageRecord] = {}
        self.results: dict[Stage, dict[str, Any]] = {stage: {} for stage in STAGES}
        self.reports: dict[Stage, MetricReport] = {}
        self.user_keys: dict[str, str] = {}
        self.class_names = ClassNames()
        self.hook_calls: Counter[str] = Counter()
        self.hook_depth = 0  # of overridden hooks that run
        self.ending: str | None = None  # the hook in which an epoch ends, while it does
        self.best = BestValues()
        self.history = History()
        self.folders: dict[str, str] = {}  # of pictures, and the keys that they belong to
        self.loaded: dict[str, Any] | None = None  # the entry of a checkpoint, until a training epoch takes or drops it
        self.runs = 0  # how many times `setup` ran
        self.step_epoch: tuple[Any, ...] | None = None
        self.step_key: str | None = None  # of the batch's loss, once one was fed
        self.last_batch: tuple[Any, tuple[int, int]] | None = None  # of a default training step, and its position
        self.monitors_checked: set[str] = set()
        self._said: set[str] = set()

    def say(self, about: str, message: str) -> None:
        """Warn, once for each thing ``about``."""
        if about not in self._said:
            self._said.add(about)
            said(message)

    # Declare

    def stage(self, module: Any, stage: Stage) -> StageRecord:
        """Return a stage, built from the module's factory on first use."""
        if stage not in self.stages:
            options = options_of(module)
            owner = f"{type(module).__name__}.configure_metrics"
            with with_storage():
                metrics = declare(module.configure_stage_metrics(stage), owner=owner)
                taken = [m for record in self.stages.values() for _, m in record.metrics.items(copy_state=False)]
                kept = cast(torch.dtype, options.metric_dtype)  # a name became the dtype when the options were made
                own = own_metrics(metrics, taken)
                declared = {one: state for record in self.stages.values() for one, state in record.declared().items()}
                for name, metric in own.items():
                    if metric is not metrics[name]:  # of an object that another stage has, which may have had rows
                        begin_as_declared(metric, metrics[name], declared)
                record = StageRecord(StageMetrics(own).keep_dtype(kept))
            record.to(module.device)
            record.names = _loader_names(options, stage)
            self._describe(module, stage, record)
            self.stages[stage] = record
        record = self.stages[stage]
        if record.described != record.metrics.version:  # a metric was added, replaced or deleted
            self._describe(module, stage, record)
        return record

    def describe(self, module: Any, stage: Stage) -> None:
        """Find out once more what a built stage returns, after names of classes became known."""
        self._describe(module, stage, self.stages[stage])

    def set_loaders(self, module: Any, stage: Stage, count: int) -> None:
        """Take note of the number of dataloaders before the first batch.

        Raises:
            LoaderNamesError: The options name another number.
        """
        record = self.stage(module, stage)
        names = _loader_names(options_of(module), stage)
        if names and len(names) != count:
            raise LoaderNamesError(
                f"MetricLogging({stage}_loaders={names!r}) names {len(names)} dataloaders, but there are {count}. "
                "Name each, in order, or none."
            )
        if (record.names, record.count) != (names, count):
            record.names, record.count = names, count
            self._describe(module, stage, record)

    def _describe(self, module: Any, stage: Stage, record: StageRecord) -> None:
        """Find out what each metric returns and which keys that promises; every check that needs no value."""
        record.described = record.metrics.version
        record.loss_noted = False
        metrics = list(record.metrics.items(copy_state=False))
        record.layouts = {name: layout_of(metric) for name, metric in metrics}
        record.aggregators = {name: type(metric).__name__ for name, metric in metrics if is_aggregator(metric)}
        record.promised = self._keyed(module, stage, self._promised(module, stage, record))
        record.found, record.tracked = None, {}
        for key, mode in self._tracked(module, record.promised):
            entry = record.promised[key]
            mode_of(key, mode, entry.path[len(entry.metric) + 1 :], self._metric_of(record, entry))

    def _promised(self, module: Any, stage: Stage, record: StageRecord) -> Iterator[Entry]:
        for loader in self._loaders(module, record):
            for name, layout in record.layouts.items():
                for entry in expected(name, layout, self.class_names.of(module, stage, name, layout)):
                    yield entry._replace(loader=loader)

    @staticmethod
    def _loaders(module: Any, record: StageRecord) -> list[Loader]:
        """The dataloaders as ``metric_key`` gets them, and, where it is asked for, all of them together."""
        loaders = record.labels()
        return [*loaders, None] if options_of(module).pooled and len(loaders) > 1 else loaders

    def _keyed(self, module: Any, stage: Stage, entries: Iterable[Entry]) -> Keyed:
        """Put each entry under its key, and see that no two have the same."""
        pairs = [(self._key(module, stage, entry.name, entry.loader), entry) for entry in entries]
        keyed = dict(pairs)
        others = [(key + SUFFIX, f"the best value of {key!r}") for key, _ in self._tracked(module, keyed)]
        if stage == "train":
            others.append((self._key(module, stage, f"{RESERVED}_step"), "the loss of a batch"))
        other: Stage = "train" if stage == "val" else "val"
        in_one_fit = stage != "test" and other in self.stages
        known = self.stages[other].known() if in_one_fit else {}
        theirs = {key for key, entry in known.items() if entry.is_scalar}
        if len({*keyed, *theirs, *dict(others)}) < len(pairs) + len(theirs) + len(others):
            sources = [(key, _source(stage, entry)) for key, entry in pairs]
            sources += [*others, *((key, _source(other, known[key])) for key in known if key in theirs)]
            check_distinct(sources, "Rename one of them, or tell them apart in `metric_key`.")
        for key in keyed if self.user_keys.keys() & keyed.keys() else ():
            if key in self.user_keys:
                raise _collision(key, _source(stage, keyed[key]), self.user_keys[key])
        check_logger_keys(trainer_of(module), [key for key, entry in pairs if entry.is_scalar])
        return keyed

    def note_loss(self, module: Any, stage: Stage) -> None:
        """Take note, on its first batch, that a loss is fed: its keys are ours from now on."""
        record = self.stages[stage]
        record.loss_noted = True
        entries = [Entry(RESERVED, RESERVED, None, None, loader=loader) for loader in self._loaders(module, record)]
        record.promised = self._keyed(module, stage, [*entries, *record.promised.values()])

    def _tracked(self, module: Any, keyed: Keyed) -> list[tuple[str, str]]:
        """Keys among ``keyed`` whose best value is tracked, and how."""
        tracked = options_of(module).track_best.items()
        return [(key, mode) for key, mode in tracked if key in keyed and keyed[key].is_scalar]

    @staticmethod
    def _metric_of(record: StageRecord, entry: Entry) -> Metric | None:
        return None if entry.metric == RESERVED else dict(record.metrics.items(copy_state=False))[entry.metric]

    def _key(self, module: Any, stage: Stage, name: str, loader: Loader = None) -> str:
        key = module.metric_key(stage, name, loader)
        if not isinstance(key, str) or not key:
            raise DeclarationError(
                f"{type(module).__name__}.metric_key({stage!r}, {name!r}) must return a non-empty string, got {key!r}."
            )
        return key

    # Update

    def lost_without(self, hook: str, stage: Stage) -> str | None:
        """Say what is lost where a hook of the mixin did not run, or ``None`` where nothing is."""
        record = self.stages.get(stage)
        if hook == "on_save_checkpoint":
            return "best values would be missing in the checkpoint" if self.best.values else None
        if record is None:
            return None
        if hook.endswith("_batch_start"):
            if any(shard is not None and shard.repeated for shard in record.shards or ()):
                return "rows that a sampler repeats as padding would count"
            return "rows of several dataloaders would be taken for one's" if record.count > 1 else None
        if not record.pending():
            return None
        if hook.endswith("_start"):
            return f"rows of an interrupted {stage!r} epoch would be counted again"
        return f"the values of the {stage!r} epoch would be lost"

    # Compute

    def compute(self, module: Any, stage: Stage, about: Mapping[str, str], *, sanity: bool = False) -> Keyed:
        """Compute what all ranks were fed and put it under its keys.

        Each dataloader by itself, then all of them; losses first. ``about`` tells this epoch from every other one.
        """
        record = self.stage(module, stage)
        options = options_of(module)
        loaders = record.labels()
        words = {f"option {field.name}": repr(getattr(options, field.name)) for field in fields(options)}
        entries: list[Entry] = []
        words |= {"number of dataloaders": str(record.count), "names of classes": repr(self.class_names.known)}
        ranks, group = data_ranks(trainer_of(module))
        with record.of_all_ranks({"stage": stage, **about} | words, alone=ranks == 1, group=group):
            for index, loader in enumerate(loaders):
                entries += self._entries(module, stage, record, record.part(index), loader, sanity)
            if options.pooled and len(loaders) > 1:
                entries += self._entries(module, stage, record, record.pooled(), None, sanity)
        self._say_padding_fed(stage, record)
        keyed = self._keyed(module, stage, entries)
        record.found = self._merged(record, keyed)
        return keyed

    def _entries(
        self, module: Any, stage: Stage, record: StageRecord, part: Part, loader: Loader, sanity: bool
    ) -> Iterator[Entry]:
        options = options_of(module)
        if part.loss.update_called:
            yield Entry(RESERVED, RESERVED, None, part.loss.compute().float(), loader=loader)
        fed = [name for name in part.metrics.names() if part.metrics.updated(name)]
        empty = [name for name in part.metrics.names() if name not in fed]
        on_error = self._warn_of_failure(stage) if options.on_error == "warn" else None
        values = dict(part.metrics.compute_values(fed, on_error))
        may_be_empty = record.logged_early and not fed  # nothing came after what was logged early
        if not sanity and not may_be_empty and part is not record.all_rows:
            self._check_empty(stage, empty, options, loader)
        arrays = {(e.metric, e.name) for e in record.known().values() if not e.is_scalar}
        for name, layout in record.layouts.items():
            if name in values:
                names = self.class_names.of(module, stage, name, layout)
                found = flatten(name, layout, values[name], names)
                if loader is None and not any(metric == name for metric, _ in arrays):
                    yield from found
                    continue
                for metric, path, label, value, is_scalar, _ in found:
                    entry = Entry(metric, path, label, value, is_scalar, loader)
                    yield entry._replace(is_scalar=False) if (name, entry.name) in arrays else entry
            elif name in empty and options.on_empty == "nan" and not may_be_empty:
                for e in record.known().values():
                    if e.metric == name and e.loader == loader and e.is_scalar:
                        yield e._replace(value=torch.tensor(torch.nan))

    def with_best(self, module: Any, stage: Stage, keyed: Keyed, epoch: int | None) -> Keyed:
        """Move the tracked best values in an epoch of ``fit``, and return ``keyed`` with the best so far of each."""
        record = self.stages[stage]
        result = dict(keyed)
        known = record.known()
        record.tracked |= {key: known[key] for key, _ in self._tracked(module, known)}
        for key, wanted in self._tracked(module, record.tracked):
            entry = record.tracked[key]
            mode = mode_of(key, wanted, entry.path[len(entry.metric) + 1 :], self._metric_of(record, entry))
            if epoch is not None and key in keyed:
                self.best.move(key, mode, keyed[key].value, epoch)
            if (best := self.best.get(key, mode)) is not None:
                name = entry.metric + SUFFIX
                result[key + SUFFIX] = Entry(name, entry.name + SUFFIX, None, best, loader=entry.loader)
        return result

    def epochs_of_best(self, module: Any, stage: Stage) -> dict[str, int | None]:
        """Return the keys of a stage whose best value is tracked, and the epoch of each best value that is known."""
        tracked = self._tracked(module, self.stages[stage].tracked)
        return {key: self.best.epochs().get(key) for key, _ in tracked}

    def _say_padding_fed(self, stage: Stage, record: StageRecord) -> None:
        """Say where rows that a sampler repeats may count, since they were fed where nobody could leave them out."""
        repeated = sum(shard.repeated for shard in record.shards or () if shard is not None)
        if repeated and any(part.rows is None for part in record.parts.values()):
            self.say(
                f"padding fed {stage}",
                f"Metrics of stage {stage!r} were fed outside of their batches, or not by `update_metrics`, so that "
                f"rows which samplers repeat as padding, {repeated} in all, may count twice. Feed them by "
                "`update_metrics` in the step, or leave the padding out by `counted_rows`.",
            )

    def _warn_of_failure(self, stage: Stage) -> Callable[[ComputeError], None]:
        return lambda failure: self.say(f"{stage} {failure}", f"In stage {stage!r}: {failure}")

    def _check_empty(self, stage: Stage, empty: Collection[str], options: MetricLogging, loader: Loader) -> None:
        for name in empty:
            by = "" if loader is None else f" by dataloader {loader!r}"
            what = f"Metric {name!r} was not updated{by} in a {stage!r} epoch"
            if options.on_empty == "raise":
                raise EmptyMetricError(f"{what}, and `MetricLogging(on_empty='raise')`.")
            if options.on_empty == "skip":
                self.say(
                    f"empty {stage} {name} {loader}",
                    f"{what}: it has no value and is left out. `MetricLogging(on_empty=...)` takes 'nan' and 'raise' "
                    "as well; `configure_stage_metrics` can declare other metrics for this stage.",
                )

    @staticmethod
    def _merged(record: StageRecord, keyed: Keyed) -> Keyed:
        """What is known of the keys: those just found, and, of metrics without a value now, those known before."""
        known = record.known()
        if known.keys() <= keyed.keys():
            return keyed
        seen = {(entry.metric, entry.loader) for entry in keyed.values()}
        return keyed | {key: entry for key, entry in known.items() if (entry.metric, entry.loader) not in seen}

    # Keys

    def expected_keys(self, module: Any, stage: Stage) -> list[str]:
        """Return the keys that an epoch of ``stage`` logs, as far as they are known."""
        record = self.stage(module, stage)
        keys = [key for key, entry in record.known().items() if entry.is_scalar]
        if record.found is None and not record.loss_noted:
            keys = [self._key(module, stage, RESERVED, loader) for loader in self._loaders(module, record)] + keys
        return keys + [key + SUFFIX for key, _ in self._best_keys(module, {*keys, *record.tracked})]

    def tracked_keys(self, module: Any) -> list[str]:
        """Return the keys whose best value is tracked, of whatever stage."""
        return list(options_of(module).track_best)

    def _best_keys(self, module: Any, keys: Collection[str]) -> list[tuple[str, str]]:
        return [(key, mode) for key, mode in options_of(module).track_best.items() if key in keys]

    # The user's own log

    def check_user_log(self, name: object, value: object, hook: str | None, *, forked: bool = False) -> None:
        """Raise where ``self.log`` is given one of our metrics or one of our keys; remember the key otherwise.

        Args:
            name: The key.
            value: The value.
            hook: The hook in which it was called.
            forked: Whether Lightning makes two more keys of it, of the step and of the epoch.
        """
        if isinstance(value, Metric | MetricCollection):
            for stage, record in self.stages.items():
                with record.metrics.left_alone():  # a look at states would wait for their device, in every step
                    members = record.metrics.items(copy_state=False)
                for metric_name, metric in members:
                    if any(value is member for member in metric.modules()):
                        raise LoggedMetricError(
                            f"`self.log({name!r}, ...)` was given metric {metric_name!r} ({type(value).__name__}) of "
                            f"stage {stage!r}, which is already logged and reset each epoch. Remove the call, rename "
                            "the key in `metric_key`, or log the value from `metric_results`."
                        )
        if not isinstance(name, str):
            return
        where = f"`self.log({name!r}, ...)`" + (f" in {hook}" if hook else "")
        for key in (name, f"{name}_step", f"{name}_epoch") if forked else (name,):
            for stage, record in self.stages.items():
                if (entry := record.known().get(key)) is not None and entry.is_scalar:
                    raise _collision(key, _source(stage, entry), where)
            if key == self.step_key:
                raise _collision(key, "the loss of a batch", where)
            self.user_keys.setdefault(key, where)


def _loader_names(options: MetricLogging, stage: Stage) -> tuple[str, ...]:
    return {"train": (), "val": tuple(options.val_loaders), "test": tuple(options.test_loaders)}[stage]


def _source(stage: Stage, entry: Entry) -> str:
    what = f" ({entry.name!r})" if entry.name != entry.metric else ""
    loader = "" if entry.loader is None else f", dataloader {entry.loader!r}"
    return f"metric {entry.metric!r} of stage {stage!r}{loader}{what}"


def _collision(key: str, ours: str, theirs: str) -> KeyCollisionError:
    return KeyCollisionError(
        f"Two sources for the key {key!r}: {ours} and {theirs}. Rename one of them; a metric's key in `metric_key`."
    )
