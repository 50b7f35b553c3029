"""Which metric of a group is updated, and how the others come to its state, by reference or as copies.

The first metric of each group leads: it alone is updated. The others get its state when they are looked at. Once a
metric was handed out, whoever has it may update or reset it at any time: from then on each has a state of its own,
copied after each update, and one whose states are not those that it was given leaves its group until the next reset.

Until then, families may count batches for several leaders at once, who get what was counted when one of them is looked
at or updated alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.wrappers import ClasswiseWrapper

from metric_mixin._errors import LabelRangeError, UpdateError
from metric_mixin._families import Family, families_of, host_sees
from metric_mixin._groups import keeper

Member = Callable[[str], Metric]


class Counted(NamedTuple):
    """A batch that families looked at: its bins for each, and the names of the metrics that these serve."""

    batches: list[tuple[Family, Tensor]]
    names: frozenset[str]


NOTHING = Counted([], frozenset())


class Sharing:
    """The groups of a collection and whether their members have the state of the first.

    Attributes:
        groups: Names in groups; the first of each is the one that is updated.
        handed_out: Whether a metric was handed out, so that each has a state of its own at all times.
    """

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self._after_reset: list[list[str]] = []
        self._stale = False
        self.handed_out = False
        self._counts: dict[str, int] = {}  # name -> updates of a metric that was not handed out, as far as we know
        self._states: dict[str, tuple[Any, ...]] = {}  # name -> what its states were when it was handed out
        self._families: list[tuple[Family, frozenset[str]]] = []  # with the names of all metrics that it serves
        self._families_of: list[list[str]] | None = None  # the groups that these families are of
        self._before: dict[str, tuple[Any, ...]] = {}  # leader -> its states, which lack what its family has counted
        self._owned: list[tuple[str, Metric]] = []  # metrics that share a state
        self._owned_of: list[list[str]] | None = None

    def looked_at(self, names: Collection[str], preds: Tensor, target: Tensor, member: Member) -> Counted:
        """Let families look at a batch for those of ``names`` that they can serve; nothing changes yet."""
        if self.handed_out:
            return NOTHING
        if self._families_of is not self.groups:  # which a new list replaces whenever they change
            self._add_counts(member)
            groups = {group[0]: group for group in self.groups}
            self._families = [
                (family, frozenset(name for lead in family.names for name in groups[lead]))
                for family in families_of({lead: keeper(member(lead)) for lead in groups})
            ]
            self._families_of = self.groups
        if not self._families:
            return NOTHING
        self._check_owned(member)
        batches = []
        served: frozenset[str] = frozenset()
        for family, members in self._families:
            if members.issubset(names) and preds.device == target.device == member(family.names[0]).device:
                binned = (family.binned if host_sees(preds) else family.binned_unseen)(preds, target)
                if binned is not None:
                    batches.append((family, binned))
                    served = served | members if served else members
        return Counted(batches, served)

    def count(self, counted: Counted, member: Member) -> None:
        """Count a batch that was looked at."""
        for family, binned in counted.batches:
            if not family.batches:
                self._before |= {name: _objects_of(member(name)) for name in family.names}
            family.count(binned)
            self._stale = True

    def _add_counts(self, member: Member, names: Collection[str] | None = None) -> None:
        """Give leaders what was counted for them; only for families that serve one of ``names``, where given."""
        families = [
            family
            for family, _ in self._families
            if family.batches and (names is None or not set(names).isdisjoint(family.names))
        ]
        for family in families:
            for name in family.names:
                if not _same(_objects_of(member(name)), self._before[name]):
                    raise _changed_by_itself(name, member, [other for other in family.names if other != name])
            if refused := family.refused():
                raise _refused(family.names, member, refused)
        for family in families:
            metrics = {name: keeper(member(name)) for name in family.names}
            with torch.inference_mode(False), torch.no_grad():
                for name, added in family.additions(metrics).items():
                    for state, value in added.items():
                        before = getattr(metrics[name], state)
                        setattr(metrics[name], state, before + value.to(before.device))
            for name in family.names:
                self._counts[name] = _count_updates(member(name), family.batches)
                del self._before[name]  # which would keep the states that others replaced
            family.clear()

    @contextmanager
    def moved(self, member: Member) -> Iterator[None]:
        """Inside, every metric is moved: its states are others then, and what was counted for it is added to those."""
        counted = [name for family, _ in self._families if family.batches for name in family.names]
        unchanged = [name for name in counted if _same(_objects_of(member(name)), self._before[name])]
        self._split_changed(member)
        try:
            yield
        finally:
            self._before |= {name: _objects_of(member(name)) for name in unchanged}
            self._note_states(member)

    def set_groups(self, metrics: Mapping[str, Metric], groups: list[list[str]], *, changed: str, fed: bool) -> None:
        """Take new groups, ``changed`` being new or gone: at once where nothing has rows, else with the next reset.

        ``settle`` was called before the change.
        """
        self._after_reset = [list(group) for group in groups]
        if fed:
            known = [[name for name in group if name in metrics and name != changed] for group in self.groups]
            new = [[name] for name in metrics if not any(name in group for group in known)]
            self.groups = [group for group in known if group] + new
        else:
            self.groups = []
            for group in self._after_reset:
                fresh = [name for name in group if keeper(metrics[name])._update_count == 0]
                self.groups += [fresh] if fresh else []
                self.groups += [[name] for name in group if name not in fresh]
        self._counts = {name: keeper(metric)._update_count for name, metric in metrics.items()}
        self._note_states(metrics.__getitem__)

    def leaders(self, names: Collection[str], member: Member) -> list[str]:
        """Return the metric to update of each group that has one of ``names``; groups are split where needed first."""
        self._split_changed(member)
        self._check_owned(member)
        wanted = set(names)
        if any(0 < sum(name in wanted for name in group) < len(group) for group in self.groups):
            self.part(names, member)
        leaders = [group[0] for group in self.groups if group[0] in wanted]
        self._add_counts(member, leaders)
        self._stale = True
        return leaders

    def updated(self, leaders: Collection[str], member: Member) -> None:
        """Take note of an update of ``leaders``, be it that some refused their inputs."""
        for name in leaders:
            self._counts[name] = keeper(member(name))._update_count
        if self.handed_out:
            self.show(member, copy=True)

    def part(self, names: Collection[str], member: Member) -> None:
        """Make each of ``names`` stand alone until the next reset."""
        self.settle(member)
        rest = [[name for name in group if name not in names] for group in self.groups]
        self.groups = [group for group in rest if group] + [[name] for name in names]
        self._note_states(member)

    def settle(self, member: Member) -> None:
        """Give every metric a state of its own, before groups change."""
        self._add_counts(member)
        self._split_changed(member)
        self._copy(member, copy=True)

    def show(self, member: Member, *, copy: bool) -> None:
        """Give every metric the state of the first of its group; ``copy`` where metrics are handed out."""
        if self.handed_out and not self._stale:
            return
        self._check_owned(member)
        self._add_counts(member)
        copy = copy or self.handed_out
        if copy or self._stale:
            self._copy(member, copy=copy)
        if copy:
            self.handed_out = True
            self._note_states(member)

    def units(self, named: Callable[[str], tuple[str, Metric]]) -> list[Mapping[str, Metric]]:
        """Return the groups as metrics by name; every metric has the state of its group."""
        return [dict(named(name) for name in group) for group in self.groups]

    def reset(self, member: Member, groups: list[list[str]]) -> None:
        """All metrics were reset: they stand in ``groups``."""
        for family, _ in self._families:
            family.clear()
        self._before = {}
        self._after_reset = groups
        self.groups = [list(group) for group in groups]
        self._stale = False
        self._counts = {}
        self._note_states(member)

    def _copy(self, member: Member, *, copy: bool) -> None:
        for first, *others in self.groups:
            lead = keeper(member(first))
            for other in others:
                follower = keeper(member(other))
                for state in lead._defaults:
                    value = getattr(lead, state)
                    setattr(follower, state, _copied(value) if copy else value)
                follower._update_count = self._counts[other] = lead._update_count
                if self._stale:
                    follower._computed = None
        self._stale = False

    def _check_owned(self, member: Member) -> None:
        """Raise where a metric of a group that was never handed out was updated or reset by itself.

        Others may share its very state by then, so what they have seen can no longer be told apart.
        """
        if self.handed_out:
            return
        if self._owned_of is not self.groups:
            names = [name for group in self.groups if len(group) > 1 for name in group]
            self._owned = [(name, keeper(member(name))) for name in names]
            self._owned_of = self.groups
        for name, metric in self._owned:
            if metric._update_count != self._counts.get(name, 0):
                (group,) = (group for group in self.groups if name in group)
                raise _changed_by_itself(name, member, [other for other in group if other != name])

    def _split_changed(self, member: Member) -> None:
        """Let metrics go that were updated or reset by themselves since they were handed out."""
        if not self.handed_out:
            return
        groups: list[list[str]] = []
        for group in self.groups:
            same = [name for name in group if _same(_states_of(member(name)), self._states[name])]
            groups += [same] if same else []
            groups += [[name] for name in group if name not in same]
        self.groups = groups

    def _note_states(self, member: Member) -> None:
        if self.handed_out:
            self._states = {name: _states_of(member(name)) for group in self.groups for name in group}


def _refused(names: Collection[str], member: Member, number: int) -> LabelRangeError:
    metrics = ", ".join(f"{name!r} ({type(keeper(member(name))).__name__})" for name in names)
    return LabelRangeError(
        f"Of the predictions and targets that {metrics} took since the last reset, {number} are neither a class, nor 0 "
        "or 1, nor `ignore_index`, whichever these metrics expect; their values are void. On this device labels are "
        "looked at when values are computed, since a step must not wait for it: update the metrics with the same "
        "batches on the CPU to see which one it is, and correct the labels or the number of classes."
    )


def _changed_by_itself(name: str, member: Member, others: list[str]) -> UpdateError:
    shares = f"shares its state with {', '.join(map(repr, others))}" if others else "is updated with its collection"
    return UpdateError(
        f"Metric {name!r} ({type(member(name)).__name__}) was updated or reset by itself, though it {shares}. Get it "
        f"by its name, e.g. `val_metrics[{name!r}]`, to use it by itself, or declare a fresh object."
    )


def _count_updates(metric: Metric, updates: int) -> int:
    """Do to a metric, and the one that a ``ClasswiseWrapper`` wraps, what ``update`` does beside the states."""
    metric._computed = None
    metric._update_count += updates
    return _count_updates(metric.metric, updates) if type(metric) is ClasswiseWrapper else metric._update_count


def _copied(value: Any) -> Any:
    """A state that can be changed in place by itself: of a list, whose tensors are never changed, a new list."""
    with torch.inference_mode(False):
        return value.clone() if isinstance(value, Tensor) else list(value)


def _states_of(metric: Metric) -> tuple[Any, ...]:
    """The very objects that are a metric's states, with their versions, which change in place; kept, not copied."""
    kept = keeper(metric)
    states: list[Any] = [kept._update_count]
    for name in kept._defaults:
        value = getattr(kept, name)
        if isinstance(value, Tensor):
            states += [value, None if value.is_inference() else value._version]
        else:
            states += value
    return tuple(states)


def _objects_of(metric: Metric) -> tuple[Any, ...]:
    """Likewise without versions, which copies of a collection do not keep: whatever changes in place is an update."""
    kept = keeper(metric)
    return kept._update_count, *(getattr(kept, name) for name in kept._defaults)


def _same(states: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    return len(states) == len(others) and all(
        one is other if isinstance(one, Tensor) else one == other for one, other in zip(states, others, strict=True)
    )
