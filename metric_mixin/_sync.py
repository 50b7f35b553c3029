"""States of every rank in, the states of all rows out, in a few collectives.

Every exchange begins with a header that all ranks gather: what is exchanged, how it is laid out, how many bytes each
rank has beside it. Where all agree, states that are summed, averaged or compared travel in one reduction of integers,
one of sums of floats and one of extremes, and everything else in one gather: at most five collectives, however many
metrics there are. Where they do not agree, everything is gathered: then each rank knows who differs in what and raises
the same error, or, where a rank without rows alone made the difference, merges the states. Metrics with a process group
have an exchange of their own in it.

Sources: ``Metric.sync``, ``Metric._sync_dist`` and ``MeanAveragePrecision._sync_dist`` (torchmetrics 1.7.0, 1.9.0),
whose semantics these are, except that a rank without rows has no part in a result; there its defaults do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat, dim_zero_max, dim_zero_mean, dim_zero_min, dim_zero_sum
from torchmetrics.wrappers import Running

from metric_mixin._errors import MetricMixinError, SyncError
from metric_mixin._inputs import mapped
from metric_mixin._merge import merged_state
from metric_mixin._packing import packed
from metric_mixin._ranks import Ranks, gathered, several_ranks, this_rank
from metric_mixin._signature import plain_attributes, raise_differences, raise_faults, raise_other_forms
from metric_mixin._states import (
    State,
    computing_anew_alone,
    has_rows,
    metrics_in,
    set_state,
    state_of,
    updates_of,
    with_state,
)

Unit = Mapping[str, Metric]
"""Metrics by name that have one state: that of the first travels, and all get it. Only the first may wrap others."""


@contextmanager
def synced(
    units: Sequence[Unit],
    about: Mapping[str, str],
    numbers: Sequence[int] = (),
    fault: MetricMixinError | None = None,
    group: Any = None,
) -> Iterator[list[int]]:
    """Inside, the metrics of ``units`` have the states of all ranks' rows and compute without a collective.

    Every rank must come here. A metric with ``sync_on_compute=False``, or whose ``distributed_available_fn`` says no,
    keeps its own states. Metrics with a ``process_group`` are exchanged in it, and one with a ``dist_sync_fn`` or a
    ``sync`` of its own is synced by that, before this returns.

    Args:
        units: The metrics, in the same order on every rank.
        about: What must be the same on every rank, by what messages call it.
        numbers: Counts, which are summed over the ranks.
        fault: What is wrong with this rank's states.
        group: The processes that exchange; all where ``None``.

    Yields:
        The sums of ``numbers``.

    Raises:
        SyncError: The ranks differ in ``about`` or in the form of their states, on each rank; or they did not come.
        MetricMixinError: The ``fault`` of any rank, on each rank.
    """
    with torch.no_grad():
        exchange = _Exchange(_keepers(units), about, numbers, fault, group)
        found = exchange.run()
        for own, keepers in _by_group(exchange.keepers).items():
            found |= _Exchange(keepers, about, group=own).run()
        for keeper in exchange.keepers:
            if keeper.way == _BY_ITSELF:
                found[id(keeper.metric)] = _synced_by_itself(keeper)
    with ExitStack() as stack:
        for unit in units:
            first = next(iter(unit.values()))
            for metric in unit.values():
                stack.enter_context(computing_anew_alone(metric))
                for (_, leader), (_, module) in zip(metrics_in(first), metrics_in(metric), strict=True):
                    if (state := found.get(id(module), found.get(id(leader)))) is not None:
                        stack.enter_context(with_state(module, state))
        yield exchange.sums


def _settings_there(metric: Metric) -> dict[str, Any]:
    """Settings that are not ``None``. An update may have made some, as a ``num_classes`` that comes with the rows."""
    return {name: value for name, value in plain_attributes(metric) if value is not None}


_WITH_ALL, _IN_ITS_GROUP, _BY_ITSELF, _NOT = "with all", "in its `process_group`", "by itself", "not synced"


def _way_of(metric: Metric) -> str:
    """How a metric is synced, in words: with all others, with those of its group, by code of its own, or not at all."""
    told = _told_by(metric)
    if not (told.sync_on_compute and told.distributed_available_fn()):
        return _NOT
    authors = [getattr(type(metric), name).__module__ for name in ("sync", "sync_context", "_sync_dist")]
    if told.dist_sync_fn is not None or any(not author.startswith("torchmetrics.") for author in authors):
        return _BY_ITSELF
    return _WITH_ALL if told.process_group is None else _IN_ITS_GROUP


def _told_by(metric: Metric) -> Any:
    """The metric whose settings say how ``metric`` is synced: of a ``Running`` the one it wraps, as in torchmetrics."""
    return metric.base_metric if isinstance(metric, Running) else metric


class _Keeper(NamedTuple):
    """A metric that keeps states, or one that another wraps."""

    name: str
    metric: Metric
    leads: bool  # its state travels for all of its unit
    way: str
    has_rows: bool


def _keepers(units: Sequence[Unit]) -> Iterator[_Keeper]:
    for unit in units:
        for i, (name, one) in enumerate(unit.items()):
            for path, metric in metrics_in(one):
                if metric._defaults:
                    yield _Keeper(name + path, metric, i == 0, _way_of(metric), has_rows(metric))


def _by_group(keepers: Sequence[_Keeper]) -> dict[Any, list[_Keeper]]:
    """Metrics with a group of their own in which this rank is one of several, by that group."""
    groups: dict[Any, list[_Keeper]] = {}
    for keeper in keepers:
        group = _told_by(keeper.metric).process_group
        if keeper.way == _IN_ITS_GROUP and several_ranks(group):
            groups.setdefault(group, []).append(keeper._replace(way=_WITH_ALL))
    return groups


def _synced_by_itself(keeper: _Keeper) -> State:
    name, metric, *_ = keeper
    kept, told = state_of(metric, metric._defaults), _told_by(metric)
    try:
        with metric.sync_context(dist_sync_fn=told.dist_sync_fn, process_group=told.process_group):
            return state_of(metric, metric._defaults)
    except Exception as error:  # of anybody's code
        set_state(metric, kept)
        raise SyncError(
            f"Rank {this_rank()} could not sync {name} ({type(metric).__name__}) by its own `dist_sync_fn` or "
            f"`sync`: {type(error).__name__}: {error}"
        ) from error


class _Exchange:
    """One exchange in one group, seen from this rank, of the metrics that are synced with all others there."""

    def __init__(
        self,
        keepers: Iterable[_Keeper],
        about: Mapping[str, str],
        numbers: Sequence[int] = (),
        fault: MetricMixinError | None = None,
        group: Any = None,
    ) -> None:
        self.given = keepers
        self.keepers: list[_Keeper] = []
        self.slots: list[_Slot] = []
        self.about = dict(about)
        self.sums = list(numbers)
        self.fault = fault
        self.group = group
        self.ranks = Ranks(about, group)

    def run(self) -> dict[int, State]:
        """Return the state of all ranks by the identity of the metric."""
        layout: list[Any] = []
        mine = torch.zeros(0, dtype=torch.uint8)
        try:
            layout = self._layout()
            if to_gather := [slot.value_to_gather() for slot in self.slots if slot.way == _GATHER]:
                mine = packed(to_gather, self.ranks.device)
        except Exception as error:  # of anybody's code or states, and maybe on this rank alone
            self.fault = self.fault or SyncError(
                f"Cannot exchange {self._unsendable()}: {type(error).__name__}: {error}. A state must be a tensor, or "
                "a list of tensors or of what can be pickled."
            )
        about = _digest(sorted(self.about.items()))
        header = [*about, *_digest(layout), int(self.fault is not None), mine.numel()]
        headers: list[list[int]] = self.ranks.gather(torch.tensor(header)).tolist()
        *_, sizes = zip(*headers, strict=True)
        if any(one[:5] != [*header[:4], 0] for one in headers):
            return self._by_gathering_all(states=all(one[:2] == about and not one[4] for one in headers))
        return self._by_reducing(mine, sizes)

    def _layout(self) -> list[Any]:
        """Look at the metrics of this rank, and return what must be alike on all for states to be reduced."""
        self.keepers = sorted(self.given, key=lambda keeper: keeper.name)  # the order of a declaration may differ
        self.members = [keeper for keeper in self.keepers if keeper.way == _WITH_ALL]
        self.reduced = [keeper for keeper in self.members if keeper.leads]
        self.slots = [_Slot(keeper, state) for keeper in self.reduced for state in keeper.metric._defaults]
        ways = [(keeper.name, keeper.way) for keeper in self.keepers]
        settings = [sorted(_settings_there(keeper.metric)) for keeper in self.reduced]
        return [ways, settings, [slot.layout() for slot in self.slots]]

    def _unsendable(self) -> str:
        """What it is that cannot be packed, in words."""
        culprit = "states"
        with suppress(Exception):
            for slot in self.slots:
                culprit = f"state {slot.state!r} of {slot.name} ({type(slot.metric).__name__})"
                packed(slot.value_to_gather(), self.ranks.device)
            culprit = "states"  # it was none of them
        return culprit

    def _by_reducing(self, mine: Tensor, sizes: Sequence[int]) -> dict[int, State]:
        """States that a reduction takes, reduced; the others gathered and merged."""
        per_metric = [[updates_of(keeper.metric), int(keeper.has_rows)] for keeper in self.reduced]
        counts = [torch.tensor(self.sums, dtype=torch.int64), torch.tensor(per_metric, dtype=torch.int64)]
        (sums, per_metric), integers = _cut(self.ranks.sum([*counts, *self._shares(_INTEGERS)], torch.int64), 2)
        self.sums = sums.tolist()
        arrived = {
            _INTEGERS: iter(integers),
            _SUM: iter(self.ranks.sum(self._shares(_SUM), torch.float64)),
            _EXTREME: iter(self.ranks.largest(self._shares(_EXTREME))),
            _GATHER: iter(zip(*self.ranks.gather_packed(mine, sizes), strict=True) if max(sizes) else ()),
        }
        of_all = dict(zip((id(keeper.metric) for keeper in self.reduced), per_metric.tolist(), strict=True))
        found = {metric: State(updates, {}) for metric, (updates, _) in of_all.items()}
        for slot in self.slots:
            value = next(arrived[slot.way])
            metric = id(slot.metric)
            if ranks := of_all[metric][1]:
                found[metric].states[slot.state] = slot.value_of_all(value, ranks)
        return found

    def _shares(self, way: str) -> list[Tensor]:
        return [slot.share() for slot in self.slots if slot.way == way]

    def _by_gathering_all(self, *, states: bool = True) -> dict[int, State]:
        """Every rank's state of every metric, merged; an error where they differ in more than who has rows.

        Without ``states`` what is known to differ suffices.
        """
        fed = [keeper for keeper in self.members if keeper.has_rows] if states else []
        mine = {
            "about": self.about,
            "fault": None if self.fault is None else (type(self.fault), str(self.fault)),
            "sums": self.sums,
            "kept": self._kept() if states else {},
            "states": {keeper.name: tuple(state_of(keeper.metric, keeper.metric._defaults)) for keeper in fed},
            "settings": {keeper.name: _settings_there(keeper.metric) for keeper in fed},
        }
        ranks = gathered(mine, self.about, self.group)
        raise_faults({i: rank["fault"] for i, rank in ranks.items()})
        raise_differences({i: rank["about"] for i, rank in ranks.items()})
        raise_differences({i: rank["kept"] for i, rank in ranks.items()})
        self.sums = [sum(numbers) for numbers in zip(*(rank["sums"] for rank in ranks.values()), strict=True)]
        return {id(keeper.metric): _of_all(keeper, ranks) for keeper in self.members}

    def _kept(self) -> dict[str, str]:
        """How each metric is synced, and what its states are called, in words."""
        words: dict[str, str] = {}
        for keeper in self.keepers:
            words[f"sync of {keeper.name}"] = keeper.way
            words[f"names of states of {keeper.name}"] = ", ".join(keeper.metric._defaults)
        return words


def _of_all(keeper: _Keeper, ranks: Mapping[int, Any]) -> State:
    """The state of a metric over all ranks, from what each has gathered of its own."""
    name, metric, *_ = keeper
    fed = {i: State(*rank["states"][name]) for i, rank in ranks.items() if name in rank["states"]}
    states = {}
    for state, reduction in metric._reductions.items() if fed else ():
        parts = {rank: one.states[state] for rank, one in fed.items()}
        if reduction is not dim_zero_cat:
            raise_other_forms(f"state {state!r} of {name}", parts)
        states[state] = _merged(name, metric, state, list(parts.values()))
    for rank in fed if not keeper.has_rows else ():
        for setting, value in ranks[rank]["settings"][name].items():
            if states.get(setting, getattr(metric, setting, None)) is None:
                states[setting] = _on(metric.device, value)
    return State(sum(one.updates for one in fed.values()), states)


_INTEGERS, _SUM, _EXTREME, _GATHER = "sum of integers", "sum of floats", "extreme", "gather"
_WAYS: dict[Any, str] = {dim_zero_sum: _SUM, dim_zero_mean: _SUM, dim_zero_max: _EXTREME, dim_zero_min: _EXTREME}


class _Slot:
    """One state of a metric, and how it travels: in a reduction where one gives what torchmetrics would."""

    def __init__(self, keeper: _Keeper, state: str) -> None:
        self.name, self.metric, *_, self.has_rows = keeper
        self.state = state
        self.value: Any = getattr(self.metric, state)
        self.reduction = self.metric._reductions[state]
        self.way = _GATHER
        if isinstance(self.value, Tensor) and self.value.layout == torch.strided and not self.value.is_complex():
            if self.value.is_floating_point():
                self.way = _WAYS.get(self.reduction, _GATHER)
            elif self.reduction is dim_zero_sum:
                self.way = _INTEGERS

    def layout(self) -> tuple[Any, ...]:
        """What must be alike on all ranks for states to be reduced, or merged, as they are."""
        joined = self.reduction is dim_zero_cat or not isinstance(self.value, Tensor)
        form = () if joined else (self.value.dtype, tuple(self.value.shape))
        return self.name, self.state, self.way, form

    def share(self) -> Tensor:
        """This rank's part in a reduction; of a smallest value the largest negative is taken."""
        if not self.has_rows:
            return torch.full_like(self.value, -torch.inf if self.way == _EXTREME else 0)
        value: Tensor = self.value.detach()
        return -value if self.reduction is dim_zero_min else value

    def value_to_gather(self) -> Any:
        """This rank's state; ``None`` where it has no rows."""
        return self.value if self.has_rows else None

    def value_of_all(self, value: Any, ranks: int) -> Any:
        """The state of all ranks, from what arrived; ``ranks`` is how many of them have rows."""
        if self.way == _GATHER:
            return _merged(self.name, self.metric, self.state, [part for part in value if part is not None])
        value = value / ranks if self.reduction is dim_zero_mean else value
        value = -value if self.reduction is dim_zero_min else value
        kept = self.value.dtype
        return value.to(self.value.device, torch.int64 if self.way == _INTEGERS and kept != torch.uint64 else kept)


def _merged(name: str, metric: Metric, state: str, parts: Sequence[Any]) -> Any:
    """One state of all ranks that have rows, on the device where one process would keep it."""
    lists_on_cpu = metric.compute_on_cpu and any(isinstance(part, list) for part in parts)
    device = torch.device("cpu") if lists_on_cpu else metric.device
    try:
        return merged_state([_on(device, part) for part in parts], metric._reductions[state])
    except Exception as error:  # of the reduction, which may be anybody's
        raise SyncError(
            f"Cannot reduce state {state!r} of {name} ({type(metric).__name__}) over the ranks: "
            f"{type(error).__name__}: {error}. Give `add_state` a `dist_reduce_fx` that takes what this state is."
        ) from error


def _cut(items: list[Any], at: int) -> tuple[list[Any], list[Any]]:
    return items[:at], items[at:]


def _on(device: torch.device, value: Any) -> Any:
    return mapped(lambda tensor: tensor.to(device), value)


def _digest(value: object) -> list[int]:
    """128 bits that tell ``value`` from any other, as two integers."""
    digest = hashlib.sha256(repr(value).encode()).digest()
    return [int.from_bytes(digest[i : i + 8], "little", signed=True) for i in (0, 8)]
