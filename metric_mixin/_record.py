"""One stage: its metrics and its loss for each dataloader; fed, pooled, reset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.wrappers import MinMaxMetric

from metric_mixin._errors import MetricMixinError
from metric_mixin._keys import Entry
from metric_mixin._layout import Layout
from metric_mixin._loss import EpochLoss
from metric_mixin._members import copied
from metric_mixin._merge import merge_into
from metric_mixin._padding import Rows, Shard
from metric_mixin._ranks import several_ranks
from metric_mixin._stage import StageMetrics
from metric_mixin._states import State, begin_anew, compute_alone, computing_anew_alone, given_states
from metric_mixin._sync import Unit, synced

Loader = str | int | None
"""A dataloader as ``metric_key`` gets it: its name, its index where it has none, ``None`` for a single one or all."""

Keyed = dict[str, Entry]
"""Entries by the key under which they are logged."""


class Part:
    """Metrics and loss of one dataloader."""

    def __init__(self, metrics: StageMetrics) -> None:
        self.metrics = metrics
        self.loss = EpochLoss()
        self.rows: int | None = 0  # of the batches since the last reset; None where they cannot be told
        self._counted: object = None
        self.given = given_states(metrics)  # with the declaration, as the real images of a FID

    def count(self, rows: int | None, batch: object) -> None:
        """Take note of the rows of a batch of which something was fed; once, where ``batch`` tells it from others."""
        if batch is None or batch is not self._counted:
            self._counted = batch
            self.rows = None if rows is None or self.rows is None else self.rows + rows

    def add_loss(self, loss: Tensor, weight: float | Tensor) -> None:
        """Add a batch's loss; the first of an epoch says on which device: FSDP moves parameters past ``_apply``."""
        if self.loss.device.type == "cpu" != loss.device.type and not self.loss.update_called:
            self._move_loss(loss.device)
        self.loss.add(loss, weight)

    def another(self) -> Part:
        """Return a part with the same metrics and no rows."""
        part = Part(copied(self.metrics))
        begin_anew(part.metrics, self.given)
        part.reset()
        for metric in part.lasting().values():
            metric.min_val, metric.max_val = torch.tensor(torch.inf), torch.tensor(-torch.inf)
        part.to(self.loss.device)
        return part

    def pending(self) -> bool:
        """Whether anything was fed since the last reset."""
        return self.loss.update_called or any(self.metrics.updated(name) for name in self.metrics.names())

    def merge(self, parts: list[Part]) -> None:
        """Take the state of all ``parts``, as if their rows had been fed here."""
        self.reset()
        sources = [(part, dict(part.metrics.items(copy_state=False))) for part in parts]
        names = [name for name in self.metrics.names() if any(part.metrics.updated(name) for part in parts)]
        with self.metrics.states_from_outside(names):
            merged = dict(self.metrics.items(copy_state=False))
            for name in names:
                merge_into(merged[name], [metrics[name] for part, metrics in sources if part.metrics.updated(name)])
        if losses := [part.loss for part in parts if part.loss.update_called]:
            merge_into(self.loss, losses)

    def units(self, of: str) -> list[Unit]:
        """Return all that keeps a state; ``of`` says of what, for messages."""
        return [*self.metrics.units(of), {f"the loss{of}": self.loss}]

    def lasting(self) -> dict[str, MinMaxMetric]:
        """Metrics that keep something over epochs, by their path: of a ``MinMaxMetric`` a reset leaves its extremes."""
        return {path: module for path, module in self.metrics.named_modules() if isinstance(module, MinMaxMetric)}

    def reset(self) -> None:
        """Forget the rows."""
        self.metrics.reset()
        self.rows, self._counted = 0, None
        with torch.inference_mode(False):
            self.loss.reset()

    def to(self, device: torch.device) -> None:
        """Move every state to ``device``."""
        self.metrics.to(device)
        self._move_loss(device)

    def _move_loss(self, device: torch.device) -> None:
        if device.type == "mps":  # which has no float64
            self.loss._apply(lambda t: t.float())
        self.loss.to(device)


class StageRecord:
    """One stage over its dataloaders, and what is known of its keys.

    Attributes:
        names: Names of the dataloaders, or none.
        count: How many dataloaders there are.
        running: Index of the dataloader whose batches come, ``None`` for a single one.
        shards: What each dataloader gives on this rank, once a batch came; ``None`` before.
        batch_rows: The rows of the batch that runs.
        visited: Indices of the dataloaders that gave a batch in this epoch, in order.
        layouts: What each metric returns.
        aggregators: Names of the metrics that aggregate given values, with their classes.
        promised: Keys that class and settings promise.
        found: Keys as last computed.
        tracked: Keys whose best value is tracked, of whatever epoch: a class may be seen in some alone.
        rows: Dataloader to its number of rows on all ranks, as last computed; ``None`` where it is not known.
        logged_early: Whether ``log_metrics`` was called in this epoch.
        early: What it logged.
        described: Version of the metrics for which layouts and keys were found out.
        loss_noted: Whether the keys of the loss are among the promised ones.
        epoch: What tells the running training epoch from the one before.
        open: Whether that epoch has not ended.
    """

    def __init__(self, metrics: StageMetrics) -> None:
        self.parts: dict[int, Part] = {0: Part(metrics)}
        self.all_rows: Part | None = None
        self.names: tuple[str, ...] = ()
        self.count = 1
        self.running: int | None = None
        self.shards: list[Shard | None] | None = None
        self.batch_rows: Rows | None = None
        self.visited: list[int] = []
        self.layouts: dict[str, Layout] = {}
        self.aggregators: dict[str, str] = {}
        self.promised: Keyed = {}
        self.found: Keyed | None = None
        self.tracked: Keyed = {}
        self.rows: dict[Loader, int | None] = {}
        self.logged_early = False
        self.early: Keyed = {}
        self.described = -1
        self.loss_noted = False
        self.epoch: tuple[Any, ...] | None = None
        self.open = False
        self._kept: dict[int, dict[str, State]] = {}

    @property
    def metrics(self) -> StageMetrics:
        """The metrics of the first dataloader, which are those of a single one."""
        return self.parts[0].metrics

    def part(self, index: int | None = None) -> Part:
        """Return the part of a dataloader, of the running one where ``index`` is ``None``; made when first needed."""
        index = (self.running or 0) if index is None else index
        if index not in self.parts:
            self.parts[index] = self.parts[0].another()
            self.count = max(self.count, index + 1)
        return self.parts[index]

    def labels(self) -> list[Loader]:
        """The dataloaders as ``metric_key`` gets them."""
        if self.names:
            return list(self.names)
        return [None] if self.count == 1 else list(range(self.count))

    @contextmanager
    def of_all_ranks(self, about: dict[str, str], *, alone: bool, group: Any) -> Iterator[None]:
        """Inside, each dataloader's part has the rows of all ranks.

        Args:
            about: What must be the same on each.
            alone: Whether this process has all rows, though it may be one of several.
            group: The processes that have rows of their own; all where ``None``.
        """
        parts = {loader: self.part(index) for index, loader in enumerate(self.labels())}
        for part in parts.values():
            if part.rows == 0 and part.pending():  # fed past `update_metrics`
                part.rows = None
        sums = [n for part in parts.values() for n in (part.rows or 0, int(part.rows is None))]
        with ExitStack() as stack:
            if alone and several_ranks():
                for metric in (m for part in parts.values() for unit in part.units("") for m in unit.values()):
                    stack.enter_context(computing_anew_alone(metric))
            elif several_ranks(group):
                fault = self.fault()
                units = [] if fault else [unit for loader, part in parts.items() for unit in part.units(_of(loader))]
                sums = stack.enter_context(synced(units, about | self.metrics.declared(), sums, fault, group))
                for part in parts.values():
                    stack.enter_context(part.metrics.left_alone())
            counts = zip(parts, sums[::2], sums[1::2], strict=True)
            self.rows = {loader: None if unknown else rows for loader, rows, unknown in counts}
            yield

    def pooled(self) -> Part:
        """Return a part with the rows of all dataloaders, by merging states."""
        part = self.for_all_rows()
        part.merge(list(self.parts.values()))
        return part

    def for_all_rows(self) -> Part:
        """Return the part that takes the rows of all dataloaders, made on first use."""
        if self.all_rows is None:
            self.all_rows = self.parts[0].another()
            for metric in self.all_rows.metrics.values(copy_state=False):
                compute_alone(metric)
            compute_alone(self.all_rows.loss)
        return self.all_rows

    def fault(self) -> MetricMixinError | None:
        """Return what is wrong with the states of this process; ``None`` where nothing is."""
        faults = (part.metrics.fault() for part in self.parts.values())
        return next((fault for fault in faults if fault is not None), None)

    def pending(self) -> bool:
        """Whether anything was fed since the last reset."""
        return any(part.pending() for part in self.parts.values())

    def reset(self) -> None:
        """Forget the rows of an epoch."""
        for part in self._all():
            part.reset()
        self.running = None
        self.visited = []

    def declared(self) -> dict[int, State]:
        """Return the state that each metric was declared with, by the identity of the metric."""
        given, metrics = self.parts[0].given, self.metrics.named_modules()
        return {id(m): given.get(path, State(0, m._defaults)) for path, m in metrics if isinstance(m, Metric)}

    def keep(self) -> None:
        """Take note, after a reset, of what it leaves."""
        self._kept = {index: given_states(part.metrics) for index, part in self.parts.items()}

    def put_back(self) -> None:
        """Give each dataloader what was noted, or, to a new one, what its metrics were given when declared."""
        for index, part in self.parts.items():
            begin_anew(part.metrics, self._kept.get(index, self.parts[0].given))
        self._kept = {}

    def to(self, device: torch.device) -> None:
        """Move every state to ``device``, but never to the meta device, where a module may wait for its weights."""
        for part in self._all() if device.type != "meta" else ():
            part.to(device)

    def known(self) -> Keyed:
        """Keys and entries as last computed, or, before that, as class and settings promise."""
        return self.promised if self.found is None else self.found

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Put back, in the end, what outlasts a reset; for a sanity check, which leaves no trace."""
        all_rows, parts = self.all_rows, self._all()
        kept = [(metric, metric.min_val, metric.max_val) for part in parts for metric in part.lasting().values()]
        try:
            yield
        finally:
            self.all_rows = all_rows
            for metric, low, high in kept:
                metric.min_val, metric.max_val = low, high

    def _all(self) -> list[Part]:
        return [*self.parts.values(), *([self.all_rows] if self.all_rows is not None else [])]


def with_storage() -> AbstractContextManager[Any]:
    """Inside, new tensors have storage: where a module is made on the meta device, its metrics are not."""
    return torch.device("cpu") if torch.empty(0).is_meta else nullcontext()


def _of(loader: Loader) -> str:
    return "" if loader is None else f" of dataloader {loader!r}"
